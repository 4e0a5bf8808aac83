/** What `embeddings-provider.ts` needs of whatever embeds. */

import type { EmbeddingsSpace, EmbeddingsTask } from './embeddings-payload.ts';

export type BackendState =
  | { readonly space: EmbeddingsSpace; readonly warm: boolean }
  /** Why it does not embed, in a sentence. */
  | { readonly problem: string };

export interface EmbeddingsBackend {
  /** Requests at once. */
  readonly limit: number;
  readonly state: BackendState;
  /** @returns forgets the listener */
  onChange(listener: () => void): () => void;
  /**
   * @returns packed vectors, one after the other, and how many tokens the texts had
   * @throws MeshError text_too_long · model_unavailable · provider_failed · bad_answer …; the signal's reason
   */
  embed(
    task: EmbeddingsTask,
    signal: AbortSignal,
  ): Promise<{ readonly vectors: Uint8Array; readonly tokens: number; readonly space: EmbeddingsSpace }>;
  /** Idempotent. */
  close(): Promise<void>;
}

/** Those who want to know of changes. */
export class Listeners {
  readonly #all = new Set<() => void>();

  add(listener: () => void): () => void {
    this.#all.add(listener);
    return () => void this.#all.delete(listener);
  }

  tell(): void {
    for (const listener of this.#all) listener();
  }
}
