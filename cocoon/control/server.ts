/**
 * The control socket: what the user's own commands ask of the daemon. The file system says who may: the socket is
 * 0600 in a folder of the user's own. There are no names and no tokens here.
 */

import { rm } from 'node:fs/promises';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { createServer } from 'node:http';
import { once } from 'node:events';
import type { Clock } from '@cocoon-mesh/protocol';
import { MeshError, toMeshError } from '@cocoon-mesh/protocol';
import { withoutFields } from '@cocoon-mesh/proxy';
import { answerError, httpServerOptions, serveRequests } from '@cocoon-mesh/proxy/index.node.ts';
import type { Commands } from '../commands-api.ts';
import { answerJson, refuseUpgrade } from '../gateway/answer.ts';
import type { FeatureRoutes } from '../gateway/feature-routes.ts';
import { answerFeatures, splitUrl } from '../gateway/feature-routes.ts';
import { passRequest, proxyTarget } from '../gateway/proxy-route.ts';
import type { Reach } from '../reach.ts';
import { errorHeader } from './client.ts';
import { prepareSocketFolder } from './socket-path.ts';

export interface ControlOptions {
  readonly path: string;
  readonly commands: Commands;
  readonly reach: Reach;
  readonly clock: Clock;
  /** Tasks and queries: as at the gateway. */
  readonly features: FeatureRoutes;
}

type Body = Readonly<Record<string, unknown>>;
type Route = (commands: Commands, body: Body, signal: AbortSignal) => unknown;
type LongRoute = (
  commands: Commands,
  body: Body,
  signal: AbortSignal,
  onProgress: (progress: object) => void,
) => Promise<unknown>;

const maxBodyBytes = 1024 * 1024;
const drainMs = 500;

const routes: Readonly<Record<string, Route>> = {
  'GET /status': (commands) => commands.status(),
  'GET /devices': (commands) => commands.askedDevices(),
  'POST /devices/accept': (commands, { name }) => commands.acceptName(text(name)),
  'POST /tokens': (commands, body) => commands.owner.makeToken(body),
  'POST /claims': (commands, { token }) => commands.owner.claim(text(token)),
  'GET /owners': (commands) => commands.owner.owners(),
  'POST /owners/remove': (commands, { owner }) => commands.owner.removeOwner(text(owner)),
  'POST /tokens/revoke': (commands, { token, sure }) =>
    commands.owner.revokeToken(text(token), sure === true),
  'POST /revocations': (commands, { device, sure }) => commands.owner.revoke(text(device), sure === true),
  'POST /rotation': (commands, { recovery_code: code, keep, without, unrevoke, revoked_since: since }) =>
    commands.owner.prepareRotation(text(code), texts(keep), texts(without), {
      devices: texts(unrevoke ?? []),
      since: typeof since === 'number' ? since : null,
    }),
  'POST /rotation/commit': (commands, { id }) => commands.owner.commitRotation(text(id)),
  'POST /ping': (commands, { device }, signal) => commands.ping(text(device), signal),
  'GET /services': (commands) => commands.services(),
  'POST /services': (commands, { service }) => commands.addService(text(service)),
  'POST /services/remove': (commands, { name }) => commands.removeService(text(name)),
  'POST /open': (commands, { target }) => commands.open(target === null ? null : text(target)),
  'GET /doctor': (commands) => commands.doctor(),
  'GET /plugins': (commands) => commands.plugins.list(),
  'POST /plugins': (commands, { path }) => commands.plugins.add(text(path)),
  'POST /plugins/remove': (commands, { name }) => commands.plugins.remove(text(name)),
  'GET /kb': (commands) => commands.knowledge.list(),
  'POST /kb/remove': (commands, { paths }) => commands.knowledge.remove(texts(paths)),
};

/** They take a while: lines say how far they are, the last one how it ended. */
const longRoutes: Readonly<Record<string, LongRoute>> = {
  'POST /kb': (commands, { paths, watch, only }, signal, onProgress) =>
    commands.knowledge.add(texts(paths), {
      watch: watch === true,
      signal,
      onProgress,
      ...(only === null ? {} : { only: texts(only) }),
    }),
};

export class ControlServer {
  readonly #options: ControlOptions;
  readonly #server: Server;

  private constructor(options: ControlOptions, server: Server) {
    this.#options = options;
    this.#server = server;
  }

  /** The home must be locked: whatever socket is there is of a daemon that is gone. */
  static async start(options: ControlOptions): Promise<ControlServer> {
    await prepareSocketFolder(options.path);
    await rm(options.path, { force: true });
    const server = createServer(httpServerOptions);
    const control = new ControlServer(options, server);
    serveRequests(server, {
      request: (request, response) => void control.#request(request, response),
      upgrade: (request, socket) => refuseUpgrade(request, socket, new MeshError('not_found')),
    });
    // The socket is made with these rights, so there is no moment in which it has others.
    const umask = process.umask(0o177);
    try {
      server.listen(options.path);
    } finally {
      process.umask(umask);
    }
    await once(server, 'listening');
    return control;
  }

  /** Idempotent. */
  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => void this.#server.close(() => resolve()));
    const limit = this.#options.clock.after(drainMs, () => this.#server.closeAllConnections());
    await closed;
    limit.cancel();
  }

  async #request(request: IncomingMessage, response: ServerResponse): Promise<void> {
    // A command may be gone before its answer; nobody is left to tell.
    response.on('error', () => undefined);
    try {
      const { url = '', method = 'GET' } = request;
      const target = proxyTarget(url);
      if (target) {
        const { reach, clock } = this.#options;
        await passRequest(request, response, target, {
          reach,
          clock,
          // The socket has no name that a service could use.
          headers: withoutFields(request.rawHeaders, hostField),
          responseHeaders: (headers) => withoutFields(headers, marks),
          answerError: answerOwnError,
        });
      } else if (method === 'POST' && url === '/forwards') {
        await this.#options.commands.forward(request, response);
      } else if (!(await answerFeatures(request, response, splitUrl(url), this.#options.features))) {
        const long = longRoutes[`${method} ${url}`];
        if (long) await this.#answerLong(request, response, long);
        else await this.#answer(request, response, routes[`${method} ${url}`]);
      }
    } catch (thrown) {
      answerOwnError(response, toMeshError(thrown));
    }
  }

  async #answer(request: IncomingMessage, response: ServerResponse, route: Route | undefined): Promise<void> {
    if (!route) throw new MeshError('not_found');
    const gone = new AbortController();
    response.on('close', () => gone.abort());
    const body = await readBody(request);
    const value = await route(this.#options.commands, body, gone.signal);
    answerJson(response, value ?? {});
  }

  async #answerLong(request: IncomingMessage, response: ServerResponse, route: LongRoute): Promise<void> {
    const gone = new AbortController();
    response.on('close', () => gone.abort());
    const body = await readBody(request);
    const line = (value: object): void => {
      if (!response.headersSent) response.writeHead(200, { 'content-type': 'application/x-ndjson' });
      response.write(`${JSON.stringify(value)}\n`);
    };
    try {
      line({
        answer: await route(this.#options.commands, body, gone.signal, (progress) => line({ progress })),
      });
    } catch (thrown) {
      // As long as nothing was said, it has a status of its own.
      if (!response.headersSent) throw thrown;
      line({ error: toMeshError(thrown) });
    }
    response.end();
  }
}

const marks: ReadonlySet<string> = new Set([errorHeader]);
const hostField: ReadonlySet<string> = new Set(['host']);

export function answerOwnError(response: ServerResponse, error: MeshError): void {
  if (response.headersSent) {
    response.destroy();
    return;
  }
  response.setHeader(errorHeader, error.code);
  answerError(response, error);
}

async function readBody(request: IncomingMessage): Promise<Body> {
  let all = '';
  request.setEncoding('utf8');
  for await (const chunk of request) {
    all += String(chunk);
    if (all.length > maxBodyBytes) throw new MeshError('message_too_large');
  }
  const body: unknown = all === '' ? {} : JSON.parse(all);
  if (typeof body !== 'object' || body === null) throw new MeshError('bad_message');
  return body as Body;
}

function text(value: unknown): string {
  if (typeof value !== 'string') throw new MeshError('bad_message');
  return value;
}

function texts(value: unknown): string[] {
  if (Array.isArray(value) && value.every((item) => typeof item === 'string')) return value;
  throw new MeshError('bad_message');
}
