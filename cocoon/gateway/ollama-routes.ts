/**
 * Ollama's API over the whole mesh, as far as its client libraries use it to ask models: `GET /api/tags`,
 * `/api/version`, `/api/ps`, `POST /api/chat`, `/api/embed`, `/api/show`. Chats go the same way as those of the API of OpenAI.
 */

import type { IncomingMessage, ServerResponse } from 'node:http';
import { GatheredChat } from '@cocoon-mesh/ai/chat-gather.ts';
import type { ChatChunk, ChatRequest, ChatUsage } from '@cocoon-mesh/ai/chat-payload.ts';
import { chatProtocol, readChatRequest } from '@cocoon-mesh/ai/chat-payload.ts';
import { unpackedVectors } from '@cocoon-mesh/ai/embeddings-payload.ts';
import { MeshError, limits, toMeshError } from '@cocoon-mesh/protocol';
import { answerJson, writeChunk } from './answer.ts';
import type { StartedChat } from './chat-run.ts';
import { embed } from './embeddings-run.ts';
import {
  fromOllama,
  ollamaChatSchema,
  ollamaEmbedSchema,
  ollamaShowSchema,
  toOllamaMessage,
} from './ollama-shapes.ts';
import { answerErrorBody } from './openai-error.ts';
import { chooseModel, isChosen, listModels, modelNotFound, offersOf } from './openai-models.ts';
import type { OpenAiRoutes } from './openai-routes.ts';
import { goneSignal, runChat, sourceHeaders } from './openai-routes.ts';
import { readJsonBody } from './request-body.ts';

/** What clients compare, to know what they may ask for. */
const spokenVersion = '0.12.0';

/** @returns false: it is no route of these */
export async function answerOllama(
  request: IncomingMessage,
  response: ServerResponse,
  { path }: { readonly path: string },
  routes: OpenAiRoutes,
): Promise<boolean> {
  if (!path.startsWith('/api/')) return false;
  const gone = goneSignal(response);
  try {
    await answer(request, response, path, routes, gone);
  } catch (thrown) {
    request.resume();
    const error = toMeshError(thrown);
    if (response.headersSent) response.destroy();
    else answerOllamaError(response, error);
  }
  return true;
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  path: string,
  routes: OpenAiRoutes,
  gone: AbortSignal,
): Promise<void> {
  switch (`${request.method} ${path}`) {
    case 'GET /api/version':
      return answerJson(response, { version: spokenVersion });
    case 'GET /api/tags':
      return answerJson(response, { models: await entries(routes) });
    case 'GET /api/ps':
      return answerJson(response, { models: [] });
    case 'POST /api/chat':
      return answerChat(request, response, routes, gone);
    case 'POST /api/embed':
      return answerEmbed(request, response, routes, gone);
    case 'POST /api/show':
      return answerShow(request, response, routes);
    default:
      throw new MeshError('not_found', `The gateway has no ${request.method} ${path} of Ollama`, {
        hint: 'It has /api/chat, /api/embed, /api/tags, /api/show, /api/ps and /api/version.',
      });
  }
}

/** Nobody here knows more of the models of other devices than their names. */
const details = {
  parent_model: '',
  format: '',
  family: '',
  families: [],
  parameter_size: '',
  quantization_level: '',
};

async function entries({ modelDevices, clock }: OpenAiRoutes): Promise<unknown[]> {
  const now = new Date(clock.now()).toISOString();
  return listModels(offersOf(await modelDevices())).map(({ id }) => ({
    name: id,
    model: id,
    modified_at: now,
    size: 0,
    digest: '',
    details,
  }));
}

/** Clients ask whether a model calls tools before they give it any. */
async function answerShow(
  request: IncomingMessage,
  response: ServerResponse,
  { modelDevices, clock }: OpenAiRoutes,
): Promise<void> {
  const asked = await readJsonBody(request, ollamaShowSchema, limits.maxCapabilityJsonBytes, 'bad_payload');
  const offers = offersOf(await modelDevices());
  const choice = chooseModel(asked.model ?? asked.name ?? '', offers);
  const found = offers.filter((offer) => isChosen(offer, choice));
  if (found.length === 0) throw modelNotFound(choice, chatProtocol, offers);
  const chats = found.filter(({ protocol }) => protocol === chatProtocol);
  answerJson(response, {
    modified_at: new Date(clock.now()).toISOString(),
    modelfile: '',
    parameters: '',
    template: '',
    details,
    model_info: {},
    capabilities: [
      ...(chats.length > 0 ? ['completion'] : []),
      ...(chats.some(({ tools }) => tools) ? ['tools'] : []),
      ...(chats.length < found.length ? ['embedding'] : []),
    ],
  });
}

async function answerChat(
  request: IncomingMessage,
  response: ServerResponse,
  routes: OpenAiRoutes,
  gone: AbortSignal,
): Promise<void> {
  const asked = await readJsonBody(request, ollamaChatSchema, limits.maxCapabilityJsonBytes, 'bad_payload');
  const chat: ChatRequest = readChatRequest(fromOllama(asked));
  const started = await runChat(request, routes, chat, gone);
  const line = (fields: Record<string, unknown>): Record<string, unknown> => ({
    model: asked.model,
    created_at: new Date(routes.clock.now()).toISOString(),
    ...fields,
  });
  if (asked.stream !== false) return streamChat(response, started, line, gone);
  const gathered = new GatheredChat(limits.maxCapabilityJsonBytes);
  for await (const chunk of started.chunks) gathered.add(chunk);
  const { choices, usage } = gathered.completion();
  const [choice] = choices;
  for (const [name, value] of Object.entries(sourceHeaders(started))) response.setHeader(name, value);
  answerJson(
    response,
    line({
      message: toOllamaMessage(choice?.message ?? {}, choice?.message.tool_calls ?? []),
      ...ending(choice?.finish_reason ?? null, usage),
    }),
  );
}

async function streamChat(
  response: ServerResponse,
  started: StartedChat,
  line: (fields: Record<string, unknown>) => Record<string, unknown>,
  gone: AbortSignal,
): Promise<void> {
  response.writeHead(200, {
    'content-type': 'application/x-ndjson',
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    ...sourceHeaders(started),
  });
  const write = async (fields: Record<string, unknown>): Promise<void> =>
    writeChunk(response, `${JSON.stringify(line(fields))}\n`, gone);
  // A call is told in one piece here, so it waits until it is whole.
  const calls = new GatheredChat(limits.maxCapabilityJsonBytes);
  let reason: string | null = null;
  let usage: ChatUsage | null = null;
  try {
    for await (const chunk of started.chunks) {
      calls.add(onlyCalls(chunk));
      usage = chunk.usage ?? usage;
      const [choice] = chunk.choices;
      reason = choice?.finish_reason ?? reason;
      const message = toOllamaMessage(choice?.delta ?? {}, []);
      if (message['content'] !== '' || message['thinking'] !== undefined)
        await write({ message, done: false });
    }
    const [choice] = calls.completion().choices;
    const called = choice?.message.tool_calls ?? [];
    if (called.length > 0) await write({ message: toOllamaMessage({}, called), done: false });
    await write({ message: toOllamaMessage({}, []), ...ending(reason, usage) });
    response.end();
  } catch (thrown) {
    if (gone.aborted) return;
    response.end(`${JSON.stringify(errorBody(toMeshError(thrown, 'provider_failed')))}\n`);
  }
}

function onlyCalls(chunk: ChatChunk): ChatChunk {
  return {
    ...chunk,
    choices: chunk.choices.map((choice) => ({
      ...choice,
      delta: choice.delta.tool_calls ? { tool_calls: choice.delta.tool_calls } : {},
    })),
  };
}

function ending(reason: string | null, usage: ChatUsage | null): Record<string, unknown> {
  return {
    done: true,
    done_reason: reason === 'length' ? 'length' : 'stop',
    prompt_eval_count: usage?.prompt_tokens ?? 0,
    eval_count: usage?.completion_tokens ?? 0,
  };
}

async function answerEmbed(
  request: IncomingMessage,
  response: ServerResponse,
  routes: OpenAiRoutes,
  gone: AbortSignal,
): Promise<void> {
  const asked = await readJsonBody(request, ollamaEmbedSchema, limits.maxCapabilityJsonBytes, 'bad_payload');
  const { keep_alive: _keep, options: _options, ...rest } = asked;
  const { embeddings, ...source } = await embed(routes, rest, gone);
  for (const [name, value] of Object.entries(sourceHeaders(source))) response.setHeader(name, value);
  answerJson(response, {
    model: asked.model,
    embeddings: unpackedVectors(embeddings).map((vector) => Array.from(vector)),
    prompt_eval_count: embeddings.usage.prompt_tokens,
  });
}

/** Also for the gateway itself, below `/api/`: no token, a bad head. */
export function answerOllamaError(response: ServerResponse, error: MeshError): void {
  answerErrorBody(response, error, errorBody(error));
}

function errorBody({ message, hint }: MeshError): { error: string } {
  return { error: hint === '' ? message : `${message}. ${hint}` };
}
