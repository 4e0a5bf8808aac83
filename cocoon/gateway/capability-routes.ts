/**
 * `POST /capabilities/{protocol}`: a capability request of a program on this machine. An answer in one piece is JSON,
 * a stream is server-sent events: `chunk`, then `done` or `error`. Binary parts are base64 in `parts`, both ways; where
 * there are none, the field is absent. Embeddings are told in the shape of OpenAI's API (`embeddings-json.node.ts`).
 */

import type { IncomingMessage, ServerResponse } from 'node:http';
import { embeddingsJson } from '@cocoon-mesh/ai/embeddings-json.node.ts';
import {
  checkEmbeddingsAnswer,
  embeddingsProtocol,
  embeddingsRequestSchema,
  embeddingsVersion,
} from '@cocoon-mesh/ai/embeddings-payload.ts';
import type { AnswerSource, CapabilityAnswer, Content, InsteadOf } from '@cocoon-mesh/capabilities';
import type { Json } from '@cocoon-mesh/protocol';
import {
  MeshError,
  featuresField,
  jsonOfDepth,
  limits,
  protocolField,
  rangeField,
  toMeshError,
} from '@cocoon-mesh/protocol';
import { satisfies, validRange } from 'semver';
import * as z from 'zod/mini';
import type { Capabilities } from '../capabilities.ts';
import { answerJson, answerJsonPieces, writeChunk } from './answer.ts';
import { inputsOf } from './embeddings-run.ts';
import type { ModelChoice, ModelOffer } from './openai-models.ts';
import { modelFeature, modelNotFound, modelProtocols, offersOf, resolveModel } from './openai-models.ts';
import { goneSignal } from './openai-routes.ts';
import { assertKnown } from './parameters.ts';
import { readJsonBody } from './request-body.ts';

export interface CapabilityRoutes {
  readonly capabilities: Capabilities;
}

/** A message with its parts in base64. */
const maxBodyBytes = Math.ceil((limits.maxCapabilityMessageBytes * 4) / 3) + 64 * 1024;
const base64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}(?:==)?|[A-Za-z0-9+/]{3}=?)?$/;
const nameField = z.string().check(z.minLength(1), z.maxLength(256));

const encodingSchema = z.pick(embeddingsRequestSchema, { encoding_format: true });

const bodySchema = z.strictObject({
  version: z.optional(rangeField),
  payload: z.optional(jsonOfDepth(limits.maxCapabilityJsonDepth)),
  parts: z.optional(z.array(z.string().check(z.regex(base64))).check(z.maxLength(limits.maxCapabilityParts))),
  prefer_device: z.optional(z.nullable(nameField)),
  /** This one or none. */
  device: z.optional(z.nullable(nameField)),
  features: z.optional(featuresField),
  session: z.optional(z.nullable(z.string().check(z.maxLength(128)))),
  timeout_ms: z.optional(z.int().check(z.gte(1), z.lte(limits.maxCapabilityTimeoutMs))),
});

/** @returns false: it is no route of these */
export async function answerCapabilities(
  request: IncomingMessage,
  response: ServerResponse,
  { path, query }: { readonly path: string; readonly query: URLSearchParams },
  { capabilities }: CapabilityRoutes,
): Promise<boolean> {
  const [, protocol = ''] = /^\/capabilities\/([^/]+)$/.exec(path) ?? [];
  if (protocol === '' || request.method !== 'POST') return false;
  assertKnown(query, [], 'usage');
  if (!protocolField.safeParse(protocol).success) throw new MeshError('capability_not_found');
  const gone = goneSignal(response);
  const body = await readJsonBody(request, bodySchema, maxBodyBytes, 'bad_payload');
  const { version = '*' } = body;
  if (validRange(version) === null)
    throw new MeshError('bad_payload', `${JSON.stringify(version)} is not a range of versions`, {
      hint: 'Write a semver range, such as ^1.0.0 or 2.x.',
    });
  const named = await namedModel(protocol, body.payload, capabilities);
  const model = named?.choice.model ?? null;
  const device = body.device ?? named?.choice.device ?? null;
  const answer = capabilities.request({
    protocol,
    version,
    payload: model === null ? (body.payload ?? null) : { ...(body.payload as Record<string, Json>), model },
    parts: (body.parts ?? []).map((part) => Buffer.from(part, 'base64')),
    ...(body.prefer_device == null ? {} : { preferDevice: body.prefer_device }),
    ...(device === null ? {} : { onlyDevice: device }),
    features: [...(body.features ?? []), ...(model === null ? [] : [modelFeature + model])],
    ...(body.session == null ? {} : { session: body.session }),
    ...(body.timeout_ms === undefined ? {} : { timeoutMs: body.timeout_ms }),
    signal: gone,
  });
  try {
    await send(response, answer, { protocol, payload: body.payload ?? null }, gone);
  } catch (thrown) {
    if (model === null || !(thrown instanceof MeshError) || thrown.code !== 'capability_not_found')
      throw thrown;
    throw modelNotFound({ model, device }, protocol, (await named?.offers()) ?? []);
  }
  return true;
}

interface Named {
  readonly choice: ModelChoice;
  readonly offers: () => Promise<readonly ModelOffer[]>;
}

/** Of a payload that names a model, `model` or `model@device`: the request goes to devices that have it. */
async function namedModel(
  protocol: string,
  payload: unknown,
  capabilities: Capabilities,
): Promise<Named | null> {
  if (!modelProtocols.has(protocol) || typeof payload !== 'object' || payload === null) return null;
  const model = 'model' in payload ? payload.model : null;
  if (typeof model !== 'string') return null;
  const offers = async (): Promise<ModelOffer[]> => offersOf(await capabilities.modelDevices());
  return { choice: await resolveModel(model, offers), offers };
}

/** Whether it streams is known with its first piece. @throws MeshError as long as nothing was sent */
async function send(
  response: ServerResponse,
  answer: CapabilityAnswer,
  asked: Asked,
  gone: AbortSignal,
): Promise<void> {
  const chunks = answer.chunks[Symbol.asyncIterator]();
  const first = await chunks.next();
  if (first.done === true) {
    const end = await answer.end;
    const embeddings = embeddingsIn(end, asked);
    setHeaders(response, headersOf(end.source));
    if (embeddings) return answerJsonPieces(response, resultIn(embeddings), gone);
    return answerJson(response, { result: end.payload, ...partsOf(end) });
  }
  const { device, deviceId, attempts } = await answer.device;
  response.writeHead(200, {
    'content-type': 'text/event-stream',
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    'cocoon-device': device,
    'cocoon-device-id': deviceId,
    'cocoon-attempts': String(attempts),
  });
  try {
    await writeChunk(response, chunkEvent(first.value), gone);
    const rest = { [Symbol.asyncIterator]: () => chunks };
    for await (const chunk of rest) await writeChunk(response, chunkEvent(chunk), gone);
    const end = await answer.end;
    response.end(event('done', { result: end.payload, ...partsOf(end), ...sourceView(end.source) }));
  } catch (thrown) {
    if (gone.aborted) response.destroy();
    else response.end(event('error', { error: toMeshError(thrown) }));
  }
}

interface Asked {
  readonly protocol: string;
  readonly payload: unknown;
}

/** Null: it is of something else. @throws MeshError bad_answer */
function embeddingsIn(
  { source, ...content }: Content & { readonly source: AnswerSource },
  { protocol, payload }: Asked,
): AsyncIterable<string> | null {
  if (protocol !== embeddingsProtocol || !satisfies(source.version, `^${embeddingsVersion}`)) return null;
  const { data } = encodingSchema.safeParse(payload);
  return embeddingsJson(checkEmbeddingsAnswer(content, inputsOf(payload)), data?.encoding_format ?? 'float');
}

async function* resultIn(json: AsyncIterable<string>): AsyncGenerator<string> {
  yield '{"result":';
  yield* json;
  yield '}';
}

function setHeaders(response: ServerResponse, headers: Readonly<Record<string, string>>): void {
  for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
}

function headersOf(source: AnswerSource): Record<string, string> {
  return {
    'Cocoon-Device': source.device,
    'Cocoon-Device-Id': source.deviceId,
    'Cocoon-Version': source.version,
    'Cocoon-Attempts': String(source.attempts),
    'Cocoon-Queue-Ms': String(source.queueMs),
    'Cocoon-Total-Ms': String(source.totalMs),
    ...(source.insteadOf ? insteadHeaders(source.insteadOf) : {}),
  };
}

/** The reason may hold anything; a header may not. */
function insteadHeaders({ device, code, reason }: InsteadOf): Record<string, string> {
  return {
    'Cocoon-Instead-Of': device,
    'Cocoon-Instead-Reason': code,
    'Cocoon-Instead-Message': encodeURIComponent(reason.toWellFormed()),
  };
}

function sourceView(source: AnswerSource) {
  return {
    device: source.device,
    device_id: source.deviceId,
    version: source.version,
    attempts: source.attempts,
    queue_ms: source.queueMs,
    total_ms: source.totalMs,
    instead_of: source.insteadOf,
  };
}

function chunkEvent(chunk: Content): string {
  return event('chunk', { payload: chunk.payload, ...partsOf(chunk) });
}

function partsOf({ parts }: Content): { readonly parts?: readonly string[] } {
  return parts.length === 0 ? {} : { parts: parts.map((part) => Buffer.from(part).toString('base64')) };
}

/** JSON has no line breaks, so an event is one line of data. */
function event(name: string, data: unknown): string {
  return `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`;
}
