/** What `chat-provider.ts` needs of whatever runs models: a list of them, and answers. */

import type { ChatChunk, ChatCompletion, ChatRequest } from './chat-payload.ts';

export interface ChatModel {
  readonly name: string;
  /** False: it is known not to call tools. */
  readonly tools: boolean;
  /** It is in memory. */
  readonly loaded: boolean;
}

/** A request with its model chosen. */
export type ModelRequest = ChatRequest & { readonly model: string };

export interface ChatBackend {
  /** For people: `Ollama at http://127.0.0.1:11434`. */
  readonly name: string;
  /** Requests at once. */
  readonly limit: number;
  /** Told when the models may have changed, where they are not only to be looked at from time to time. */
  watch?(changed: () => void): void;
  /** @throws MeshError why there are none */
  models(signal: AbortSignal): Promise<readonly ChatModel[]>;
  /**
   * Chunks as they come; the last has the usage and no choices. Leaving it early ends the generation.
   * @throws MeshError
   */
  stream(request: ModelRequest, signal: AbortSignal): AsyncIterable<ChatChunk>;
  /** @throws MeshError */
  complete(request: ModelRequest, signal: AbortSignal): Promise<ChatCompletion>;
  /** Idempotent. */
  close(): Promise<void>;
}
