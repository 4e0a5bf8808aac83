/** A chat as the one text that a model was trained on: by its own template, in Jinja. */

import { Template } from '@huggingface/jinja';
import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import { textOf } from './chat-content.ts';
import type { ChatMessage, ChatRequest } from './chat-payload.ts';

export class ChatTemplate {
  /** It has a place for tools, and lets the model call them in a way that is read here. */
  readonly callsTools: boolean;
  readonly #template: Template;
  readonly #tokens: Readonly<Record<string, string>>;

  /**
   * @param tokens `bos_token`, `eos_token`, … as texts
   * @throws MeshError model_unavailable: it is no template
   */
  constructor(source: string, tokens: Readonly<Record<string, string>>) {
    try {
      this.#template = new Template(source);
    } catch (cause) {
      throw new MeshError(
        'model_unavailable',
        `The chat template of the model is none: ${messageOf(cause)}`,
        { cause },
      );
    }
    this.#tokens = tokens;
    this.callsTools = /\btools\b/.test(source) && source.includes('<tool_call>');
  }

  /** @throws MeshError bad_payload: the model takes no such chat */
  render(messages: readonly ChatMessage[], tools: NonNullable<ChatRequest['tools']>): string {
    try {
      return this.#template.render({
        ...this.#tokens,
        messages: messages.map(plain),
        ...(tools.length > 0 ? { tools } : {}),
        add_generation_prompt: true,
      });
    } catch (cause) {
      throw new MeshError('bad_payload', `The model takes no such chat: ${messageOf(cause)}`, { cause });
    }
  }
}

/** Templates expect texts, and arguments of calls as objects. */
function plain(message: ChatMessage): Record<string, unknown> {
  const { role, tool_calls: calls } = message;
  return {
    ...message,
    role: role === 'developer' ? 'system' : role,
    content: textOf(message),
    ...(calls && calls.length > 0
      ? {
          tool_calls: calls.map((call) => ({
            ...call,
            type: 'function',
            function: { ...call.function, arguments: parsed(call.function.arguments) },
          })),
        }
      : {}),
  };
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return text;
  }
}

function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}
