/**
 * Values between the daemon and the process of a model: a length (u32, big-endian) and as many bytes as V8 makes of
 * the value. Node's own channel between processes would do, but whatever rubbish a broken process writes into it is
 * thrown in the middle of its parent's event loop, and ends the daemon.
 */

import type { Duplex } from 'node:stream';
import { deserialize, serialize } from 'node:v8';

export interface ValuePipeOptions {
  /** May throw; then the pipe is broken. */
  readonly onValue: (value: unknown) => void;
  /** Once: the other side is gone, or (true) wrote what is no value. Nothing comes after it. */
  readonly onEnd: (isBroken: boolean) => void;
}

const lengthBytes = 4;
/** The vectors of the largest request have 32 MiB. */
const maxBytes = 256 << 20;

export class ValuePipe {
  readonly #stream: Duplex;
  readonly #options: ValuePipeOptions;
  #pieces: Buffer[] = [];
  #held = 0;
  #isOver = false;

  constructor(stream: Duplex, options: ValuePipeOptions) {
    this.#stream = stream;
    this.#options = options;
    stream.on('data', (piece: Buffer) => this.#take(piece));
    stream.on('error', () => this.#end(false));
    stream.on('end', () => this.#end(false));
    stream.on('close', () => this.#end(false));
  }

  /** Nothing happens when the other side is gone. @param sent when it has left */
  send(value: unknown, sent: () => void = () => undefined): void {
    if (this.#isOver || !this.#stream.writable) return sent();
    const bytes = serialize(value);
    const length = Buffer.alloc(lengthBytes);
    length.writeUInt32BE(bytes.length);
    this.#stream.cork();
    this.#stream.write(length);
    this.#stream.write(bytes, () => sent());
    this.#stream.uncork();
  }

  #take(piece: Buffer): void {
    if (this.#isOver) return;
    this.#pieces.push(piece);
    this.#held += piece.length;
    try {
      for (let bytes = this.#next(); bytes !== null; bytes = this.#next())
        this.#options.onValue(deserialize(bytes));
    } catch {
      this.#end(true);
      this.#stream.destroy();
    }
  }

  /** Null: it has not come whole. @throws for a length that is none */
  #next(): Buffer | null {
    if (this.#held < lengthBytes) return null;
    const [first] = this.#pieces;
    const head = first && first.length >= lengthBytes ? first : this.#joined();
    const end = lengthBytes + head.readUInt32BE(0);
    if (end > maxBytes) throw new RangeError('no value is as long');
    if (this.#held < end) return null;
    const all = this.#joined();
    this.#pieces = all.length > end ? [all.subarray(end)] : [];
    this.#held -= end;
    return all.subarray(lengthBytes, end);
  }

  /** Joins no more than it has to: a large value comes in many pieces. */
  #joined(): Buffer {
    const [first] = this.#pieces;
    const all = this.#pieces.length === 1 && first ? first : Buffer.concat(this.#pieces);
    this.#pieces = [all];
    return all;
  }

  #end(isBroken: boolean): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#pieces = [];
    this.#options.onEnd(isBroken);
  }
}
