/**
 * The sending half of an SCTP association: the queue of messages, what is in flight, congestion control and loss
 * detection. Windows and timers follow RFC 9260 section 7; loss is seen by the order of transmissions (RFC 9002
 * section 6.1.1), which needs no miss counters and finds lost retransmissions too. Nothing here scans the queue,
 * and what is in flight is found by index.
 */

import { DataFlag, dataHeaderBytes } from './werift-sctp-packet.node.ts';
import { tsnAfter, tsnDistance } from './werift-sctp-inbound.node.ts';

/** Retransmission timeouts in ms. The least is above any delayed SACK in use; RFC 9260's 1 s stalls on a lost tail. */
const rto = { initial: 500, least: 400, most: 10_000 } as const;
/** Ten, as in RFC 6928: a small answer leaves in one go. */
const initialWindowPackets = 10;
/**
 * The congestion window's upper end. Near by, more than this only queues up (and hosts that refuse large socket
 * buffers lose it); for a distant peer it is what 50 MB/s need.
 */
const nearWindowBytes = 256 * 1024;
const windowBytesPerRttMs = 50_000;
const maxWindowBytes = 1024 * 1024;
/** A transmission is lost when one this much later was acknowledged. */
const reorderingPackets = 3;
/** Timeouts in a row until the peer counts as gone. */
const maxTimeouts = 8;

export interface OutChunk {
  readonly tsn: number;
  readonly flags: number;
  readonly messageNumber: number;
  readonly protocol: number;
  readonly payload: Uint8Array;
  /** Position among all transmissions. */
  order: number;
  sentAt: number;
  transmissions: number;
  state: 'flying' | 'lost' | 'acked';
}

interface QueuedMessage {
  readonly bytes: Uint8Array;
  readonly protocol: number;
}

export interface Sack {
  readonly cumulative: number;
  readonly window: number;
  readonly gaps: readonly (readonly [first: number, last: number])[];
}

export class Outbound {
  readonly #maxPayloadBytes: number;
  #queue: QueuedMessage[] = [];
  #queueHead = 0;
  /** Bytes of the first queued message that are in chunks already. */
  #offset = 0;
  #queuedBytes = 0;
  #messageNumber = 0;
  #chunks: OutChunk[] = [];
  #chunksHead = 0;
  #nextTsn: number;
  #flightBytes = 0;
  #lost = 0;
  #peerWindow: number;
  #window: number;
  #slowStartLimit: number = maxWindowBytes;
  #order = 0;
  /** Losses up to this transmission were answered by a smaller window already. */
  #recoveryOrder = 0;
  #largestAckedOrder = 0;
  #leastRtt = Infinity;
  #smoothedRtt = 0;
  #rttVariation = 0;
  #rto: number = rto.initial;
  #timeouts = 0;

  constructor(initialTsn: number, maxPayloadBytes: number, peerWindow: number) {
    this.#nextTsn = initialTsn;
    this.#maxPayloadBytes = maxPayloadBytes;
    this.#peerWindow = peerWindow;
    this.#window = initialWindowPackets * maxPayloadBytes;
  }

  /** Bytes not yet sent once. */
  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  /** Does the retransmission timer have to run? */
  get waiting(): boolean {
    return this.#chunksHead < this.#chunks.length;
  }

  get rtoMs(): number {
    return this.#rto;
  }

  queue(protocol: number, bytes: Uint8Array): void {
    this.#queue.push({ protocol, bytes });
    this.#queuedBytes += bytes.length;
  }

  /** The next chunk to send in `room` bytes, or undefined when windows or room allow none. */
  next(room: number, now: number): OutChunk | undefined {
    if (this.#flightBytes >= this.#window) return undefined;
    const chunk = this.#lost > 0 ? this.#firstLost(room) : this.#fresh(room);
    if (!chunk) return undefined;
    chunk.order = ++this.#order;
    chunk.sentAt = now;
    chunk.transmissions++;
    chunk.state = 'flying';
    this.#flightBytes += chunk.payload.length;
    return chunk;
  }

  /** True when something was newly acknowledged. Nonsense is ignored: numbers never sent, blocks out of range. */
  acknowledge(sack: Sack, now: number): boolean {
    const sent = tsnAfter(this.#nextTsn, -1);
    const first = this.#chunks[this.#chunksHead]?.tsn ?? this.#nextTsn;
    const advance = tsnDistance(sack.cumulative, first) + 1;
    if (advance < 0 || tsnDistance(sack.cumulative, sent) > 0) return false;
    this.#peerWindow = sack.window;
    const wasLimited = this.#flightBytes + this.#maxPayloadBytes >= this.#window;
    let acked = 0;
    for (let i = 0; i < advance; i++) {
      const chunk = this.#chunks[this.#chunksHead++] as OutChunk;
      acked += this.#ack(chunk, now);
    }
    this.#compact();
    for (const [from, to] of sack.gaps) {
      const end = Math.min(this.#chunksHead + to, this.#chunks.length + 1) - 1;
      for (let i = this.#chunksHead + Math.max(from, 1) - 1; i <= end; i++) {
        const chunk = this.#chunks[i];
        if (chunk && chunk.state !== 'acked') acked += this.#ack(chunk, now);
      }
    }
    if (acked > 0) this.#timeouts = 0;
    const shrunk = sack.gaps.length > 0 && this.#findLosses();
    if (acked > 0 && wasLimited && !shrunk) this.#grow(acked);
    return acked > 0;
  }

  /** The retransmission timer fired. False when the peer has been silent too often. */
  timeout(): boolean {
    this.#timeouts++;
    this.#rto = Math.min(this.#rto * 2, rto.most);
    for (let i = this.#chunksHead; i < this.#chunks.length; i++) this.#lose(this.#chunks[i] as OutChunk);
    this.#slowStartLimit = Math.max(this.#window / 2, 4 * this.#maxPayloadBytes);
    this.#window = 2 * this.#maxPayloadBytes;
    this.#recoveryOrder = this.#order;
    return this.#timeouts <= maxTimeouts;
  }

  #firstLost(room: number): OutChunk | undefined {
    for (let i = this.#chunksHead; i < this.#chunks.length; i++) {
      const chunk = this.#chunks[i] as OutChunk;
      if (chunk.state !== 'lost') continue;
      if (chunk.payload.length + dataHeaderBytes > room) return undefined;
      this.#lost--;
      return chunk;
    }
    return undefined;
  }

  #fresh(room: number): OutChunk | undefined {
    const message = this.#queue[this.#queueHead];
    if (!message) return undefined;
    const rest = message.bytes.length - this.#offset;
    const size = Math.min(rest, this.#maxPayloadBytes, (room - dataHeaderBytes) & ~3);
    // A sliver of a long message is not worth a chunk of its own.
    if (size <= 0 || (size < rest && size < this.#maxPayloadBytes / 4)) return undefined;
    // One chunk may always fly: it finds out when a closed window opens.
    if (this.#flightBytes > 0 && size > this.#peerWindow - this.#flightBytes) return undefined;
    const begins = this.#offset === 0;
    const payload = message.bytes.subarray(this.#offset, this.#offset + size);
    this.#offset += size;
    this.#queuedBytes -= size;
    const ends = this.#offset === message.bytes.length;
    const chunk: OutChunk = {
      tsn: this.#nextTsn,
      flags: (begins ? DataFlag.begin : 0) | (ends ? DataFlag.end : 0),
      messageNumber: this.#messageNumber,
      protocol: message.protocol,
      payload,
      order: 0,
      sentAt: 0,
      transmissions: 0,
      state: 'flying',
    };
    this.#nextTsn = tsnAfter(this.#nextTsn);
    this.#chunks.push(chunk);
    if (ends) this.#dequeue();
    return chunk;
  }

  #dequeue(): void {
    this.#offset = 0;
    this.#messageNumber = (this.#messageNumber + 1) & 0xffff;
    this.#queueHead++;
    if (this.#queueHead < 1024 && this.#queueHead < this.#queue.length) return;
    this.#queue = this.#queue.slice(this.#queueHead);
    this.#queueHead = 0;
  }

  #compact(): void {
    if (this.#chunksHead < 1024 && this.#chunksHead < this.#chunks.length) return;
    this.#chunks = this.#chunks.slice(this.#chunksHead);
    this.#chunksHead = 0;
  }

  #ack(chunk: OutChunk, now: number): number {
    if (chunk.state === 'acked') return 0;
    if (chunk.state === 'flying') this.#flightBytes -= chunk.payload.length;
    else this.#lost--;
    chunk.state = 'acked';
    if (chunk.transmissions === 1) {
      // Which transmission of several was acknowledged, nobody knows (Karn).
      if (chunk.order > this.#largestAckedOrder) {
        this.#largestAckedOrder = chunk.order;
        this.#sampleRtt(now - chunk.sentAt);
      }
    }
    return chunk.payload.length;
  }

  #lose(chunk: OutChunk): void {
    if (chunk.state !== 'flying') return;
    chunk.state = 'lost';
    this.#lost++;
    this.#flightBytes -= chunk.payload.length;
  }

  /** True when the window shrank. */
  #findLosses(): boolean {
    let newest = 0;
    for (let i = this.#chunksHead; i < this.#chunks.length; i++) {
      const chunk = this.#chunks[i] as OutChunk;
      if (chunk.state !== 'flying' || chunk.order + reorderingPackets > this.#largestAckedOrder) continue;
      this.#lose(chunk);
      newest = Math.max(newest, chunk.order);
    }
    if (newest <= this.#recoveryOrder) return false;
    this.#recoveryOrder = this.#order;
    this.#window = Math.max(this.#window / 2, 4 * this.#maxPayloadBytes);
    this.#slowStartLimit = this.#window;
    return true;
  }

  #grow(acked: number): void {
    if (this.#largestAckedOrder <= this.#recoveryOrder) return;
    const step = this.#window < this.#slowStartLimit ? acked : (this.#maxPayloadBytes * acked) / this.#window;
    const distant = Math.min(this.#leastRtt * windowBytesPerRttMs, maxWindowBytes);
    this.#window = Math.min(this.#window + step, Math.max(nearWindowBytes, distant));
  }

  /** RFC 9260 section 6.3.1. */
  #sampleRtt(rtt: number): void {
    this.#leastRtt = Math.min(this.#leastRtt, rtt);
    if (this.#smoothedRtt === 0) {
      this.#smoothedRtt = rtt;
      this.#rttVariation = rtt / 2;
    } else {
      this.#rttVariation = 0.75 * this.#rttVariation + 0.25 * Math.abs(this.#smoothedRtt - rtt);
      this.#smoothedRtt = 0.875 * this.#smoothedRtt + 0.125 * rtt;
    }
    this.#rto = Math.min(Math.max(this.#smoothedRtt + 4 * this.#rttVariation, rto.least), rto.most);
  }
}
