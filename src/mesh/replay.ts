/**
 * What was sent and not yet acknowledged. Numbered frames are counted from 1 in the order they leave; the
 * buffer keeps the bytes of all that the other side has not acknowledged, so that a session can go on over
 * another carrier. Bounded: without room the sender stops.
 */

import { frameHeadBytes, MeshError, readFrameHead } from '@cocoon-mesh/protocol';
import { Fifo } from './fifo.ts';

/** One message's numbered frames, whole and in order. */
interface Entry {
  readonly bytes: Uint8Array;
  readonly lastNumber: number;
}

/** What an entry costs besides its bytes, so that many tiny messages are bounded too. */
const entryOverheadBytes = 128;

export class Replay {
  readonly #maxBytes: number;
  readonly #entries = new Fifo<Entry>();
  #bytes = 0;
  #sent = 0;
  #acknowledged = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** Numbered frames sent so far. */
  get sent(): number {
    return this.#sent;
  }

  get acknowledged(): number {
    return this.#acknowledged;
  }

  get bytes(): number {
    return this.#bytes;
  }

  hasRoom(bytes: number): boolean {
    // An empty buffer takes any message: a bound below one message must not stop the session for good.
    return this.#bytes === 0 || this.#bytes + bytes + entryOverheadBytes <= this.#maxBytes;
  }

  /** Keeps `frames` numbered frames that leave now; the bytes must not change any more. */
  add(bytes: Uint8Array, frames: number): void {
    this.#sent += frames;
    this.#bytes += bytes.length + entryOverheadBytes;
    this.#entries.push({ bytes, lastNumber: this.#sent });
  }

  /**
   * The other side has received this many numbered frames; an older position is ignored.
   * @throws MeshError protocol_violation when that is more than were sent
   */
  acknowledge(position: number): void {
    if (position > this.#sent) {
      throw new MeshError('protocol_violation', `frame ${position} was acknowledged and never sent`);
    }
    if (position <= this.#acknowledged) return;
    this.#acknowledged = position;
    for (let entry = this.#entries.peek(); entry && entry.lastNumber <= position;) {
      this.#entries.shift();
      this.#bytes -= entry.bytes.length + entryOverheadBytes;
      entry = this.#entries.peek();
    }
  }

  /** The frames after `position`, in order, packed as they were first sent. */
  *after(position: number): Generator<Uint8Array, void, undefined> {
    for (const entry of this.#entries) {
      if (entry.lastNumber <= position) continue;
      let offset = 0;
      let number = entry.lastNumber - countFrames(entry.bytes);
      for (; number < position; number++) offset += frameLength(entry.bytes, offset);
      yield entry.bytes.subarray(offset);
    }
  }
}

function frameLength(bytes: Uint8Array, offset: number): number {
  return frameHeadBytes + readFrameHead(bytes, offset).length;
}

function countFrames(bytes: Uint8Array): number {
  let frames = 0;
  for (let offset = 0; offset < bytes.length; offset += frameLength(bytes, offset)) frames++;
  return frames;
}
