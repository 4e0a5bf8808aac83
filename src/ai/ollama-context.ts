/**
 * How large a context to ask Ollama for. Too small, and it forgets the beginning of the chat without saying so; too
 * large, and it takes memory for nothing. Only its own tokenizer could tell exactly, so this is a guess that is
 * rather too high.
 */

import type { ModelRequest } from './chat-backend.ts';
import { maxAnswerTokens } from './chat-payload.ts';

/** Each other size loads the model anew, so small chats share one. */
const smallestContext = 8192;
/** For an answer nobody limited. */
const answerTokens = 4096;
/** What a template puts around all of it. */
const templateTokens = 256;
const messageTokens = 12;
/** Of a model that does not say how much it takes. */
const largestUnknown = 131_072;
/** The largest that common vision models make of a picture. */
const imageTokens = 4096;

export interface OllamaRoom {
  readonly numCtx: number;
  /** Tokens of the answer: up to the end of the context, where old versions would begin to forget. */
  readonly numPredict: number;
}

/**
 * @param largest that the model takes; null: nobody knows
 * @param before what the last request had: growing is enough
 * @returns null: it does not fit
 */
export function roomFor(request: ModelRequest, largest: number | null, before: number): OllamaRoom | null {
  const prompt = promptTokens(request);
  const limit = largest ?? largestUnknown;
  if (prompt + 1 > limit) return null;
  const asked = maxAnswerTokens(request);
  const needed = Math.min(limit, prompt + (asked ?? answerTokens));
  let size = smallestContext;
  while (size < needed) size *= 2;
  const numCtx = Math.min(limit, Math.max(size, before));
  return { numCtx, numPredict: Math.min(asked ?? numCtx, numCtx - prompt) };
}

/** Rather too many. */
export function promptTokens({ messages, tools, response_format: format }: ModelRequest): number {
  let tokens = templateTokens + messages.length * messageTokens;
  for (const { content, tool_calls: calls } of messages) {
    if (typeof content === 'string') tokens += textTokens(content);
    else
      for (const part of content ?? [])
        tokens += typeof part['text'] === 'string' ? textTokens(part['text']) : imageTokens;
    if (calls) tokens += textTokens(JSON.stringify(calls));
  }
  if (tools) tokens += textTokens(JSON.stringify(tools));
  if (format) tokens += textTokens(JSON.stringify(format));
  return tokens;
}

/** Words in Latin letters are the only thing that tokenizers pack well; a run this long is no word. */
const longestWord = 20;
/** Most belong to the word behind them; runs of them are packed. */
const spaceTokens = 0.1;

/**
 * English has 1.3 tokens a word and this says 2; digits, punctuation and long runs (base64, hashes) are one each,
 * everything else two thirds of its bytes.
 */
export function textTokens(text: string): number {
  let tokens = 0;
  let word = 0;
  const endWord = (): void => {
    tokens += word > longestWord ? word : Math.ceil(word / 2.5);
    word = 0;
  };
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (isLetter(code) || (word > 0 && isDigit(code))) {
      word++;
      continue;
    }
    endWord();
    if (code === 0x20) tokens += spaceTokens;
    else if (code < 0x80) tokens += 1;
    else tokens += code < 0x800 ? 1.4 : 2;
  }
  endWord();
  return Math.ceil(tokens);
}

function isLetter(code: number): boolean {
  return (code >= 0x41 && code <= 0x5a) || (code >= 0x61 && code <= 0x7a);
}

function isDigit(code: number): boolean {
  return code >= 0x30 && code <= 0x39;
}
