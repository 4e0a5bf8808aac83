/** One completion out of the chunks of a stream, and chunks out of a completion that came in one piece. */

import { MeshError } from '@cocoon-mesh/protocol';
import { estimateUsage } from './chat-content.ts';
import type { ChatChunk, ChatCompletion, ChatUsage } from './chat-payload.ts';

/**
 * @param maxLength characters of the whole answer; the sender has no limit of its own
 * @throws MeshError bad_answer (too long, or nothing at all), and what the chunks throw
 */
export async function gatherCompletion(
  chunks: AsyncIterable<ChatChunk>,
  maxLength: number,
): Promise<ChatCompletion> {
  const gathered = new GatheredChat(maxLength);
  for await (const chunk of chunks) gathered.add(chunk);
  return gathered.completion();
}

interface Choice {
  finish_reason: string | null;
  message: Record<string, unknown>;
  toolCalls: Map<number, ToolCall>;
  rest: Record<string, unknown>;
}

interface ToolCall {
  id: string;
  name: string;
  text: string;
}

/** What an answer, a call or a field takes by itself, in characters. */
const entryLength = 64;

export class GatheredChat {
  readonly #maxLength: number;
  readonly #choices = new Map<number, Choice>();
  #head: ChatChunk | null = null;
  #usage: ChatUsage | null = null;
  /** Of the answer itself. */
  #length = 0;
  /** With all that is empty: that takes room, too. */
  #held = 0;

  constructor(maxLength: number) {
    this.#maxLength = maxLength;
  }

  /** @throws MeshError bad_answer */
  add(chunk: ChatChunk): void {
    this.#head ??= chunk;
    this.#usage = chunk.usage ?? this.#usage;
    for (const { index, delta, finish_reason: reason, ...rest } of chunk.choices) {
      const choice = this.#choice(index);
      choice.finish_reason = reason ?? choice.finish_reason;
      for (const [name, value] of Object.entries(rest)) this.#join(choice.rest, name, value);
      const { role: _role, tool_calls: toolCalls, ...more } = delta;
      for (const [name, value] of Object.entries(more)) this.#join(choice.message, name, value);
      for (const part of toolCalls ?? []) {
        const known = choice.toolCalls.size;
        const call = toolCallAt(choice.toolCalls, part.index, part.id);
        if (choice.toolCalls.size > known) this.#grow(entryLength);
        if (call.id === '') this.#count(part.id);
        call.id ||= part.id ?? '';
        this.#count(part.function?.name);
        call.name += part.function?.name ?? '';
        this.#count(part.function?.arguments);
        call.text += part.function?.arguments ?? '';
      }
    }
  }

  /** @throws MeshError bad_answer: nothing came */
  completion(): ChatCompletion {
    const head = this.#head;
    if (!head) throw new MeshError('bad_answer', 'The model answered with nothing at all');
    const { id, created, model, choices: _choices, usage: _usage, object: _object, ...rest } = head;
    return {
      ...rest,
      id,
      object: 'chat.completion',
      created,
      model,
      choices: [...this.#choices]
        .toSorted(([a], [b]) => a - b)
        .map(([index, choice]) => whole(index, choice)),
      usage: this.#usage ?? estimateUsage(0, this.#length),
    };
  }

  #join(fields: Record<string, unknown>, name: string, value: unknown): void {
    if (!Object.hasOwn(fields, name)) this.#grow(name.length + entryLength);
    this.#count(value);
    fields[name] = joined(fields[name], value);
  }

  #count(value: unknown): void {
    let length = 0;
    if (typeof value === 'string') length = value.length;
    else if (isObject(value) || Array.isArray(value)) length = JSON.stringify(value).length;
    this.#length += length;
    this.#grow(length);
  }

  /** @throws MeshError bad_answer */
  #grow(length: number): void {
    this.#held += length;
    if (this.#held > this.#maxLength)
      throw new MeshError(
        'bad_answer',
        `The answer of the model is longer than ${this.#maxLength} characters`,
      );
  }

  #choice(index: number): Choice {
    let choice = this.#choices.get(index);
    if (!choice) {
      this.#grow(entryLength);
      choice = { finish_reason: null, message: {}, toolCalls: new Map(), rest: {} };
      this.#choices.set(index, choice);
    }
    return choice;
  }
}

/** Servers that send each call whole often leave the number out; then the id tells calls apart. */
function toolCallAt(
  calls: Map<number, ToolCall>,
  index: number | undefined,
  id: string | null | undefined,
): ToolCall {
  const known = index ?? [...calls].find(([, call]) => call.id === id)?.[0];
  const at = known ?? (typeof id === 'string' ? calls.size : Math.max(0, calls.size - 1));
  let call = calls.get(at);
  if (!call) {
    call = { id: '', name: '', text: '' };
    calls.set(at, call);
  }
  return call;
}

function whole(index: number, choice: Choice): ChatCompletion['choices'][number] {
  const { content, ...more } = choice.message;
  const calls = [...choice.toolCalls].toSorted(([a], [b]) => a - b).map(([, call]) => call);
  return {
    ...choice.rest,
    index,
    message: {
      ...more,
      role: 'assistant',
      content: typeof content === 'string' ? content : null,
      ...(calls.length === 0
        ? {}
        : {
            tool_calls: calls.map(({ id, name, text }) => ({
              id,
              type: 'function' as const,
              function: { name, arguments: text },
            })),
          }),
    },
    finish_reason: choice.finish_reason,
  };
}

/** Texts and lists grow, of the rest the newest counts. */
function joined(before: unknown, value: unknown): unknown {
  if (value === null || value === undefined) return before ?? value;
  if (typeof before === 'string' && typeof value === 'string') return before + value;
  if (Array.isArray(before) && Array.isArray(value))
    return [...(before as unknown[]), ...(value as unknown[])];
  if (isObject(before) && isObject(value)) {
    const both: Record<string, unknown> = { ...before };
    for (const [name, item] of Object.entries(value)) both[name] = joined(both[name], item);
    return both;
  }
  return value;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** As a stream would have had it: the answer, then the usage. */
export function chunksOf(completion: ChatCompletion): ChatChunk[] {
  const { choices, usage, object: _object, ...head } = completion;
  return [
    {
      ...head,
      object: 'chat.completion.chunk',
      choices: choices.map(({ index, message, finish_reason: reason, ...rest }) => {
        const { tool_calls: calls, ...delta } = message;
        return {
          ...rest,
          index,
          delta: {
            ...delta,
            ...(calls ? { tool_calls: calls.map((call, at) => ({ ...call, index: at })) } : {}),
          },
          finish_reason: reason ?? 'stop',
        };
      }),
    },
    usageChunk(completion, usage),
  ];
}

/** The last of a stream. */
export function usageChunk(
  { id, created, model }: Pick<ChatChunk, 'id' | 'created' | 'model'>,
  usage: ChatUsage,
): ChatChunk {
  return { id, object: 'chat.completion.chunk', created, model, choices: [], usage };
}
