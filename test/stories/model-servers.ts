/**
 * Servers of models as users have them beside their devices: one that speaks Ollama's own API, one that speaks
 * OpenAI's. Both answer by the same rules, which the last message of a chat chooses:
 *
 * - tools and no result yet: calls `weather`; with a result: tells it
 * - `step by step`: its second piece comes when the test says so (`goOn`)
 * - `for ever`: one piece, then nothing until whoever asks goes away
 * - anything else: `Hello, world`, in two pieces
 */

import type { ServerResponse } from 'node:http';
import type { Answer, Exchange } from '../../src/ai/model-server.contract.ts';
import { ScriptedModelServer, answerJson, delta, events, lines } from '../../src/ai/model-server.contract.ts';

export const call = {
  id: 'c1',
  type: 'function' as const,
  function: { name: 'weather', arguments: '{"city":"Bern"}' },
};

/** What the chats of a server wait for. */
export class ChatGate {
  /** Of the chats that go on for ever: aborted when the device that asked has gone. */
  readonly gones: AbortSignal[] = [];
  #next = Promise.withResolvers<void>();

  /** Chats that wait say their second piece. */
  goOn(): void {
    this.#next.resolve();
    this.#next = Promise.withResolvers();
  }

  /** The pieces of an answer; null: it calls the tool. */
  async *pieces({ body, gone, response }: Exchange): AsyncGenerator<string | null> {
    const messages = body['messages'] as { role: string; content: string }[];
    const last = messages.at(-1) ?? { role: '', content: '' };
    const tools = body['tools'] as unknown[] | undefined;
    if (tools && tools.length > 0 && last.role !== 'tool') return yield null;
    if (last.role === 'tool') {
      yield 'It is ';
      return yield last.content;
    }
    const text = JSON.stringify(last.content);
    const next = this.#next.promise;
    yield 'Hello';
    if (text.includes('step by step')) await within(next, response);
    if (text.includes('for ever')) {
      this.gones.push(gone);
      await new Promise(() => undefined);
    }
    yield ', world';
  }
}

/** Who is not told to go on gives up, so that a test that waits for it fails. */
async function within(told: Promise<void>, response: ServerResponse): Promise<void> {
  const limit = setTimeout(() => response.destroy(), 10_000);
  await told;
  clearTimeout(limit);
}

export const counted = { prompt_tokens: 7, completion_tokens: 2, total_tokens: 9 };

/** Vectors of three numbers: the length of the text, 0.5 and −1. */
function vectorsOf(input: unknown): number[][] {
  const texts = typeof input === 'string' ? [input] : (input as string[]);
  return texts.map((text) => [text.length, 0.5, -1]);
}

export function openAiChat(gate: ChatGate): Answer {
  return async (exchange) => {
    const { body, response } = exchange;
    if (body['stream'] !== true) {
      const parts: string[] = [];
      let calls = false;
      for await (const piece of gate.pieces(exchange))
        if (piece === null) calls = true;
        else parts.push(piece);
      const message = calls ? { content: null, tool_calls: [call] } : { content: parts.join('') };
      return answerJson(response, 200, {
        id: 'chatcmpl-1',
        object: 'chat.completion',
        created: 1,
        model: body['model'],
        choices: [
          {
            index: 0,
            message: { role: 'assistant', ...message },
            finish_reason: calls ? 'tool_calls' : 'stop',
          },
        ],
        usage: counted,
      });
    }
    const send = events(response);
    send(delta({ role: 'assistant', content: '' }));
    let reason = 'stop';
    for await (const piece of gate.pieces(exchange)) {
      if (piece !== null) {
        send(delta({ content: piece }));
        continue;
      }
      reason = 'tool_calls';
      const { arguments: text, ...named } = call.function;
      send(delta({ tool_calls: [{ index: 0, ...call, function: { ...named, arguments: '' } }] }));
      send(delta({ tool_calls: [{ index: 0, function: { arguments: text } }] }));
    }
    send(delta({}, reason));
    if ((body['stream_options'] as { include_usage?: boolean } | undefined)?.include_usage === true)
      send({ ...delta({}), choices: [], usage: counted });
    send('[DONE]');
    response.end();
  };
}

/** @param models ids that chat; `vectors` embeds */
export async function openAiServer(models: readonly string[], gate: ChatGate): Promise<ScriptedModelServer> {
  return ScriptedModelServer.start({
    'GET /v1/models': ({ response }) =>
      answerJson(response, 200, { object: 'list', data: models.map((id) => ({ id, object: 'model' })) }),
    'POST /v1/chat/completions': openAiChat(gate),
    'POST /v1/embeddings': ({ body, response }) =>
      answerJson(response, 200, {
        data: vectorsOf(body['input']).map((embedding, index) => ({ index, embedding })),
        usage: { prompt_tokens: 4, total_tokens: 4 },
      }),
  });
}

function ollamaChat(gate: ChatGate): Answer {
  return async (exchange) => {
    const { body, response } = exchange;
    const write = lines(response);
    const said = (message: object): object => ({
      model: body['model'],
      created_at: '2026-01-01T00:00:00Z',
      message: { role: 'assistant', content: '', ...message },
      done: false,
    });
    for await (const piece of gate.pieces(exchange))
      write(
        said(
          piece === null
            ? { tool_calls: [{ function: { name: 'weather', arguments: { city: 'Bern' } } }] }
            : { content: piece },
        ),
      );
    write({ ...said({}), done: true, done_reason: 'stop', prompt_eval_count: 7, eval_count: 2 });
    response.end();
  };
}

/** @param models names that chat; `embedder` embeds */
export async function ollamaServer(models: readonly string[], gate: ChatGate): Promise<ScriptedModelServer> {
  const names = [...models, 'embedder'].map((name) => `${name}:latest`);
  return ScriptedModelServer.start({
    'GET /api/tags': ({ response }) =>
      answerJson(response, 200, { models: names.map((name) => ({ name, digest: `sha-${name}` })) }),
    'GET /api/ps': ({ response }) => answerJson(response, 200, { models: [] }),
    'POST /api/show': ({ body, response }) =>
      answerJson(
        response,
        200,
        String(body['model']).startsWith('embedder')
          ? { capabilities: ['embedding'], model_info: {} }
          : { capabilities: ['completion', 'tools'], model_info: { 'llama.context_length': 8192 } },
      ),
    'POST /api/chat': ollamaChat(gate),
    'POST /api/embed': ({ body, response }) =>
      answerJson(response, 200, { embeddings: vectorsOf(body['input']), prompt_eval_count: 4 }),
  });
}
