/**
 * Bytes of a stream that came and were not read. Chunks are views of the carrier's messages where that costs
 * nothing; small ones are copied and gathered, because an unread byte must not hold a whole message, nor a
 * thousand one-byte frames a thousand objects: credit counts bytes, so memory has to follow bytes.
 */

import { Fifo } from './fifo.ts';

export interface Chunk {
  readonly bytes: Uint8Array;
  /** How many of the bytes were charged to the session's credit. */
  readonly charged: number;
}

interface Entry {
  bytes: Uint8Array;
  used: number;
  charged: number;
}

/** Below this, a chunk behind unread ones is gathered into a block. */
const smallBytes = 1024;
const blockBytes = 4096;

export class Inbox {
  readonly #entries = new Fifo<Entry>();

  get empty(): boolean {
    return this.#entries.length === 0;
  }

  /** `messageBytes` is the size of what `bytes` is a view of. */
  push(bytes: Uint8Array, messageBytes: number, charged: number): void {
    if (bytes.length < smallBytes && !this.empty) return this.#gather(bytes, charged);
    const own = bytes.length * 4 < messageBytes ? bytes.slice() : bytes;
    this.#entries.push({ bytes: own, used: own.length, charged });
  }

  shift(): Chunk | undefined {
    const entry = this.#entries.shift();
    if (entry && entry.used < entry.bytes.length) entry.bytes = entry.bytes.subarray(0, entry.used);
    return entry;
  }

  /** Drops everything; returns how many bytes had been charged to the session. */
  clear(): number {
    let charged = 0;
    for (const entry of this.#entries) charged += entry.charged;
    this.#entries.clear();
    return charged;
  }

  #gather(bytes: Uint8Array, charged: number): void {
    let last = this.#entries.peekLast();
    if (!last || last.bytes.length - last.used < bytes.length) {
      last = { bytes: new Uint8Array(blockBytes), used: 0, charged: 0 };
      this.#entries.push(last);
    }
    last.bytes.set(bytes, last.used);
    last.used += bytes.length;
    last.charged += charged;
  }
}
