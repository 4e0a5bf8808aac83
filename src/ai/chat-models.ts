/**
 * Which models a backend has at the moment. It is asked again and again: models come and go, and a server that is
 * down comes back without telling.
 */

import type { Clock, Timer } from '@cocoon-mesh/protocol';
import { deadline, toMeshError } from '@cocoon-mesh/protocol';
import type { ChatBackend, ChatModel } from './chat-backend.ts';
import { shortName } from './model-address.ts';

/** How old a list may be. */
export const refreshMs = 30_000;
/** A server that is down is asked more often: somebody is just starting it. */
export const retryMs = 5_000;
/** Listing is quick, or the server hangs. */
const listTimeoutMs = 10_000;

export type ModelList =
  | { readonly problem: null; readonly models: readonly [ChatModel, ...ChatModel[]] }
  /** A sentence. */
  | { readonly problem: string };

export class ChatModels {
  readonly #backend: Pick<ChatBackend, 'name' | 'models'>;
  readonly #model: string | null;
  readonly #clock: Clock;
  readonly #changed: () => void;
  readonly #closed = new AbortController();
  #list: ModelList;
  #timer: Timer | null = null;
  #asking: Promise<void> | null = null;

  constructor(
    backend: Pick<ChatBackend, 'name' | 'models'>,
    {
      model,
      clock,
      changed,
    }: {
      /** Must be there, and comes first; null: whichever comes first. */
      readonly model: string | null;
      readonly clock: Clock;
      readonly changed: () => void;
    },
  ) {
    this.#backend = backend;
    this.#model = model;
    this.#clock = clock;
    this.#changed = changed;
    this.#list = { problem: `${backend.name} has not answered yet` };
    void this.refresh();
  }

  get list(): ModelList {
    return this.#list;
  }

  /** Asks now, once for all who want it. Resolves in any case. */
  refresh(): Promise<void> {
    if (this.#closed.signal.aborted) return Promise.resolve();
    this.#asking ??= this.#ask().finally(() => (this.#asking = null));
    return this.#asking;
  }

  /** Idempotent. */
  close(): void {
    this.#closed.abort(new DOMException('Closed', 'AbortError'));
    this.#timer?.cancel();
  }

  async #ask(): Promise<void> {
    this.#timer?.cancel();
    const limit = deadline(this.#clock, listTimeoutMs);
    const signal = AbortSignal.any([limit.signal, this.#closed.signal]);
    const list = await this.#find(signal);
    limit.cancel();
    if (this.#closed.signal.aborted) return;
    const isNew = JSON.stringify(list) !== JSON.stringify(this.#list);
    this.#list = list;
    this.#timer = this.#clock.after(list.problem === null ? refreshMs : retryMs, () => void this.refresh());
    if (isNew) this.#changed();
  }

  #listOf(models: readonly ChatModel[]): ModelList {
    const { name } = this.#backend;
    const wanted = this.#model;
    const first = models.find((model) => wanted === null || shortName(model.name) === shortName(wanted));
    if (first) return { problem: null, models: [first, ...models.filter((model) => model !== first)] };
    if (models.length === 0) return { problem: `${name} has no model that chats` };
    return { problem: `${name} has no model ${wanted}; it has ${shown(models)}` };
  }

  async #find(signal: AbortSignal): Promise<ModelList> {
    try {
      const models = await this.#backend.models(signal);
      return this.#listOf(models);
    } catch (thrown) {
      const { code, message } = toMeshError(thrown, 'provider_failed');
      return {
        problem: code === 'timeout' ? `${this.#backend.name} does not answer` : message,
      };
    }
  }
}

function shown(models: readonly ChatModel[]): string {
  const names = models.slice(0, 5).map(({ name }) => name);
  return models.length > names.length ? `${names.join(', ')} and others` : names.join(', ');
}
