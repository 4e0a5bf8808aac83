/** The receiving half of a stream: what came and waits to be read, and the credit that bounds it. */

import { MeshError } from '@cocoon-mesh/protocol';
import { ReceiveCredit } from './credit.ts';
import { Inbox } from './inbox.ts';
import type { Chunk } from './inbox.ts';
import { nextReceiveState } from './stream-state.ts';
import type { ReceiveState } from './stream-state.ts';

/** What the end of a half did. */
export interface HalfEnd {
  /** It was not over yet. */
  readonly failed: boolean;
  /** Dropped bytes that had been charged to the session. */
  readonly charged: number;
}

export class ReceiveHalf {
  readonly credit: ReceiveCredit;
  readonly #inbox = new Inbox();
  #state: ReceiveState = 'open';
  #error: MeshError | null = null;
  #reader: PromiseWithResolvers<Uint8Array | null> | null = null;
  readonly #consumed: (chunk: Chunk) => void;

  /** @param window bytes @param consumed told of every chunk that goes to the program */
  constructor(window: number, consumed: (chunk: Chunk) => void) {
    this.credit = new ReceiveCredit(window);
    this.#consumed = consumed;
  }

  get state(): ReceiveState {
    return this.#state;
  }

  read(): Promise<Uint8Array | null> {
    if (this.#reader) return Promise.reject(new MeshError('internal', 'Two reads of one stream at once'));
    const chunk = this.#inbox.shift();
    if (chunk) {
      this.#hand(chunk);
      return Promise.resolve(chunk.bytes);
    }
    if (this.#error) return Promise.reject(this.#error);
    if (this.#state !== 'open') return Promise.resolve(null);
    this.#reader = Promise.withResolvers<Uint8Array | null>();
    return this.#reader.promise;
  }

  /** Bytes that credit allowed, `messageBytes` the size of the message they are a view of. */
  push(bytes: Uint8Array, messageBytes: number, charged: number): void {
    const reader = this.#reader;
    if (!reader) return this.#inbox.push(bytes, messageBytes, charged);
    this.#reader = null;
    this.#hand({ bytes, charged });
    reader.resolve(bytes);
  }

  fin(): void {
    this.#state = nextReceiveState(this.#state, 'fin');
    if (this.#inbox.empty) this.#state = nextReceiveState(this.#state, 'emptied');
    this.#reader?.resolve(null);
    this.#reader = null;
  }

  /** The other side or the session failed. What an ended half still holds stays readable. */
  fail(error: MeshError): HalfEnd {
    return this.#end('fail', error);
  }

  /** The program wants nothing of it any more. */
  discard(error: MeshError): HalfEnd {
    return this.#end('discard', error);
  }

  #end(event: 'fail' | 'discard', error: MeshError): HalfEnd {
    const next = nextReceiveState(this.#state, event);
    if (next === this.#state) return { failed: false, charged: 0 };
    this.#state = next;
    this.#error = error;
    const charged = this.#inbox.clear();
    if (this.#reader) {
      // A reader that left must not end the process; the next read tells.
      this.#reader.promise.catch(() => {});
      this.#reader.reject(error);
      this.#reader = null;
    }
    return { failed: true, charged };
  }

  #hand(chunk: Chunk): void {
    this.credit.consume(chunk.bytes.length);
    if (this.#inbox.empty) this.#state = nextReceiveState(this.#state, 'emptied');
    this.#consumed(chunk);
  }
}
