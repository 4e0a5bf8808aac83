/**
 * A part that needs a database, as soon as there is one. One that is away at the start keeps nothing else from
 * working: it is tried again by itself, and whenever somebody asks.
 */

import type { Clock, Timer } from '@cocoon-mesh/protocol';
import { MeshError, every, toMeshError } from '@cocoon-mesh/protocol';

export interface LatePartOptions<T extends object> {
  /** What it is, at the beginning of a sentence of the log. */
  readonly what: string;
  /** @throws MeshError */
  readonly open: () => Promise<T>;
  readonly close: (opened: T) => Promise<void>;
  readonly clock: Clock;
  readonly log: (level: 'info' | 'warn', message: string, fields?: Record<string, unknown>) => void;
}

/** What is to be done when the database comes is done even if nobody asks. */
const retryMs = 5_000;
/** Many who ask at once are one attempt, and those right behind it learn what it learned. */
const freshFailureMs = 500;

export class LatePart<T extends object> {
  readonly #options: LatePartOptions<T>;
  #opening: Promise<T> | null = null;
  #opened: T | null = null;
  #failure: { readonly error: MeshError; readonly atMs: number } | null = null;
  #retry: Timer | null = null;
  #closing: Promise<void> | null = null;

  constructor(options: LatePartOptions<T>) {
    this.#options = options;
  }

  /** The first attempt; resolves whether or not it succeeds. */
  async start(): Promise<void> {
    await this.use().catch(() => undefined);
    if (this.#opened !== null || this.#closing) return;
    this.#retry = every(this.#options.clock, retryMs, () => void this.use().catch(() => undefined));
  }

  /** @throws MeshError as what opens the database */
  async use(): Promise<T> {
    if (this.#opened) return this.#opened;
    if (this.#closing) throw new MeshError('shutting_down');
    if (this.#opening) return this.#opening;
    const failed = this.#failure;
    if (failed && this.#options.clock.monotonic() - failed.atMs < freshFailureMs) throw failed.error;
    this.#opening = this.#open();
    try {
      return await this.#opening;
    } finally {
      this.#opening = null;
    }
  }

  /** Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#retry?.cancel();
    const opening = (await this.#opening?.catch(() => null)) ?? null;
    const opened = this.#opened ?? opening;
    this.#opened = null;
    if (opened !== null) await this.#options.close(opened);
  }

  async #open(): Promise<T> {
    const { what, open, clock, log } = this.#options;
    try {
      this.#opened = await open();
      this.#retry?.cancel();
      if (this.#failure) log('info', `${what}: there again`);
      this.#failure = null;
      return this.#opened;
    } catch (thrown) {
      const error = toMeshError(thrown, 'storage_failed');
      if (this.#failure?.error.message !== error.message)
        log('warn', `${what}: ${error.message}`, { code: error.code });
      this.#failure = { error, atMs: clock.monotonic() };
      throw error;
    }
  }
}
