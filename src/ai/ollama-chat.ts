/** Chat by Ollama's own API: NDJSON becomes chunks of OpenAI's shape, and nothing is cut without a word. */

import type { Clock } from '@cocoon-mesh/protocol';
import { MeshError, limits } from '@cocoon-mesh/protocol';
import * as z from 'zod/mini';
import type { ChatBackend, ChatModel, ModelRequest } from './chat-backend.ts';
import { gatherCompletion, usageChunk } from './chat-gather.ts';
import type { ChatChunk, ChatCompletion, ChatDelta } from './chat-payload.ts';
import type { ModelServer } from './llm-server.ts';
import { shortName } from './model-address.ts';
import type { OllamaRoom } from './ollama-context.ts';
import { roomFor } from './ollama-context.ts';
import type { OllamaLine } from './ollama-messages.ts';
import { deltaOf, finishReason, ollamaLineSchema, toOllama } from './ollama-messages.ts';
import { newChatId } from './openai-chat.ts';
import { readLines } from './sse.ts';

/** It runs that many of a model at once when there is memory, and has a queue of its own. */
const atOnce = 2;
const maxLineLength = limits.maxCapabilityJsonBytes;

const modelField = z.looseObject({ name: z.string().check(z.minLength(1)) });
const tagsSchema = z.looseObject({ models: z.nullable(z.array(modelField).check(z.maxLength(10_000))) });
const showSchema = z.looseObject({
  capabilities: z.optional(z.nullable(z.array(z.string()))),
  model_info: z.optional(z.nullable(z.looseObject({}))),
});

/** What `/api/show` says of a model; it does not change under one digest. */
interface ModelFacts {
  readonly chats: boolean;
  readonly tools: boolean;
  readonly contextLength: number | null;
}

export class OllamaChat implements ChatBackend {
  readonly limit = atOnce;
  readonly #server: ModelServer;
  readonly #clock: Clock;
  readonly #facts = new Map<string, ModelFacts>();
  /** The context that a model was last asked for: another one loads it anew. */
  readonly #contexts = new Map<string, number>();

  constructor({ server, clock }: { readonly server: ModelServer; readonly clock: Clock }) {
    this.#server = server;
    this.#clock = clock;
  }

  get name(): string {
    return this.#server.name;
  }

  async models(signal: AbortSignal): Promise<ChatModel[]> {
    const { models } = await this.#server.askJson('/api/tags', undefined, tagsSchema, signal);
    const loaded = await this.#loaded(signal);
    const listed = models ?? [];
    const keys = new Set(listed.map(factsKey));
    for (const key of this.#facts.keys()) if (!keys.has(key)) this.#facts.delete(key);
    const found: ChatModel[] = [];
    for (const model of listed) {
      const { name } = model;
      const { chats, tools } = await this.#factsOf(name, factsKey(model), signal);
      if (chats) found.push({ name: shortName(name), tools, loaded: loaded.has(name) });
    }
    return found;
  }

  async *stream(request: ModelRequest, signal: AbortSignal): AsyncGenerator<ChatChunk> {
    const room = await this.#room(request, signal);
    const response = await this.#server.ask('/api/chat', toOllama(request, room), signal);
    const id = newChatId();
    const created = Math.floor(this.#clock.now() / 1000);
    const chunk = (delta: ChatDelta, line: OllamaLine, reason: string | null): ChatChunk => ({
      id,
      object: 'chat.completion.chunk',
      created,
      model: request.model,
      choices: [{ index: 0, delta, ...logprobsOf(line), finish_reason: reason }],
    });
    let calls = 0;
    let first = true;
    for await (const text of readLines(this.#server.body(response, signal), maxLineLength)) {
      const line = this.#server.parse(text, ollamaLineSchema);
      const delta = deltaOf(line, calls, () => newChatId('call_'));
      calls += delta.tool_calls?.length ?? 0;
      if (Object.keys(delta).length > 0) {
        yield chunk(first ? { role: 'assistant', ...delta } : delta, line, null);
        first = false;
      }
      if (!line.done) continue;
      yield chunk(first ? { role: 'assistant' } : {}, line, finishReason(line, calls));
      const [prompt, completion] = [line.prompt_eval_count ?? 0, line.eval_count ?? 0];
      yield usageChunk(
        { id, created, model: request.model },
        { prompt_tokens: prompt, completion_tokens: completion, total_tokens: prompt + completion },
      );
      return;
    }
    throw this.#server.brokeOff();
  }

  async complete(request: ModelRequest, signal: AbortSignal): Promise<ChatCompletion> {
    return gatherCompletion(this.stream(request, signal), limits.maxCapabilityJsonBytes / 4);
  }

  async close(): Promise<void> {
    // Each request holds its own connection.
  }

  /** @throws MeshError text_too_long */
  async #room(request: ModelRequest, signal: AbortSignal): Promise<OllamaRoom> {
    const { model } = request;
    const facts =
      [...this.#facts].find(([key]) => shortName(key.slice(0, key.indexOf(' '))) === shortName(model))?.[1] ??
      (await this.#factsOf(model, `${model} `, signal));
    const room = roomFor(request, facts.contextLength, this.#contexts.get(model) ?? 0);
    if (room === null)
      throw new MeshError(
        'text_too_long',
        `The chat is longer than the ${facts.contextLength} tokens that ${model} takes, and Ollama would forget its beginning`,
        { hint: 'Leave out old messages, or use a model with a longer context.' },
      );
    this.#contexts.set(model, room.numCtx);
    return room;
  }

  async #loaded(signal: AbortSignal): Promise<Set<string>> {
    const running = await unlessMissing(this.#server.askJson('/api/ps', undefined, tagsSchema, signal));
    return new Set((running?.models ?? []).map(({ name }) => name));
  }

  async #factsOf(model: string, key: string, signal: AbortSignal): Promise<ModelFacts> {
    const known = this.#facts.get(key);
    if (known) return known;
    // One that was removed meanwhile says so itself when it is asked.
    const shown = await unlessMissing(this.#server.askJson('/api/show', { model }, showSchema, signal));
    if (shown === null) return { chats: true, tools: true, contextLength: null };
    const abilities = shown.capabilities;
    const [, length] =
      Object.entries(shown.model_info ?? {}).find(([n]) => n.endsWith('.context_length')) ?? [];
    const facts: ModelFacts = {
      // Old versions do not say what a model can; then it shows when it is asked.
      chats: abilities?.includes('completion') ?? true,
      tools: abilities?.includes('tools') ?? true,
      contextLength: typeof length === 'number' && length > 0 ? Math.floor(length) : null,
    };
    this.#facts.set(key, facts);
    return facts;
  }
}

/** Null: `not_found`. Old versions lack some paths. */
async function unlessMissing<T>(asked: Promise<T>): Promise<T | null> {
  try {
    return await asked;
  } catch (thrown) {
    if (thrown instanceof MeshError && thrown.code === 'not_found') return null;
    throw thrown;
  }
}

function factsKey(model: { readonly name: string; readonly [field: string]: unknown }): string {
  return `${model.name} ${typeof model['digest'] === 'string' ? model['digest'] : ''}`;
}

function logprobsOf({ logprobs }: OllamaLine): { logprobs?: { content: unknown[] } } {
  return logprobs && logprobs.length > 0 ? { logprobs: { content: logprobs } } : {};
}
