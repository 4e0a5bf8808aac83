/**
 * `POST /query` and `GET /aggregate/tasks`: one question to many devices. The gateway and the control socket answer
 * them alike.
 */

import type { IncomingMessage, ServerResponse } from 'node:http';
import { MeshError, jsonField, limits, queryTypes, toMeshError } from '@cocoon-mesh/protocol';
import * as z from 'zod/mini';
import { askedHeader } from '../query-stream.ts';
import type { QueryAsk, QueryResult, QueryService } from '../queries/query-service.ts';
import { answerJson } from './answer.ts';
import { Parameters, assertKnown } from './parameters.ts';
import { readJsonBody } from './request-body.ts';

export interface QueryRoutes {
  readonly queries: QueryService;
}

const defaultRows = 50;
/** Parameters, a cursor, and names of devices. */
const maxBodyBytes = limits.maxQueryParamsBytes + limits.maxCursorBytes + 256 * 1024;
const maxDevices = 1000;

const timeoutField = z.int().check(z.gte(1), z.lte(limits.maxQueryTimeoutMs));
const limitField = z.int().check(z.gte(1), z.lte(limits.maxQueryRows));

const cursorField = z.string().check(z.maxLength(limits.maxCursorBytes));
const innerSchema = z.object({
  limit: z.optional(limitField),
  cursor: z.optional(z.nullable(cursorField)),
});

const queryBodySchema = z.strictObject({
  query_type: z.enum(queryTypes),
  params: z.optional(z.record(z.string(), jsonField(limits.maxQueryParamsBytes, 16))),
  timeout_ms: z.optional(timeoutField),
  limit: z.optional(limitField),
  cursor: z.optional(z.nullable(cursorField)),
  devices: z.optional(
    z.array(z.string().check(z.maxLength(256))).check(z.minLength(1), z.maxLength(maxDevices)),
  ),
});

const listParameters = [
  'status',
  'label',
  'order',
  'created_after',
  'created_before',
  'limit',
  'cursor',
  'timeout_ms',
  'device',
] as const;

/** @returns false: it is no route of these */
export async function answerQueries(
  request: IncomingMessage,
  response: ServerResponse,
  { path, query }: { path: string; query: URLSearchParams },
  { queries }: QueryRoutes,
): Promise<boolean> {
  const gone = new AbortController();
  response.on('close', () => gone.abort(new DOMException('The client is gone', 'AbortError')));
  if (path === '/query' && request.method === 'POST') {
    // There are none; one that somebody believes in must not be passed over.
    assertKnown(query, [], 'usage');
    await answerQuery(request, response, queries, gone.signal);
    return true;
  }
  if (path !== '/aggregate/tasks' || request.method !== 'GET') return false;
  const answer = await listTasks(query, queries, gone.signal);
  if (!('rows' in answer)) throw new MeshError('internal');
  const { rows, ...rest } = answer;
  answerJson(response, { tasks: rows, ...rest });
  return true;
}

async function answerQuery(
  request: IncomingMessage,
  response: ServerResponse,
  queries: QueryService,
  signal: AbortSignal,
): Promise<void> {
  const body = await readJsonBody(request, queryBodySchema, maxBodyBytes, 'bad_filter');
  const ask = queries.prepare(askOf(body));
  const line = (value: unknown): void => {
    if (!response.headersSent) response.writeHead(200, ndjsonHeaders);
    response.write(`${JSON.stringify(value)}\n`);
  };
  if (request.headers[askedHeader] !== undefined) line({ asked: ask.devices });
  try {
    const result = await ask.run(signal, (part) => line({ part }));
    line({ result });
  } catch (thrown) {
    // As long as nothing was said, it has a status of its own.
    if (!response.headersSent) throw thrown;
    line({ error: toMeshError(thrown) });
  }
  response.end();
}

const ndjsonHeaders = {
  'content-type': 'application/x-ndjson',
  'cache-control': 'no-store',
  'x-content-type-options': 'nosniff',
} as const;

/** `limit` and `cursor` may also stand among the parameters. @throws MeshError bad_filter */
function askOf(body: z.infer<typeof queryBodySchema>): QueryAsk {
  const { limit: innerLimit, cursor: innerCursor, ...params } = body.params ?? {};
  const inner = innerSchema.safeParse({ limit: innerLimit, cursor: innerCursor });
  if (!inner.success) throw new MeshError('bad_filter', 'limit is a number and cursor a text');
  return {
    type: body.query_type,
    params,
    limit: body.limit ?? inner.data.limit ?? null,
    cursor: body.cursor ?? inner.data.cursor ?? null,
    timeoutMs: body.timeout_ms ?? limits.queryTimeoutMs,
    devices: body.devices ?? null,
  };
}

async function listTasks(
  query: URLSearchParams,
  queries: QueryService,
  signal: AbortSignal,
): Promise<QueryResult> {
  const parameters = new Parameters(query, listParameters, 'bad_filter');
  const text = (name: string): Record<string, string> => {
    const value = parameters.one(name);
    return value === null ? {} : { [name]: value };
  };
  const list = (name: string, as = name): Record<string, string[]> => {
    const values = parameters.list(name);
    return values.length === 0 ? {} : { [as]: values };
  };
  const devices = parameters.list('device');
  const ask = queries.prepare({
    type: 'list_tasks',
    params: {
      ...list('status'),
      ...list('label', 'labels'),
      ...text('order'),
      ...text('created_after'),
      ...text('created_before'),
    },
    limit: parameters.number('limit', { from: 1, to: limits.maxQueryRows }) ?? defaultRows,
    cursor: parameters.one('cursor'),
    timeoutMs:
      parameters.number('timeout_ms', { from: 1, to: limits.maxQueryTimeoutMs }) ?? limits.queryTimeoutMs,
    devices: devices.length === 0 ? null : devices,
  });
  return ask.run(signal);
}
