/**
 * A peer for tests that says exactly what it is told to, wrong things included, and a server on a free port with a
 * clock of the test's own. What a peer should do is `src/mesh`'s matter.
 */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { text } from 'node:stream/consumers';
import type {
  Clock,
  ClientMessage,
  DeviceContent,
  MembershipProof,
  MembershipTerms,
  GrantTerms,
  OwnerKeys,
  Redemption,
  ServerMessage,
  ShareProof,
  SignalingSubprotocol,
  SigningKey,
} from '@cocoon-mesh/protocol';
import {
  SignatureLabel,
  clientMessageSchema,
  createOwnerSecret,
  createSetupToken,
  decode,
  decodeJson,
  encode,
  encodeJson,
  generateSigningKey,
  memberRights,
  ownerKeys,
  randomBytes,
  readSetupToken,
  redeem,
  rotateOwner,
  serverMessageSchema,
  signDeviceRecord,
  signInParts,
  signLabelled,
  signMembership,
  signShare,
  toBase64Url,
  verifyShare,
} from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { WebSocket } from 'ws';
import type { SignalingOptions, SignalingServer } from './index.ts';
import { startSignaling } from './index.ts';

const patienceMs = 5_000;
const maxMessageBytes = 8 * 1024 * 1024;

export interface TestServer extends AsyncDisposable {
  readonly server: SignalingServer;
  readonly clock: SteppedClock;
  /** Everything it logged, as text. */
  readonly logged: string[];
}

export async function startTestServer(
  options: Partial<Omit<SignalingOptions, 'clock' | 'log'>> & { clock?: SteppedClock } = {},
): Promise<TestServer> {
  const clock = options.clock ?? new SteppedClock();
  const logged: string[] = [];
  const write = (fields: Record<string, unknown>, message: string): void =>
    void logged.push(`${message} ${JSON.stringify(fields)}`);
  const server = await startSignaling({
    host: '127.0.0.1',
    port: 0,
    databaseUrl: 'sqlite::memory:',
    ...options,
    clock,
    log: { debug: write, info: write, warn: write, error: write },
  });
  return { server, clock, logged, [Symbol.asyncDispose]: () => server.close() };
}

export function seconds(clock: Clock): number {
  return Math.floor(clock.now() / 1000);
}

export async function newOwner(): Promise<OwnerKeys> {
  return ownerKeys((await createOwnerSecret()).secret);
}

/** An owner, and the same owner with a new secret. */
export async function newRotatedOwner(): Promise<{
  before: OwnerKeys;
  after: OwnerKeys;
  /** Another new secret in the place of `after`, which lets grants live. */
  rotateKeeping: (grantHashes: readonly string[]) => Promise<OwnerKeys>;
}> {
  const { secret, recoveryCode } = await createOwnerSecret();
  const before = await ownerKeys(secret);
  const rotateKeeping = async (grantHashes: readonly string[]) =>
    rotateOwner(before.records, recoveryCode, (await createOwnerSecret()).secret, grantHashes);
  return { before, after: await rotateKeeping([]), rotateKeeping };
}

/** A device key with what it shows. */
export interface TestDevice {
  readonly key: SigningKey;
  readonly record: string;
  readonly membership: MembershipProof;
}

export async function newRecord(
  key: SigningKey,
  clock: Clock,
  content: Partial<DeviceContent> = {},
): Promise<string> {
  return signDeviceRecord(key, {
    kind: 'cocoon',
    name: 'device',
    seq: 1,
    services: [],
    capabilities: [],
    iat: seconds(clock),
    ...content,
  });
}

export async function newDevice(
  owner: OwnerKeys,
  clock: Clock,
  content: Partial<DeviceContent> = {},
  terms: Partial<MembershipTerms> = {},
): Promise<TestDevice> {
  const key = await generateSigningKey();
  return {
    key,
    record: await newRecord(key, clock, content),
    membership: await newMembership(owner, key.peerId, clock, terms),
  };
}

export async function newMembership(
  owner: OwnerKeys,
  peerId: string,
  clock: Clock,
  terms: Partial<MembershipTerms> = {},
): Promise<MembershipProof> {
  return signMembership(owner, { peerId, serial: 1, rights: memberRights, now: seconds(clock), ...terms });
}

/** What the holder of a fresh token sends. */
export async function newRedemption(
  owner: OwnerKeys,
  { server, clock }: TestServer,
  redeemer: SigningKey,
  terms: Partial<GrantTerms> = {},
): Promise<Redemption> {
  const token = await newToken(owner, { server, clock }, terms);
  return redeem(await readSetupToken(token), redeemer, redeemer.peerId);
}

/** What a device of `coOwner` sends to be given the cocoon. */
export async function newCoOwnRedemption(
  owner: OwnerKeys,
  { server, clock }: TestServer,
  cocoon: string,
  coOwner: OwnerKeys,
  terms: Partial<GrantTerms> = {},
): Promise<Redemption> {
  const token = await newToken(owner, { server, clock }, { scope: 'co-own', cocoon, ...terms });
  return redeem(await readSetupToken(token), coOwner.key, coOwner.id, coOwner.records);
}

/** The owner's own signature in the place of a claimed chain. */
export async function newSignedShare(
  owner: OwnerKeys,
  clock: Clock,
  claimed: ShareProof,
  serial = 1,
): Promise<ShareProof> {
  return signShare(owner, await verifyShare(claimed, seconds(clock)), serial, seconds(clock));
}

export async function newToken(
  owner: OwnerKeys,
  { server, clock }: Pick<TestServer, 'server' | 'clock'>,
  terms: Partial<GrantTerms> = {},
): Promise<string> {
  const now = seconds(clock);
  const { token } = await createSetupToken(owner, {
    scope: 'enroll',
    rights: memberRights,
    now,
    expires: now + 3600,
    signaling: server.url,
    receiptKey: server.receiptKey,
    ...terms,
  });
  return token;
}

export function newNonce(): string {
  return toBase64Url(randomBytes(16));
}

interface Closed {
  readonly code: number;
  readonly reason: string;
}

export class TestPeer {
  readonly closed: Promise<Closed>;
  readonly socket: WebSocket;
  readonly #format: SignalingSubprotocol;
  readonly #messages: ServerMessage[] = [];
  #arrived = Promise.withResolvers<void>();
  #over = false;

  private constructor(socket: WebSocket, format: SignalingSubprotocol) {
    this.socket = socket;
    this.#format = format;
    this.closed = new Promise((resolve) => {
      socket.on('close', (code, reason) => {
        this.#over = true;
        this.#arrived.resolve();
        resolve({ code, reason: reason.toString() });
      });
    });
    // A broken connection is reported by `closed`.
    socket.on('error', () => undefined);
    socket.on('message', (data: Buffer, isBinary) => {
      this.#messages.push(
        isBinary
          ? decode(serverMessageSchema, data, maxMessageBytes)
          : decodeJson(serverMessageSchema, data, maxMessageBytes),
      );
      this.#arrived.resolve();
    });
  }

  static async open(
    url: string,
    options: {
      format?: SignalingSubprotocol;
      headers?: Record<string, string>;
      autoPong?: boolean;
    } = {},
  ): Promise<TestPeer> {
    const { format = 'cocoon.v1.msgpack', headers = {}, autoPong = true } = options;
    const socket = new WebSocket(url, [format], { headers, perMessageDeflate: false, autoPong });
    const peer = new TestPeer(socket, format);
    await once(socket, 'open');
    return peer;
  }

  /** Opens and signs in as a member. */
  static async member(
    url: string,
    device: TestDevice,
    options: { format?: SignalingSubprotocol } = {},
  ): Promise<{ peer: TestPeer; welcome: ServerMessage & { type: 'welcome' } }> {
    const peer = await TestPeer.open(url, options);
    const { key, record, membership } = device;
    await peer.prove(url, key, { record, membership });
    return { peer, welcome: await peer.next('welcome') };
  }

  /** Answers the challenge; what comes of it is the next message. */
  async prove(
    signedUrl: string,
    key: SigningKey,
    proof: Omit<ClientMessage & { readonly type: 'sign_in_proof' }, 'type' | 'signature'>,
  ): Promise<void> {
    const nonce = newNonce();
    this.send({ type: 'sign_in', peer_id: key.peerId, nonce });
    const challenge = await this.next('challenge');
    const signature = await signSignIn(key, signedUrl, nonce, challenge.nonce, challenge.time);
    this.send({ type: 'sign_in_proof', signature, ...proof });
  }

  send(message: ClientMessage): void {
    this.socket.send(
      this.#format === 'cocoon.v1.json'
        ? encodeJson(clientMessageSchema, message)
        : encode(clientMessageSchema, message),
    );
  }

  /** The next message, which must be of this type; those of `skip` are passed over. */
  async next<Type extends ServerMessage['type']>(
    type: Type,
    skip: readonly ServerMessage['type'][] = [],
  ): Promise<ServerMessage & { readonly type: Type }> {
    const message = await this.#next();
    if (skip.includes(message.type)) return this.next(type, skip);
    assert.equal(message.type, type, `instead of ${type} came ${JSON.stringify(message).slice(0, 300)}`);
    return message as ServerMessage & { readonly type: Type };
  }

  /** Resolves when everything sent before was dealt with; nothing may have been answered to it. */
  async quiet(): Promise<void> {
    this.send({ type: 'ping', id: 4_000_000 });
    await this.next('pong');
  }

  /** The error that ends the connection. */
  async refusal(): Promise<string> {
    const { code, id } = await this.next('error', ['device', 'revocations']);
    assert.equal(id, undefined);
    assert.equal((await this.closed).code, 1008);
    return code;
  }

  async close(): Promise<void> {
    this.socket.close();
    await this.closed;
  }

  async #next(): Promise<ServerMessage> {
    const timeout = AbortSignal.timeout(patienceMs);
    for (;;) {
      const message = this.#messages.shift();
      if (message) return message;
      if (this.#over) throw new Error(`the connection ended: ${JSON.stringify(await this.closed)}`);
      this.#arrived = Promise.withResolvers<void>();
      const stop = (): void => this.#arrived.reject(new Error('no message came'));
      timeout.addEventListener('abort', stop, { once: true });
      await this.#arrived.promise;
      timeout.removeEventListener('abort', stop);
    }
  }
}

/** What the HTTP answer to an upgrade was that became no WebSocket. */
export async function refusedUpgrade(
  url: string,
  protocols: readonly string[] = ['cocoon.v1.json'],
): Promise<{ status: number; code: string }> {
  const socket = new WebSocket(url, [...protocols]);
  const [, response] = (await once(socket, 'unexpected-response')) as [unknown, IncomingMessage];
  const body = JSON.parse(await text(response)) as { code: string };
  return { status: response.statusCode ?? 0, code: body.code };
}

export async function signSignIn(
  key: SigningKey,
  publicUrl: string,
  clientNonce: string,
  serverNonce: string,
  time: number,
): Promise<string> {
  const parts = signInParts({ publicUrl, clientNonce, serverNonce, time });
  return toBase64Url(await signLabelled(key, SignatureLabel.signIn, parts));
}
