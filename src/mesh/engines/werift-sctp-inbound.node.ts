/**
 * The receiving half of an SCTP association with one ordered, reliable stream: transmission numbers, gaps and
 * reassembly. Numbers are delivered strictly in order, so messages come out whole, once and in order. Bounded by
 * the window it announces; what lies beyond it is dropped and comes again.
 */

import { DataFlag } from './werift-sctp-packet.node.ts';

/** Serial number arithmetic of RFC 1982 on 32 bits: how far `a` is ahead of `b`. */
export function tsnDistance(a: number, b: number): number {
  return (a - b) | 0;
}

export function tsnAfter(tsn: number, steps = 1): number {
  return (tsn + steps) >>> 0;
}

export interface DataChunk {
  readonly flags: number;
  readonly tsn: number;
  readonly streamId: number;
  readonly protocol: number;
  readonly payload: Buffer;
}

export interface Message {
  readonly streamId: number;
  readonly protocol: number;
  readonly bytes: Buffer;
}

/** Gap blocks of one SACK; more do not help the sender. */
const maxGaps = 64;

export class Inbound {
  /** Payload bytes we hold at most, out of order or of an unfinished message. */
  readonly #windowBytes: number;
  readonly #maxMessageBytes: number;
  readonly #ahead = new Map<number, DataChunk>();
  #parts: Buffer[] = [];
  #partBytes = 0;
  #aheadBytes = 0;
  /** The last number up to which everything came. */
  #cumulative: number;
  /** The highest number that came. */
  #highest: number;

  constructor(initialTsn: number, windowBytes: number, maxMessageBytes: number) {
    this.#cumulative = tsnAfter(initialTsn, -1);
    this.#highest = this.#cumulative;
    this.#windowBytes = windowBytes;
    this.#maxMessageBytes = maxMessageBytes;
  }

  get cumulative(): number {
    return this.#cumulative;
  }

  /** What we announce: room for data not yet here. */
  get window(): number {
    return Math.max(0, this.#windowBytes - this.#aheadBytes - this.#partBytes);
  }

  get hasGaps(): boolean {
    return this.#ahead.size > 0;
  }

  /**
   * Takes a chunk and hands on every message it completes.
   * @throws RangeError when a message is longer than we announced
   */
  receive(chunk: DataChunk, onMessage: (message: Message) => void): void {
    const distance = tsnDistance(chunk.tsn, this.#cumulative);
    if (distance <= 0) return;
    if (distance === 1) {
      this.#cumulative = chunk.tsn;
      this.#append(chunk, onMessage);
      if (this.#ahead.size > 0) this.#closeGap(onMessage);
    } else if (!this.#ahead.has(chunk.tsn) && chunk.payload.length <= this.window && distance < 65_536) {
      this.#ahead.set(chunk.tsn, chunk);
      this.#aheadBytes += chunk.payload.length;
    } else {
      return;
    }
    if (tsnDistance(chunk.tsn, this.#highest) > 0) this.#highest = chunk.tsn;
  }

  /** Blocks of numbers that came beyond the first gap, as offsets from `cumulative` (RFC 9260 section 3.3.4). */
  gaps(): (readonly [first: number, last: number])[] {
    if (this.#ahead.size === 0) return [];
    const offsets = [...this.#ahead.keys()]
      .map((tsn) => tsnDistance(tsn, this.#cumulative))
      .sort((a, b) => a - b);
    const blocks: [number, number][] = [];
    for (const offset of offsets) {
      const last = blocks.at(-1);
      if (last && last[1] === offset - 1) last[1] = offset;
      else if (blocks.length < maxGaps) blocks.push([offset, offset]);
      else break;
    }
    return blocks;
  }

  #closeGap(onMessage: (message: Message) => void): void {
    for (;;) {
      const tsn = tsnAfter(this.#cumulative);
      const chunk = this.#ahead.get(tsn);
      if (!chunk) return;
      this.#ahead.delete(tsn);
      this.#aheadBytes -= chunk.payload.length;
      this.#cumulative = tsn;
      this.#append(chunk, onMessage);
    }
  }

  #append(chunk: DataChunk, onMessage: (message: Message) => void): void {
    if (chunk.flags & DataFlag.begin) this.#forget();
    else if (this.#parts.length === 0) return;
    this.#parts.push(chunk.payload);
    this.#partBytes += chunk.payload.length;
    if (this.#partBytes > this.#maxMessageBytes) throw new RangeError('a message is longer than announced');
    if (!(chunk.flags & DataFlag.end)) return;
    const bytes = Buffer.concat(this.#parts, this.#partBytes);
    this.#forget();
    onMessage({ streamId: chunk.streamId, protocol: chunk.protocol, bytes });
  }

  #forget(): void {
    this.#parts = [];
    this.#partBytes = 0;
  }
}
