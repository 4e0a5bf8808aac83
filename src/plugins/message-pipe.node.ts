/**
 * Messages over a pipe between the daemon and a plugin: a length (u32, big-endian) and as many bytes of MessagePack.
 * Node's own channel between processes is no door for outside bytes: a child that writes rubbish into it throws in
 * the middle of its parent's event loop.
 */

import type { Duplex } from 'node:stream';
import type { Clock, Schema } from '@cocoon-mesh/protocol';
import { concat } from '@cocoon-mesh/protocol/bytes.ts';
import { decode, encode } from '@cocoon-mesh/protocol/codec.ts';
import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import { limits } from '@cocoon-mesh/protocol/limits.ts';

const lengthBytes = 4;
/** However much comes, everybody else gets a turn after this long. */
const turnMs = 4;
/** Of what the other side has not read yet. */
const maxUnreadBytes = 1024 * 1024;

export interface MessagePipeOptions<In, Out> {
  readonly clock: Clock;
  readonly incoming: Schema<In>;
  readonly outgoing: Schema<Out>;
  readonly maxBytes: number;
  /** @param bytes of the message. May throw; then the pipe is broken. */
  readonly onMessage: (message: In, bytes: number) => void;
  /** Once: the other side is gone (null), or broke the rules. Nothing comes after it. */
  readonly onEnd: (problem: MeshError | null) => void;
  /**
   * Takes nothing more from an other side that does not read what it is told, or its questions would fill our memory
   * with answers. Of one end only: two that wait for each other wait for ever.
   */
  readonly waitsForReader?: boolean;
}

export class MessagePipe<In, Out> {
  readonly #stream: Duplex;
  readonly #options: MessagePipeOptions<In, Out>;
  #pieces: Uint8Array[] = [];
  #held = 0;
  #ended = false;
  /** What has come is taken later. */
  #waits = false;

  constructor(stream: Duplex, options: MessagePipeOptions<In, Out>) {
    this.#stream = stream;
    this.#options = options;
    stream.on('data', (piece: Uint8Array) => this.#take(piece));
    stream.on('error', () => this.#end(null));
    stream.on('end', () => this.#end(null));
    stream.on('close', () => this.#end(null));
  }

  /**
   * Nothing happens when the other side is gone.
   * @returns bytes of the message
   * @throws MeshError bad_message | message_too_large before anything was written
   */
  send(message: Out): number {
    const bytes = encode(this.#options.outgoing, message);
    if (bytes.length > this.#options.maxBytes)
      throw new MeshError('message_too_large', `A message of ${bytes.length} bytes is over its limit`);
    const length = new Uint8Array(lengthBytes);
    new DataView(length.buffer).setUint32(0, bytes.length);
    if (!this.#ended) this.#stream.write(concat(length, bytes));
    return bytes.length;
  }

  /** Resolves when everything that was sent has left. */
  async flushed(): Promise<void> {
    const gone = Promise.withResolvers<void>();
    this.#stream.write('', () => gone.resolve());
    await gone.promise;
  }

  close(): void {
    this.#ended = true;
    this.#pieces = [];
    this.#stream.destroy();
  }

  #take(piece: Uint8Array): void {
    if (this.#ended) return;
    this.#pieces.push(piece);
    this.#held += piece.length;
    if (!this.#waits) this.#turn();
  }

  /** Takes messages until there is none, or others have waited long enough. */
  #turn(): void {
    const { clock, incoming, maxBytes, onMessage } = this.#options;
    const until = clock.monotonic() + turnMs;
    try {
      for (let message = this.#next(); message !== null && !this.#ended; message = this.#next()) {
        onMessage(decode(incoming, message, maxBytes, limits.maxCapabilityMessageItems), message.length);
        if (this.#isUnread()) return this.#wait((go) => this.#stream.once('drain', go));
        if (clock.monotonic() >= until) return this.#wait(setImmediate);
      }
    } catch (thrown) {
      const problem =
        thrown instanceof MeshError ? thrown : new MeshError('internal', undefined, { cause: thrown });
      this.#end(problem);
      this.#stream.destroy();
    }
  }

  #isUnread(): boolean {
    return this.#options.waitsForReader === true && this.#stream.writableLength > maxUnreadBytes;
  }

  #wait(later: (go: () => void) => void): void {
    if (this.#ended) return;
    this.#waits = true;
    this.#stream.pause();
    later(() => {
      this.#waits = false;
      if (this.#ended) return;
      this.#turn();
      if (!this.#waits) this.#stream.resume();
    });
  }

  /** Null: it has not come whole. */
  #next(): Uint8Array | null {
    if (this.#held < lengthBytes) return null;
    const length = this.#announced();
    if (length > this.#options.maxBytes)
      throw new MeshError('message_too_large', `A message of ${length} bytes is over its limit`);
    if (this.#held < lengthBytes + length) return null;
    const all = this.#joined();
    const end = lengthBytes + length;
    this.#pieces = all.length > end ? [all.subarray(end)] : [];
    this.#held -= end;
    return all.slice(lengthBytes, end);
  }

  /** Joins no more than it has to: a large message comes in many pieces. */
  #announced(): number {
    const [first] = this.#pieces;
    const head = first && first.length >= lengthBytes ? first : this.#joined();
    return new DataView(head.buffer, head.byteOffset).getUint32(0);
  }

  #joined(): Uint8Array {
    const [first] = this.#pieces;
    const all = this.#pieces.length === 1 && first ? first : concat(...this.#pieces);
    this.#pieces = [all];
    return all;
  }

  #end(problem: MeshError | null): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#pieces = [];
    this.#options.onEnd(problem);
  }
}
