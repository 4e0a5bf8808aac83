/** One capability of a plugin as the rest of the daemon sees it. */

import type { Content, Provider, ProviderCall, ProviderState } from '@cocoon-mesh/capabilities';
import { MeshError } from '@cocoon-mesh/protocol';
import type { PluginCapability } from './manifest-fields.ts';
import type { PluginAnswer, PluginRequest } from './request-answer.ts';

/** What a provider needs of its plugin. */
export interface PluginFace {
  readonly problem: string | null;
  /** @throws MeshError plugin_failed */
  request(request: PluginRequest): PluginAnswer;
  onChange(listener: () => void): () => void;
}

const queuedPerPlace = 8;

export class PluginProvider implements Provider {
  readonly protocol: string;
  readonly version: string;
  readonly limit: number;
  readonly maxQueued: number;
  readonly #capability: PluginCapability;
  readonly #plugin: PluginFace;
  #isClosed = false;

  constructor(capability: PluginCapability, plugin: PluginFace) {
    this.#capability = capability;
    this.#plugin = plugin;
    this.protocol = capability.protocol;
    this.version = capability.version;
    this.limit = capability.limit;
    this.maxQueued = capability.limit * queuedPerPlace;
  }

  get state(): ProviderState {
    const problem = this.#isClosed ? 'It was removed' : this.#plugin.problem;
    const state = { problem, warm: problem === null, features: this.#capability.features };
    return problem === null ? state : { ...state, problemCode: 'plugin_failed' };
  }

  onChange(listener: () => void): () => void {
    return this.#plugin.onChange(listener);
  }

  handle(call: ProviderCall): Promise<Content> | AsyncIterable<Content> {
    return this.#capability.streams ? this.#stream(call) : this.#whole(call);
  }

  /** The plugin's process belongs to its host. */
  async close(): Promise<void> {
    this.#isClosed = true;
  }

  async #whole(call: ProviderCall): Promise<Content> {
    const { reader, settled } = this.#request(call);
    try {
      for await (const _ of reader.chunks())
        throw new MeshError(
          'bad_answer',
          `${this.protocol} ${this.version} streams, which its manifest does not say`,
        );
      return await reader.end;
    } finally {
      // The place is taken until the plugin really is done.
      await settled;
    }
  }

  /** What the plugin's own iterable returns follows the last chunk. */
  async *#stream(call: ProviderCall): AsyncGenerator<Content, Content, undefined> {
    const { reader, settled } = this.#request(call);
    try {
      return yield* reader.chunks();
    } finally {
      await settled;
    }
  }

  #request({ payload, parts, signal, session, features, from }: ProviderCall): PluginAnswer {
    const target = { kind: 'capability' as const, protocol: this.protocol, version: this.version };
    return this.#plugin.request({ target, payload, parts, signal, session, features, from });
  }
}
