/**
 * `llm.chat` 1.0.0 of this device, whatever runs its models. Nothing is advertised while there is none: no provider
 * is configured, or it is down, and then its state says why.
 */

import type { Content, Provider, ProviderCall, ProviderState } from '@cocoon-mesh/capabilities';
import type { Clock, Json } from '@cocoon-mesh/protocol';
import { MeshError, limits } from '@cocoon-mesh/protocol';
import type { ChatBackend, ModelRequest } from './chat-backend.ts';
import { ChatModels } from './chat-models.ts';
import { chatProtocol, chatVersion, readChatRequest, wantsStream } from './chat-payload.ts';
import { abortError } from './llm-server.ts';
import { WholeCharacters } from './whole-characters.ts';

/** Chats that wait; each is held in memory, and whoever asks sees nothing meanwhile. */
const maxQueued = 32;
const maxFeatureLength = 256;
/** Characters of all of them: every device that looks for a model is told them. */
const maxFeaturesLength = 32 * 1024;

export interface BackendProviderOptions {
  readonly backend: ChatBackend;
  /** COCOON_LLM_MODEL: must be there, and serves whoever names none. */
  readonly model: string | null;
  readonly clock: Clock;
}

export class BackendChatProvider implements Provider {
  readonly protocol = chatProtocol;
  readonly version = chatVersion;
  readonly maxQueued = maxQueued;
  readonly #backend: ChatBackend;
  readonly #models: ChatModels;
  readonly #listeners = new Set<() => void>();
  readonly #closed = new AbortController();

  constructor({ backend, model, clock }: BackendProviderOptions) {
    this.#backend = backend;
    this.#models = new ChatModels(backend, {
      model,
      clock,
      changed: () => {
        for (const listener of this.#listeners) listener();
      },
    });
    backend.watch?.(() => void this.#models.refresh());
  }

  get limit(): number {
    return this.#backend.limit;
  }

  get state(): ProviderState {
    const { list } = this.#models;
    if (list.problem !== null)
      return { problem: list.problem, problemCode: 'model_unavailable', warm: false, features: [] };
    const names = list.models.map(({ name }) => `model:${name}`);
    const tools = list.models.some((model) => model.tools) ? ['tools'] : [];
    return {
      problem: null,
      warm: list.models.some(({ loaded }) => loaded),
      features: fitting([...tools, ...names]),
    };
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Asks for the models now, so that whoever starts need not wait for the next time. */
  refresh(): Promise<void> {
    return this.#models.refresh();
  }

  handle(call: ProviderCall): Promise<Content> | AsyncIterable<Content> {
    return wantsStream(call.payload) ? this.#stream(call) : this.#complete(call);
  }

  async close(): Promise<void> {
    this.#models.close();
    this.#closed.abort(new MeshError('cancelled', 'The device is stopping'));
    this.#listeners.clear();
    await this.#backend.close();
  }

  async *#stream(call: ProviderCall): AsyncGenerator<Content> {
    const signal = AbortSignal.any([call.signal, this.#closed.signal]);
    const characters = new WholeCharacters();
    try {
      for await (const chunk of this.#backend.stream(this.#read(call), signal)) {
        if (signal.aborted) throw abortError(signal);
        yield asContent(characters.join(chunk));
      }
    } catch (thrown) {
      throw this.#failed(thrown);
    }
  }

  async #complete(call: ProviderCall): Promise<Content> {
    const signal = AbortSignal.any([call.signal, this.#closed.signal]);
    try {
      return asContent(await this.#backend.complete(this.#read(call), signal));
    } catch (thrown) {
      throw this.#failed(thrown);
    }
  }

  /** @throws MeshError bad_payload | model_unavailable */
  #read({ payload, parts }: ProviderCall): ModelRequest {
    if (parts.length > 0) throw new MeshError('bad_payload', 'A chat has no binary parts');
    const request = readChatRequest(payload);
    const { list } = this.#models;
    if (typeof request.model === 'string') return { ...request, model: request.model };
    if (list.problem !== null) throw new MeshError('model_unavailable', list.problem);
    return { ...request, model: list.models[0].name };
  }

  /** What failed may be gone; that is to be known before the next request comes. */
  #failed(thrown: unknown): unknown {
    if (thrown instanceof MeshError && (thrown.code === 'provider_failed' || thrown.code === 'not_found'))
      void this.#models.refresh();
    return thrown;
  }
}

/** The first that may be told. */
function fitting(features: readonly string[]): readonly string[] {
  let length = 0;
  return features
    .filter((feature) => feature.length <= maxFeatureLength)
    .slice(0, limits.maxCapabilityFeatures)
    .filter((feature) => (length += feature.length) <= maxFeaturesLength);
}

/** Chunks and completions are JSON: that is what they were read from. */
function asContent(value: object): Content {
  return { payload: value as Json, parts: [] };
}
