/**
 * A signaling server that keeps none of the promises: it signs anybody in, introduces anybody to anybody, makes
 * tickets as it likes and may change whatever it relays. Without hooks it behaves, so each attack has an honest
 * control. It is a real WebSocket server, so that installed cocoons can be pointed at it.
 */

import { once } from 'node:events';
import { createServer } from 'node:http';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type {
  ClientMessage,
  DeviceEntry,
  ServerMessage,
  SignalPayload,
  SigningKey,
} from '@cocoon-mesh/protocol';
import {
  clientMessageSchema,
  decode,
  encode,
  generateSigningKey,
  limits,
  randomBytes,
  serverMessageSchema,
  signTicket,
  toBase64Url,
} from '@cocoon-mesh/protocol';
import { WebSocket, WebSocketServer } from 'ws';

export interface HostileHooks {
  /** Changes what is relayed; null drops it. */
  relay?: (payload: SignalPayload, from: string, to: string) => SignalPayload | null;
  /** Changes what is told of a device. */
  describe?: (entry: DeviceEntry) => DeviceEntry;
  /** Gives another server nonce than a random one. */
  challenge?: () => string;
  /** Gives another ticket than a fresh one. */
  ticket?: (fresh: string, offerer: string, answerer: string) => string;
}

export interface SignIn {
  readonly peerId: string;
  readonly clientNonce: string;
  readonly serverNonce: string;
  readonly time: number;
  readonly signature: string;
}

interface Client {
  readonly socket: WebSocket;
  peerId: string;
  clientNonce: string;
  serverNonce: string;
  time: number;
}

export class HostileSignaling {
  hooks: HostileHooks = {};
  /** Every signature it was given. */
  readonly signIns: SignIn[] = [];
  /** Every ticket it made. */
  readonly tickets: string[] = [];
  readonly #http: Server;
  readonly #sockets: WebSocketServer;
  readonly #key: SigningKey;
  readonly #clients = new Map<string, Client>();
  readonly #entries = new Map<string, DeviceEntry>();
  readonly #introduced = new Map<string, readonly [offerer: string, answerer: string]>();
  readonly #intercepted = new Map<string, (payload: SignalPayload) => void>();
  readonly #waiting = new Set<{ test: () => boolean; done: () => void }>();

  constructor(http: Server, key: SigningKey) {
    this.#http = http;
    this.#key = key;
    this.#sockets = new WebSocketServer({ server: http, path: '/ws' });
    this.#sockets.on('connection', (socket) => this.#connected(socket));
  }

  static async start(): Promise<HostileSignaling> {
    const http = createServer((_, response) => response.writeHead(404).end());
    http.listen(0, '127.0.0.1');
    await once(http, 'listening');
    return new HostileSignaling(http, await generateSigningKey());
  }

  get url(): string {
    return `ws://127.0.0.1:${(this.#http.address() as AddressInfo).port}/ws`;
  }

  entry(peerId: string): DeviceEntry {
    const entry = this.#entries.get(peerId);
    if (!entry) throw new Error(`${peerId} has not signed in`);
    return entry;
  }

  /** Resolves when these peers have signed in. */
  async online(...peerIds: readonly string[]): Promise<void> {
    await this.until(() => peerIds.every((peerId) => this.#clients.has(peerId)));
  }

  /** Resolves when `test` holds; looked at after every message. */
  async until(test: () => boolean): Promise<void> {
    if (test()) return;
    await new Promise<void>((done) => this.#waiting.add({ test, done }));
  }

  /** A ticket for whom it likes. */
  async mint(offerer: string, answerer: string): Promise<string> {
    const now = Math.floor(Date.now() / 1000);
    const ticket = await signTicket(this.#key, {
      jti: nonce(),
      owner: `own_${'A'.repeat(43)}`,
      offerer,
      answerer,
      nonce: nonce(),
      scopes: ['session'],
      iat: now,
      exp: now + limits.ticketLifetimeMs / 1000,
    });
    this.tickets.push(ticket);
    return ticket;
  }

  /** Presents a ticket to a peer as if somebody had asked for it. */
  introduce(to: string, ticket: string, device: DeviceEntry): void {
    this.send(to, { type: 'introduction', ticket, device });
  }

  /** Signals with this ticket's `jti` come here and reach nobody else. */
  intercept(jti: string, take: (payload: SignalPayload) => void): void {
    this.#intercepted.set(jti, take);
  }

  send(to: string, message: ServerMessage): void {
    const client = this.#clients.get(to);
    if (client) write(client.socket, message);
  }

  /** Cuts every connection; clients come back by themselves. */
  dropAll(): void {
    for (const socket of this.#sockets.clients) socket.terminate();
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets.clients) socket.terminate();
    this.#http.close();
    await once(this.#http, 'close');
  }

  #connected(socket: WebSocket): void {
    const client: Client = { socket, peerId: '', clientNonce: '', serverNonce: '', time: 0 };
    socket.on('message', (data: Buffer) => {
      const message = decode(clientMessageSchema, new Uint8Array(data), 1 << 20);
      void this.#message(client, message).finally(() => this.#look());
    });
    socket.on('close', () => {
      if (this.#clients.get(client.peerId) === client) this.#gone(client);
      this.#look();
    });
  }

  #gone(client: Client): void {
    this.#clients.delete(client.peerId);
    const entry = this.#entries.get(client.peerId);
    if (entry) this.#tell({ ...entry, online: false });
  }

  async #message(client: Client, message: ClientMessage): Promise<void> {
    switch (message.type) {
      case 'sign_in':
        client.peerId = message.peer_id;
        client.clientNonce = message.nonce;
        client.serverNonce = this.hooks.challenge?.() ?? nonce();
        client.time = Math.floor(Date.now() / 1000);
        return write(client.socket, { type: 'challenge', nonce: client.serverNonce, time: client.time });
      case 'sign_in_proof':
        return this.#signedIn(client, message);
      case 'record': {
        const entry = this.entry(client.peerId);
        return this.#tell({ ...entry, record: message.record });
      }
      case 'introduce':
        return this.#introduce(client, message.id, message.peer_id);
      case 'signal':
        return this.#relay(client, message.jti, message.payload);
      case 'ping':
        return write(client.socket, { type: 'pong', id: message.id });
      default:
    }
  }

  #signedIn(client: Client, message: ClientMessage & { type: 'sign_in_proof' }): void {
    const { peerId, clientNonce, serverNonce, time } = client;
    this.signIns.push({ peerId, clientNonce, serverNonce, time, signature: message.signature });
    if (!message.membership) return client.socket.close(1008);
    this.#clients.set(peerId, client);
    const now = Math.floor(Date.now() / 1000);
    this.#tell({
      peer_id: peerId,
      online: true,
      load: 0,
      record: message.record,
      membership: message.membership,
      last_seen: now,
    });
    const key = toBase64Url(this.#key.publicKey);
    write(client.socket, {
      type: 'welcome',
      time_ms: Date.now(),
      ticket_key: key,
      receipt_key: key,
      access_token: 'none',
      devices: [...this.#entries.values()].map((entry) => this.#described(entry)),
      revocations: [],
    });
  }

  /** Everybody hears of everybody. */
  #tell(entry: DeviceEntry): void {
    this.#entries.set(entry.peer_id, entry);
    for (const peerId of this.#clients.keys())
      if (peerId !== entry.peer_id) this.send(peerId, { type: 'device', device: this.#described(entry) });
  }

  #described(entry: DeviceEntry): DeviceEntry {
    return this.hooks.describe?.(entry) ?? entry;
  }

  async #introduce(client: Client, id: number, answerer: string): Promise<void> {
    const fresh = await this.mint(client.peerId, answerer);
    const ticket = this.hooks.ticket?.(fresh, client.peerId, answerer) ?? fresh;
    this.#introduced.set(jtiOf(ticket), [client.peerId, answerer]);
    write(client.socket, {
      type: 'introduction',
      id,
      ticket,
      device: this.#described(this.entry(answerer)),
    });
    this.introduce(answerer, ticket, this.#described(this.entry(client.peerId)));
  }

  #relay(client: Client, jti: string, payload: SignalPayload): void {
    this.#intercepted.get(jti)?.(payload);
    const pair = this.#introduced.get(jti);
    const to = pair?.find((peerId) => peerId !== client.peerId);
    if (to === undefined) return;
    const changed = this.hooks.relay ? this.hooks.relay(payload, client.peerId, to) : payload;
    if (changed) this.send(to, { type: 'signal', jti, payload: changed });
  }

  #look(): void {
    for (const waiting of this.#waiting) {
      if (!waiting.test()) continue;
      this.#waiting.delete(waiting);
      waiting.done();
    }
  }
}

/** Other digits in every fingerprint of an SDP: the certificate of somebody else. */
export function swapFingerprint(payload: SignalPayload): SignalPayload {
  if (payload.kind !== 'offer' && payload.kind !== 'answer') return payload;
  const sdp = payload.sdp.replace(
    /(a=fingerprint:sha-256 )([0-9A-F:]+)/gi,
    (_, head: string, digits: string) => head + digits.split(':').toReversed().join(':'),
  );
  return { ...payload, sdp };
}

export function jtiOf(ticket: string): string {
  const payload: unknown = JSON.parse(Buffer.from(ticket.split('.')[1] ?? '', 'base64url').toString());
  return (payload as { jti: string }).jti;
}

function nonce(): string {
  return toBase64Url(randomBytes(16));
}

function write(socket: WebSocket, message: ServerMessage): void {
  if (socket.readyState === WebSocket.OPEN) socket.send(encode(serverMessageSchema, message));
}
