/** `cocoon/client`: programs of this machine ask the mesh, through the gateway of the device that runs here. */

import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import type { AnswerSource, CapabilityAnswer, CapabilityRequest, Content } from '@cocoon-mesh/capabilities';
import type { Json } from '@cocoon-mesh/protocol';
import { MeshError, isErrorCode, toMeshError } from '@cocoon-mesh/protocol/errors.ts';
import type { Asking } from './asking.ts';
import { asking } from './asking.ts';
import { eventsOf, linesOf } from './event-stream.ts';

export type { AskOptions, Asking, CapabilityResult, WantedCapability } from './asking.ts';
export type { JsonOf } from './json-of.ts';

export interface ConnectOptions {
  /** COCOON_HOME, whose gateway.token is used. Default: the variable, else `~/.cocoon`. */
  readonly home?: string;
  /** Default: `http://127.0.0.1:` and COCOON_GATEWAY_PORT, else 7401. */
  readonly url?: string;
  /** Instead of the file's. */
  readonly token?: string;
}

export interface QueryOptions {
  readonly timeoutMs?: number;
  readonly limit?: number;
  readonly cursor?: string;
  /** Names or PeerIds; default: every device that has what is asked for. */
  readonly devices?: readonly string[];
  readonly signal?: AbortSignal;
  /** Rows of a device, as they come. */
  readonly onPart?: (part: QueryPartView) => void;
}

/** As the gateway's JSON. */
export interface QueryPartView {
  readonly device: string;
  readonly device_id: string;
  readonly seq: number;
  readonly rows: readonly Json[];
  readonly is_final: boolean;
}

export interface QueryView {
  readonly rows?: readonly Json[];
  readonly next_cursor?: string | null;
  readonly stats?: Json;
  readonly devices: readonly {
    readonly id: string;
    readonly name: string;
    readonly status: 'ok' | 'timeout' | 'offline' | 'denied' | 'error';
    readonly count: number;
    readonly ms: number;
  }[];
  readonly partial: boolean;
}

export interface DeviceView {
  readonly name: string;
  readonly peer_id: string;
  readonly online: boolean;
  readonly this: boolean;
  readonly path: string | null;
  readonly services: readonly {
    readonly name: string;
    readonly type: string;
    readonly healthy: boolean | null;
  }[];
  readonly capabilities: readonly { readonly protocol: string; readonly version: string }[];
  readonly load: number;
}

export interface Client extends Asking {
  /** One question to all devices. @throws MeshError bad_filter | bad_cursor | … */
  query(type: string, params?: { readonly [key: string]: Json }, options?: QueryOptions): Promise<QueryView>;
  /** As the platform's `fetch`: `gpu/grafana/api/health` is a path of a service. @throws MeshError usage | not_running */
  fetch(target: string, init?: RequestInit): Promise<Response>;
  devices(): Promise<readonly DeviceView[]>;
}

/** @throws MeshError not_running when there is no token, so no device has run here */
export async function connect(options: ConnectOptions = {}): Promise<Client> {
  const { env } = process;
  const home = options.home ?? env['COCOON_HOME'] ?? join(homedir(), '.cocoon');
  const url = options.url ?? `http://127.0.0.1:${env['COCOON_GATEWAY_PORT'] ?? '7401'}`;
  const gateway = new GatewayClient(url.replace(/\/+$/, ''), options.token ?? (await readToken(home)));
  const loadCompiler = async () => (await import('./schema-check.ts')).compileSchema;
  return {
    ...asking((request) => ask(gateway, request), loadCompiler),
    query: (type, params, queryOptions) => query(gateway, type, params ?? {}, queryOptions ?? {}),
    fetch: (target, init) => gateway.fetchService(target, init),
    devices: async () => {
      const response = await gateway.send('GET', '/cocoons');
      return ((await response.json()) as { cocoons: DeviceView[] }).cocoons;
    },
  };
}

async function readToken(home: string): Promise<string> {
  const path = join(home, 'gateway.token');
  try {
    return (await readFile(path, 'utf8')).trim();
  } catch (cause) {
    throw new MeshError('not_running', `There is no ${path}`, { cause });
  }
}

class GatewayClient {
  readonly #url: string;
  readonly #token: string;

  constructor(url: string, token: string) {
    this.#url = url;
    this.#token = token;
  }

  /** @throws MeshError as the gateway answers, not_running, cancelled, timeout */
  async send(method: string, path: string, body?: Json, signal?: AbortSignal): Promise<Response> {
    const response = await this.#fetch(path, {
      method,
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      ...(signal === undefined ? {} : { signal }),
      headers: { 'content-type': 'application/json' },
    });
    if (response.ok) return response;
    throw problemOf(await response.text(), response);
  }

  /** What a service answers is the caller's, whatever its status. */
  async fetchService(target: string, init: RequestInit = {}): Promise<Response> {
    const [device = '', service = ''] = target.split('/');
    if (device === '' || service === '')
      throw new MeshError('usage', 'Name a device, a service and a path: gpu/grafana/api/health');
    return this.#fetch(`/proxy/${target}`, init);
  }

  async #fetch(path: string, init: RequestInit): Promise<Response> {
    const headers = new Headers(init.headers);
    // Not in Authorization, which may be the service's.
    headers.set('cocoon-authorization', `Bearer ${this.#token}`);
    try {
      return await fetch(this.#url + path, { ...init, headers });
    } catch (cause) {
      const error = toMeshError(cause, 'not_running');
      throw error.code === 'not_running'
        ? new MeshError('not_running', `No gateway answers at ${this.#url}`, { cause })
        : error;
    }
  }
}

function problemOf(body: string, response: Response): MeshError {
  let problem: { code?: unknown; title?: unknown; message?: unknown; hint?: unknown } = {};
  try {
    problem = JSON.parse(body) as typeof problem;
  } catch {
    // Not of the gateway's own.
  }
  const text = problem.title ?? problem.message;
  const retry = Number(response.headers.get('retry-after'));
  return new MeshError(
    isErrorCode(problem.code) ? problem.code : 'internal',
    typeof text === 'string' ? text : `The gateway answered ${response.status}`,
    {
      ...(typeof problem.hint === 'string' ? { hint: problem.hint } : {}),
      ...(retry > 0 ? { retryAfterMs: retry * 1000 } : {}),
    },
  );
}

type End = Content & { readonly source: AnswerSource };

function ask(gateway: GatewayClient, request: CapabilityRequest): CapabilityAnswer {
  const device: PromiseWithResolvers<Awaited<CapabilityAnswer['device']>> = Promise.withResolvers();
  const end: PromiseWithResolvers<End> = Promise.withResolvers();
  device.promise.catch(() => undefined);
  end.promise.catch(() => undefined);
  async function* chunks(): AsyncGenerator<Content, void, undefined> {
    const left = new AbortController();
    const signals = request.signal ? [request.signal, left.signal] : [left.signal];
    try {
      const path = `/capabilities/${encodeURIComponent(request.protocol)}`;
      const response = await gateway.send('POST', path, bodyOf(request), AbortSignal.any(signals));
      const source = sourceOf(response.headers, request.version);
      device.resolve(source);
      if (!(response.headers.get('content-type') ?? '').startsWith('text/event-stream')) {
        end.resolve({ ...contentOf((await response.json()) as Answered), source });
        return;
      }
      for await (const { event, data } of eventsOf(response.body)) {
        const value = JSON.parse(data) as Answered;
        if (event === 'chunk') yield contentOf(value);
        else if (event === 'done')
          return end.resolve({ ...contentOf(value), source: { ...source, ...timesOf(value) } });
        else if (event === 'error')
          throw problemOf(JSON.stringify((value as { error?: Json }).error ?? {}), response);
      }
      throw new MeshError('carrier_lost', 'The gateway broke off the answer');
    } catch (thrown) {
      const error = toMeshError(thrown);
      device.reject(error);
      end.reject(error);
      throw error;
    } finally {
      end.reject(new MeshError('cancelled'));
      left.abort(new DOMException('The answer was left', 'AbortError'));
    }
  }
  return { device: device.promise, chunks: chunks(), end: end.promise };
}

function bodyOf(request: CapabilityRequest): Json {
  const { version, payload, parts, preferDevice, onlyDevice, features, session, timeoutMs } = request;
  return {
    version,
    payload,
    ...(parts.length === 0 ? {} : { parts: parts.map(toBase64) }),
    ...(preferDevice === undefined ? {} : { prefer_device: preferDevice }),
    ...(onlyDevice === undefined ? {} : { device: onlyDevice }),
    ...(features === undefined ? {} : { features }),
    ...(session === undefined ? {} : { session }),
    ...(timeoutMs === undefined ? {} : { timeout_ms: timeoutMs }),
  };
}

function toBase64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('base64');
}

function fromBase64(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text, 'base64'));
}

/** A whole answer has its `result`, a chunk its `payload`. */
interface Answered {
  readonly result?: Json;
  readonly payload?: Json;
  readonly parts?: readonly string[];
  readonly version?: string;
  readonly instead_of?: AnswerSource['insteadOf'];
  readonly queue_ms?: number;
  readonly total_ms?: number;
}

function contentOf({ result, payload, parts }: Answered): Content {
  return { payload: result ?? payload ?? null, parts: (parts ?? []).map(fromBase64) };
}

/** Of a stream, whose headers came before it was over. */
function timesOf({
  version,
  queue_ms: queueMs,
  total_ms: totalMs,
  instead_of: insteadOf,
}: Answered): Partial<AnswerSource> {
  return {
    ...(version === undefined ? {} : { version }),
    ...(queueMs === undefined ? {} : { queueMs }),
    ...(totalMs === undefined ? {} : { totalMs }),
    ...(insteadOf === undefined ? {} : { insteadOf }),
  };
}

function sourceOf(headers: Headers, range: string): AnswerSource {
  const text = (name: string): string => headers.get(name) ?? '';
  const device = text('cocoon-instead-of');
  const code = text('cocoon-instead-reason');
  return {
    device: text('cocoon-device'),
    deviceId: text('cocoon-device-id'),
    version: headers.get('cocoon-version') ?? range,
    attempts: Number(text('cocoon-attempts')),
    queueMs: Number(text('cocoon-queue-ms')),
    totalMs: Number(text('cocoon-total-ms')),
    insteadOf:
      device !== '' && isErrorCode(code)
        ? { device, code, reason: decodeURIComponent(text('cocoon-instead-message')) }
        : null,
  };
}

type QueryLine =
  | { readonly part: QueryPartView }
  | { readonly result: QueryView }
  | { readonly error: { readonly code: string; readonly message: string } };

async function query(
  gateway: GatewayClient,
  type: string,
  params: { readonly [key: string]: Json },
  { timeoutMs, limit, cursor, devices, signal, onPart }: QueryOptions,
): Promise<QueryView> {
  const body = {
    query_type: type,
    params,
    ...(timeoutMs === undefined ? {} : { timeout_ms: timeoutMs }),
    ...(limit === undefined ? {} : { limit }),
    ...(cursor === undefined ? {} : { cursor }),
    ...(devices === undefined ? {} : { devices }),
  };
  const response = await gateway.send('POST', '/query', body, signal);
  for await (const text of linesOf(response.body)) {
    const line = JSON.parse(text) as QueryLine;
    if ('part' in line) onPart?.(line.part);
    else if ('result' in line) return line.result;
    else throw problemOf(JSON.stringify(line.error), response);
  }
  throw new MeshError('carrier_lost', 'The gateway broke off the answer');
}
