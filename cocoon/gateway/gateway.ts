/**
 * The gateway: HTTP for programs of this machine (`/cocoons`, `/proxy/…`, `/tasks`, `/events`, …), and the origins
 * on which a browser uses services. It listens on loopback only, and believes nobody because of that.
 */

import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { createServer } from 'node:http';
import type { Duplex } from 'node:stream';
import type { Device, Mesh } from '@cocoon-mesh/mesh';
import type { Clock, RawHeaders } from '@cocoon-mesh/protocol';
import { MeshError, badRange, missingProtocol, rangeField, toMeshError } from '@cocoon-mesh/protocol';
import { withoutFields } from '@cocoon-mesh/proxy';
import { answerError, httpServerOptions, serveRequests } from '@cocoon-mesh/proxy/index.node.ts';
import { satisfies, validRange } from 'semver';
import type { DeviceView } from '../device-view.ts';
import { listenOnLoopback } from '../loopback.ts';
import type { Reach } from '../reach.ts';
import { answerJson, refuseUpgrade } from './answer.ts';
import { AppOrigins, withOwnCookies, withoutAppCookie } from './app-origin.ts';
import { answerClientErrors } from './client-error.ts';
import { sendEvents } from './events.ts';
import type { FeatureRoutes } from './feature-routes.ts';
import { answerFeatures, splitUrl } from './feature-routes.ts';
import { Guard } from './guard.ts';
import type { Site } from './guard.ts';
import { answerOllamaError } from './ollama-routes.ts';
import { answerOpenAiError } from './openai-error.ts';
import { Metrics } from './metrics.ts';
import type { PassOptions, ProxyTarget } from './proxy-route.ts';
import { deviceInPath, passRequest, passUpgrade, proxyTarget, withRoutePrefix } from './proxy-route.ts';

export interface GatewayOptions {
  /** 0 takes a free one. */
  readonly port: number;
  readonly token: string;
  readonly mesh: Mesh;
  readonly reach: Reach;
  readonly clock: Clock;
  readonly devices: () => readonly DeviceView[];
  /** Tasks and queries. */
  readonly features: FeatureRoutes;
}

/** What requests under way get before they are cut. */
const drainMs = 1_000;

/** Pages that come through `/proxy/` run without an origin, so they reach nothing of the gateway. */
const sandboxed: ReadonlySet<string> = new Set(['x-content-type-options']);

export class Gateway {
  readonly port: number;
  readonly #options: GatewayOptions;
  readonly #servers: readonly Server[];
  readonly #guard: Guard;
  readonly #apps: AppOrigins;
  readonly #metrics: Metrics;

  private constructor(options: GatewayOptions, port: number, servers: readonly Server[]) {
    this.port = port;
    this.#options = options;
    this.#servers = servers;
    this.#guard = new Guard(port, options.token);
    this.#apps = new AppOrigins(port, options.clock);
    this.#metrics = new Metrics(options.mesh);
    for (const server of servers) {
      answerClientErrors(server, options.clock);
      serveRequests(server, {
        request: (request, response) => void this.#request(request, response),
        upgrade: (request, socket, early) => void this.#upgrade(request, socket, early),
      });
    }
  }

  /** @throws MeshError port_in_use */
  static async start(options: GatewayOptions): Promise<Gateway> {
    const servers: Server[] = [];
    const { port } = await listenOnLoopback(() => {
      const server = createServer(httpServerOptions);
      servers.push(server);
      return server;
    }, options.port);
    return new Gateway(
      options,
      port,
      servers.filter((server) => server.listening),
    );
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** A link for a browser that opens this one service. */
  appLink(device: Device, service: string): string {
    return this.#apps.link(device, service);
  }

  /** Idempotent. */
  async close(): Promise<void> {
    const closed = this.#servers.map(
      (server) => new Promise<void>((resolve) => void server.close(() => resolve())),
    );
    const limit = this.#options.clock.after(drainMs, () => {
      for (const server of this.#servers) server.closeAllConnections();
    });
    await Promise.all(closed);
    limit.cancel();
    this.#metrics.close();
  }

  async #request(request: IncomingMessage, response: ServerResponse): Promise<void> {
    // A client may be gone before its answer; nobody is left to tell.
    response.on('error', () => undefined);
    try {
      const site = this.#guard.site(request);
      if (site.kind === 'app') await this.#appRequest(request, response, site);
      else await this.#ownRequest(request, response);
    } catch (thrown) {
      request.resume();
      if (response.headersSent) response.destroy();
      else if (request.url?.startsWith('/v1/')) answerOpenAiError(response, toMeshError(thrown));
      else if (request.url?.startsWith('/api/')) answerOllamaError(response, toMeshError(thrown));
      else answerError(response, toMeshError(thrown));
    }
  }

  async #ownRequest(request: IncomingMessage, response: ServerResponse): Promise<void> {
    this.#guard.assertNoForeignPage(request);
    const { url = '', method } = request;
    const { path, query } = splitUrl(url);
    if (method === 'GET' && path === '/healthz') return answerJson(response, { status: 'ok' });
    if (method === 'GET' && path === '/metrics') return this.#answerMetrics(response, query);
    const headers = this.#guard.authorize(request.rawHeaders);
    const target = proxyTarget(url);
    if (target) {
      this.#metrics.requestEnded(
        await passRequest(request, response, target, this.#proxied(headers, target)),
      );
      return;
    }
    if (method === 'TRACE') throw new MeshError('method_not_allowed');
    if (await answerFeatures(request, response, { path, query }, this.#options.features)) return;
    if (method === 'GET') return this.#read(response, path, query);
    throw new MeshError('not_found');
  }

  #read(response: ServerResponse, path: string, query: URLSearchParams): void {
    const { devices, mesh, clock, features } = this.#options;
    if (path === '/events') return sendEvents(response, { mesh, clock, devices, tasks: features.watchTasks });
    if (path === '/cocoons') return answerJson(response, { cocoons: devices() });
    if (path === '/cocoons/by-capability')
      return answerJson(response, { cocoons: this.#withCapability(query) });
    const [, name] = /^\/cocoons\/([^/]+)\/services$/.exec(path) ?? [];
    if (name === undefined) throw new MeshError('not_found');
    const { peerId } = mesh.resolve(deviceInPath(name));
    const services = devices().find((device) => device.peer_id === peerId)?.services ?? [];
    answerJson(response, { services });
  }

  /** Least loaded first; only devices that can be asked. Those of other owners are used when they are named. */
  #withCapability(query: URLSearchParams): DeviceView[] {
    const protocol = query.get('protocol');
    const range = query.get('version') ?? '*';
    if (protocol === null) throw missingProtocol();
    if (!rangeField.safeParse(range).success || validRange(range) === null) throw badRange();
    return this.#options
      .devices()
      .filter(
        ({ online, foreign, problem, capabilities }) =>
          online &&
          !foreign &&
          problem === null &&
          capabilities.some((own) => own.protocol === protocol && satisfies(own.version, range)),
      )
      .toSorted((a, b) => a.load - b.load);
  }

  async #answerMetrics(response: ServerResponse, query: URLSearchParams): Promise<void> {
    const text = await this.#metrics.text(query.get('collect') === '1');
    response.writeHead(200, { 'content-type': this.#metrics.contentType, 'cache-control': 'no-store' });
    response.end(text);
  }

  async #appRequest(
    request: IncomingMessage,
    response: ServerResponse,
    site: Site & { kind: 'app' },
  ): Promise<void> {
    if (this.#apps.signsIn(request, response, site.label)) return;
    const { target, options } = this.#appTarget(request, site, false);
    this.#metrics.requestEnded(await passRequest(request, response, target, options));
  }

  async #upgrade(request: IncomingMessage, socket: Duplex, early: Uint8Array): Promise<void> {
    try {
      const site = this.#guard.site(request);
      const { target, options } =
        site.kind === 'app' ? this.#appTarget(request, site, true) : this.#ownTarget(request);
      this.#metrics.requestEnded(await passUpgrade(request, socket, early, target, options));
    } catch (thrown) {
      refuseUpgrade(request, socket, toMeshError(thrown));
    }
  }

  #ownTarget(request: IncomingMessage): { target: ProxyTarget; options: PassOptions } {
    this.#guard.assertNoForeignPage(request);
    const headers = this.#guard.authorize(request.rawHeaders);
    const target = proxyTarget(request.url ?? '');
    if (!target) throw new MeshError('not_found');
    return { target, options: this.#proxied(headers, target) };
  }

  #appTarget(
    request: IncomingMessage,
    site: Site & { kind: 'app' },
    upgrade: boolean,
  ): { target: ProxyTarget; options: PassOptions } {
    const { peerId, service } = this.#apps.enter(request, site, upgrade);
    const { reach, clock } = this.#options;
    const headers = withoutAppCookie(this.#guard.withoutToken(request.rawHeaders));
    return {
      target: { device: peerId, service, target: request.url ?? '/' },
      options: { reach, clock, headers, responseHeaders: withOwnCookies },
    };
  }

  #proxied(headers: RawHeaders, target: ProxyTarget): PassOptions {
    const { reach, clock } = this.#options;
    const responseHeaders = (answered: RawHeaders) => withRoutePrefix(inSandbox(answered), target);
    return { reach, clock, headers, responseHeaders };
  }
}

function inSandbox(headers: RawHeaders): string[] {
  return [
    ...withoutFields(headers, sandboxed),
    'Content-Security-Policy',
    'sandbox',
    'X-Content-Type-Options',
    'nosniff',
  ];
}
