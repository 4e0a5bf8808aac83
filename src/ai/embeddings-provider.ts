/** `embeddings` 1.0.0 of this device, whatever computes them. */

import type { Content, Provider, ProviderCall, ProviderState } from '@cocoon-mesh/capabilities';
import { MeshError } from '@cocoon-mesh/protocol';
import type { EmbeddingsBackend } from './embeddings-backend.ts';
import type { EmbeddingsSpace } from './embeddings-payload.ts';
import {
  embeddingsContent,
  embeddingsProtocol,
  embeddingsVersion,
  readEmbeddingsRequest,
} from './embeddings-payload.ts';

/** Requests that wait; a small one takes some milliseconds. */
const maxQueued = 64;

export class BackendEmbeddingsProvider implements Provider {
  readonly protocol = embeddingsProtocol;
  readonly version = embeddingsVersion;
  readonly maxQueued = maxQueued;
  readonly #backend: EmbeddingsBackend;
  #isClosed = false;

  constructor(backend: EmbeddingsBackend) {
    this.#backend = backend;
  }

  get limit(): number {
    return this.#backend.limit;
  }

  get state(): ProviderState {
    const { state } = this.#backend;
    if ('problem' in state)
      return { problem: state.problem, problemCode: 'model_unavailable', warm: false, features: [] };
    // One that compares words must not answer for one that compares meaning, unless there is no other.
    return {
      problem: null,
      warm: state.warm,
      isStandIn: !state.space.semantic,
      features: featuresOf(state.space),
    };
  }

  onChange(listener: () => void): () => void {
    return this.#backend.onChange(listener);
  }

  async handle(call: ProviderCall): Promise<Content> {
    if (this.#isClosed) throw new MeshError('shutting_down');
    const { state } = this.#backend;
    if ('problem' in state) throw new MeshError('model_unavailable', state.problem);
    assertFeatures(call.features, state.space);
    const task = readEmbeddingsRequest(call, state.space);
    const { vectors, tokens, space } = await this.#backend.embed(task, call.signal);
    // The model may have been replaced while the request waited for it.
    assertFeatures(call.features, space);
    return embeddingsContent(space, vectors, tokens);
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#backend.close();
  }
}

export function featuresOf({ model, space, semantic }: EmbeddingsSpace): readonly string[] {
  return [`model:${model}`, `space:${space}`, ...(semantic ? ['semantic'] : [])];
}

function assertFeatures(needed: readonly string[], space: EmbeddingsSpace): void {
  const missing = needed.find((feature) => !featuresOf(space).includes(feature));
  if (missing !== undefined)
    throw new MeshError(
      'capability_not_found',
      `The embeddings of this device have no ${missing}; they have ${space.model}`,
    );
}
