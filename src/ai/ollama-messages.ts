/**
 * Chats as Ollama's own `/api/chat` has them. Not its `/v1`: that knows no `num_ctx`, and drops the beginning of
 * what is longer than its default without a word.
 */

import type { Json } from '@cocoon-mesh/protocol';
import { MeshError } from '@cocoon-mesh/protocol';
import * as z from 'zod/mini';
import type { ModelRequest } from './chat-backend.ts';
import { textOf } from './chat-content.ts';
import type { ChatDelta, ChatMessage } from './chat-payload.ts';
import type { OllamaRoom } from './ollama-context.ts';

const count = z.optional(z.int().check(z.nonnegative()));

const logprobSchema = z.looseObject({ token: z.string(), logprob: z.number() });

/** One line of the stream of `/api/chat`. */
export const ollamaLineSchema = z.looseObject({
  created_at: z.optional(z.string()),
  message: z.optional(
    z.looseObject({
      content: z.optional(z.string()),
      thinking: z.optional(z.string()),
      tool_calls: z.optional(
        z.nullable(
          z.array(
            z.looseObject({
              id: z.optional(z.string()),
              function: z.looseObject({ name: z.string(), arguments: z.optional(z.unknown()) }),
            }),
          ),
        ),
      ),
    }),
  ),
  logprobs: z.optional(z.nullable(z.array(logprobSchema))),
  done: z.boolean(),
  done_reason: z.optional(z.string()),
  prompt_eval_count: count,
  eval_count: count,
});
export type OllamaLine = z.infer<typeof ollamaLineSchema>;

/** @throws MeshError bad_payload: Ollama cannot do that, and would pass it over in silence */
export function toOllama(request: ModelRequest, { numCtx, numPredict }: OllamaRoom): Record<string, unknown> {
  if ((request.n ?? 1) !== 1) throw cannot('n', 'give several answers at once');
  return {
    model: request.model,
    messages: toOllamaMessages(request.messages),
    stream: true,
    // Newer versions then say that a chat is too long, where older ones cut it.
    truncate: false,
    shift: false,
    ...toolsOf(request),
    ...formatOf(request),
    ...thinkOf(request),
    ...(request['logprobs'] === true
      ? { logprobs: true, ...present({ top_logprobs: request['top_logprobs'] }) }
      : {}),
    ...present({ keep_alive: request['keep_alive'] }),
    options: {
      num_ctx: numCtx,
      num_predict: numPredict,
      ...present({
        temperature: request.temperature,
        top_p: request.top_p,
        seed: request.seed,
        stop: typeof request.stop === 'string' ? [request.stop] : request.stop,
        frequency_penalty: request['frequency_penalty'],
        presence_penalty: request['presence_penalty'],
        top_k: request['top_k'],
        min_p: request['min_p'],
        repeat_penalty: request['repeat_penalty'],
      }),
    },
  };
}

function toOllamaMessages(messages: readonly ChatMessage[]): Record<string, unknown>[] {
  const toolNames = new Map<string, string>();
  return messages.map((message, at) => {
    const { role, tool_calls: calls, tool_call_id: callId, name } = message;
    for (const call of calls ?? []) toolNames.set(call.id, call.function.name);
    const images = imagesOf(message, at);
    return {
      role: role === 'developer' ? 'system' : role === 'function' ? 'tool' : role,
      content: textOf(message),
      ...(images.length > 0 ? { images } : {}),
      ...(calls && calls.length > 0
        ? {
            tool_calls: calls.map((call, n) => ({
              id: call.id,
              function: {
                name: call.function.name,
                arguments: argumentsOf(call.function.arguments, `messages.${at}.tool_calls.${n}`),
              },
            })),
          }
        : {}),
      ...(callId === undefined ? {} : { tool_call_id: callId }),
      ...present({ tool_name: callId === undefined ? name : (toolNames.get(callId) ?? name) }),
    };
  });
}

function argumentsOf(text: string, path: string): Json {
  try {
    return JSON.parse(text === '' ? '{}' : text) as Json;
  } catch (cause) {
    throw new MeshError('bad_payload', `The field ${path}.function.arguments is not JSON`, { cause });
  }
}

const dataUrlPattern = /^data:image\/[a-z0-9.+-]+;base64,([A-Za-z0-9+/=_-]+)$/i;

function imagesOf({ content }: ChatMessage, at: number): string[] {
  if (!Array.isArray(content)) return [];
  return content.flatMap((part, n) => {
    if (part.type === 'text') return [];
    const image = part['image_url'];
    const url = typeof image === 'object' && image !== null && 'url' in image ? image.url : image;
    const [, data] = typeof url === 'string' ? (dataUrlPattern.exec(url) ?? []) : [];
    if (part.type === 'image_url' && data !== undefined) return [data];
    throw new MeshError(
      'bad_payload',
      `The field messages.${at}.content.${n} is neither text nor a picture in a data: URL, and Ollama takes nothing else`,
    );
  });
}

function toolsOf({ tools, tool_choice: choice }: ModelRequest): Record<string, unknown> {
  if (!tools || tools.length === 0 || choice === 'none') return {};
  if (choice !== undefined && choice !== null && choice !== 'auto')
    throw cannot('tool_choice', 'be made to call a tool; only auto and none');
  return { tools };
}

function formatOf({ response_format: format }: ModelRequest): Record<string, unknown> {
  if (!format || format.type === 'text') return {};
  if (format.type === 'json_object') return { format: 'json' };
  const inner = format['json_schema'];
  const schema = typeof inner === 'object' && inner !== null && 'schema' in inner ? inner.schema : null;
  if (format.type === 'json_schema' && typeof schema === 'object' && schema !== null)
    return { format: schema };
  throw new MeshError(
    'bad_payload',
    'The field response_format is neither text, json_object nor json_schema',
  );
}

function thinkOf(request: ModelRequest): Record<string, unknown> {
  const effort = request['reasoning_effort'];
  if (effort === 'none') return { think: false };
  if (effort === 'low' || effort === 'medium' || effort === 'high') return { think: effort };
  return present({ think: request['think'] });
}

function cannot(field: string, what: string): MeshError {
  return new MeshError('bad_payload', `The field ${field} asks for what Ollama cannot do: ${what}`);
}

/** Without what is null or absent: Ollama takes null for zero. */
function present(fields: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(fields).filter(([, value]) => value !== undefined && value !== null),
  );
}

/** What one line adds to the answer. @param calls how many tool calls came before */
export function deltaOf({ message }: OllamaLine, calls: number, newId: () => string): ChatDelta {
  const delta: ChatDelta = {};
  if (message?.content !== undefined && message.content !== '') delta.content = message.content;
  // As DeepSeek and vLLM name it, and the clients that show it.
  if (message?.thinking !== undefined && message.thinking !== '')
    delta['reasoning_content'] = message.thinking;
  if (message?.tool_calls && message.tool_calls.length > 0)
    delta.tool_calls = message.tool_calls.map(({ id, function: called }, n) => ({
      index: calls + n,
      id: id === undefined || id === '' ? newId() : id,
      type: 'function',
      function: { name: called.name, arguments: JSON.stringify(called.arguments ?? {}) },
    }));
  return delta;
}

export function finishReason({ done_reason: reason }: OllamaLine, calls: number): string {
  if (calls > 0) return 'tool_calls';
  return reason === 'length' ? 'length' : 'stop';
}
