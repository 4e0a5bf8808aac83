/**
 * The mesh of one peer, put together: the signaling client, the directory of devices, the links. It decides who
 * is welcome (a valid membership of my own owner) and hands streams to the handlers of features.
 */

import type { Clock, Hello, MembershipProof, Redemption, ServerMessage, Timer } from '@cocoon-mesh/protocol';
import {
  MeshError,
  ResetCode,
  deadline,
  every,
  limits,
  peekTicket,
  randomBytes,
  redeem,
  sessionVersions,
  signDeviceRecord,
  toBase64Url,
  verifyMembership,
} from '@cocoon-mesh/protocol';
import { Directory } from './directory.ts';
import type { KnownDevice } from './directory.ts';
import type { EngineName, Path } from './engine.ts';
import type { Judgement, Link } from './links.ts';
import { Links } from './links.ts';
import type {
  Device,
  Mesh,
  MeshEvents,
  MeshOptions,
  ProvenPeer,
  SelfDescription,
  StreamHandler,
} from './mesh.ts';
import type { Credentials, SignalingState, Welcome } from './signaling-client.ts';
import { SignalingClient } from './signaling-client.ts';
import type { Stream } from './stream.ts';

const requestTimeoutMs = 5_000;
/** How often the load is compared with what signaling was told. */
const loadCheckMs = 5_000;
/** After this silence a session is asked whether it lives before a request is trusted to it. */
const doubtAfterMs = limits.pingAfterMs + 500;
/** A session in doubt answers within this or is given up: many times a ping behind bulk, half of the heartbeat's. */
const probeMs = 2_000;

/** A heartbeat ends a ping that nobody answers, even without a signal. */
const never = new AbortController().signal;

/** Reads what is stored; signing in starts with `start`. */
export async function createMesh(options: MeshOptions): Promise<Mesh> {
  const [membership, pins] = await Promise.all([options.store.loadMembership(), options.store.loadPins()]);
  const mesh = new PeerMesh(options, pins);
  if (membership) await mesh.adopt(membership);
  return mesh;
}

class PeerMesh implements Mesh {
  readonly instance = toBase64Url(randomBytes(16));
  readonly #options: MeshOptions;
  readonly #clock: Clock;
  readonly #directory: Directory;
  readonly #signaling: SignalingClient;
  readonly #links: Links;
  readonly #handlers = new Map<string, StreamHandler>();
  readonly #listeners: { [K in keyof MeshEvents]: Set<MeshEvents[K]> } = {
    devices: new Set(),
    signaling: new Set(),
    session: new Set(),
  };
  #self: SelfDescription;
  #membership: MembershipProof | null = null;
  #owner: string | null = null;
  #redemption: Redemption | null = null;
  #record = '';
  #seq = 0;
  #load = 0;
  #loadCheck: Timer | null = null;
  /** Questions under way whether a session lives. */
  readonly #probes = new Map<string, Promise<void>>();
  /** Entries are verified one after the other, so that an old one never overtakes a new one. */
  #entries: Promise<unknown> = Promise.resolve();

  constructor(options: MeshOptions, pins: Record<string, string>) {
    this.#options = options;
    this.#clock = options.clock;
    this.#self = options.self;
    this.#directory = new Directory({
      clock: options.clock,
      self: options.key.peerId,
      owner: () => this.#owner,
      pins,
      pinned: (next) => void this.#save(options.store.savePins({ ...next })),
      rejected: (peerId, error) =>
        options.log('warn', 'Signaling named a device that proves nothing', {
          peer: peerId,
          why: error instanceof Error ? error.message : String(error),
        }),
    });
    this.#signaling = new SignalingClient({
      url: options.signalingUrl,
      openSocket: options.openSocket,
      key: options.key,
      clock: options.clock,
      random: randomFraction,
      credentials: () => this.#credentials(),
      welcomed: (welcome) => this.#welcomed(welcome),
      message: (message) => this.#message(message),
      changed: (state) => this.#signalingChanged(state),
    });
    this.#links = new Links({
      key: options.key,
      engine: options.engine,
      iceServers: options.iceServers,
      clock: options.clock,
      ...(options.aead ? { aead: options.aead } : {}),
      introduce: (peerId) => this.#introduce(peerId),
      sendSignal: (jti, payload) => void this.#signaling.send({ type: 'signal', jti, payload }),
      ticketAuthority: () => this.#ticketAuthority(),
      hello: () => this.#hello(),
      judge: (peerId, hello) => this.#judge(peerId, hello),
      accept: (stream, link) => this.#accept(stream, link),
      changed: (peerId, up) => {
        this.#emit('session', peerId, up);
        this.#emit('devices');
      },
      log: options.log,
    });
  }

  get peerId(): string {
    return this.#options.key.peerId;
  }

  get owner(): string | null {
    return this.#owner;
  }

  get signaling(): SignalingState {
    return this.#signaling.state;
  }

  get sessionCount(): number {
    return this.#links.all().length;
  }

  get streamCount(): number {
    return this.#links.all().reduce((sum, { session }) => sum + session.streams, 0);
  }

  /** Takes a stored membership as mine. @throws MeshError membership_invalid | membership_expired | … */
  async adopt(membership: MembershipProof): Promise<void> {
    const now = Math.floor(this.#clock.now() / 1000);
    const proven = await verifyMembership(membership, this.peerId, now);
    this.#membership = membership;
    this.#owner = proven.owner;
  }

  start(): void {
    this.#signaling.start();
    this.#loadCheck = every(this.#clock, loadCheckMs, () => this.#tellLoad());
  }

  async ready(signal: AbortSignal): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const look = (): void => {
      const state = this.#signaling.state;
      if (state.state === 'connected') resolve();
      else if (state.state === 'refused') reject(new MeshError(state.code, state.message));
    };
    const stop = (): void =>
      reject(new MeshError('signaling_unreachable', undefined, { cause: signal.reason }));
    const forget = this.on('signaling', look);
    signal.addEventListener('abort', stop, { once: true });
    look();
    if (signal.aborted) stop();
    try {
      await promise;
    } finally {
      forget();
      signal.removeEventListener('abort', stop);
    }
  }

  devices(): readonly Device[] {
    const others = this.#directory
      .all()
      .filter(({ record }) => record.peer_id !== this.peerId)
      .map((known) => this.#deviceOf(known))
      .toSorted((a, b) => (a.name < b.name ? -1 : 1));
    return [this.#ownDevice(), ...others];
  }

  resolve(nameOrPeerId: string): Device {
    const own = this.#ownDevice();
    if (nameOrPeerId === own.name || nameOrPeerId === own.peerId) return own;
    return this.#deviceOf(this.#directory.resolve(nameOrPeerId));
  }

  async openStream(
    peerId: string,
    protocol: string,
    header: Uint8Array,
    signal?: AbortSignal,
  ): Promise<Stream> {
    const link = await this.#liveLink(peerId, signal);
    return link.session.open(protocol, header);
  }

  async ping(
    peerId: string,
    signal?: AbortSignal,
  ): Promise<{ rttMs: number; path: Path | null; engine: EngineName }> {
    const link = await this.#liveLink(peerId, signal);
    const rttMs = await link.session.ping(signal ?? never);
    return { rttMs, path: link.path, engine: link.engine };
  }

  handle(protocol: string, handler: StreamHandler): void {
    this.#handlers.set(protocol, handler);
  }

  disconnect(peerId: string): void {
    this.#links.disconnect(peerId);
  }

  async describe(self: SelfDescription): Promise<void> {
    this.#self = self;
    await this.#signRecord();
    this.#signaling.send({ type: 'record', record: this.#record });
    this.#emit('devices');
  }

  async acceptName(name: string): Promise<void> {
    this.#directory.acceptName(name);
    this.#emit('devices');
  }

  on<K extends keyof MeshEvents>(event: K, listener: MeshEvents[K]): () => void {
    this.#listeners[event].add(listener);
    return () => void this.#listeners[event].delete(listener);
  }

  async close(): Promise<void> {
    this.#loadCheck?.cancel();
    await this.#links.close();
    this.#signaling.close();
    await this.#entries;
  }

  // Signing in

  async #credentials(): Promise<Credentials> {
    if (this.#record === '') await this.#signRecord();
    const record = this.#record;
    if (this.#membership) return { membership: this.#membership, record };
    const { token, key } = this.#options;
    if (!token) throw new MeshError('membership_invalid', 'This device has neither a membership nor a token');
    this.#redemption ??= await redeem(token, key, key.peerId);
    return { redemption: this.#redemption, record };
  }

  async #welcomed(welcome: Welcome): Promise<void> {
    if (!this.#membership) await this.#becomeMember(welcome);
    // Everything is verified before anybody sees it; the list replaces what was known to be online.
    const entries = this.#entries.then(async () => {
      this.#directory.allOffline();
      for (const entry of welcome.devices) await this.#directory.apply(entry);
    });
    this.#entries = entries;
    await entries;
    await this.#avoidTakenName();
    this.#emit('devices');
  }

  async #becomeMember(welcome: Welcome): Promise<void> {
    if (!this.#redemption || welcome.receipt === undefined)
      throw new MeshError('token_invalid', 'Signaling gave no receipt for the setup token');
    const claim: MembershipProof = {
      kind: 'claim',
      redemption: this.#redemption,
      receipt: welcome.receipt,
    };
    await this.adopt(claim);
    await this.#options.store.saveMembership(claim);
  }

  async #avoidTakenName(): Promise<void> {
    const free = this.#directory.freeName(this.#self.name, this.peerId);
    if (free === this.#self.name) return;
    this.#options.log('warn', `The name ${this.#self.name} is taken; this device is called ${free}`, {
      name: free,
    });
    await this.describe({ ...this.#self, name: free });
  }

  #signalingChanged(state: SignalingState): void {
    // Presence is signaling's to tell; without it nobody is known to be online but those we have a session with.
    if (state.state === 'waiting' || state.state === 'refused') this.#directory.allOffline();
    if (state.state === 'connected') {
      // The record may have changed while the sign-in was under way.
      this.#signaling.send({ type: 'record', record: this.#record });
      this.#signaling.send({ type: 'load', load: this.#load });
    }
    this.#emit('signaling', state);
    this.#emit('devices');
  }

  #message(message: ServerMessage): void {
    switch (message.type) {
      case 'device':
        this.#entries = this.#entries.then(async () => {
          if (await this.#directory.apply(message.device)) this.#emit('devices');
        });
        // Its process may be gone, or only its line to signaling: the session itself knows.
        if (!message.device.online) this.#doubt(message.device.peer_id);
        return;
      case 'introduction':
        // With an id it answers our own request.
        if (message.id === undefined) this.#introducedBy(message);
        return;
      case 'signal':
        this.#links.signal(message.jti, message.payload);
        return;
      default:
    }
  }

  #introducedBy(message: ServerMessage & { type: 'introduction' }): void {
    const { device, ticket } = message;
    this.#links.introduced(ticket, device.peer_id, () =>
      this.#directory.verify(device.peer_id, device.record, device.membership),
    );
    this.#entries = this.#entries.then(() => this.#directory.apply(device));
  }

  async #introduce(peerId: string): Promise<string> {
    const known = this.#directory.get(peerId);
    if (this.#signaling.state.state === 'connected' && known && !known.online)
      throw new MeshError('device_offline', `${known.record.name} is offline`);
    const answer = await this.#signaling.request(
      (id) => ({ type: 'introduce', id, peer_id: peerId }),
      requestTimeoutMs,
    );
    if (answer.type !== 'introduction') throw new MeshError('bad_message');
    if (peekTicket(answer.ticket).answerer !== peerId) throw new MeshError('ticket_invalid');
    return answer.ticket;
  }

  #ticketAuthority(): { key: Uint8Array; nowSeconds: number } {
    const state = this.#signaling.state;
    if (state.state !== 'connected') throw new MeshError('signaling_unreachable');
    return { key: state.ticketKey, nowSeconds: (this.#clock.now() + state.clockOffsetMs) / 1000 };
  }

  #tellLoad(): void {
    const load = Math.min(1, Math.max(0, this.#options.load?.() ?? 0));
    if (Math.abs(load - this.#load) < 0.05) return;
    this.#load = load;
    this.#signaling.send({ type: 'load', load });
  }

  async #signRecord(): Promise<void> {
    const now = this.#clock.now();
    // Rises across restarts too, without being stored: time in milliseconds does.
    this.#seq = Math.max(this.#seq + 1, now);
    const { kind, name, services, capabilities, location } = this.#self;
    this.#record = await signDeviceRecord(this.#options.key, {
      kind,
      name,
      seq: this.#seq,
      services: services.map((service) => ({ name: service.name, type: service.type })),
      capabilities: capabilities.map(({ protocol, version }) => ({ protocol, version })),
      ...(location === undefined ? {} : { location }),
      iat: Math.floor(now / 1000),
    });
  }

  // Who is welcome

  async #hello(): Promise<Hello> {
    if (!this.#membership) throw new MeshError('membership_invalid', 'This device is not enrolled yet');
    return {
      versions: [...sessionVersions],
      carriers: ['webrtc'],
      engine: this.#options.engine.name,
      instance: this.instance,
      membership: this.#membership,
      record: this.#record,
      revocations: [],
      max_streams: limits.maxStreams,
    };
  }

  async #judge(peerId: string, hello: Hello): Promise<Judgement> {
    const judgement = await this.#directory.verify(peerId, hello.record, hello.membership);
    const pinned = this.#directory.pinnedElsewhere(judgement.record);
    if (pinned !== null)
      this.#options.log('warn', 'A device uses a name that is pinned to another', {
        name: judgement.record.name,
        peer: peerId,
        pinned,
      });
    return judgement;
  }

  #accept(stream: Stream, link: Link): void {
    const { expires } = link.membership;
    if (expires !== null && expires * 1000 <= this.#clock.now()) {
      stream.reset(ResetCode.denied);
      this.#links.cut(link.peerId, 'the membership has ended');
      return;
    }
    const handler = this.#handlers.get(stream.protocol);
    if (!handler) {
      stream.reset(ResetCode.unsupported);
      return;
    }
    const peer: ProvenPeer = {
      peerId: link.peerId,
      name: link.record.name,
      membership: link.membership,
    };
    handler(stream, peer);
  }

  // Links

  /** A session that answers: one in doubt is asked first, and replaced if it is dead. */
  async #liveLink(peerId: string, signal?: AbortSignal): Promise<Link> {
    const existing = this.#links.get(peerId);
    if (existing && existing.session.silentMs > doubtAfterMs) this.#doubt(peerId);
    await this.#probes.get(peerId);
    return this.#links.connect(peerId, signal);
  }

  /** Asks the session to a peer whether it lives; requests to that peer wait for the answer. */
  #doubt(peerId: string): void {
    const link = this.#links.get(peerId);
    if (!link || this.#probes.has(peerId)) return;
    const probe = this.#probe(link).finally(() => this.#probes.delete(peerId));
    this.#probes.set(peerId, probe);
  }

  async #probe(link: Link): Promise<void> {
    const limit = deadline(this.#clock, probeMs);
    try {
      await link.session.ping(limit.signal);
    } catch {
      link.session.giveUp();
    } finally {
      limit.cancel();
    }
  }

  // Views

  #ownDevice(): Device {
    const { kind, name, services, capabilities, location } = this.#self;
    return {
      peerId: this.peerId,
      kind,
      name,
      online: true,
      self: true,
      services,
      capabilities,
      location: location ?? null,
      load: this.#load,
      path: null,
      engine: null,
      rttMs: null,
      problem: null,
    };
  }

  #deviceOf({ record, online, load }: KnownDevice): Device {
    const link = this.#links.get(record.peer_id);
    const pinned = this.#directory.pinnedElsewhere(record);
    return {
      peerId: record.peer_id,
      kind: record.kind,
      name: record.name,
      online: online || link !== undefined,
      self: false,
      services: record.services,
      capabilities: record.capabilities,
      location: record.location ?? null,
      load,
      path: link?.path ?? null,
      engine: link?.engine ?? null,
      rttMs: link?.session.stats.rttMs ?? null,
      problem: pinned === null ? null : `the name ${record.name} is pinned to ${pinned}`,
    };
  }

  #emit<K extends keyof MeshEvents>(event: K, ...args: Parameters<MeshEvents[K]>): void {
    for (const listener of this.#listeners[event])
      (listener as (...values: Parameters<MeshEvents[K]>) => void)(...args);
  }

  async #save(saving: Promise<void>): Promise<void> {
    try {
      await saving;
    } catch (error) {
      this.#options.log('warn', 'The state of the mesh could not be saved', { error: String(error) });
    }
  }
}

function randomFraction(): number {
  const [high = 0, low = 0] = randomBytes(2);
  return (high * 256 + low) / 65_536;
}
