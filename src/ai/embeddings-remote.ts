/**
 * Embeddings by the HTTP server of a model. Which model it has is asked again and again: it is advertised while it is
 * there, and its space is that of the model it has now.
 */

import type { Clock, Timer } from '@cocoon-mesh/protocol';
import { MeshError, deadline, sha256, toHex, toMeshError, utf8 } from '@cocoon-mesh/protocol';
import { packVector } from '@cocoon-mesh/vectors';
import type { BackendState, EmbeddingsBackend } from './embeddings-backend.ts';
import { Listeners } from './embeddings-backend.ts';
import type { EmbeddingsSpace, EmbeddingsTask } from './embeddings-payload.ts';
import { abortError } from './llm-server.ts';

/** What differs between servers. */
export interface EmbeddingsServer {
  /** For people: `Ollama at http://127.0.0.1:11434`. */
  readonly name: string;
  /** @returns what names the model to askers, and all that decides about its vectors. @throws MeshError */
  describe(signal: AbortSignal): Promise<{ readonly model: string; readonly identity: string }>;
  /** A vector for each text, in order. @throws MeshError text_too_long · provider_failed · bad_answer … */
  embed(
    model: string,
    texts: readonly string[],
    truncate: boolean,
    signal: AbortSignal,
  ): Promise<{ readonly vectors: readonly Float32Array[]; readonly tokens: number }>;
}

/** Servers run several at once, and have queues of their own. */
const requestsAtOnce = 4;
/** Of one HTTP request: what comes back is parsed in the daemon. */
const textsAtOnce = 32;
const refreshMs = 30_000;
/** Somebody may just be starting it. */
const retryMs = 5_000;
/** Before vectors are computed with it, no older: another model may have got its name. */
const freshMs = 5_000;
/** Loading a model takes its time. */
const describeTimeoutMs = 120_000;
const probe = 'cocoon';

type Described =
  { readonly identity: string; readonly space: EmbeddingsSpace } | { readonly problem: MeshError };

export class RemoteEmbeddings implements EmbeddingsBackend {
  readonly limit = requestsAtOnce;
  readonly #server: EmbeddingsServer;
  readonly #clock: Clock;
  readonly #listeners = new Listeners();
  readonly #closed = new AbortController();
  #described: Described;
  #describedAt = -Infinity;
  #asking: Promise<void> | null = null;
  #timer: Timer | null = null;

  constructor(server: EmbeddingsServer, clock: Clock) {
    this.#server = server;
    this.#clock = clock;
    this.#described = { problem: new MeshError('model_unavailable', `${server.name} has not answered yet`) };
    void this.refresh();
  }

  get state(): BackendState {
    if ('problem' in this.#described) return { problem: this.#described.problem.message };
    return { space: this.#described.space, warm: true };
  }

  onChange(listener: () => void): () => void {
    return this.#listeners.add(listener);
  }

  /** Asks now, once for all who want it. Resolves in any case. */
  async refresh(): Promise<void> {
    if (this.#closed.signal.aborted) return;
    this.#asking ??= this.#ask().finally(() => (this.#asking = null));
    await this.#asking;
  }

  async embed({ texts, truncate }: EmbeddingsTask, asker: AbortSignal) {
    const signal = AbortSignal.any([asker, this.#closed.signal]);
    // Whoever leaves gives its place to the next at once, also where the server takes long to say what it has.
    if (this.#clock.monotonic() - this.#describedAt > freshMs) await orAborted(this.refresh(), signal);
    const described = this.#described;
    if ('problem' in described) throw described.problem;
    const { space } = described;
    const bytes = space.dimensions * 4;
    const packed = new Uint8Array(texts.length * bytes);
    let tokens = 0;
    for (let from = 0; from < texts.length; from += textsAtOnce) {
      const some = texts.slice(from, from + textsAtOnce);
      const answer = await this.#embedSome(space, some, from, truncate, signal);
      for (const [i, vector] of answer.vectors.entries()) packed.set(packVector(vector), (from + i) * bytes);
      tokens += answer.tokens;
    }
    return { vectors: packed, tokens, space };
  }

  async close(): Promise<void> {
    this.#closed.abort(new MeshError('cancelled', 'The device is stopping'));
    this.#timer?.cancel();
    await this.#asking;
  }

  async #embedSome(
    { model, dimensions }: EmbeddingsSpace,
    texts: readonly string[],
    from: number,
    truncate: boolean,
    signal: AbortSignal,
  ) {
    try {
      const answer = await this.#server.embed(model, texts, truncate, signal);
      assertVectors(this.#server.name, answer.vectors, texts.length, dimensions);
      return answer;
    } catch (thrown) {
      const error = toMeshError(thrown, 'provider_failed');
      if (error.code === 'text_too_long') {
        const which =
          texts.length === 1
            ? `input[${from}]`
            : `One of input[${from}] to input[${from + texts.length - 1}]`;
        throw new MeshError('text_too_long', `${which} is longer than ${model} takes`, { cause: error });
      }
      // What failed may be gone, or be another model by now.
      if (['provider_failed', 'not_found', 'bad_answer'].includes(error.code)) {
        this.#describedAt = -Infinity;
        void this.refresh();
      }
      throw error.code === 'not_found' ? new MeshError('model_unavailable', error.message) : error;
    }
  }

  async #ask(): Promise<void> {
    this.#timer?.cancel();
    const limit = deadline(this.#clock, describeTimeoutMs);
    const described = await this.#describe(AbortSignal.any([limit.signal, this.#closed.signal]));
    limit.cancel();
    if (this.#closed.signal.aborted) return;
    const isNew = sayOf(described) !== sayOf(this.#described);
    this.#described = described;
    this.#describedAt = this.#clock.monotonic();
    this.#timer = this.#clock.after('problem' in described ? retryMs : refreshMs, () => void this.refresh());
    if (isNew) this.#listeners.tell();
  }

  async #describe(signal: AbortSignal): Promise<Described> {
    try {
      const { model, identity } = await this.#server.describe(signal);
      if ('identity' in this.#described && this.#described.identity === identity) return this.#described;
      const { vectors } = await this.#server.embed(model, [probe], false, signal);
      const dimensions = vectors[0]?.length ?? 0;
      assertVectors(this.#server.name, vectors, 1, Math.max(1, dimensions));
      const space = toHex(await sha256(utf8(`${identity} ${dimensions}`)));
      return { identity, space: { model, space, semantic: true, dimensions } };
    } catch (thrown) {
      const { code, message } = toMeshError(thrown, 'provider_failed');
      const said = code === 'timeout' ? `${this.#server.name} does not answer` : message;
      return { problem: new MeshError('model_unavailable', said, { cause: thrown }) };
    }
  }
}

async function orAborted(promise: Promise<void>, signal: AbortSignal): Promise<void> {
  const aborted = Promise.withResolvers<never>();
  const abort = (): void => aborted.reject(abortError(signal));
  signal.addEventListener('abort', abort, { once: true });
  if (signal.aborted) abort();
  try {
    await Promise.race([promise, aborted.promise]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}

function assertVectors(
  server: string,
  vectors: readonly Float32Array[],
  count: number,
  dimensions: number,
): void {
  const bad = (what: string): MeshError => new MeshError('bad_answer', `${server} sent ${what}`);
  if (vectors.length !== count) throw bad(`${vectors.length} vectors for ${count} texts`);
  const other = vectors.find(({ length }) => length !== dimensions);
  if (other) throw bad(`a vector of ${other.length} dimensions, not ${dimensions}`);
  if (!vectors.every((vector) => vector.every(Number.isFinite)))
    throw bad('a vector with something that is no number');
}

function sayOf(described: Described): string {
  return 'problem' in described ? described.problem.message : described.space.space;
}
