/**
 * A peer that is no cocoon: the mesh library with a membership of its own, so that a story can ask an installed
 * daemon what no command would, on a real connection. It believes and keeps what the library does.
 */

import { createMesh } from '@cocoon-mesh/mesh';
import type { Mesh, SelfDescription } from '@cocoon-mesh/mesh';
import { selectEngine } from '@cocoon-mesh/mesh/engines/select.node.ts';
import { nodeSignalingSocket } from '@cocoon-mesh/mesh/signaling-socket.node.ts';
import type { SetupToken, SigningKey } from '@cocoon-mesh/protocol';
import { generateSigningKey, readSetupToken, systemClock } from '@cocoon-mesh/protocol';
import { MemoryStore } from '../mesh/two-peers.ts';
import { Caller } from './caller.ts';
import type { CocoonProcess } from './cocoon-process.ts';

const patienceMs = 20_000;

type Self = Pick<SelfDescription, 'kind' | 'name'> & Partial<Pick<SelfDescription, 'capabilities'>>;

export class WirePeer extends Caller implements AsyncDisposable {
  readonly key: SigningKey;
  readonly mesh: Mesh;
  readonly store: MemoryStore;

  private constructor(key: SigningKey, mesh: Mesh, store: MemoryStore) {
    super();
    this.key = key;
    this.mesh = mesh;
    this.store = store;
  }

  /** Joins with a token that an installed command made. */
  static async join(token: string, self: Self, signalingUrl?: string): Promise<WirePeer> {
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
    self: Self,
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
      self: { services: [], capabilities: [], ...self },
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
    { kind = 'cocoon', args = [], ...self }: Partial<Self> & { readonly args?: readonly string[] } = {},
  ): Promise<WirePeer> {
    const { token } = await cocoon.json<{ token: string }>('generate-token', ...args);
    return WirePeer.join(token, { kind, ...self, name });
  }

  override get peerId(): string {
    return this.key.peerId;
  }

  protected override get way(): Mesh {
    return this.mesh;
  }

  override servicesOf(peerId: string): readonly string[] | null {
    const listed = this.mesh.devices().find((device) => device.peerId === peerId);
    return listed ? listed.services.map(({ name }) => name) : null;
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

  async [Symbol.asyncDispose](): Promise<void> {
    await this.mesh.close();
  }
}
