/** What the daemon asks of the process of a language model, and what comes back. */

import type { ChatMessage, ChatRequest } from './chat-payload.ts';

export interface Generation {
  readonly kind: 'generate';
  /** Names this one for `more`. */
  readonly key: string;
  readonly messages: readonly ChatMessage[];
  readonly tools: NonNullable<ChatRequest['tools']>;
  /** Null: up to the end of the context. */
  readonly maxTokens: number | null;
  /** Nulls: as the model's own configuration has it. */
  readonly temperature: number | null;
  readonly topP: number | null;
  readonly topK: number | null;
  readonly seed: number | null;
  readonly stop: readonly string[];
  /** So many pieces may be sent before `more` comes. */
  readonly credit: number;
}

/** More pieces may be sent: whoever reads has read some. */
export interface MorePieces {
  readonly kind: 'more';
  readonly key: string;
  readonly credit: number;
}

export type LlmRequest = Generation | MorePieces;

/** A piece of the text, never empty. */
export interface LlmPiece {
  readonly text: string;
}

export interface LlmEnd {
  readonly reason: 'stop' | 'length';
  readonly promptTokens: number;
  readonly completionTokens: number;
}
