/**
 * Chat by any server with the API of OpenAI: vLLM, llama.cpp, LM Studio, LiteLLM, a cloud. What is asked goes there
 * as it is, and answers come back as they are, with the few things that `llm.chat` promises put right.
 */

import type { Clock } from '@cocoon-mesh/protocol';
import { limits } from '@cocoon-mesh/protocol';
import * as z from 'zod/mini';
import type { ChatBackend, ChatModel, ModelRequest } from './chat-backend.ts';
import { estimateUsage, textOf } from './chat-content.ts';
import { chunksOf, usageChunk } from './chat-gather.ts';
import type { ChatChunk, ChatCompletion, ChatUsage } from './chat-payload.ts';
import { chatChunkSchema, chatCompletionSchema, chatUsageSchema } from './chat-payload.ts';
import type { ModelServer } from './llm-server.ts';
import { readEvents } from './sse.ts';

/** Servers run several at once, and have queues of their own. */
const atOnce = 8;
/** One piece of a stream; a picture may be in one. */
const maxEventLength = limits.maxCapabilityJsonBytes;

const modelListSchema = z.looseObject({
  data: z.array(z.looseObject({ id: z.string().check(z.minLength(1)) })).check(z.maxLength(10_000)),
});

export interface OpenAiChatOptions {
  readonly server: ModelServer;
  readonly clock: Clock;
  /** Served even if the server lists no models. */
  readonly model: string | null;
}

export class OpenAiChat implements ChatBackend {
  readonly limit = atOnce;
  readonly #server: ModelServer;
  readonly #clock: Clock;
  readonly #model: string | null;

  constructor({ server, clock, model }: OpenAiChatOptions) {
    this.#server = server;
    this.#clock = clock;
    this.#model = model;
  }

  get name(): string {
    return this.#server.name;
  }

  async models(signal: AbortSignal): Promise<ChatModel[]> {
    const names = await this.#names(signal);
    return names.map((name) => ({ name, tools: true, loaded: true }));
  }

  async *stream(request: ModelRequest, signal: AbortSignal): AsyncGenerator<ChatChunk> {
    const response = await this.#server.ask(
      '/chat/completions',
      {
        ...request,
        stream: true,
        // Without it hardly any server counts.
        stream_options: { ...request.stream_options, include_usage: true },
      },
      signal,
    );
    const type = response.headers.get('content-type') ?? '';
    if (/^application\/json\b/i.test(type)) {
      // It does not stream; what it says is an answer none the less.
      yield* chunksOf(await this.#completion(response, request, signal));
      return;
    }
    yield* this.#chunks(readEvents(this.#server.body(response, signal), maxEventLength), request);
  }

  async complete(request: ModelRequest, signal: AbortSignal): Promise<ChatCompletion> {
    const { stream_options: _options, ...rest } = request;
    const response = await this.#server.ask('/chat/completions', { ...rest, stream: false }, signal);
    return this.#completion(response, request, signal);
  }

  async close(): Promise<void> {
    // Each request holds its own connection.
  }

  async #names(signal: AbortSignal): Promise<string[]> {
    try {
      const { data } = await this.#server.askJson('/models', undefined, modelListSchema, signal);
      return data.map(({ id }) => id);
    } catch (thrown) {
      // Some servers of one model have no list; they answer, so they are there.
      if (this.#model !== null && thrown instanceof Error && 'code' in thrown && thrown.code === 'not_found')
        return [this.#model];
      throw thrown;
    }
  }

  async *#chunks(events: AsyncIterable<string>, request: ModelRequest): AsyncGenerator<ChatChunk> {
    const head = this.#head(request.model);
    let usage: ChatUsage | null = null;
    let length = 0;
    let last: ChatChunk | null = null;
    let ended = false;
    for await (const data of events) {
      if (data === '[DONE]') {
        ended = true;
        break;
      }
      const { usage: said, ...incoming } = this.#server.parse(data, incomingChunkSchema);
      usage = usageOf(said) ?? usage;
      last = { ...incoming, ...headOf(incoming, head), object: 'chat.completion.chunk' };
      for (const { delta, finish_reason: reason } of last.choices) {
        length += delta.content?.length ?? 0;
        ended ||= typeof reason === 'string';
      }
      if (last.choices.length > 0) yield last;
    }
    if (!ended) throw this.#server.brokeOff();
    yield usageChunk(last ?? head, usage ?? estimateUsage(promptLength(request), length));
  }

  async #completion(response: Response, request: ModelRequest, signal: AbortSignal): Promise<ChatCompletion> {
    const answer = await this.#server.json(response, incomingCompletionSchema, signal);
    const length = answer.choices.reduce((sum, { message }) => sum + (message.content?.length ?? 0), 0);
    return {
      ...answer,
      ...headOf(answer, this.#head(request.model)),
      object: 'chat.completion',
      usage: usageOf(answer.usage) ?? estimateUsage(promptLength(request), length),
    };
  }

  #head(model: string): ChunkHead {
    return {
      id: newChatId(),
      object: 'chat.completion.chunk',
      created: Math.floor(this.#clock.now() / 1000),
      model,
    };
  }
}

type ChunkHead = Pick<ChatChunk, 'id' | 'object' | 'created' | 'model'>;

/** Servers leave out what hardly anybody reads; that is filled in. */
const absentHead = {
  id: z.optional(z.nullable(z.string())),
  object: z.optional(z.string()),
  created: z.optional(z.nullable(z.number())),
  model: z.optional(z.nullable(z.string())),
  usage: z.optional(z.unknown()),
};
const incomingChunkSchema = z.looseObject({
  ...chatChunkSchema.shape,
  ...absentHead,
  choices: z._default(chatChunkSchema.shape.choices, []),
});
const incomingCompletionSchema = z.looseObject({ ...chatCompletionSchema.shape, ...absentHead });

function headOf(
  { id, created, model }: { readonly id?: unknown; readonly created?: unknown; readonly model?: unknown },
  head: ChunkHead,
): Pick<ChunkHead, 'id' | 'created' | 'model'> {
  return {
    id: typeof id === 'string' ? id : head.id,
    created: typeof created === 'number' ? created : head.created,
    model: typeof model === 'string' ? model : head.model,
  };
}

/** Null: the server did not count, or in a way nobody understands. */
function usageOf(value: unknown): ChatUsage | null {
  const usage = chatUsageSchema.safeParse(value);
  return usage.success ? usage.data : null;
}

/** `chatcmpl-` and 24 letters and digits, as clients know them. */
export function newChatId(prefix = 'chatcmpl-'): string {
  return prefix + crypto.randomUUID().replaceAll('-', '').slice(0, 24);
}

function promptLength({ messages }: ModelRequest): number {
  return messages.reduce((sum, message) => sum + textOf(message).length, 0);
}
