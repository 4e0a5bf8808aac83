/**
 * A peer that is no cocoon: the mesh library with a membership of its own, so that a story can ask an installed
 * daemon what no command would, on a real connection. It believes and keeps what the library does.
 */

import { createMesh, resetCodeOf } from '@cocoon-mesh/mesh';
import type { Mesh, SelfDescription, Stream } from '@cocoon-mesh/mesh';
import { selectEngine } from '@cocoon-mesh/mesh/engines/select.node.ts';
import { nodeSignalingSocket } from '@cocoon-mesh/mesh/signaling-socket.node.ts';
import type { OwnerAnswer, OwnerRequest, SetupToken, SigningKey } from '@cocoon-mesh/protocol';
import {
  MeshError,
  ResetCode,
  concat,
  decode,
  encode,
  encodeServiceOpen,
  generateSigningKey,
  limits,
  ownerAnswerSchema,
  ownerRequestSchema,
  proxyErrorSchema,
  readSetupToken,
  resetCodeName,
  streamProtocols,
  systemClock,
  tcpProtocol,
} from '@cocoon-mesh/protocol';
import { fetchThrough } from '@cocoon-mesh/proxy';
import { MemoryStore } from '../mesh/two-peers.ts';
import type { CocoonProcess } from './cocoon-process.ts';

const patienceMs = 20_000;

export class WirePeer implements AsyncDisposable {
  readonly key: SigningKey;
  readonly mesh: Mesh;
  readonly store: MemoryStore;

  private constructor(key: SigningKey, mesh: Mesh, store: MemoryStore) {
    this.key = key;
    this.mesh = mesh;
    this.store = store;
  }

  /** Joins with a token that an installed command made. */
  static async join(
    token: string,
    self: Pick<SelfDescription, 'kind' | 'name'>,
    signalingUrl?: string,
  ): Promise<WirePeer> {
    const setup = await readSetupToken(token);
    const key = await generateSigningKey();
    return WirePeer.#start(key, new MemoryStore(null), self, signalingUrl ?? setup.grant.signaling, setup);
  }

  /** The same key and membership at another signaling server, with everything forgotten that others told it. */
  async elsewhere(signalingUrl: string): Promise<WirePeer> {
    const self = this.mesh.devices().find((device) => device.self);
    await this.mesh.close();
    const store = new MemoryStore(this.store.membership);
    return WirePeer.#start(this.key, store, { kind: 'cocoon', name: self?.name ?? 'peer' }, signalingUrl);
  }

  static async #start(
    key: SigningKey,
    store: MemoryStore,
    self: Pick<SelfDescription, 'kind' | 'name'>,
    signalingUrl: string,
    token?: SetupToken,
  ): Promise<WirePeer> {
    const { engine } = await selectEngine('auto');
    const mesh = await createMesh({
      key,
      engine,
      iceServers: [],
      signalingUrl,
      openSocket: nodeSignalingSocket,
      self: { ...self, services: [], capabilities: [] },
      store,
      ...(token ? { token } : {}),
      clock: systemClock,
      log: () => undefined,
    });
    mesh.start();
    const peer = new WirePeer(key, mesh, store);
    try {
      await mesh.ready(AbortSignal.timeout(patienceMs));
    } catch (thrown) {
      await mesh.close();
      throw thrown;
    }
    return peer;
  }

  /** A peer of the owner that this device belongs to. */
  static async of(
    cocoon: CocoonProcess,
    name: string,
    options: { kind?: 'cocoon' | 'browser'; args?: readonly string[] } = {},
  ): Promise<WirePeer> {
    const { token } = await cocoon.json<{ token: string }>('generate-token', ...(options.args ?? []));
    return WirePeer.join(token, { kind: options.kind ?? 'cocoon', name });
  }

  get peerId(): string {
    return this.key.peerId;
  }

  /** Resolves when the device is listed as online. */
  async sees(peerId: string): Promise<void> {
    const there = (): boolean =>
      this.mesh.devices().some((device) => device.peerId === peerId && device.online);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const forget = this.mesh.on('devices', () => (there() ? resolve() : undefined));
    const limit = setTimeout(() => reject(new Error(`${peerId} is not listed`)), patienceMs);
    if (there()) resolve();
    try {
      await promise;
    } finally {
      clearTimeout(limit);
      forget();
    }
  }

  lists(peerId: string): boolean {
    return this.mesh.devices().some((device) => device.peerId === peerId);
  }

  /** `ok` or the code of the error. */
  async session(peerId: string): Promise<string> {
    return outcome(async () => {
      await this.mesh.ping(peerId, AbortSignal.timeout(patienceMs));
      return 'ok';
    });
  }

  /** The status of a GET, or the code of the error. */
  async proxy(peerId: string, service: string): Promise<string> {
    return outcome(async () => {
      const header = encodeServiceOpen({ service });
      const stream = await this.mesh.openStream(peerId, streamProtocols.http, header, patience());
      const response = await fetchThrough(stream, { path: '/' }, { clock: systemClock, signal: patience() });
      await response.body.cancel();
      return String(response.status);
    });
  }

  /** `connected` or the code of the error. */
  async forward(peerId: string, service: string): Promise<string> {
    return outcome(async () => {
      const stream = await this.mesh.openStream(
        peerId,
        tcpProtocol,
        encodeServiceOpen({ service }),
        patience(),
      );
      const first = (await stream.read()) ?? new Uint8Array();
      stream.reset(ResetCode.cancel);
      // The record: kind (5 error, 6 connected), length, payload.
      if (first[0] === 6) return 'connected';
      return decode(proxyErrorSchema, first.slice(4), first.length).code;
    });
  }

  /** What the device says to a stream: `denied`, `unsupported` (let in, and nobody there yet) or `answered`. */
  async stream(peerId: string, protocol: string, header = new Uint8Array()): Promise<string> {
    return outcome(async () => {
      const stream = await this.mesh.openStream(peerId, protocol, header, patience());
      stream.end();
      while ((await stream.read()) !== null);
      return 'answered';
    });
  }

  /** Asks a device that holds the secret. */
  async owner(peerId: string, request: OwnerRequest): Promise<OwnerAnswer> {
    return this.ownerRaw(peerId, encode(ownerRequestSchema, request));
  }

  async ownerRaw(peerId: string, request: Uint8Array): Promise<OwnerAnswer> {
    const stream = await this.mesh.openStream(peerId, streamProtocols.owner, new Uint8Array(), patience());
    stream.write(request);
    stream.end();
    return decode(ownerAnswerSchema, await all(stream), limits.maxOwnerMessageBytes);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.mesh.close();
  }
}

function patience(): AbortSignal {
  return AbortSignal.timeout(patienceMs);
}

async function all(stream: Stream): Promise<Uint8Array> {
  let bytes: Uint8Array = new Uint8Array();
  for (let next = await stream.read(); next !== null; next = await stream.read()) bytes = concat(bytes, next);
  return bytes;
}

/** What came of it, in a word: the code of an error, or of the reset that ended the stream. */
export async function outcome(work: () => Promise<string>): Promise<string> {
  try {
    return await work();
  } catch (thrown) {
    const reset = resetCodeOf(thrown);
    if (reset !== null) return resetCodeName(reset);
    if (thrown instanceof MeshError) return thrown.code;
    throw thrown;
  }
}
