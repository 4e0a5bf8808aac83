/**
 * The passages of the knowledge base in the space of this device's own model, beside the lexical one that is always
 * there. Without a model nothing happens here; with one that does not work, search goes on by words and says so.
 */

import { checkEmbeddings, readEmbeddingsAnswer } from '@cocoon-mesh/ai';
import type { Provider } from '@cocoon-mesh/capabilities';
import type { KnowledgeBase, SearchOptions } from '@cocoon-mesh/knowledge';
import type { Clock } from '@cocoon-mesh/protocol';
import { MeshError, deadline, toMeshError } from '@cocoon-mesh/protocol';
import type { VectorsView } from './knowledge-view.ts';

type Vector = NonNullable<SearchOptions['vector']>;

/** Enough for batches of the model, and little enough that a cancelled fill has lost little. */
const passagesAtOnce = 64;
/** A slow model on a slow machine; one that takes longer does not answer at all. */
const batchMs = 120_000;
/** Whoever searches does not wait longer for a model that is just being loaded: their words are looked for anyway. */
const questionMs = 2_000;

export class KnowledgeVectors {
  readonly #provider: Provider | null;
  readonly #clock: Clock;
  /** Fingerprints of spaces with vectors in them, as far as known: no model is loaded to search where nothing is. */
  #filled: ReadonlySet<string> | null = null;

  /** @param provider null: embeddings were switched off */
  constructor(provider: Provider | null, clock: Clock) {
    this.#provider = provider;
    this.#clock = clock;
  }

  /** Without asking the model anything. */
  get view(): VectorsView {
    const provider = this.#model();
    return {
      model: provider ? featureOf(provider, 'model:') : null,
      problem: provider?.state.problem ?? null,
      embedded: 0,
    };
  }

  /** Gives all passages a vector that have none in the space of the model. Rejects only when it is cancelled. */
  async embedMissing(
    base: KnowledgeBase,
    signal: AbortSignal | undefined,
    onProgress: (embedded: number) => void,
  ): Promise<VectorsView> {
    const provider = this.#model();
    if (!provider) return this.view;
    let embedded = 0;
    try {
      const space = await checkEmbeddings(provider, this.#clock);
      if ('problem' in space) throw new MeshError('model_unavailable', space.problem);
      const { model: name, space: fingerprint, dimensions, semantic } = space;
      this.#filled = null;
      await base.useSpace({ name, fingerprint, dimensions, semantic }, signal);
      for (;;) {
        const passages = await base.chunksWithout(fingerprint, passagesAtOnce, signal);
        if (passages.length === 0) return { model: name, problem: null, embedded };
        const texts = passages.map(({ heading, text }) => `${heading}\n${text}`);
        const vectors = await this.#batch(provider, fingerprint, texts, signal);
        const stored = passages.map(({ id }, i) => ({ id, vector: vectors[i] ?? new Float32Array() }));
        await base.putVectors(fingerprint, stored, signal);
        embedded += passages.length;
        onProgress(embedded);
      }
    } catch (thrown) {
      if (signal?.aborted === true) throw thrown;
      return { model: featureOf(provider, 'model:'), problem: toMeshError(thrown).message, embedded };
    }
  }

  /** Of a question, if there is something to compare it with; null: it is searched for by its words. */
  async of(base: KnowledgeBase, text: string, signal: AbortSignal): Promise<Vector | null> {
    const provider = this.#model();
    const fingerprint = provider && featureOf(provider, 'space:');
    if (!provider || fingerprint === null) return null;
    const limit = deadline(this.#clock, questionMs);
    try {
      this.#filled ??= await filledSpaces(base, signal);
      if (!this.#filled.has(fingerprint)) return null;
      const either = AbortSignal.any([signal, limit.signal]);
      const [values] = await embed(provider, fingerprint, [text], either);
      return values ? { fingerprint, values } : null;
    } catch (thrown) {
      if (signal.aborted) throw thrown;
      return null;
    } finally {
      limit.cancel();
    }
  }

  /** @throws MeshError timeout, and as `embed` */
  async #batch(
    provider: Provider,
    fingerprint: string,
    texts: readonly string[],
    signal: AbortSignal | undefined,
  ): Promise<readonly Float32Array[]> {
    const limit = deadline(this.#clock, batchMs);
    try {
      const either = signal ? AbortSignal.any([signal, limit.signal]) : limit.signal;
      return await embed(provider, fingerprint, texts, either);
    } finally {
      limit.cancel();
    }
  }

  /** That of a model: what compares words is in the base anyway. */
  #model(): Provider | null {
    return this.#provider?.state.isStandIn === true ? null : this.#provider;
  }
}

/** Of length 1, so that their product says how alike they are. */
async function embed(
  provider: Provider,
  fingerprint: string,
  texts: readonly string[],
  signal: AbortSignal,
): Promise<readonly Float32Array[]> {
  const content = await provider.handle({
    payload: { input: [...texts], truncate: true },
    parts: [],
    signal,
    session: null,
    features: [`space:${fingerprint}`],
    from: { id: '', name: 'knowledge base' },
  });
  if (Symbol.asyncIterator in content) throw new MeshError('bad_answer', 'The embeddings come as a stream');
  return readEmbeddingsAnswer(content, texts.length).vectors.map((vector) => {
    const length = Math.hypot(...vector) || 1;
    return vector.map((value) => value / length);
  });
}

function featureOf({ state }: Provider, prefix: string): string | null {
  return state.features.find((feature) => feature.startsWith(prefix))?.slice(prefix.length) ?? null;
}

async function filledSpaces(base: KnowledgeBase, signal: AbortSignal): Promise<ReadonlySet<string>> {
  const { spaces } = await base.stats(signal);
  return new Set(spaces.filter(({ vectors }) => vectors > 0).map(({ fingerprint }) => fingerprint));
}
