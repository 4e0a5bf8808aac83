/**
 * What the tests of the proxy stand on: a gateway on node:http, two sessions over memory carriers, and a device
 * that serves local ports. Raw sockets speak to the gateway where bytes matter. `await using` closes everything.
 */

import { createServer, type RequestListener, type Server } from 'node:http';
import {
  type AddressInfo,
  connect,
  createServer as createTcpServer,
  type Server as TcpServer,
  type Socket,
} from 'node:net';
import type { Stream } from '@cocoon-mesh/mesh';
import { memoryCarrierPair } from '@cocoon-mesh/mesh/memory-carrier.ts';
import { Session } from '@cocoon-mesh/mesh/session.ts';
import {
  type Clock,
  encodeServiceOpen,
  httpProtocol,
  MeshError,
  ResetCode,
  systemClock,
  tcpProtocol,
} from '@cocoon-mesh/protocol';
import { httpServerOptions, maxHttpHeaderSize, serveRequests } from './http-server.node.ts';
import { proxyHttp, type ProxyOptions, type ProxyOutcome, proxyUpgrade } from './proxy-http.node.ts';
import { serveHttp } from './serve-http.node.ts';
import { ServiceConnections, type ServiceTarget } from './service-connections.node.ts';
import { serveTcp } from './tcp.node.ts';

export interface MeshedOptions {
  readonly clock?: Clock;
  readonly services?: ReadonlyMap<string, ServiceTarget>;
  readonly proxy?: Partial<ProxyOptions>;
  /** In place of the real serving end: a device that does what a test wants. It must read its streams. */
  readonly accept?: (stream: Stream) => void;
}

/** Two devices joined by a session; the second has services. */
export class Devices implements AsyncDisposable {
  readonly clock: Clock;
  readonly services: Map<string, ServiceTarget>;
  readonly connections = new ServiceConnections();
  readonly asking: Session;
  readonly serving: Session;
  /** Exchanges that the serving device has not finished. */
  readonly serves = new Set<Promise<void>>();

  constructor(options: MeshedOptions = {}) {
    this.clock = options.clock ?? systemClock;
    this.services = new Map(options.services);
    const [left, right] = memoryCarrierPair();
    // Sessions have the real clock: a stepped one would have them declare each other dead.
    const common = { clock: systemClock };
    this.asking = new Session({
      ...common,
      carrier: left,
      localPeer: 'asking',
      remotePeer: 'serving',
      acceptStream: (stream) => stream.reset(ResetCode.unsupported),
    });
    this.serving = new Session({
      ...common,
      carrier: right,
      localPeer: 'serving',
      remotePeer: 'asking',
      acceptStream: options.accept ?? ((stream) => this.#accept(stream)),
    });
  }

  open(service: string, protocol: string = httpProtocol): Stream {
    return this.asking.open(protocol, encodeServiceOpen({ service }));
  }

  openTcp(service: string): Stream {
    return this.open(service, tcpProtocol);
  }

  #accept(stream: Stream): void {
    const resolveService = (name: string) => this.services.get(name) ?? null;
    const { clock, connections } = this;
    const serve = stream.protocol === tcpProtocol ? serveTcp : serveHttp;
    const served = serve(stream, { resolveService, clock, connections });
    this.serves.add(served);
    void served.finally(() => this.serves.delete(served));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.asking.abort('the test is over');
    this.serving.abort('the test is over');
    this.connections.close();
    await Promise.all(this.serves);
  }
}

/** A gateway whose requests all go to the service `web`. */
export class Gateway implements AsyncDisposable {
  readonly devices: Devices;
  readonly server: Server;
  readonly outcomes: ProxyOutcome[] = [];
  #port = 0;

  private constructor(devices: Devices, options: MeshedOptions) {
    this.devices = devices;
    this.server = createServer(httpServerOptions);
    const proxyOptions = (target: string | undefined): ProxyOptions => ({
      target: target ?? '/',
      clock: devices.clock,
      openStream: async () => devices.open('web'),
      ...options.proxy,
    });
    serveRequests(this.server, {
      request: (request, response) => {
        void proxyHttp(request, response, proxyOptions(request.url)).then((one) => this.outcomes.push(one));
      },
      upgrade: (request, socket, early) => {
        void proxyUpgrade(request, socket, early, proxyOptions(request.url)).then((one) =>
          this.outcomes.push(one),
        );
      },
    });
  }

  static async open(options: MeshedOptions = {}): Promise<Gateway> {
    const gateway = new Gateway(new Devices(options), options);
    gateway.#port = await listen(gateway.server);
    return gateway;
  }

  get port(): number {
    return this.#port;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.server.closeAllConnections();
    await Promise.all([closed(this.server), this.devices[Symbol.asyncDispose]()]);
  }
}

/** A service on node:http, reachable as `web` through the gateway. */
export async function withService(
  listener: RequestListener,
  options: MeshedOptions = {},
): Promise<ProxiedService> {
  const server = createServer({ maxHeaderSize: maxHttpHeaderSize, requestTimeout: 0 }, listener);
  server.maxHeadersCount = 0;
  const port = await listen(server);
  return new ProxiedService(
    server,
    port,
    await Gateway.open({ services: new Map([['web', { port }]]), ...options }),
  );
}

export class ProxiedService implements AsyncDisposable {
  readonly service: Server;
  readonly servicePort: number;
  readonly gateway: Gateway;

  constructor(service: Server, servicePort: number, gateway: Gateway) {
    this.service = service;
    this.servicePort = servicePort;
    this.gateway = gateway;
  }

  get port(): number {
    return this.gateway.port;
  }

  get devices(): Devices {
    return this.gateway.devices;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.gateway[Symbol.asyncDispose]();
    this.service.closeAllConnections();
    await closed(this.service);
  }
}

/** A service that is a plain socket: `onConnection` speaks the bytes. Reachable as `web`. */
export async function withRawService(
  onConnection: (socket: Socket) => void,
  options: MeshedOptions = {},
): Promise<RawService> {
  const server = createTcpServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => undefined);
    onConnection(socket);
  });
  const port = await listen(server);
  return new RawService(
    server,
    port,
    await Gateway.open({ services: new Map([['web', { port }]]), ...options }),
  );
}

export class RawService implements AsyncDisposable {
  readonly service: TcpServer;
  readonly servicePort: number;
  readonly gateway: Gateway;
  /** Connections taken so far. */
  connections = 0;
  readonly #sockets = new Set<Socket>();

  constructor(service: TcpServer, servicePort: number, gateway: Gateway) {
    this.service = service;
    this.servicePort = servicePort;
    this.gateway = gateway;
    service.on('connection', (socket) => {
      this.connections++;
      this.#sockets.add(socket);
      socket.once('close', () => this.#sockets.delete(socket));
    });
  }

  get port(): number {
    return this.gateway.port;
  }

  get devices(): Devices {
    return this.gateway.devices;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.gateway[Symbol.asyncDispose]();
    for (const socket of this.#sockets) socket.destroy();
    await closed(this.service);
  }
}

/** A client that is a plain socket, Latin-1. */
export class RawClient implements AsyncDisposable {
  readonly socket: Socket;
  #text = '';
  #state: 'open' | 'ended' | 'broken' = 'open';
  readonly #waiting = new Set<() => void>();

  constructor(port: number) {
    this.socket = connect({ port, host: '127.0.0.1', noDelay: true, allowHalfOpen: true });
    this.socket.setEncoding('latin1');
    this.socket.on('data', (text: string) => {
      this.#text += text;
      this.#notify();
    });
    this.socket.on('end', () => this.#become('ended'));
    this.socket.on('error', () => this.#become('broken'));
    this.socket.on('close', () => this.#notify());
  }

  send(...lines: string[]): void {
    this.socket.write(lines.join('\r\n'), 'latin1');
  }

  /** Everything received, once it holds `part`. Rejects when the connection ends before. */
  async until(part: string | RegExp): Promise<string> {
    await this.#when(() => matches(this.#text, part) || this.#state !== 'open');
    if (!matches(this.#text, part)) throw new Error(`the connection ended before ${part}: ${this.#text}`);
    return this.#text;
  }

  get text(): string {
    return this.#text;
  }

  /** How the connection ended for this side. */
  async over(): Promise<'ended' | 'broken'> {
    await this.#when(() => this.#state !== 'open');
    return this.#state === 'ended' ? 'ended' : 'broken';
  }

  #become(state: 'ended' | 'broken'): void {
    if (this.#state === 'open') this.#state = state;
    this.#notify();
  }

  #notify(): void {
    for (const check of this.#waiting) check();
  }

  #when(condition: () => boolean): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const check = () => {
      if (!condition()) return;
      this.#waiting.delete(check);
      resolve();
    };
    this.#waiting.add(check);
    check();
    return promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.socket.destroy();
  }
}

function matches(text: string, part: string | RegExp): boolean {
  return typeof part === 'string' ? text.includes(part) : part.test(text);
}

export async function listen(server: Server | TcpServer, host = '127.0.0.1'): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', reject);
  server.listen(0, host, resolve);
  await promise;
  server.off('error', reject);
  return (server.address() as AddressInfo).port;
}

export async function closed(server: Server | TcpServer): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  server.close(() => resolve());
  await promise;
}

/** A port nobody listens on. */
export async function freePort(): Promise<number> {
  const server = createTcpServer();
  const port = await listen(server);
  await closed(server);
  return port;
}

/** Resolves when every stream and exchange of the devices has ended. */
export async function quiet(devices: Devices): Promise<void> {
  const limit = AbortSignal.timeout(10_000);
  while (devices.asking.streams > 0 || devices.serving.streams > 0 || devices.serves.size > 0) {
    if (limit.aborted) throw new MeshError('timeout', 'the streams do not end');
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/** Resolves when the connection of a service has been ended or cut by the other side. */
export function ended(socket: Socket): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  socket.on('end', resolve).on('close', () => resolve());
  socket.resume();
  return promise;
}
