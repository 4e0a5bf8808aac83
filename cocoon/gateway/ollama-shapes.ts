/** Chats of Ollama's API as `llm.chat` has them, and back. */

import * as z from 'zod/mini';

const modelField = z.string().check(z.minLength(1));

const messageSchema = z.looseObject({
  role: z.string(),
  content: z.optional(z.string()),
  images: z.optional(z.array(z.string())),
  tool_calls: z.optional(
    z.array(
      z.looseObject({
        id: z.optional(z.string()),
        function: z.looseObject({ name: z.string(), arguments: z.optional(z.unknown()) }),
      }),
    ),
  ),
  tool_name: z.optional(z.string()),
  tool_call_id: z.optional(z.string()),
});
type OllamaMessage = z.infer<typeof messageSchema>;

export const ollamaChatSchema = z.looseObject({
  model: modelField,
  messages: z.array(messageSchema),
  stream: z.optional(z.boolean()),
  format: z.optional(z.union([z.literal(''), z.literal('json'), z.looseObject({})])),
  tools: z.optional(z.array(z.looseObject({}))),
  options: z.optional(z.looseObject({})),
});
type OllamaChatRequest = z.infer<typeof ollamaChatSchema>;

export const ollamaEmbedSchema = z.looseObject({
  model: modelField,
  input: z.union([z.string(), z.array(z.string())]),
  dimensions: z.optional(z.int().check(z.positive())),
  /** Of the models' servers, which see to it themselves. */
  keep_alive: z.optional(z.unknown()),
  options: z.optional(z.unknown()),
});

/** `name` is how older clients call it. */
export const ollamaShowSchema = z.looseObject({
  model: z.optional(modelField),
  name: z.optional(modelField),
});

/** Options of the same meaning; `num_ctx` is no matter of whoever asks. */
const optionNames: Readonly<Record<string, string>> = {
  temperature: 'temperature',
  top_p: 'top_p',
  top_k: 'top_k',
  min_p: 'min_p',
  seed: 'seed',
  stop: 'stop',
  frequency_penalty: 'frequency_penalty',
  presence_penalty: 'presence_penalty',
  repeat_penalty: 'repeat_penalty',
};

/** Checked by whoever reads a chat request. */
export function fromOllama({
  model,
  messages,
  format,
  tools,
  options,
  ...more
}: OllamaChatRequest): Record<string, unknown> {
  const predicted = options?.['num_predict'];
  return {
    model,
    messages: toMessages(messages),
    stream: true,
    ...(tools && tools.length > 0 ? { tools } : {}),
    ...responseFormat(format),
    ...Object.fromEntries(
      Object.entries(optionNames)
        .map(([ours, theirs]) => [theirs, options?.[ours]])
        .filter(([, value]) => value !== undefined && value !== null),
    ),
    ...(typeof predicted === 'number' && predicted > 0 ? { max_tokens: predicted } : {}),
    ...(more['think'] === undefined ? {} : { think: more['think'] }),
  };
}

function responseFormat(format: OllamaChatRequest['format']): Record<string, unknown> {
  if (format === undefined || format === '') return {};
  if (format === 'json') return { response_format: { type: 'json_object' } };
  return { response_format: { type: 'json_schema', json_schema: { name: 'answer', schema: format } } };
}

/** Calls often have no id there: results follow in their order, or name the tool. */
function toMessages(messages: readonly OllamaMessage[]): Record<string, unknown>[] {
  let open: { id: string; name: string }[] = [];
  return messages.map(
    ({ role, content, images, tool_calls: calls, tool_name: tool, tool_call_id: id }, at) => {
      if (calls && calls.length > 0)
        open = calls.map((call, n) => ({ id: call.id ?? `call_${at}_${n}`, name: call.function.name }));
      const answered = role === 'tool' ? takeCall(open, id, tool) : null;
      return {
        role,
        content: images && images.length > 0 ? withImages(content ?? '', images) : (content ?? ''),
        ...(calls && calls.length > 0
          ? {
              tool_calls: calls.map((call, n) => ({
                id: open[n]?.id,
                type: 'function',
                function: {
                  name: call.function.name,
                  arguments: JSON.stringify(call.function.arguments ?? {}),
                },
              })),
            }
          : {}),
        ...(answered === null ? {} : { tool_call_id: answered }),
      };
    },
  );
}

function takeCall(
  open: { id: string; name: string }[],
  id: string | undefined,
  tool: string | undefined,
): string {
  if (id !== undefined) return id;
  const at = Math.max(
    0,
    open.findIndex(({ name }) => name === tool),
  );
  return open.splice(at, 1)[0]?.id ?? '';
}

function withImages(text: string, images: readonly string[]): unknown[] {
  return [
    { type: 'text', text },
    ...images.map((data) => ({
      type: 'image_url',
      image_url: { url: `data:${kindOf(data)};base64,${data}` },
    })),
  ];
}

/** By the first bytes, which are always the same. */
function kindOf(base64: string): string {
  if (base64.startsWith('iVBOR')) return 'image/png';
  if (base64.startsWith('UklGR')) return 'image/webp';
  return base64.startsWith('R0lGO') ? 'image/gif' : 'image/jpeg';
}

export interface ToolCall {
  readonly id: string;
  readonly function: { readonly name: string; readonly arguments: string };
}

/** @param said a message, or a piece of one */
export function toOllamaMessage(
  said: { readonly content?: string | null | undefined; readonly [field: string]: unknown },
  calls: readonly ToolCall[],
): Record<string, unknown> {
  const thinking = said['reasoning_content'] ?? said['reasoning'];
  return {
    role: 'assistant',
    content: said.content ?? '',
    ...(typeof thinking === 'string' && thinking !== '' ? { thinking } : {}),
    ...(calls.length === 0
      ? {}
      : {
          tool_calls: calls.map(({ id, function: called }) => ({
            id,
            function: { name: called.name, arguments: objectOf(called.arguments) },
          })),
        }),
  };
}

/** What a model writes need not be JSON; then it is told as it is. */
function objectOf(text: string): unknown {
  try {
    return JSON.parse(text === '' ? '{}' : text) as unknown;
  } catch {
    return { text };
  }
}
