/** The pieces of a chat as text: whether a chunk carries anything yet, and what a message says. */

import type { ChatChunk, ChatMessage, ChatUsage } from './chat-payload.ts';

/**
 * Does it carry something of the answer? Roles and chunks that keep the connection alive do not: until the first
 * that does, another device may still answer instead.
 */
export function hasContent({ choices }: ChatChunk): boolean {
  return choices.some(({ delta, finish_reason: reason }) => {
    if (typeof reason === 'string') return true;
    return Object.entries(delta).some(([name, value]) => name !== 'role' && isSomething(value));
  });
}

function isSomething(value: unknown): boolean {
  if (value === null || value === undefined || value === '') return false;
  return !Array.isArray(value) || value.length > 0;
}

/** The text of a message, its text parts joined. */
export function textOf({ content }: Pick<ChatMessage, 'content'>): string {
  if (typeof content === 'string') return content;
  return (content ?? [])
    .map((part) => (part.type === 'text' && typeof part['text'] === 'string' ? part['text'] : ''))
    .join('');
}

/** For a server that does not count: four letters are a token, roughly. */
export function estimateUsage(promptLength: number, answerLength: number): ChatUsage {
  const prompt = Math.ceil(promptLength / 4);
  const completion = Math.ceil(answerLength / 4);
  return {
    prompt_tokens: prompt,
    completion_tokens: completion,
    total_tokens: prompt + completion,
    estimated: true,
  };
}
