/**
 * Decides what leaves next and packs it: one call of `next` gives one carrier message of many frames.
 *
 * The order inside a message: acknowledgement and pings (not numbered), credits, control frames, small
 * writes, bulk. So small frames pass before bulk, but never within their stream, and always before they get
 * their number. An OPEN stands in the control queue ahead of everything of its stream. Streams without
 * credit wait aside until some comes. Sending, time and the carrier are the session's matter.
 */

import {
  FrameFlag,
  frameHeadBytes,
  FrameType,
  ResetCode,
  writeFrameHead,
  writeU64,
} from '@cocoon-mesh/protocol';
import type { ReceiveCredit, SendCredit } from './credit.ts';
import { Fifo } from './fifo.ts';
import type { Replay } from './replay.ts';
import type { SessionStream } from './session-stream.ts';

export interface OutboxOptions {
  readonly maxMessageBytes: number;
  readonly replay: Replay;
  readonly sendCredit: SendCredit;
  readonly receiveCredit: ReceiveCredit;
  /** The receiver's window and minimum: they say what it has read. */
  readonly peerWindowBytes: number;
  readonly peerMinimumBytes: number;
  readonly smallWriteBytes: number;
  /** How many numbered frames were received: what an ACK says. */
  readonly received: () => number;
}

interface ControlFrame {
  readonly type: FrameType;
  readonly streamId: number;
  /** The payload in two parts, so that an OPEN copies its header once. */
  readonly first: Uint8Array;
  readonly rest: Uint8Array;
}

interface Ping {
  readonly flags: number;
  readonly token: Uint8Array;
}

const nothing = new Uint8Array(0);
/** A credit of less is not worth a frame while more waits; also the least a bulk frame is begun for. */
const worthwhileBytes = 4096;
/** Small frames of one message while bulk waits, so that neither starves the other. */
const smallShareBytes = 16 * 1024;
/** Room for control frames, an OPEN of full size among them. */
const controlRoomBytes = 8 * 1024;
const fixedFrameBytes = frameHeadBytes + 8;
/** Pongs that wait for the carrier; above it the oldest question stays unanswered. */
const maxWaitingPongs = 32;

export class Outbox {
  readonly #options: OutboxOptions;
  readonly #smallWriteBytes: number;
  readonly #worthwhileBytes: number;
  readonly #pings = new Fifo<Ping>();
  readonly #control = new Fifo<ControlFrame>();
  readonly #credits = new Fifo<SessionStream>();
  readonly #small = new Fifo<SessionStream>();
  readonly #bulk = new Fifo<SessionStream>();
  readonly #blocked = new Set<SessionStream>();
  #ackDue = false;
  #sessionCreditDue = false;
  /** Messages are cut from a slab one after the other; carriers and the replay keep them by reference. */
  #slab = nothing;
  #at = 0;
  #frames = 0;
  #framesSent = 0;

  constructor(options: OutboxOptions) {
    this.#options = options;
    // Whatever a message can hold: frames that wait for more room than there ever is would wait for ever.
    this.#smallWriteBytes = Math.min(options.smallWriteBytes, options.maxMessageBytes >>> 2);
    this.#worthwhileBytes = Math.min(
      worthwhileBytes,
      options.maxMessageBytes >>> 2,
      options.peerMinimumBytes >>> 1,
    );
  }

  get framesSent(): number {
    return this.#framesSent;
  }

  /** Nothing waits to be framed; streams without credit still wait aside. */
  get idle(): boolean {
    return !this.#hasUnnumbered && !this.#hasNumbered;
  }

  acknowledge(): void {
    this.#ackDue = true;
  }

  ping(token: Uint8Array): void {
    this.#pings.push({ flags: FrameFlag.none, token });
  }

  pong(token: Uint8Array): void {
    if (this.#pings.length >= maxWaitingPongs) this.#pings.shift();
    this.#pings.push({ flags: FrameFlag.pong, token });
  }

  open(streamId: number, name: Uint8Array, header: Uint8Array): void {
    this.#control.push({ type: FrameType.open, streamId, first: name, rest: header });
  }

  reset(streamId: number, code: ResetCode): void {
    this.#control.push({ type: FrameType.reset, streamId, first: encodeCode(code), rest: nothing });
  }

  goaway(code: ResetCode): void {
    this.#control.push({ type: FrameType.goaway, streamId: 0, first: encodeCode(code), rest: nothing });
  }

  /** Tell how far the stream may be sent. The offset is taken when the frame is written. */
  credit(stream: SessionStream): void {
    if (stream.creditDue) return;
    stream.creditDue = true;
    this.#credits.push(stream);
  }

  sessionCredit(): void {
    this.#sessionCreditDue = true;
  }

  /** The stream has bytes or a FIN to send. */
  ready(stream: SessionStream): void {
    if (stream.place !== 'nowhere') return;
    if (stream.send.queued <= this.#smallWriteBytes) {
      stream.place = 'small';
      this.#small.push(stream);
    } else {
      stream.place = 'bulk';
      this.#bulk.push(stream);
    }
  }

  /** Credit came: for one stream, or for all without an argument. */
  unblock(stream?: SessionStream): void {
    if (stream) {
      if (!this.#blocked.delete(stream)) return;
      stream.place = 'nowhere';
      return this.ready(stream);
    }
    for (const one of this.#blocked) {
      one.place = 'nowhere';
      this.ready(one);
    }
    this.#blocked.clear();
  }

  /** The stream is over. In the other queues it is passed over when its turn comes. */
  forget(stream: SessionStream): void {
    this.#blocked.delete(stream);
  }

  /** Drops what belongs to streams; control frames stay, so that a last GOAWAY goes out. */
  clearStreams(): void {
    this.#small.clear();
    this.#bulk.clear();
    this.#credits.clear();
    this.#blocked.clear();
    this.#sessionCreditDue = false;
  }

  /** The next message, or null when nothing can go now. */
  next(): Uint8Array | null {
    const { replay, maxMessageBytes } = this.#options;
    const numbered = this.#hasNumbered && replay.hasRoom(maxMessageBytes);
    if (!numbered && !this.#hasUnnumbered) return null;
    this.#makeRoom(numbered);
    const start = this.#at;
    const end = Math.min(this.#slab.length, start + maxMessageBytes);
    this.#frames = 0;
    this.#writeUnnumbered(end);
    const unnumbered = this.#frames;
    const numberedStart = this.#at;
    if (numbered) this.#writeNumbered(end);
    if (this.#frames === 0) return null;
    this.#framesSent += this.#frames;
    const message = this.#slab.subarray(start, this.#at);
    if (this.#frames > unnumbered) {
      const kept = numberedStart === start ? message : this.#slab.subarray(numberedStart, this.#at);
      replay.add(kept, this.#frames - unnumbered);
    }
    return message;
  }

  get #hasUnnumbered(): boolean {
    return this.#ackDue || this.#pings.length > 0;
  }

  get #hasNumbered(): boolean {
    return (
      this.#control.length > 0 ||
      this.#small.length > 0 ||
      this.#bulk.length > 0 ||
      this.#credits.length > 0 ||
      this.#sessionCreditDue
    );
  }

  /** Begins a new slab when what waits would not fit well into the rest of this one. */
  #makeRoom(numbered: boolean): void {
    const { maxMessageBytes } = this.#options;
    const bulk = numbered ? this.#bulk.peek() : undefined;
    const wanted = controlRoomBytes + (bulk ? frameHeadBytes + bulk.send.queued : 0);
    if (this.#slab.length - this.#at >= Math.min(wanted, maxMessageBytes)) return;
    this.#slab = new Uint8Array(maxMessageBytes);
    this.#at = 0;
  }

  #writeUnnumbered(end: number): void {
    if (this.#ackDue) {
      this.#ackDue = false;
      this.#writeNumber(FrameType.ack, 0, this.#options.received());
    }
    while (this.#pings.length > 0 && this.#at + fixedFrameBytes <= end) {
      const { flags, token } = this.#pings.shift() as Ping;
      this.#head(FrameType.ping, flags, token.length, 0);
      this.#slab.set(token, this.#at);
      this.#at += token.length;
    }
  }

  #writeNumbered(end: number): void {
    const { receiveCredit } = this.#options;
    if (this.#sessionCreditDue && this.#at + fixedFrameBytes <= end) {
      this.#sessionCreditDue = false;
      this.#writeNumber(FrameType.credit, 0, receiveCredit.announce());
    }
    while (this.#credits.length > 0 && this.#at + fixedFrameBytes <= end) {
      const stream = this.#credits.shift() as SessionStream;
      stream.creditDue = false;
      if (stream.receive.state !== 'open') continue;
      this.#writeNumber(FrameType.credit, stream.id, stream.receive.credit.announce());
    }
    if (!this.#writeControl(end)) return;
    this.#writeSmall(this.#bulk.length > 0 ? Math.min(end, this.#at + smallShareBytes) : end);
    this.#writeBulk(end);
  }

  /** True when the queue is empty: data may follow. */
  #writeControl(end: number): boolean {
    for (let frame = this.#control.peek(); frame; frame = this.#control.peek()) {
      const length = frame.first.length + frame.rest.length;
      if (this.#at + frameHeadBytes + length > end) return false;
      this.#control.shift();
      this.#head(frame.type, FrameFlag.none, length, frame.streamId);
      this.#slab.set(frame.first, this.#at);
      if (frame.rest.length > 0) this.#slab.set(frame.rest, this.#at + frame.first.length);
      this.#at += length;
    }
    return true;
  }

  #writeSmall(end: number): void {
    for (let waiting = this.#small.length; waiting > 0; waiting--) {
      const stream = this.#small.peek() as SessionStream;
      const { queued } = stream.send;
      if (queued > this.#smallWriteBytes) {
        this.#small.shift();
        stream.place = 'bulk';
        this.#bulk.push(stream);
        continue;
      }
      if (this.#at + frameHeadBytes + queued > end) return;
      this.#small.shift();
      stream.place = 'nowhere';
      if (queued > 0 || stream.send.isFinDue) this.#writeData(stream, end);
    }
  }

  #writeBulk(end: number): void {
    for (let waiting = this.#bulk.length; waiting > 0; waiting--) {
      const stream = this.#bulk.peek() as SessionStream;
      const { queued } = stream.send;
      if (this.#at + frameHeadBytes + Math.min(queued, this.#worthwhileBytes) > end) return;
      this.#bulk.shift();
      stream.place = 'nowhere';
      if (queued > 0 || stream.send.isFinDue) this.#writeData(stream, end);
    }
  }

  /** One DATA frame, as long as room and credit allow; the stream goes where it belongs afterwards. */
  #writeData(stream: SessionStream, end: number): void {
    const { send } = stream;
    const { sendCredit, peerWindowBytes, peerMinimumBytes } = this.#options;
    const wanted = Math.min(send.queued, end - this.#at - frameHeadBytes);
    const minimumRoom = send.credit.minimumRoom(peerWindowBytes, peerMinimumBytes);
    const sessionRoom = Math.min(send.credit.room, sendCredit.room);
    const minimum = wanted <= minimumRoom || sessionRoom < Math.min(minimumRoom, wanted);
    const length = Math.min(wanted, minimum ? minimumRoom : sessionRoom);
    if (length < Math.min(wanted, this.#worthwhileBytes)) {
      stream.place = 'blocked';
      this.#blocked.add(stream);
      return;
    }
    const payloadAt = this.#at + frameHeadBytes;
    send.take(this.#slab, payloadAt, length);
    send.credit.spend(length);
    if (!minimum) sendCredit.spend(length);
    const fin = send.isFinDue;
    const flags = (fin ? FrameFlag.fin : 0) | (minimum && length > 0 ? FrameFlag.minimum : 0);
    this.#head(FrameType.data, flags, length, stream.id);
    this.#at += length;
    if (fin) stream.finSent();
    else if (send.queued > 0) this.ready(stream);
  }

  #writeNumber(type: FrameType, streamId: number, value: number): void {
    this.#head(type, FrameFlag.none, 8, streamId);
    writeU64(this.#slab, this.#at, value);
    this.#at += 8;
  }

  #head(type: FrameType, flags: number, length: number, streamId: number): void {
    writeFrameHead(this.#slab, this.#at, type, flags, length, streamId);
    this.#at += frameHeadBytes;
    this.#frames++;
  }
}

const encodedCodes = new Map<ResetCode, Uint8Array>(
  Object.values(ResetCode).map((code) => [code, Uint8Array.of(code >>> 8, code & 255)]),
);

function encodeCode(code: ResetCode): Uint8Array {
  return encodedCodes.get(code) ?? Uint8Array.of(0, ResetCode.internal);
}
