/** The sending half of a stream: what the program wrote and what has not been framed yet. */

import type { MeshError } from '@cocoon-mesh/protocol';
import { SendCredit } from './credit.ts';
import { Fifo } from './fifo.ts';
import { nextSendState } from './stream-state.ts';
import type { SendState } from './stream-state.ts';

export class SendHalf {
  readonly credit: SendCredit;
  readonly #queueBytes: number;
  readonly #chunks = new Fifo<Uint8Array>();
  /** How much of the first chunk is already gone. */
  #offset = 0;
  #queued = 0;
  #state: SendState = 'open';
  #error: MeshError | null = null;
  #drained: PromiseWithResolvers<void> | null = null;

  /** @param initialCredit bytes @param queueBytes above this `push` asks the program to wait */
  constructor(initialCredit: number, queueBytes: number) {
    this.credit = new SendCredit(initialCredit);
    this.#queueBytes = queueBytes;
  }

  get state(): SendState {
    return this.#state;
  }

  /** Bytes waiting to be framed. */
  get queued(): number {
    return this.#queued;
  }

  get error(): MeshError | null {
    return this.#error;
  }

  get isFinDue(): boolean {
    return this.#state === 'ending' && this.#queued === 0;
  }

  /** False when the program should wait for `drained`. */
  push(bytes: Uint8Array): boolean {
    this.#chunks.push(bytes);
    this.#queued += bytes.length;
    return this.#queued < this.#queueBytes;
  }

  end(): void {
    this.#state = nextSendState(this.#state, 'end');
  }

  finSent(): void {
    this.#state = nextSendState(this.#state, 'fin-sent');
  }

  /** Moves the next `bytes` (at most `queued`) into `target`. */
  take(target: Uint8Array, at: number, bytes: number): void {
    this.#queued -= bytes;
    let to = at;
    for (let left = bytes; left > 0;) {
      const chunk = this.#chunks.peek() as Uint8Array;
      const from = this.#offset;
      const size = Math.min(left, chunk.length - from);
      target.set(size === chunk.length ? chunk : chunk.subarray(from, from + size), to);
      to += size;
      left -= size;
      if (from + size === chunk.length) {
        this.#chunks.shift();
        this.#offset = 0;
      } else {
        this.#offset = from + size;
      }
    }
    if (this.#drained && this.#queued <= this.#queueBytes / 2) {
      this.#drained.resolve();
      this.#drained = null;
    }
  }

  drained(): Promise<void> {
    if (this.#error) return Promise.reject(this.#error);
    if (this.#queued < this.#queueBytes) return Promise.resolve();
    this.#drained ??= Promise.withResolvers<void>();
    return this.#drained.promise;
  }

  /** True when the half was not over yet and now is. */
  fail(error: MeshError): boolean {
    const next = nextSendState(this.#state, 'fail');
    if (next === this.#state) return false;
    this.#state = next;
    this.#error = error;
    this.#chunks.clear();
    this.#queued = 0;
    this.#offset = 0;
    if (this.#drained) {
      // Nobody may be waiting any more; the next write tells.
      this.#drained.promise.catch(() => {});
      this.#drained.reject(error);
      this.#drained = null;
    }
    return true;
  }
}
