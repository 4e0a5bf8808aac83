/**
 * What `llm.chat` 1.0.0 takes and gives: the chat completions of OpenAI. A request with `stream: true` is answered
 * by chunks, any other by one completion. Fields that are not named here pass as they are, bounded by the size and
 * depth of a capability message, since models and their servers get new ones all the time.
 *
 * Two things are firmer than there: a completion always has `usage`, and a stream always ends with a chunk that
 * has no choices and the `usage`.
 */

import type { ErrorCode, Json, Schema } from '@cocoon-mesh/protocol';
import { MeshError, jsonField, limits } from '@cocoon-mesh/protocol';
import * as z from 'zod/mini';

export const chatProtocol = 'llm.chat';
export const chatVersion = '1.0.0';

const maxMessages = 10_000;
const maxTools = 512;
const nameField = z.string().check(z.minLength(1), z.maxLength(256));

const toolCallSchema = z.looseObject({
  id: z.string(),
  type: z.optional(z.literal('function')),
  /** `arguments` is JSON text, as the model wrote it. */
  function: z.looseObject({ name: nameField, arguments: z.string() }),
});

const contentPartSchema = z.looseObject({ type: z.string() });

export const chatMessageSchema = z.looseObject({
  role: z.enum(['system', 'developer', 'user', 'assistant', 'tool', 'function']),
  content: z.optional(z.nullable(z.union([z.string(), z.array(contentPartSchema)]))),
  name: z.optional(z.string()),
  tool_calls: z.optional(z.nullable(z.array(toolCallSchema))),
  tool_call_id: z.optional(z.string()),
});
export type ChatMessage = z.infer<typeof chatMessageSchema>;

const toolSchema = z.looseObject({
  type: z.literal('function'),
  function: z.looseObject({
    name: nameField,
    description: z.optional(z.string()),
    parameters: z.optional(z.looseObject({})),
  }),
});

const tokenCount = z.int().check(z.gte(1));

export const chatRequestSchema = z.looseObject({
  /** Null or absent: the first of the provider. */
  model: z.optional(z.nullable(nameField)),
  messages: z.array(chatMessageSchema).check(z.minLength(1), z.maxLength(maxMessages)),
  tools: z.optional(z.nullable(z.array(toolSchema).check(z.maxLength(maxTools)))),
  tool_choice: z.optional(
    z.nullable(z.union([z.enum(['none', 'auto', 'required']), z.looseObject({ type: z.string() })])),
  ),
  response_format: z.optional(z.nullable(z.looseObject({ type: z.string() }))),
  temperature: z.optional(z.nullable(z.number())),
  top_p: z.optional(z.nullable(z.number())),
  max_tokens: z.optional(z.nullable(tokenCount)),
  max_completion_tokens: z.optional(z.nullable(tokenCount)),
  stop: z.optional(z.nullable(z.union([z.string(), z.array(z.string()).check(z.maxLength(16))]))),
  seed: z.optional(z.nullable(z.int())),
  n: z.optional(z.nullable(z.int().check(z.gte(1), z.lte(16)))),
  stream: z.optional(z.nullable(z.boolean())),
  stream_options: z.optional(z.nullable(z.looseObject({ include_usage: z.optional(z.boolean()) }))),
});
export type ChatRequest = z.infer<typeof chatRequestSchema>;

const count = z.int().check(z.nonnegative());

/** Tokens. `estimated`: the model's server did not say, and they were guessed from the length of the texts. */
export const chatUsageSchema = z.looseObject({
  prompt_tokens: count,
  completion_tokens: count,
  total_tokens: count,
  estimated: z.optional(z.boolean()),
});
export type ChatUsage = z.infer<typeof chatUsageSchema>;

const finishReason = z.optional(z.nullable(z.string()));

export const chatCompletionSchema = z.looseObject({
  id: z.string(),
  object: z.literal('chat.completion'),
  /** Seconds since 1970. */
  created: z.number(),
  model: z.string(),
  choices: z.array(
    z.looseObject({
      index: count,
      message: z.looseObject({
        role: z.literal('assistant'),
        content: z.optional(z.nullable(z.string())),
        tool_calls: z.optional(z.nullable(z.array(toolCallSchema))),
      }),
      finish_reason: finishReason,
    }),
  ),
  usage: chatUsageSchema,
});
export type ChatCompletion = z.infer<typeof chatCompletionSchema>;

const toolCallDeltaSchema = z.looseObject({
  index: z.optional(count),
  id: z.optional(z.nullable(z.string())),
  function: z.optional(
    z.looseObject({
      name: z.optional(z.nullable(z.string())),
      arguments: z.optional(z.nullable(z.string())),
    }),
  ),
});

const chunkShape = {
  id: z.string(),
  object: z.literal('chat.completion.chunk'),
  created: z.number(),
  model: z.string(),
  choices: z.array(
    z.looseObject({
      index: count,
      delta: z.looseObject({
        role: z.optional(z.nullable(z.string())),
        content: z.optional(z.nullable(z.string())),
        tool_calls: z.optional(z.nullable(z.array(toolCallDeltaSchema))),
      }),
      finish_reason: finishReason,
    }),
  ),
  usage: z.optional(z.nullable(chatUsageSchema)),
};
export const chatChunkSchema = z.looseObject(chunkShape);
export type ChatChunk = z.infer<typeof chatChunkSchema>;
export type ChatDelta = ChatChunk['choices'][number]['delta'];

/** What a server puts into a stream, or into its body, when it fails. */
export const chatErrorSchema = z.looseObject({
  error: z.union([
    z.string(),
    z.looseObject({
      message: z.optional(z.nullable(z.string())),
      type: z.optional(z.nullable(z.string())),
      code: z.optional(z.nullable(z.union([z.string(), z.number()]))),
    }),
  ]),
});

const bounded = jsonField(limits.maxCapabilityJsonBytes, limits.maxCapabilityJsonDepth);

/** @throws MeshError bad_payload naming the field */
export function readChatRequest(payload: unknown): ChatRequest {
  if (!bounded.safeParse(payload).success)
    throw new MeshError(
      'bad_payload',
      `A chat is JSON of at most ${limits.maxCapabilityJsonBytes} bytes and ${limits.maxCapabilityJsonDepth} levels`,
    );
  return readShape(chatRequestSchema, payload, 'bad_payload', 'The chat request');
}

/** @throws MeshError of the code, naming the field */
export function readShape<T>(schema: Schema<T>, value: unknown, code: ErrorCode, what: string): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw shapeError(result.error, code, what);
}

function shapeError(error: z.core.$ZodError, code: ErrorCode, what: string): MeshError {
  const { path, said } = deepest(error.issues, []);
  const field = path.length === 0 ? '' : `: the field ${path.map(String).join('.')}`;
  const why = said === '' || said === 'Invalid input' ? '' : ` (${said})`;
  return new MeshError(code, `${what} is not as it has to be${field}${why}`, { cause: error });
}

/** A union says only that nothing fitted; the branch that came furthest says where. */
function deepest(
  issues: readonly z.core.$ZodIssue[],
  prefix: readonly PropertyKey[],
): { path: readonly PropertyKey[]; said: string } {
  const [issue] = issues;
  if (!issue) return { path: prefix, said: '' };
  const path = [...prefix, ...issue.path];
  if (issue.code !== 'invalid_union') return { path, said: issue.message };
  let best: { path: readonly PropertyKey[]; said: string } = { path, said: '' };
  for (const branch of issue.errors) {
    const inner = deepest(branch, path);
    if (inner.path.length > best.path.length) best = inner;
  }
  return best;
}

/** `stream: true`, whatever else stands there. */
export function wantsStream(payload: Json): boolean {
  return typeof payload === 'object' && payload !== null && 'stream' in payload && payload['stream'] === true;
}

/** How many tokens the answer may have; null: as many as fit. */
export function maxAnswerTokens(request: ChatRequest): number | null {
  return request.max_completion_tokens ?? request.max_tokens ?? null;
}
