/**
 * An SCTP association for one ordered, reliable data channel, in place of werift's: that one is slow, exits the
 * process on packets it does not expect and loses what is queued at the close. Speaks RFC 9260 as data channels
 * need it (RFC 8831): handshake, data, SACK, heartbeat answers, abort, and stream resets (RFC 6525) as
 * the peer's way to close its channel. Everything else is ignored. One association per DTLS session, so restarts
 * and address changes do not exist.
 */

import { randomBytes } from 'node:crypto';
import type { Clock, Timer } from '@cocoon-mesh/protocol';
import { Inbound } from './werift-sctp-inbound.node.ts';
import type { Message } from './werift-sctp-inbound.node.ts';
import { Outbound } from './werift-sctp-outbound.node.ts';
import {
  ChunkType,
  PacketWriter,
  dataHeaderBytes,
  packetHeaderBytes,
  padded,
  parsePacket,
  parseParameters,
  sctpPort,
  writeParameters,
} from './werift-sctp-packet.node.ts';
import type { Chunk, Packet } from './werift-sctp-packet.node.ts';
import { tsnDistance } from './werift-sctp-inbound.node.ts';

export interface SctpOptions {
  readonly clock: Clock;
  /** Sends INIT; the other side waits for it. */
  readonly initiator: boolean;
  readonly remotePort: number;
  /** Largest SCTP packet in bytes. */
  readonly mtu: number;
  readonly windowBytes: number;
  readonly maxMessageBytes: number;
  /** Takes the packet before it returns; its memory is used again. */
  readonly send: (packet: Buffer) => void;
  readonly onOpen: () => void;
  readonly onMessage: (message: Message) => void;
  /** The queue became shorter. */
  readonly onProgress: () => void;
  /** Once; nothing follows it. */
  readonly onClosed: (reason: string) => void;
  /** Runs a callback after the datagrams that wait in the socket; default `setImmediate`. */
  readonly soon?: (callback: () => void) => void;
}

type State =
  | { readonly kind: 'waiting' }
  /** INIT sent; `chunk` is sent again by the timer. */
  | { readonly kind: 'cookieWait' }
  | { readonly kind: 'cookieEchoed'; readonly cookie: Buffer }
  | { readonly kind: 'open'; readonly inbound: Inbound; readonly outbound: Outbound }
  | { readonly kind: 'closed' };

interface PeerInit {
  readonly tag: number;
  readonly window: number;
  readonly tsn: number;
}

const cookieParameter = 7;
const supportedExtensions = 0x8008;
const outgoingReset = 13;
const reconfigResponse = 16;
const resetPerformed = 1;
const streams = 65_535;
/** Handshake chunks are sent again after 500 ms, 1 s, 2 s, …; the caller's deadline ends it. */
const firstRetryMs = 500;
const maxRetries = 6;
/** Packets in one go; then other work of the process gets its turn. */
const burstPackets = 32;

export class SctpAssociation {
  readonly #options: SctpOptions;
  readonly #writer: PacketWriter;
  readonly #soon: (callback: () => void) => void;
  readonly #tag = randomBytes(4).readUInt32BE() || 1;
  readonly #initialTsn = randomBytes(4).readUInt32BE();
  /** The peer proves nothing by it that DTLS has not proven; the protocol wants one. */
  readonly #cookie = randomBytes(16);
  #state: State = { kind: 'waiting' };
  #peer: PeerInit | undefined;
  #retry: Timer | undefined;
  #dataTimer: Timer | undefined;
  #dataDeadline = 0;
  #sackDue = false;
  #flushDue = false;
  /** A stream reset that waits for data before it. */
  #resetAfter: { readonly tsn: number; readonly request: number } | undefined;

  constructor(options: SctpOptions) {
    this.#options = options;
    this.#soon = options.soon ?? setImmediate;
    this.#writer = new PacketWriter(options.mtu);
    this.#writer.ports = { source: sctpPort, destination: options.remotePort };
  }

  start(): void {
    if (!this.#options.initiator || this.#state.kind !== 'waiting') return;
    this.#state = { kind: 'cookieWait' };
    this.#sendRepeatedly(() => this.#sendInit());
  }

  get queuedBytes(): number {
    return this.#state.kind === 'open' ? this.#state.outbound.queuedBytes : 0;
  }

  /** Queues one message; sent in this turn of the event loop, packed with others. */
  send(protocol: number, bytes: Uint8Array): void {
    if (this.#state.kind !== 'open') return;
    this.#state.outbound.queue(protocol, bytes);
    if (this.#flushDue) return;
    this.#flushDue = true;
    queueMicrotask(() => this.#flush());
  }

  /** Sends what the windows allow, tells the peer and ends. Idempotent. */
  abort(reason: string): void {
    if (this.#state.kind === 'closed') return;
    this.#flush();
    if (this.#peer) this.#sendChunk(ChunkType.abort, empty);
    this.#close(reason);
  }

  /** A packet of the peer. Never throws, whatever is in it. */
  receive(bytes: Buffer): void {
    const packet = parsePacket(bytes);
    if (!packet || this.#state.kind === 'closed') return;
    const init = packet.chunks[0]?.type === ChunkType.init;
    if (init) {
      if (packet.chunks.length === 1 && packet.verificationTag === 0) this.#init(packet.chunks[0]);
      return;
    }
    if (packet.verificationTag !== this.#tag) return;
    this.#chunks(packet);
    if (this.#sackDue) this.#flushSoon();
  }

  #chunks({ chunks }: Packet): void {
    for (const chunk of chunks) {
      if (this.#state.kind === 'closed') return;
      if (!this.#chunk(chunk)) return;
    }
  }

  /** False when the rest of the packet is to be ignored (RFC 9260 section 3.2, unknown types). */
  #chunk(chunk: Chunk): boolean {
    switch (chunk.type) {
      case ChunkType.data:
        this.#data(chunk);
        break;
      case ChunkType.sack:
        this.#sack(chunk.body);
        break;
      case ChunkType.initAck:
        this.#initAck(chunk.body);
        break;
      case ChunkType.cookieEcho:
        this.#cookieEcho(chunk.body);
        break;
      case ChunkType.cookieAck:
        if (this.#state.kind === 'cookieEchoed') this.#open();
        break;
      case ChunkType.heartbeat:
        if (this.#peer && chunk.body.length + 4 + packetHeaderBytes <= this.#options.mtu)
          this.#sendChunk(ChunkType.heartbeatAck, chunk.body);
        break;
      case ChunkType.abort:
        this.#close('the peer aborted the association');
        break;
      case ChunkType.shutdown:
        this.#shutdown();
        break;
      case ChunkType.reconfig:
        this.#reconfig(chunk.body);
        break;
      default:
        return chunk.type >= 128;
    }
    return true;
  }

  // The handshake of RFC 9260 section 5

  #sendInit(): void {
    this.#writer.begin(0);
    this.#writer.chunk(ChunkType.init, 0, this.#initBody([]));
    this.#options.send(this.#writer.finish());
  }

  #initBody(more: readonly { type: number; value: Buffer }[]): Buffer {
    const fixed = Buffer.alloc(16);
    fixed.writeUInt32BE(this.#tag, 0);
    fixed.writeUInt32BE(this.#options.windowBytes, 4);
    fixed.writeUInt16BE(streams, 8);
    fixed.writeUInt16BE(streams, 10);
    fixed.writeUInt32BE(this.#initialTsn, 12);
    const extensions = { type: supportedExtensions, value: Buffer.from([ChunkType.reconfig]) };
    return Buffer.concat([fixed, writeParameters([...more, extensions])]);
  }

  /** Both sides may send INIT; the answer carries the same numbers as our own (section 5.2.1). */
  #init(chunk: Chunk | undefined): void {
    const { kind } = this.#state;
    if (!chunk || (kind !== 'waiting' && kind !== 'cookieWait' && kind !== 'cookieEchoed')) return;
    const peer = parseInit(chunk.body);
    if (!peer) return;
    this.#peer = peer;
    this.#sendChunk(ChunkType.initAck, this.#initBody([{ type: cookieParameter, value: this.#cookie }]));
  }

  #initAck(body: Buffer): void {
    if (this.#state.kind !== 'cookieWait') return;
    const peer = parseInit(body);
    const cookie = parseParameters(body.subarray(16)).find(({ type }) => type === cookieParameter)?.value;
    if (!peer || !cookie || cookie.length + 4 + packetHeaderBytes > this.#options.mtu) return;
    this.#peer = peer;
    this.#state = { kind: 'cookieEchoed', cookie: Buffer.from(cookie) };
    this.#sendRepeatedly(() => {
      if (this.#state.kind === 'cookieEchoed') this.#sendChunk(ChunkType.cookieEcho, this.#state.cookie);
    });
  }

  #cookieEcho(cookie: Buffer): void {
    if (!this.#peer || !cookie.equals(this.#cookie)) return;
    // Sent again when the answer was lost.
    this.#sendChunk(ChunkType.cookieAck, empty);
    const { kind } = this.#state;
    if (kind === 'waiting' || kind === 'cookieWait' || kind === 'cookieEchoed') this.#open();
  }

  #open(): void {
    const peer = this.#peer;
    if (!peer) return;
    this.#retry?.cancel();
    const { windowBytes, maxMessageBytes, mtu } = this.#options;
    this.#state = {
      kind: 'open',
      inbound: new Inbound(peer.tsn, windowBytes, maxMessageBytes),
      outbound: new Outbound(this.#initialTsn, (mtu - packetHeaderBytes - dataHeaderBytes) & ~3, peer.window),
    };
    this.#options.onOpen();
  }

  // Data

  #data({ flags, body }: Chunk): void {
    if (this.#state.kind === 'cookieEchoed') {
      // The peer is open already, our COOKIE ACK was lost.
      this.#open();
    }
    const state = this.#state;
    if (state.kind !== 'open') return;
    // 12 bytes of head and at least one of payload.
    if (body.length <= 12) return;
    this.#sackDue = true;
    try {
      state.inbound.receive(
        {
          flags,
          tsn: body.readUInt32BE(0),
          streamId: body.readUInt16BE(4),
          protocol: body.readUInt32BE(8),
          payload: body.subarray(12),
        },
        this.#options.onMessage,
      );
    } catch (error) {
      return this.abort(String(error));
    }
    this.#resetWhenDue();
  }

  #sack(body: Buffer): void {
    const state = this.#state;
    if (state.kind !== 'open' || body.length < 12) return;
    const count = body.readUInt16BE(8);
    if (body.length < 12 + 4 * count) return;
    const gaps: (readonly [number, number])[] = [];
    for (let offset = 12; offset < 12 + 4 * count; offset += 4)
      gaps.push([body.readUInt16BE(offset), body.readUInt16BE(offset + 2)]);
    const now = this.#options.clock.monotonic();
    const sack = { cumulative: body.readUInt32BE(0), window: body.readUInt32BE(4), gaps };
    if (state.outbound.acknowledge(sack, now)) this.#dataDeadline = now + state.outbound.rtoMs;
    this.#flushSoon();
  }

  #flushSoon(): void {
    if (this.#flushDue) return;
    this.#flushDue = true;
    this.#soon(() => this.#flush());
  }

  /** Sends what the windows allow, a due SACK first, many chunks to a packet. */
  #flush(): void {
    this.#flushDue = false;
    const state = this.#state;
    if (state.kind !== 'open' || !this.#peer) return;
    const before = this.queuedBytes;
    const wasWaiting = state.outbound.waiting;
    const writer = this.#writer;
    const now = this.#options.clock.monotonic();
    for (let packets = 0; packets < burstPackets; packets++) {
      writer.begin(this.#peer.tag);
      if (this.#sackDue) this.#writeSack(state.inbound);
      if (state.kind === 'open') {
        for (let chunk; (chunk = state.outbound.next(writer.room, now));)
          writer.data(chunk.flags, chunk.tsn, chunk.messageNumber, chunk.protocol, chunk.payload);
      }
      if (writer.empty) break;
      this.#options.send(writer.finish());
      if (packets === burstPackets - 1) this.#flushSoon();
    }
    if (!wasWaiting) this.#dataDeadline = now + state.outbound.rtoMs;
    this.#armDataTimer(state.outbound, now);
    if (state.outbound.queuedBytes < before) this.#options.onProgress();
  }

  #writeSack(inbound: Inbound): void {
    this.#sackDue = false;
    const gaps = inbound.gaps();
    const body = Buffer.allocUnsafe(12 + 4 * gaps.length);
    body.writeUInt32BE(inbound.cumulative, 0);
    body.writeUInt32BE(inbound.window, 4);
    body.writeUInt16BE(gaps.length, 8);
    body.writeUInt16BE(0, 10);
    gaps.forEach(([first, last], i) => {
      body.writeUInt16BE(first, 12 + 4 * i);
      body.writeUInt16BE(last, 14 + 4 * i);
    });
    this.#writer.chunk(ChunkType.sack, 0, body);
  }

  /** One timer for many deadlines: when it fires early, it sleeps on. */
  #armDataTimer(outbound: Outbound, now: number): void {
    if (!outbound.waiting || this.#dataTimer) return;
    // Whole milliseconds: a remainder too small for the clock would fire for ever.
    this.#dataTimer = this.#options.clock.after(Math.ceil(this.#dataDeadline - now) + 1, () => {
      this.#dataTimer = undefined;
      this.#dataTimeout();
    });
  }

  #dataTimeout(): void {
    if (this.#state.kind !== 'open') return;
    const { outbound } = this.#state;
    const now = this.#options.clock.monotonic();
    if (outbound.waiting && now >= this.#dataDeadline) {
      if (!outbound.timeout()) return this.#close('the peer acknowledges nothing');
      this.#dataDeadline = now + outbound.rtoMs;
      this.#flush();
    }
    this.#armDataTimer(outbound, now);
  }

  // The end

  /** Only a peer of another make shuts down; ours agree on the end inside the channel. */
  #shutdown(): void {
    if (!this.#peer) return;
    this.#sendChunk(ChunkType.shutdownAck, empty);
    if (this.#state.kind === 'open') this.#close('the peer closed the association');
  }

  /** The peer resets its stream to close its channel; ours has but one, so the association ends with it. */
  #reconfig(body: Buffer): void {
    for (const { type, value } of parseParameters(body)) {
      if (type !== outgoingReset || value.length < 12) continue;
      this.#resetAfter = { request: value.readUInt32BE(0), tsn: value.readUInt32BE(8) };
    }
    this.#resetWhenDue();
  }

  #resetWhenDue(): void {
    const reset = this.#resetAfter;
    if (!reset || this.#state.kind !== 'open') return;
    if (tsnDistance(reset.tsn, this.#state.inbound.cumulative) > 0) return;
    const value = Buffer.alloc(8);
    value.writeUInt32BE(reset.request, 0);
    value.writeUInt32BE(resetPerformed, 4);
    this.#sendChunk(ChunkType.reconfig, writeParameters([{ type: reconfigResponse, value }]));
    this.abort('the peer closed its channel');
  }

  #close(reason: string): void {
    if (this.#state.kind === 'closed') return;
    this.#state = { kind: 'closed' };
    this.#retry?.cancel();
    this.#dataTimer?.cancel();
    this.#options.onClosed(reason);
  }

  #sendChunk(type: number, body: Uint8Array): void {
    if (!this.#peer || padded(4 + body.length) + packetHeaderBytes > this.#options.mtu) return;
    this.#writer.begin(this.#peer.tag);
    this.#writer.chunk(type, 0, body);
    this.#options.send(this.#writer.finish());
  }

  /** Sends now and again at growing intervals, until the next call or the end. */
  #sendRepeatedly(send: () => void): void {
    this.#retry?.cancel();
    let retries = 0;
    const attempt = (): void => {
      send();
      if (retries++ >= maxRetries) return;
      this.#retry = this.#options.clock.after(firstRetryMs * 2 ** (retries - 1), attempt);
    };
    attempt();
  }
}

const empty = new Uint8Array(0);

function parseInit(body: Buffer): PeerInit | undefined {
  if (body.length < 16) return undefined;
  const tag = body.readUInt32BE(0);
  if (tag === 0 || body.readUInt16BE(8) === 0 || body.readUInt16BE(10) === 0) return undefined;
  return { tag, window: body.readUInt32BE(4), tsn: body.readUInt32BE(12) };
}
