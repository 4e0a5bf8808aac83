/**
 * What people read of an answer to `cocoon request`: of a chat its words, of anything else its JSON. Whoever wants
 * all of it asks for `--json`.
 */

import { textOf } from '@cocoon-mesh/ai/chat-content.ts';
import { chatChunkSchema, chatCompletionSchema, chatProtocol } from '@cocoon-mesh/ai/chat-payload.ts';

/** Text that others follow at once, or a line of its own. */
export type ShownPiece = { readonly text: string } | { readonly line: string };

export function shownPiece(protocol: string, payload: unknown): ShownPiece {
  const chunk = protocol === chatProtocol ? chatChunkSchema.safeParse(payload) : null;
  if (!chunk?.success) return { line: JSON.stringify(payload) };
  const { choices } = chunk.data;
  const calls = choices.filter(({ delta }) => delta.tool_calls && delta.tool_calls.length > 0);
  if (calls.length > 0) return { line: JSON.stringify(calls.map(({ delta }) => delta)) };
  return { text: choices.map(({ delta }) => textOf({ content: delta.content })).join('') };
}

/** @param whole what the answer is, or all its pieces */
export function shownWhole(protocol: string, whole: unknown): string {
  if (typeof whole === 'string') return whole;
  if (protocol === chatProtocol) {
    const completion = chatCompletionSchema.safeParse(whole);
    const [choice, ...others] = completion.data?.choices ?? [];
    if (choice && others.length === 0 && !choice.message.tool_calls) return textOf(choice.message);
    const pieces = Array.isArray(whole) ? whole.map((piece) => shownPiece(protocol, piece)) : [];
    if (pieces.length > 0 && pieces.every((piece) => 'text' in piece))
      return pieces.map(({ text }) => text).join('');
  }
  return readable(whole);
}

/** Lists of numbers in one line: a vector has hundreds. Within texts there are no line breaks. */
function readable(value: unknown): string {
  const numbers = /\[\n\s+(?:-?\d[\d.eE+-]*(?:,\n)?\s*)+\]/g;
  return JSON.stringify(value, null, 2).replace(numbers, (list) => JSON.stringify(JSON.parse(list)));
}

/** A chat streams when its request says so; whoever wants to read along means that. */
export function payloadToStream(protocol: string, payload: unknown): unknown {
  const isObject = typeof payload === 'object' && payload !== null && !Array.isArray(payload);
  return protocol === chatProtocol && isObject && !('stream' in payload)
    ? { ...payload, stream: true }
    : payload;
}
