/**
 * The signaling server, put together: database, keys, parts, then the port; closed in reverse. It is thin: it
 * brings peers of one owner together and sees nothing of what they do.
 */

import type { Server as HttpServer, IncomingMessage } from 'node:http';
import { createServer } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { isIPv6 } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Bytes, Clock, Timer } from '@cocoon-mesh/protocol';
import { MeshError, deadline, every, limits, toBase64Url, toMeshError } from '@cocoon-mesh/protocol';
import type { Kysely } from 'kysely';
import type { WebSocket } from 'ws';
import { WebSocketServer } from 'ws';
import { AccessKeys } from './access-keys.ts';
import type { SignalingAudit } from './audit.ts';
import { noAudit } from './audit.ts';
import { AccessTokens } from './access-token.ts';
import { CloseCode, Connection } from './connection.ts';
import { Conversation } from './conversation.ts';
import { Desk } from './desk.ts';
import { rawProblem } from './http-answer.ts';
import type { IceServer } from './http-api.ts';
import { HttpApi } from './http-api.ts';
import { Introductions } from './introductions.ts';
import type { SignalingLog } from './log.ts';
import { chooseSubprotocol } from './message-format.ts';
import type { SignalingCounters } from './metrics.ts';
import { Metrics } from './metrics.ts';
import { Newcomers } from './newcomers.ts';
import type { OidcOptions } from './oidc.ts';
import { OidcGate, checkedOidc } from './oidc.ts';
import { openDatabase } from './open-database.ts';
import { Ownership } from './ownership.ts';
import { Presence } from './presence.ts';
import { dialledUrl, parsePublicUrl } from './public-url.ts';
import { RateLimits, addressGroup } from './rate-limits.ts';
import { loadServerKeys } from './server-keys.ts';
import type { ServerLimits } from './server-limits.ts';
import { defaultLimits } from './server-limits.ts';
import { OpenChallenges } from './sign-in.ts';
import { Store } from './store.ts';
import type { Tables } from './tables.ts';
import { WebFiles } from './web-files.ts';

export interface SignalingOptions {
  readonly host: string;
  /** 0: any free one. */
  readonly port: number;
  /** `sqlite:PATH` or `postgres://…` */
  readonly databaseUrl: string;
  /** The WebSocket URL that devices dial, when it is not this machine's own address. Then it is the only one. */
  readonly publicUrl?: string;
  /** Directory of the web UI. */
  readonly webRoot?: string;
  /** PEM texts; both or none. */
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly iceServers?: readonly IceServer[];
  /** Whoever signs in also shows an ID token of this issuer. */
  readonly oidc?: OidcOptions;
  readonly clock: Clock;
  readonly log: SignalingLog;
  readonly audit?: SignalingAudit;
  /** Tests start servers with smaller ones. */
  readonly limits?: Partial<ServerLimits>;
}

export interface SignalingServer extends AsyncDisposable {
  /** For peers: the public URL, else the address it listens on. */
  readonly url: string;
  /** The address it listens on, without a slash at the end. */
  readonly httpUrl: string;
  readonly port: number;
  /** 32 bytes; setup tokens are pinned to it. */
  readonly receiptKey: Bytes;
  readonly counters: SignalingCounters;
  /** Says goodbye to every peer and ends within five seconds. Idempotent. */
  close(): Promise<void>;
}

/** @throws MeshError port_in_use | database_corrupt | database_newer | storage_failed | bad_signaling_url | usage */
export async function startSignaling(options: SignalingOptions): Promise<SignalingServer> {
  const publicUrl = options.publicUrl === undefined ? null : parsePublicUrl(options.publicUrl);
  const db = await openDatabase(options.databaseUrl);
  const store = new Store(db);
  try {
    const server = await Server.create(options, publicUrl, db, store);
    await server.listen();
    return server;
  } catch (thrown) {
    await store.close();
    throw thrown;
  }
}

/** Devices and tokens past their time are forgotten this often. */
const forgetEveryMs = 3600_000;

class Server implements SignalingServer {
  readonly #options: SignalingOptions;
  readonly #limits: ServerLimits;
  readonly #publicUrl: string | null;
  readonly #desk: Desk;
  readonly #challenges: OpenChallenges;
  readonly #http: HttpServer;
  readonly #sockets: WebSocketServer;
  readonly #connections = new Set<Connection>();
  readonly #perAddress = new Map<string, number>();
  readonly #timers: readonly Timer[];
  #closing: Promise<void> | null = null;

  private constructor(
    options: SignalingOptions,
    limits_: ServerLimits,
    publicUrl: string | null,
    desk: Desk,
  ) {
    const { clock, tlsCert, tlsKey } = options;
    this.#options = options;
    this.#limits = limits_;
    this.#publicUrl = publicUrl;
    this.#desk = desk;
    this.#challenges = new OpenChallenges(clock, limits_.challengeMs, limits_.maxChallenges);
    const settings = {
      maxHeaderSize: limits_.maxHttpHeadBytes,
      headersTimeout: limits_.httpRequestMs,
      requestTimeout: limits_.httpRequestMs,
      connectionsCheckingInterval: 1_000,
      shouldUpgradeCallback: (request: IncomingMessage) =>
        request.headers.upgrade?.toLowerCase() === 'websocket',
    };
    this.#http =
      tlsCert !== undefined && tlsKey !== undefined
        ? createTlsServer({ ...settings, cert: tlsCert, key: tlsKey })
        : createServer(settings);
    this.#sockets = new WebSocketServer({
      noServer: true,
      maxPayload: limits.maxSignalingMessageBytes,
      perMessageDeflate: false,
      clientTracking: false,
      handleProtocols: (offered) => chooseSubprotocol(offered) ?? false,
    });
    this.#connectHttp();
    this.#timers = [
      this.#repeat(limits.signalingPingMs, () => desk.endExpired()),
      this.#repeat(forgetEveryMs, () => desk.parts.store.forgetExpired(desk.parts.ownership.nowSeconds)),
    ];
  }

  static async create(
    options: SignalingOptions,
    publicUrl: string | null,
    db: Kysely<Tables>,
    store: Store,
  ): Promise<Server> {
    const { clock, log, audit = noAudit } = options;
    if ((options.tlsCert === undefined) !== (options.tlsKey === undefined))
      throw new MeshError('usage', 'TLS needs a certificate and its key');
    const serverLimits = { ...defaultLimits, ...options.limits };
    const oidc = options.oidc ? checkedOidc(options.oidc, publicUrl) : null;
    const metrics = new Metrics();
    const keys = await loadServerKeys(store);
    const ownership = new Ownership({
      store,
      receiptKey: keys.receipt,
      clock,
      maxDevicesPerOwner: serverLimits.maxDevicesPerOwner,
      audit,
    });
    await store.forgetExpired(ownership.nowSeconds);
    const presence = new Presence(clock, metrics, serverLimits.devicePushMs);
    const introductions = new Introductions({
      presence,
      store,
      ticketKey: keys.ticket,
      clock,
      metrics,
      audit,
    });
    const { accessTokenSeconds, tokenSkewSeconds } = serverLimits;
    const accessTokens = new AccessTokens({
      keys: await AccessKeys.open({
        db,
        clock,
        signSeconds: serverLimits.accessKeySeconds,
        // The last token, and as long as it is tolerated.
        overlapSeconds: accessTokenSeconds + tokenSkewSeconds,
        skewSeconds: tokenSkewSeconds,
        rereadMs: serverLimits.accessKeyRereadMs,
      }),
      // The key that names this server for good, whatever it is called.
      issuer: `urn:cocoon:signaling:${toBase64Url(keys.receipt.publicKey)}`,
      lifetimeSeconds: accessTokenSeconds,
      skewSeconds: tokenSkewSeconds,
      clock,
    });
    const rates = new RateLimits(serverLimits.rates, (kind) => metrics.rateLimited.inc({ kind }));
    const desk = new Desk({
      clock,
      log,
      audit,
      metrics,
      store,
      keys,
      ownership,
      presence,
      introductions,
      accessTokens,
      rates,
      newcomers: new Newcomers({ rates, store, clock }),
      oidc: oidc && new OidcGate({ ...oidc, clock, log, limits: serverLimits }),
    });
    return new Server(options, serverLimits, publicUrl, desk);
  }

  get port(): number {
    return (this.#http.address() as AddressInfo | null)?.port ?? 0;
  }

  get httpUrl(): string {
    return `${this.#secure ? 'https' : 'http'}://${this.#ownHost}`;
  }

  get url(): string {
    return this.#publicUrl ?? `${this.#secure ? 'wss' : 'ws'}://${this.#ownHost}/ws`;
  }

  get receiptKey(): Bytes {
    return this.#desk.parts.keys.receipt.publicKey;
  }

  get counters(): SignalingCounters {
    return this.#desk.parts.metrics.counters;
  }

  async listen(): Promise<void> {
    const { host, port, log } = this.#options;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#http.once('error', reject);
    this.#http.listen({ host, port }, resolve);
    try {
      await promise;
    } catch (thrown) {
      for (const timer of this.#timers) timer.cancel();
      throw listenError(thrown, host, port);
    }
    this.#http.on('error', (error) => log.error({ error: error.message }, 'The HTTP server failed'));
    log.info({ url: this.url }, 'Signaling listens');
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  get #secure(): boolean {
    return this.#options.tlsCert !== undefined;
  }

  get #ownHost(): string {
    const { host } = this.#options;
    const dialled = host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host;
    return `${isIPv6(dialled) ? `[${dialled}]` : dialled}:${this.port}`;
  }

  // Requests

  #connectHttp(): void {
    const { webRoot, iceServers } = this.#options;
    const api = new HttpApi({
      desk: this.#desk,
      challenges: this.#challenges,
      webFiles: webRoot === undefined ? null : new WebFiles(webRoot),
      iceServers: iceServers ?? [],
      publicUrl: this.#publicUrl,
      secure: this.#secure,
      limits: this.#limits,
    });
    this.#http.on('request', (request, response) => void api.answer(request, response));
    this.#http.on('upgrade', (request, socket, head) => this.#upgrade(request, socket, head));
    this.#http.on('clientError', (error: NodeJS.ErrnoException, socket) => {
      const code = error.code === 'HPE_HEADER_OVERFLOW' ? 'header_too_large' : 'bad_message';
      refuse(socket, new MeshError(code, code === 'bad_message' ? 'That is not an HTTP request' : undefined));
    });
  }

  #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    // Until ws takes it over, nobody else listens for its errors.
    const ignore = (): void => undefined;
    socket.on('error', ignore);
    const refusal = this.#refusal(request);
    if (refusal) {
      refuse(socket, refusal);
      return;
    }
    this.#sockets.handleUpgrade(request, socket, head, (webSocket) => {
      socket.off('error', ignore);
      this.#connected(webSocket, request);
    });
  }

  #refusal(request: IncomingMessage): MeshError | null {
    if (this.#closing) return new MeshError('shutting_down');
    if (request.url?.split('?')[0] !== '/ws') return new MeshError('not_found');
    const offered = request.headers['sec-websocket-protocol'] ?? '';
    if (chooseSubprotocol(offered.split(',').map((name) => name.trim())) === null)
      return new MeshError('version_mismatch', 'None of the offered subprotocols is known here');
    const here = this.#perAddress.get(addressOf(request)) ?? 0;
    if (
      this.#connections.size >= this.#limits.maxConnections ||
      here >= this.#limits.maxConnectionsPerAddress
    )
      return new MeshError('overloaded', 'The server has too many connections');
    return null;
  }

  #connected(socket: WebSocket, request: IncomingMessage): void {
    const { clock, log } = this.#options;
    const { metrics } = this.#desk.parts;
    const address = addressOf(request);
    const connection = new Connection({
      socket,
      format: socket.protocol === 'cocoon.v1.json' ? 'cocoon.v1.json' : 'cocoon.v1.msgpack',
      address,
      clock,
      log,
      metrics,
      maxUnsentBytes: this.#limits.maxUnsentBytes,
    });
    this.#connections.add(connection);
    this.#perAddress.set(address, (this.#perAddress.get(address) ?? 0) + 1);
    metrics.setConnections(this.#connections.size);
    this.#background(async () => {
      await connection.ended;
      this.#connections.delete(connection);
      const left = (this.#perAddress.get(address) ?? 1) - 1;
      if (left > 0) this.#perAddress.set(address, left);
      else this.#perAddress.delete(address);
      metrics.setConnections(this.#connections.size);
    });
    connection.start(new Conversation(this.#desk, connection, this.#dialled(request)));
  }

  #dialled(request: IncomingMessage): string | MeshError {
    try {
      return dialledUrl(request, this.#publicUrl, this.#secure);
    } catch (thrown) {
      return toMeshError(thrown);
    }
  }

  /** Leaves a turn out while the one before is still at work. */
  #repeat(intervalMs: number, work: () => Promise<void>): Timer {
    let working = false;
    return every(this.#options.clock, intervalMs, () => {
      if (working) return;
      working = true;
      this.#background(() => work().finally(() => (working = false)));
    });
  }

  #background(work: () => Promise<void>): void {
    work().catch((thrown: unknown) =>
      this.#options.log.error({ error: String(thrown) }, 'Background work failed'),
    );
  }

  // The end

  async #close(): Promise<void> {
    const { clock, log } = this.#options;
    const { presence, introductions, store, oidc } = this.#desk.parts;
    for (const timer of this.#timers) timer.cancel();
    const closed = new Promise<void>((resolve) => this.#http.close(() => resolve()));
    const ended = [...this.#connections].map((connection) => {
      connection.send({ type: 'goodbye', retry_after_ms: this.#limits.goodbyeRetryMs });
      connection.close(CloseCode.goingAway, 'shutting_down');
      return connection.ended;
    });
    const patience = deadline(clock, this.#limits.goodbyeMs);
    const cut = (): void => {
      for (const connection of this.#connections) connection.terminate();
      this.#http.closeAllConnections();
    };
    patience.signal.addEventListener('abort', cut, { once: true });
    this.#http.closeIdleConnections();
    await Promise.all(ended);
    await closed;
    patience.cancel();
    oidc?.close();
    this.#challenges.close();
    introductions.close();
    presence.close();
    await store.close();
    log.info({}, 'Signaling has ended');
  }
}

function addressOf(request: IncomingMessage): string {
  return addressGroup(request.socket.remoteAddress ?? '');
}

function refuse(socket: Duplex, error: MeshError): void {
  if (!socket.writable) {
    socket.destroy();
    return;
  }
  socket.end(rawProblem(error), () => socket.destroy());
}

function listenError(thrown: unknown, host: string, port: number): MeshError {
  const code = thrown instanceof Error && 'code' in thrown ? String(thrown.code) : '';
  if (code === 'EADDRINUSE')
    return new MeshError('port_in_use', `Port ${port} is in use by another program`, { cause: thrown });
  return new MeshError('usage', `Signaling cannot listen on ${host}:${port} (${code || String(thrown)})`, {
    cause: thrown,
  });
}
