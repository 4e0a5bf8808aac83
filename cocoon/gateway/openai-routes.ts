/**
 * The API of OpenAI over the whole mesh, for tools that know nothing of it: `GET /v1/models`,
 * `POST /v1/chat/completions`, `POST /v1/embeddings`. Who may ask is the gateway's matter.
 */

import type { IncomingMessage, ServerResponse } from 'node:http';
import { GatheredChat } from '@cocoon-mesh/ai/chat-gather.ts';
import { embeddingsJson } from '@cocoon-mesh/ai/embeddings-json.node.ts';
import type { ChatChunk, ChatRequest } from '@cocoon-mesh/ai/chat-payload.ts';
import { readChatRequest } from '@cocoon-mesh/ai/chat-payload.ts';
import type { RequestCapability } from '@cocoon-mesh/capabilities';
import type { Clock } from '@cocoon-mesh/protocol';
import { MeshError, jsonOfDepth, limits, toMeshError } from '@cocoon-mesh/protocol';
import { answerJson, answerJsonPieces, writeChunk } from './answer.ts';
import type { StartedChat } from './chat-run.ts';
import { startChat } from './chat-run.ts';
import { embed, embeddingsRequestSchema } from './embeddings-run.ts';
import { answerOpenAiError, openAiError } from './openai-error.ts';
import type { ModelDevice, ModelOffer } from './openai-models.ts';
import { listModels, offersOf, resolveModel } from './openai-models.ts';
import { readJsonBody } from './request-body.ts';

export interface OpenAiRoutes {
  readonly requestCapability: RequestCapability;
  /** Those that can be asked now, best first: in this order others are tried when the first one fails. */
  readonly modelDevices: () => readonly ModelDevice[] | Promise<readonly ModelDevice[]>;
  readonly clock: Clock;
  /** Until the first piece of an answer; then another device is asked. Absent: a minute. */
  readonly firstTokenMs?: number;
}

/** A model that is loaded first, from a slow disk. */
export const defaultFirstTokenMs = 60_000;
const maxSessionLength = 128;
export const modelBodySchema = jsonOfDepth(limits.maxCapabilityJsonDepth);

/** Errors are answered here, in the shape that clients of this API read. @returns false: it is no route of these */
export async function answerOpenAi(
  request: IncomingMessage,
  response: ServerResponse,
  { path }: { readonly path: string },
  routes: OpenAiRoutes,
): Promise<boolean> {
  if (!path.startsWith('/v1/')) return false;
  const gone = goneSignal(response);
  try {
    await answer(request, response, path, routes, gone);
  } catch (thrown) {
    request.resume();
    const error = toMeshError(thrown);
    if (response.headersSent) response.destroy();
    else
      answerOpenAiError(
        response,
        error,
        error.code === 'capability_not_found' ? 'model_not_found' : undefined,
      );
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
  const route = `${request.method} ${path}`;
  if (route === 'POST /v1/chat/completions') return answerChat(request, response, routes, gone);
  if (route === 'POST /v1/embeddings') return answerEmbeddings(request, response, routes, gone);
  if (request.method !== 'GET' || !/^\/v1\/models(\/|$)/.test(path))
    throw new MeshError('not_found', `The gateway has no ${route} of OpenAI`, {
      hint: 'It has GET /v1/models, POST /v1/chat/completions and POST /v1/embeddings.',
    });
  const models = listModels(offersOf(await routes.modelDevices()));
  if (path === '/v1/models') return answerJson(response, { object: 'list', data: models });
  const id = decoded(path.slice('/v1/models/'.length));
  const model = models.find((each) => each.id === id);
  if (!model) throw new MeshError('capability_not_found', `No device has the model ${id}`);
  answerJson(response, model);
}

async function answerChat(
  request: IncomingMessage,
  response: ServerResponse,
  routes: OpenAiRoutes,
  gone: AbortSignal,
): Promise<void> {
  const chat = readChatRequest(
    await readJsonBody(request, modelBodySchema, limits.maxCapabilityJsonBytes, 'bad_payload'),
  );
  const started = await runChat(request, routes, chat, gone);
  if (chat.stream === true)
    return streamChat(response, started, chat.stream_options?.include_usage === true, gone);
  const gathered = new GatheredChat(limits.maxCapabilityJsonBytes);
  for await (const chunk of started.chunks) gathered.add(chunk);
  for (const [name, value] of Object.entries(sourceHeaders(started))) response.setHeader(name, value);
  answerJson(response, gathered.completion());
}

/** Resolves when the answer has begun. */
export async function runChat(
  incoming: IncomingMessage,
  { requestCapability, modelDevices, clock, firstTokenMs }: OpenAiRoutes,
  request: ChatRequest,
  signal: AbortSignal,
): Promise<StartedChat> {
  const offers = async (): Promise<ModelOffer[]> => offersOf(await modelDevices());
  const session = incoming.headers['cocoon-session'];
  return startChat({
    requestCapability,
    clock,
    offers,
    choice: await resolveModel(request.model ?? null, offers),
    request,
    session: typeof session === 'string' ? session.slice(0, maxSessionLength) : null,
    firstTokenMs: firstTokenMs ?? defaultFirstTokenMs,
    signal,
  });
}

async function streamChat(
  response: ServerResponse,
  started: StartedChat,
  withUsage: boolean,
  gone: AbortSignal,
): Promise<void> {
  response.writeHead(200, {
    'content-type': 'text/event-stream',
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    ...sourceHeaders(started),
  });
  try {
    for await (const chunk of started.chunks) {
      const shown = withUsage ? chunk : withoutUsage(chunk);
      if (shown) await writeChunk(response, `data: ${JSON.stringify(shown)}\n\n`, gone);
    }
    response.end('data: [DONE]\n\n');
  } catch (thrown) {
    if (gone.aborted) return;
    response.end(`data: ${JSON.stringify(openAiError(toMeshError(thrown, 'provider_failed')))}\n\n`);
  }
}

/** Who did not ask for it does not expect a chunk without choices. */
function withoutUsage(chunk: ChatChunk): ChatChunk | null {
  if (chunk.choices.length === 0) return null;
  const { usage: _usage, ...rest } = chunk;
  return rest;
}

async function answerEmbeddings(
  request: IncomingMessage,
  response: ServerResponse,
  routes: OpenAiRoutes,
  gone: AbortSignal,
): Promise<void> {
  const asked = await readJsonBody(
    request,
    embeddingsRequestSchema,
    limits.maxCapabilityJsonBytes,
    'bad_payload',
  );
  const embedded = await embed(routes, asked, gone);
  for (const [name, value] of Object.entries(sourceHeaders(embedded))) response.setHeader(name, value);
  const pieces = embeddingsJson(embedded.embeddings, asked.encoding_format ?? 'float');
  await answerJsonPieces(response, pieces, gone);
}

export function sourceHeaders(source: {
  readonly device: string;
  readonly deviceId: string;
  readonly attempts: number;
}): Record<string, string> {
  return {
    'cocoon-device': source.device,
    'cocoon-device-id': source.deviceId,
    'cocoon-attempts': String(source.attempts),
  };
}

/** Fires when the client goes away before it has its answer. */
export function goneSignal(response: ServerResponse): AbortSignal {
  const gone = new AbortController();
  response.on('close', () => gone.abort(new DOMException('The client is gone', 'AbortError')));
  return gone.signal;
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch (cause) {
    throw new MeshError('usage', 'The path is not percent-encoded as it has to be', { cause });
  }
}
