/**
 * The reading end of an answer that comes in pieces: what has come and was not read yet is bounded, since the other
 * side may only send what was granted.
 */

import type { Content } from '@cocoon-mesh/capabilities';
import { MeshError } from '@cocoon-mesh/protocol/errors.ts';

export interface AnswerReaderOptions {
  readonly windowBytes: number;
  /** So many bytes more may come. */
  readonly grant: (bytes: number) => void;
  /** Whoever read does not want the rest. */
  readonly left: () => void;
}

interface Arrived {
  readonly content: Content;
  readonly bytes: number;
}

export class AnswerReader<End extends Content = Content> {
  readonly #options: AnswerReaderOptions;
  readonly #end = Promise.withResolvers<End>();
  #arrived: Arrived[] = [];
  #credit: number;
  /** Read, and not yet granted again. */
  #owed = 0;
  #ended: { readonly content: End } | { readonly error: unknown } | null = null;
  #wake: (() => void) | null = null;

  constructor(options: AnswerReaderOptions) {
    this.#options = options;
    this.#credit = options.windowBytes;
    this.#end.promise.catch(() => undefined);
  }

  get ended(): boolean {
    return this.#ended !== null;
  }

  /** What follows the last chunk; the whole answer when there was none. @throws as the answer fails */
  get end(): Promise<End> {
    return this.#end.promise;
  }

  /** @throws MeshError protocol_violation: more came than was granted */
  push(content: Content, bytes: number): void {
    if (this.#ended) return;
    if (this.#credit <= 0)
      throw new MeshError('protocol_violation', 'More came of an answer than was granted');
    this.#credit -= bytes;
    this.#arrived.push({ content, bytes });
    this.#wake?.();
  }

  finish(content: End): void {
    if (this.#ended) return;
    this.#ended = { content };
    this.#end.resolve(content);
    this.#wake?.();
  }

  /** After what has come before. */
  fail(error: unknown): void {
    if (this.#ended) return;
    this.#ended = { error };
    this.#end.reject(error);
    this.#wake?.();
  }

  /** Nobody wants what has come and was not read. */
  cancel(error: unknown): void {
    this.#arrived = [];
    this.fail(error);
  }

  /** Once. Returns what follows the last chunk. @throws as the answer fails */
  async *chunks(): AsyncGenerator<Content, End, undefined> {
    try {
      for (;;) {
        for (let next = this.#arrived.shift(); next; next = this.#arrived.shift()) {
          yield next.content;
          this.#read(next.bytes);
        }
        if (this.#ended) {
          if ('error' in this.#ended) throw this.#ended.error;
          return this.#ended.content;
        }
        const woken = Promise.withResolvers<void>();
        this.#wake = () => woken.resolve();
        await woken.promise;
      }
    } finally {
      if (!this.#ended) {
        this.cancel(new MeshError('cancelled'));
        this.#options.left();
      }
    }
  }

  #read(bytes: number): void {
    this.#owed += bytes;
    if (this.#ended || this.#owed < this.#options.windowBytes / 2) return;
    this.#credit += this.#owed;
    this.#options.grant(this.#owed);
    this.#owed = 0;
  }
}
