/**
 * A signaling server that keeps none of the promises: it signs anybody in, introduces anybody to anybody, makes
 * tickets as it likes and may change whatever it relays. Without hooks it behaves, so each attack has an honest
 * control; but of revocations it tells nobody anything. It is a real WebSocket server, so that installed cocoons can
 * be pointed at it.
 */

import { once } from 'node:events';
import { createServer } from 'node:http';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type {
  ClientMessage,
  DeviceEntry,
  ProvenShare,
  ServerMessage,
  ShareProof,
  SignalPayload,
  SigningKey,
} from '@cocoon-mesh/protocol';
import {
  clientMessageSchema,
  decode,
  encode,
  generateSigningKey,
  limits,
  peekGrant,
  randomBytes,
  serverMessageSchema,
  signReceipt,
  signTicket,
  toBase64Url,
  verifyDeviceRecord,
  verifyMembership,
  verifyShare,
} from '@cocoon-mesh/protocol';
import { WebSocket, WebSocketServer } from 'ws';

export interface HostileHooks {
  /** Changes what is relayed; null drops it. */
  relay?: (payload: SignalPayload, from: string, to: string) => SignalPayload | null;
  /** Changes what is told of a device. */
  describe?: (entry: DeviceEntry) => DeviceEntry;
  /** Says nothing of a share to this peer. */
  hidesShareFrom?: (peerId: string) => boolean;
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

export interface TicketChange {
  /** Another one than that which the server names. */
  readonly key?: SigningKey;
  /** Seconds since it was made; below 0 in the future. */
  readonly age?: number;
  /** Seconds. */
  readonly lifetime?: number;
}

interface Client {
  readonly socket: WebSocket;
  peerId: string;
  clientNonce: string;
  serverNonce: string;
  time: number;
  owner: string;
}

interface KnownShare {
  readonly proof: ShareProof;
  readonly proven: ProvenShare;
}

export class HostileSignaling {
  hooks: HostileHooks = {};
  /** Every signature it was given. */
  readonly signIns: SignIn[] = [];
  /** Every ticket it made. */
  readonly tickets: string[] = [];
  /** Everything that was sent to it, but pings and what it relays. */
  readonly received: { readonly from: string; readonly message: ClientMessage }[] = [];
  readonly #http: Server;
  readonly #sockets: WebSocketServer;
  readonly #key: SigningKey;
  readonly #clients = new Map<string, Client>();
  readonly #entries = new Map<string, DeviceEntry>();
  readonly #shares: KnownShare[] = [];
  /** Records for other owners, by PeerId and owner. */
  readonly #audienceRecords = new Map<string, string>();
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

  /** What setup tokens must name. */
  get receiptKey(): Uint8Array {
    return this.#key.publicKey;
  }

  /** A receipt for whom it likes. */
  async receipt(jti: string, redeemer: string): Promise<string> {
    return signReceipt(this.#key, { jti, redeemer, now: Math.floor(Date.now() / 1000) });
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
  async mint(offerer: string, answerer: string, change: TicketChange = {}): Promise<string> {
    const now = Math.floor(Date.now() / 1000);
    const { key = this.#key, age = 0, lifetime = limits.ticketLifetimeMs / 1000 } = change;
    const ticket = await signTicket(key, {
      jti: nonce(),
      owner: `own_${'A'.repeat(43)}`,
      offerer,
      answerer,
      nonce: nonce(),
      scopes: ['session'],
      iat: now - age,
      exp: now - age + lifetime,
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
    const client: Client = { socket, peerId: '', clientNonce: '', serverNonce: '', time: 0, owner: '' };
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
    if (message.type !== 'ping' && message.type !== 'signal')
      this.received.push({ from: client.peerId, message });
    switch (message.type) {
      case 'sign_in':
        client.peerId = message.peer_id;
        client.clientNonce = message.nonce;
        client.serverNonce = this.hooks.challenge?.() ?? nonce();
        client.time = Math.floor(Date.now() / 1000);
        return write(client.socket, { type: 'challenge', nonce: client.serverNonce, time: client.time });
      case 'sign_in_proof':
        return this.#signedIn(client, message);
      case 'record':
        return this.#record(client, message.record);
      case 'membership':
        return this.#tell({ ...this.entry(client.peerId), membership: message.membership });
      case 'issue':
        this.send(message.peer_id, { type: 'membership', membership: message.membership });
        return this.#tell({ ...this.entry(message.peer_id), membership: message.membership });
      case 'share':
        return this.#share(message.share);
      case 'claim':
        return this.#claim(client, message);
      case 'introduce':
        return this.#introduce(client, message.id, message.peer_id);
      case 'signal':
        return this.#relay(client, message.jti, message.payload);
      case 'ping':
        return write(client.socket, { type: 'pong', id: message.id });
      default:
    }
  }

  async #record(client: Client, record: string): Promise<void> {
    const { audience } = await verifyDeviceRecord(record, client.peerId);
    if (audience === undefined) return this.#tell({ ...this.entry(client.peerId), record });
    this.#audienceRecords.set(`${client.peerId} ${audience}`, record);
    this.#tell(this.entry(client.peerId));
  }

  async #claim(client: Client, { id, redemption }: ClientMessage & { type: 'claim' }): Promise<void> {
    const { redeemer } = redemption;
    const receipt = await this.receipt(peekGrant(redemption.grant).jti, redeemer);
    write(client.socket, { type: 'claimed', id, receipt });
    await this.#share({ kind: 'claim', redemption, receipt });
  }

  /** The newest between the same two counts. */
  async #share(proof: ShareProof): Promise<void> {
    const proven = await verifyShare(proof, null);
    const { cocoon, coOwner, owner } = proven;
    const old = this.#shares.findIndex(
      (each) => each.proven.cocoon === cocoon && each.proven.coOwner === coOwner,
    );
    if (old >= 0) this.#shares.splice(old, 1);
    this.#shares.push({ proof, proven });
    for (const client of this.#clients.values())
      if (client.owner === owner && this.hooks.hidesShareFrom?.(client.peerId) !== true)
        this.send(client.peerId, { type: 'share', share: proof });
    const entry = this.#entries.get(cocoon);
    if (entry) this.#tell(entry);
  }

  async #signedIn(client: Client, message: ClientMessage & { type: 'sign_in_proof' }): Promise<void> {
    const { peerId, clientNonce, serverNonce, time } = client;
    this.signIns.push({ peerId, clientNonce, serverNonce, time, signature: message.signature });
    const now = Math.floor(Date.now() / 1000);
    const { redemption } = message;
    const receipt = redemption && (await this.receipt(peekGrant(redemption.grant).jti, redemption.redeemer));
    const membership =
      message.membership ??
      (redemption && receipt ? ({ kind: 'claim', redemption, receipt } as const) : null);
    if (!membership) return client.socket.close(1008);
    client.owner = await ownerOf(membership, peerId);
    this.#clients.set(peerId, client);
    this.#tell({
      peer_id: peerId,
      online: true,
      load: 0,
      record: message.record,
      membership,
      last_seen: now,
    });
    const key = toBase64Url(this.#key.publicKey);
    write(client.socket, {
      type: 'welcome',
      time_ms: Date.now(),
      ticket_key: key,
      receipt_key: key,
      access_token: 'none',
      ...(receipt === undefined ? {} : { receipt }),
      devices: [...this.#entries.values()].flatMap((entry) => this.#seenBy(client, entry) ?? []),
      shares: this.#shares
        .filter(({ proven }) => proven.owner === client.owner && this.hooks.hidesShareFrom?.(peerId) !== true)
        .map(({ proof }) => proof),
      revocations: [],
    });
  }

  #tell(entry: DeviceEntry): void {
    this.#entries.set(entry.peer_id, entry);
    for (const client of this.#clients.values()) {
      const device = client.peerId === entry.peer_id ? null : this.#seenBy(client, entry);
      if (device) this.send(client.peerId, { type: 'device', device });
    }
  }

  /** Everybody hears of everybody; of a cocoon that is shared with it, what that wrote for it. */
  #seenBy(client: Client, entry: DeviceEntry): DeviceEntry | null {
    const share = this.#shareOf(entry.peer_id, client.owner);
    if (!share) return this.#described(entry);
    const record = this.#audienceRecords.get(`${entry.peer_id} ${client.owner}`);
    return record ? this.#described({ ...entry, record, share }) : null;
  }

  #shareOf(cocoon: string, coOwner: string): ShareProof | undefined {
    return this.#shares.find(({ proven }) => proven.cocoon === cocoon && proven.coOwner === coOwner)?.proof;
  }

  #described(entry: DeviceEntry): DeviceEntry {
    return this.hooks.describe?.(entry) ?? entry;
  }

  async #introduce(client: Client, id: number, answerer: string): Promise<void> {
    const fresh = await this.mint(client.peerId, answerer);
    const ticket = this.hooks.ticket?.(fresh, client.peerId, answerer) ?? fresh;
    this.#introduced.set(jtiOf(ticket), [client.peerId, answerer]);
    const shown = this.#seenBy(client, this.entry(answerer)) ?? this.#described(this.entry(answerer));
    write(client.socket, { type: 'introduction', id, ticket, device: shown });
    const share = this.#shareOf(answerer, client.owner);
    const offerer = { ...this.entry(client.peerId), ...(share ? { share } : {}) };
    this.introduce(answerer, ticket, this.#described(offerer));
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

/** Nobody's, when it proves nothing: it is let in all the same. */
async function ownerOf(membership: DeviceEntry['membership'], peerId: string): Promise<string> {
  try {
    return (await verifyMembership(membership, peerId, null)).owner;
  } catch {
    return '';
  }
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
