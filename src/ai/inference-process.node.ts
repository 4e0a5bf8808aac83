/**
 * A local model that is there when it is needed: its process starts with the first request, ends when nobody has
 * asked for a while, and is replaced when it dies. What was under way then is given to the next process once, unless
 * a part of its answer was told; a request may be what it died of. The next process comes at once, or later if one
 * after the other dies.
 */

import type { Clock, Timer } from '@cocoon-mesh/protocol/clock.ts';
import { MeshError, toMeshError } from '@cocoon-mesh/protocol/errors.ts';
import type { RunOptions } from './inference-child.node.ts';
import { InferenceChild } from './inference-child.node.ts';

export interface InferenceOptions {
  /** URL of a `ModelModule`. */
  readonly module: string;
  /** For its `openModel`, asked at each start. */
  readonly source: () => unknown;
  readonly clock: Clock;
  /** Without requests. */
  readonly idleMs: number;
  /** For loading. */
  readonly loadTimeoutMs: number;
  /** `problem` or `warm` changed. */
  readonly onChange: () => void;
}

/** This many in a row may die at their work before there is a pause: it may have been one bad request. */
const freeDeaths = 2;
const firstPauseMs = 1_000;
const longestPauseMs = 600_000;
/** Closing waits for a run of the model, and no longer. */
const endTimeoutMs = 2_000;

type State =
  | { readonly kind: 'off' }
  | { readonly kind: 'starting'; readonly child: InferenceChild; readonly after: MeshError | null }
  | { readonly kind: 'ready'; readonly child: InferenceChild }
  /** Until the timer fires, nothing is tried. */
  | { readonly kind: 'failed'; readonly problem: MeshError; readonly timer: Timer }
  | { readonly kind: 'closed' };

type Work<T> = (child: InferenceChild) => Promise<T>;

/** `died`: its process ended before it was done. */
type Outcome<T> = { readonly value: T } | { readonly died: MeshError };

export class InferenceProcess {
  readonly #options: InferenceOptions;
  #state: State = { kind: 'off' };
  #failures = 0;
  #users = 0;
  #idle: Timer | null = null;

  constructor(options: InferenceOptions) {
    this.#options = options;
  }

  /** Why it does not work, until it does again. */
  get problem(): MeshError | null {
    if (this.#state.kind === 'failed') return this.#state.problem;
    return this.#state.kind === 'starting' ? this.#state.after : null;
  }

  get warm(): boolean {
    return this.#state.kind === 'ready';
  }

  /** Null while there is none. */
  get pid(): number | null {
    return 'child' in this.#state ? (this.#state.child.pid ?? null) : null;
  }

  /**
   * @returns what the model answers
   * @throws MeshError model_unavailable when it does not load, provider_failed when its process ends, those of the
   * model; the signal's reason
   */
  async run(request: unknown, options: RunOptions = {}): Promise<unknown> {
    let hasBegun = false;
    const heard: RunOptions = {
      ...options,
      onChunk: (value) => {
        hasBegun = true;
        options.onChunk?.(value);
      },
    };
    const work = async (child: InferenceChild): Promise<unknown> => child.run(request, heard);
    return this.#useAgain(work, options.signal, () => !hasBegun);
  }

  /** Loads the model, if it is not, and says what it is. @throws as `run` */
  async describe(signal?: AbortSignal): Promise<unknown> {
    return this.#useAgain(
      async (child) => child.loaded,
      signal,
      () => true,
    );
  }

  /** Idempotent. What is under way ends with an error. */
  async close(): Promise<void> {
    const state = this.#state;
    this.#state = { kind: 'closed' };
    this.#idle?.cancel();
    if (state.kind === 'failed') state.timer.cancel();
    if (!('child' in state)) return;
    await this.#end(state.child);
  }

  async #useAgain<T>(work: Work<T>, signal: AbortSignal | undefined, mayAgain: () => boolean): Promise<T> {
    const first = await this.#use(work, signal);
    if ('value' in first) return first.value;
    if (!mayAgain()) throw first.died;
    const second = await this.#use(work, signal);
    if ('value' in second) return second.value;
    throw second.died;
  }

  async #use<T>(work: Work<T>, signal: AbortSignal | undefined): Promise<Outcome<T>> {
    signal?.throwIfAborted();
    const child = this.#child();
    this.#users++;
    this.#idle?.cancel();
    try {
      await unlessAborted(child.loaded, signal);
      const value = await work(child);
      this.#failures = 0;
      return { value };
    } catch (thrown) {
      if (!child.isOver || signal?.aborted === true || this.#state.kind === 'closed') throw thrown;
      return { died: toMeshError(thrown) };
    } finally {
      this.#users--;
      this.#restIfIdle();
    }
  }

  #child(): InferenceChild {
    switch (this.#state.kind) {
      case 'starting':
      case 'ready':
        return this.#state.child;
      case 'failed':
        throw this.#state.problem;
      case 'closed':
        throw new MeshError('cancelled', 'The model was closed');
      case 'off':
        return this.#start(null);
    }
  }

  #start(after: MeshError | null): InferenceChild {
    const { module, source, clock, loadTimeoutMs } = this.#options;
    const child = new InferenceChild(module, source());
    this.#state = { kind: 'starting', child, after };
    const timer = clock.after(loadTimeoutMs, () => child.kill());
    child.loaded.then(
      () => {
        timer.cancel();
        if (this.#holds(child)) this.#become({ kind: 'ready', child });
        this.#restIfIdle();
      },
      (thrown: unknown) => {
        timer.cancel();
        this.#failures++;
        if (!this.#holds(child)) return;
        // What says why it does not load says the same again; what was killed may be luckier.
        if (child.isOver && this.#failures <= freeDeaths) this.#become({ kind: 'off' });
        else this.#pause(toMeshError(thrown, 'model_unavailable'));
      },
    );
    void child.ended.then(() => {
      if (this.#state.kind === 'ready' && this.#state.child === child) this.#died();
    });
    return child;
  }

  /** After it was loaded. */
  #died(): void {
    if (this.#users > 0) this.#failures++;
    if (this.#failures <= freeDeaths) return this.#become({ kind: 'off' });
    const why = `The process of the model ended ${this.#failures} times in a row`;
    this.#pause(new MeshError('model_unavailable', why));
  }

  #pause(problem: MeshError): void {
    const pauseMs = Math.min(longestPauseMs, firstPauseMs * 2 ** Math.min(this.#failures - 1, 16));
    const timer = this.#options.clock.after(pauseMs, () => {
      this.#start(problem);
    });
    this.#become({ kind: 'failed', problem, timer });
  }

  #holds(child: InferenceChild): boolean {
    return 'child' in this.#state && this.#state.child === child;
  }

  #become(state: State): void {
    this.#state = state;
    this.#options.onChange();
  }

  #restIfIdle(): void {
    this.#idle?.cancel();
    if (this.#users > 0 || this.#state.kind !== 'ready') return;
    const { child } = this.#state;
    this.#idle = this.#options.clock.after(this.#options.idleMs, () => {
      if (!this.#holds(child) || this.#users > 0) return;
      this.#become({ kind: 'off' });
      void this.#end(child);
    });
  }

  async #end(child: InferenceChild): Promise<void> {
    child.stop();
    const timer = this.#options.clock.after(endTimeoutMs, () => child.kill());
    await child.ended;
    timer.cancel();
  }
}

/** @throws the signal's reason as soon as it fires */
async function unlessAborted(work: Promise<unknown>, signal: AbortSignal | undefined): Promise<void> {
  if (!signal) {
    await work;
    return;
  }
  const aborted = Promise.withResolvers<never>();
  const abort = (): void => aborted.reject(signal.reason);
  signal.addEventListener('abort', abort, { once: true });
  try {
    await Promise.race([work, aborted.promise]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}
