/**
 * A stream from this device to itself, so that its own services are used exactly like those of others: the same
 * code serves them, only no session lies in between.
 */

import type { Stream } from '@cocoon-mesh/mesh';
import { MeshError, limits } from '@cocoon-mesh/protocol';
import type { ResetCode } from '@cocoon-mesh/protocol';

/** The asking end and the serving end. */
export function localStreamPair(protocol: string, header: Uint8Array): [Stream, Stream] {
  const there = new Pipe();
  const back = new Pipe();
  const over = new Over();
  const asking = new LocalStream(protocol, header, there, back, over);
  const serving = new LocalStream(protocol, header, back, there, over);
  return [asking, serving];
}

/** The common end of both ends. */
class Over {
  readonly controller = new AbortController();
  readonly closed = Promise.withResolvers<void>();
  failure: MeshError | null = null;

  fail(code: ResetCode): void {
    this.failure = new MeshError('stream_reset', undefined, { cause: code });
    this.controller.abort(this.failure);
    this.closed.resolve();
  }
}

/** One direction. */
class Pipe {
  readonly chunks: Uint8Array[] = [];
  bytes = 0;
  ended = false;
  /** The reader has seen the end. */
  drained = false;
  #waiting: (() => void)[] = [];

  /** Resolves when something changed. */
  change(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  wake(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resolve of waiting) resolve();
  }
}

class LocalStream implements Stream {
  readonly id = 0;
  readonly protocol: string;
  readonly header: Uint8Array;
  readonly #out: Pipe;
  readonly #in: Pipe;
  readonly #over: Over;

  constructor(protocol: string, header: Uint8Array, out: Pipe, incoming: Pipe, over: Over) {
    this.protocol = protocol;
    this.header = header;
    this.#out = out;
    this.#in = incoming;
    this.#over = over;
  }

  get signal(): AbortSignal {
    return this.#over.controller.signal;
  }

  get closed(): Promise<void> {
    return this.#over.closed.promise;
  }

  write(bytes: Uint8Array): boolean {
    if (this.#over.failure) throw this.#over.failure;
    if (this.#out.ended) throw new MeshError('stream_reset', 'The stream was ended before');
    if (bytes.length > 0) {
      this.#out.chunks.push(bytes);
      this.#out.bytes += bytes.length;
      this.#out.wake();
    }
    return this.#hasRoom();
  }

  async drained(): Promise<void> {
    for (;;) {
      if (this.#over.failure) throw this.#over.failure;
      if (this.#hasRoom()) return;
      await this.#out.change();
    }
  }

  end(): void {
    this.#out.ended = true;
    this.#out.wake();
  }

  reset(code: ResetCode): void {
    if (this.#over.failure || (this.#out.drained && this.#in.drained)) return;
    this.#over.fail(code);
    this.#out.wake();
    this.#in.wake();
  }

  async read(): Promise<Uint8Array | null> {
    for (;;) {
      if (this.#over.failure) throw this.#over.failure;
      const chunk = this.#in.chunks.shift();
      if (chunk) {
        this.#in.bytes -= chunk.length;
        this.#in.wake();
        return chunk;
      }
      if (this.#in.ended) {
        this.#in.drained = true;
        if (this.#out.drained) this.#over.closed.resolve();
        return null;
      }
      await this.#in.change();
    }
  }

  #hasRoom(): boolean {
    return this.#out.bytes < limits.streamQueueBytes;
  }
}
