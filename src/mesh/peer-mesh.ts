/**
 * The mesh of one peer, put together: the signaling client, the directory of devices, the links, what is known of
 * owners. It hands what signaling says to whom it concerns, and streams to the handlers of features.
 */

import type {
  ClientMessage,
  Clock,
  DeviceEntry,
  MembershipProof,
  OwnerKeys,
  OwnerRecords,
  ProvenMembership,
  ProvenShare,
  Redemption,
  ServerMessage,
  SetupToken,
  ShareProof,
  Timer,
} from '@cocoon-mesh/protocol';
import {
  MeshError,
  ResetCode,
  every,
  peekTicket,
  randomBytes,
  redeem,
  streamProtocols,
  toBase64Url,
  toMeshError,
  verifyMembership,
} from '@cocoon-mesh/protocol';
import { Admission } from './admission.ts';
import { DeviceList } from './device-list.ts';
import { Directory } from './directory.ts';
import type { EngineName, Path } from './engine.ts';
import { LatestWrite } from './latest-write.ts';
import { LinkWatch } from './link-watch.ts';
import type { Link } from './links.ts';
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
import { Ownership } from './ownership.ts';
import { RevocationNews } from './revocation-news.ts';
import { SelfRecords } from './self-records.ts';
import { SessionProbes } from './session-probes.ts';
import type { Credentials, SignalingState, Welcome } from './signaling-client.ts';
import { SignalingClient } from './signaling-client.ts';
import type { Stream } from './stream.ts';
import type { TrustEvent, TrustState } from './trust.ts';
import { Trust } from './trust.ts';

const requestTimeoutMs = 5_000;
/** How often the load is compared with what signaling was told. */
const loadCheckMs = 5_000;

/** A heartbeat ends a ping that nobody answers, even without a signal. */
const never = new AbortController().signal;

/**
 * Reads what is stored; signing in starts with `start`.
 * @throws MeshError database_corrupt | membership_invalid | membership_expired | revoked
 */
export async function createMesh(options: MeshOptions): Promise<Mesh> {
  const { store, clock, key, log } = options;
  const [membership, pins, state] = await Promise.all([
    store.loadMembership(),
    store.loadPins(),
    store.loadTrust(),
  ]);
  const saved = new LatestWrite<TrustState>(
    (next) => store.saveTrust(next),
    (error) => log('warn', 'What is known of owners could not be saved', { error: String(error) }),
  );
  let mesh: PeerMesh | null = null;
  const trust = await Trust.open({
    clock,
    self: key.peerId,
    state,
    save: (next) => saved.put(next),
    report: (event) => mesh?.trustChanged(event),
  });
  mesh = new PeerMesh(options, trust, saved, pins);
  if (membership) await mesh.recall(membership);
  return mesh;
}

class PeerMesh implements Mesh {
  readonly instance = toBase64Url(randomBytes(16));
  readonly #options: MeshOptions;
  readonly #clock: Clock;
  readonly #trust: Trust;
  readonly #saved: LatestWrite<TrustState>;
  readonly #directory: Directory;
  readonly #records: SelfRecords;
  readonly #signaling: SignalingClient;
  readonly #ownership: Ownership;
  readonly #news: RevocationNews;
  readonly #admission: Admission;
  readonly #links: Links;
  readonly #watch: LinkWatch;
  readonly #devices: DeviceList;
  readonly #probes: SessionProbes;
  readonly #handlers = new Map<string, StreamHandler>();
  readonly #listeners: { [K in keyof MeshEvents]: Set<MeshEvents[K]> } = {
    devices: new Set(),
    signaling: new Set(),
    session: new Set(),
    trust: new Set(),
    introduction: new Set(),
    provisional: new Set(),
  };
  /** Of an epoch before the last rotation: good for nothing but to be given the next one by signaling. */
  #outdated: MembershipProof | null = null;
  /** Told before there was a membership to judge them by. */
  #unjudged: readonly DeviceEntry[] = [];
  #redemption: Redemption | null = null;
  /** Devices of mine that said that they hold the secret. */
  readonly #signers = new Set<string>();
  #load = 0;
  #loadCheck: Timer | null = null;
  /** What signaling tells is taken in one after the other, so that an old word never overtakes a new one. */
  #told: Promise<unknown> = Promise.resolve();

  constructor(
    options: MeshOptions,
    trust: Trust,
    saved: LatestWrite<TrustState>,
    pins: Record<string, string>,
  ) {
    const { key, engine, clock, log, store } = options;
    this.#options = options;
    this.#clock = clock;
    this.#trust = trust;
    this.#saved = saved;
    this.#probes = new SessionProbes(clock);
    this.#records = new SelfRecords({ key, clock, shares: () => trust.shares }, options.self);
    this.#directory = new Directory({
      trust,
      self: key.peerId,
      pins,
      pinned: (next) => void this.#save(store.savePins({ ...next })),
      rejected: (peerId, error) => {
        const { code, message: why } = toMeshError(error);
        log('warn', 'Signaling named a device that proves nothing', { peer: peerId, code, why });
      },
    });
    this.#signaling = new SignalingClient({
      url: options.signalingUrl,
      openSocket: options.openSocket,
      key,
      clock,
      random: randomFraction,
      credentials: () => this.#credentials(),
      welcomed: (welcome) => this.#welcomed(welcome),
      message: (message) => this.#message(message),
      changed: (state) => this.#signalingChanged(state),
    });
    const send = (message: ClientMessage): boolean => this.#signaling.send(message);
    this.#ownership = new Ownership({
      self: key.peerId,
      trust,
      directory: this.#directory,
      saveMembership: (membership) => store.saveMembership(membership),
      send,
      request: (build) => this.#signaling.request(build, requestTimeoutMs),
      provisional: () => this.#emit('provisional'),
      log,
    });
    this.#news = new RevocationNews({
      trust,
      clock,
      links: () => this.#links.all(),
      enforce: () => this.#enforce(),
      upload: (owner, records, list) =>
        send({ type: 'revocations', owner, records: [...records], list: [...list] }),
      log,
    });
    this.#admission = new Admission({
      self: key.peerId,
      instance: this.instance,
      engine: engine.name,
      trust,
      directory: this.#directory,
      news: this.#news,
      records: this.#records,
      signs: () => options.signs?.() ?? false,
      policy: (peer, right) => options.policy?.(peer, right) ?? true,
      log,
    });
    this.#links = new Links({
      key,
      engine,
      iceServers: options.iceServers,
      clock,
      ...(options.aead ? { aead: options.aead } : {}),
      introduce: (peerId) => this.#introduce(peerId),
      sendSignal: (jti, payload) => void send({ type: 'signal', jti, payload }),
      ticketAuthority: () => this.#ticketAuthority(),
      hello: (peerId, vouched) => this.#admission.hello(peerId, vouched),
      judge: (peerId, hello) => this.#admission.judge(peerId, hello),
      accept: (stream, link) => this.#accept(stream, link),
      made: (link) => this.#made(link),
      changed: (peerId, up) => {
        this.#emit('session', peerId, up);
        this.#emit('devices');
      },
      introduced: ({ peerId, standing, dialled }, error) => {
        const { membership } = standing ?? this.#directory.get(peerId)?.standing ?? { membership: null };
        const peer = { peerId, owner: membership?.owner ?? null, dialled };
        this.#emit('introduction', peer, error?.code ?? null);
      },
      log,
    });
    const parts = { directory: this.#directory, links: this.#links };
    this.#watch = new LinkWatch({ trust, ...parts, admission: this.#admission, log });
    this.#devices = new DeviceList({
      ...parts,
      self: key.peerId,
      owner: () => trust.owner,
      description: () => this.#records.self,
      load: () => this.#load,
    });
  }

  get peerId(): string {
    return this.#options.key.peerId;
  }

  get owner(): string | null {
    return this.#trust.owner;
  }

  get ownerRecords(): OwnerRecords | null {
    const { owner } = this.#trust;
    return owner === null ? null : this.#trust.recordsOf(owner);
  }

  get membership(): ProvenMembership | null {
    return this.#trust.proven;
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

  /** Takes a stored membership as mine. @throws MeshError membership_invalid | membership_expired | revoked | … */
  async recall(membership: MembershipProof): Promise<void> {
    try {
      await this.#trust.adopt(membership);
    } catch (thrown) {
      if (toMeshError(thrown).code !== 'membership_invalid') throw thrown;
      // Genuine, but of an epoch before the last rotation: signaling may have the next one.
      await verifyMembership(membership, this.peerId, this.#trust.now);
      this.#outdated = membership;
      this.#options.log('warn', 'The owner has a new secret; this device waits for its new membership');
    }
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
    return this.#devices.all();
  }

  resolve(nameOrPeerId: string): Device {
    return this.#devices.resolve(nameOrPeerId);
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
    await this.#records.describe(self);
    await this.#uploadRecords();
    this.#emit('devices');
  }

  async acceptName(name: string): Promise<void> {
    this.#directory.acceptName(name);
    this.#emit('devices');
  }

  members(): readonly ProvenMembership[] {
    return this.#ownership.members();
  }

  shares(): readonly ProvenShare[] {
    return this.#trust.shares;
  }

  provisional(): {
    readonly memberships: readonly ProvenMembership[];
    readonly shares: readonly ProvenShare[];
  } {
    return this.#ownership.provisional();
  }

  async issueMembership(peerId: string, membership: MembershipProof): Promise<void> {
    await this.#ownership.issueMembership(peerId, membership);
    this.#watch.followDirectory();
  }

  async issueShare(share: ShareProof): Promise<void> {
    await this.#ownership.issueShare(share);
  }

  revocations(): readonly string[] {
    const { owner } = this.#trust;
    return owner === null ? [] : this.#trust.revocations(owner);
  }

  async tellOwner(records: OwnerRecords | undefined, list: readonly string[]): Promise<void> {
    const { owner } = this.#trust;
    if (owner === null) throw new MeshError('membership_invalid', 'This device is not enrolled yet');
    const before = this.#news.head(owner);
    await this.#trust.learn(owner, records, list);
    // Also when a membership of the new epoch has made a rotation known here already.
    this.#news.spread(owner, before, null);
    this.#emit('devices');
  }

  async claim(token: SetupToken, keys: OwnerKeys): Promise<ProvenShare> {
    return this.#ownership.claim(token, keys);
  }

  signers(): readonly Device[] {
    return this.devices()
      .filter(({ peerId }) => this.#signers.has(peerId))
      .toSorted((a, b) => Number(b.online) - Number(a.online));
  }

  on<K extends keyof MeshEvents>(event: K, listener: MeshEvents[K]): () => void {
    this.#listeners[event].add(listener);
    return () => void this.#listeners[event].delete(listener);
  }

  async close(): Promise<void> {
    this.#loadCheck?.cancel();
    await this.#links.close();
    this.#signaling.close();
    await this.#told;
    await this.#saved.flush();
  }

  // Signing in

  async #credentials(): Promise<Credentials> {
    const { token, key, oidcToken } = this.#options;
    const record = await this.#records.own();
    const idToken = (await oidcToken?.()) ?? null;
    const common = { record, ...(idToken === null ? {} : { oidc_token: idToken }) };
    const membership = this.#trust.membership ?? this.#outdated;
    if (membership) return { membership, ...common };
    if (!token) throw new MeshError('membership_invalid', 'This device has neither a membership nor a token');
    this.#redemption ??= await redeem(token, key, key.peerId);
    return { redemption: this.#redemption, ...common };
  }

  /** Everything is verified before anybody sees it. */
  async #welcomed(welcome: Welcome): Promise<void> {
    if (!this.#trust.membership && !this.#outdated) await this.#ownership.redeemed(this.#redemption, welcome);
    await this.#inTurn(async () => {
      await this.#ownership.welcomed(welcome);
      // Before the devices, which may be those it ends.
      for (const { owner, records, list } of welcome.revocations)
        await this.#news.learn(owner, records, list, null);
      // The list replaces what was known to be online.
      this.#directory.allOffline();
      this.#unjudged = this.#trust.owner === null ? welcome.devices : [];
      for (const entry of welcome.devices) await this.#directory.apply(entry);
      // A share may have come with a device, and its co-owner be known only since then.
      for (const { owner, records, list } of welcome.revocations)
        await this.#news.learn(owner, records, list, null);
    });
    const known = welcome.revocations.find(({ owner }) => owner === this.#trust.owner);
    this.#news.signalingHas(known?.list ?? []);
    await this.#avoidTakenName();
    this.#watch.followDirectory();
    this.#emit('devices');
  }

  async #avoidTakenName(): Promise<void> {
    const { self } = this.#records;
    const free = this.#directory.freeName(self.name);
    if (free === self.name) return;
    this.#options.log('warn', `The name ${self.name} is taken; this device is called ${free}`, {
      name: free,
    });
    await this.describe({ ...self, name: free });
  }

  #signalingChanged(state: SignalingState): void {
    // Presence is signaling's to tell; without it nobody is known to be online but those we have a session with.
    if (state.state === 'waiting' || state.state === 'refused') this.#directory.allOffline();
    if (state.state === 'refused' && state.code === 'revoked') this.#watch.sayRevoked();
    if (state.state === 'connected') {
      // Shares first: records for other owners hang on them.
      this.#ownership.restore();
      this.#news.upload();
      // The record may have changed while the sign-in was under way.
      void this.#uploadRecords();
      this.#signaling.send({ type: 'load', load: this.#load });
      this.#ownership.announce();
    }
    this.#emit('signaling', state);
    this.#emit('devices');
  }

  #message(message: ServerMessage): void {
    switch (message.type) {
      case 'device':
        return this.#deviceTold(message.device);
      case 'membership':
      case 'share':
        void this.#inTurn(() => this.#proofTold(message));
        return;
      case 'revocations':
        void this.#inTurn(() => this.#news.learn(message.owner, message.records, message.list, null));
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

  #deviceTold(device: DeviceEntry): void {
    void this.#inTurn(async () => {
      if (!(await this.#directory.apply(device))) return;
      this.#watch.followDirectory();
      this.#ownership.announce();
      this.#emit('devices');
    });
    // Its process may be gone, or only its line to signaling: the session itself knows.
    const link = device.online ? undefined : this.#links.get(device.peer_id);
    if (link) this.#probes.doubt(link);
  }

  async #proofTold(message: ServerMessage & { type: 'membership' | 'share' }): Promise<void> {
    await this.#ownership.message(message);
    const waiting = this.#trust.owner === null ? [] : this.#unjudged;
    if (waiting.length === 0) return;
    this.#unjudged = [];
    for (const entry of waiting) await this.#directory.apply(entry);
    this.#emit('devices');
  }

  #introducedBy({ device, ticket }: ServerMessage & { type: 'introduction' }): void {
    this.#links.introduced(ticket, device.peer_id, async () => {
      const standing = await this.#admission.vouch(device);
      if (standing.relation === 'own') void this.#inTurn(() => this.#directory.apply(device));
      return standing;
    });
  }

  async #introduce(peerId: string): Promise<string> {
    const known = this.#directory.get(peerId);
    if (this.#signaling.state.state === 'connected' && known && !known.online)
      throw new MeshError('device_offline', `${known.name} is offline`);
    const answer = await this.#signaling.request(
      (id) => ({ type: 'introduce', id, peer_id: peerId }),
      requestTimeoutMs,
    );
    if (answer.type !== 'introduction') throw new MeshError('bad_message');
    if (peekTicket(answer.ticket).answerer !== peerId) throw new MeshError('ticket_invalid');
    // What we show to it depends on whose it is.
    if (!known) await this.#inTurn(() => this.#directory.apply(answer.device));
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

  async #uploadRecords(): Promise<void> {
    this.#signaling.send({ type: 'record', record: await this.#records.own() });
    await this.#records.follow();
    for (const record of this.#records.granted()) this.#signaling.send({ type: 'record', record });
  }

  async #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#told.then(work);
    this.#told = result.catch((error: unknown) =>
      this.#options.log('warn', 'What signaling told could not be taken in', { error: String(error) }),
    );
    return result;
  }

  // What is known of owners changes

  /** From `Trust`, in the middle of its work: whatever follows from it comes after. */
  trustChanged(event: TrustEvent): void {
    this.#emit('trust', event);
    queueMicrotask(() => {
      if (event.kind === 'revocation' || event.kind === 'rotation') this.#enforce();
      if (event.kind === 'share') void this.#sharesChanged();
    });
  }

  async #sharesChanged(): Promise<void> {
    if (await this.#records.follow()) await this.#uploadRecords();
    await this.#watch.followShares();
    this.#ownership.announce();
    this.#emit('devices');
  }

  /** Ends at once what does not stand any more. */
  #enforce(): void {
    this.#watch.enforce();
    this.#emit('devices');
  }

  // Links

  #made(link: Link): void {
    const { standing, hello, peerId } = link;
    // News may have come between its HELLO and now.
    if (!this.#watch.stands(link)) return;
    if (standing.relation === 'own' && hello.signs === true) this.#signers.add(peerId);
    else this.#signers.delete(peerId);
    this.#news.ask(link);
    this.#ownership.announce();
  }

  #accept(stream: Stream, link: Link): void {
    const peer = this.#peerOf(link);
    const isCut = !this.#watch.stands(link);
    const refusal = isCut ? ResetCode.denied : this.#admission.refusal(stream, peer);
    if (refusal !== null) return stream.reset(refusal);
    if (stream.protocol === streamProtocols.revocations) return void this.#news.answer(stream, link);
    const handler = this.#handlers.get(stream.protocol);
    if (handler) handler(stream, peer);
    else stream.reset(ResetCode.unsupported);
  }

  #peerOf({ peerId, record, standing }: Link): ProvenPeer {
    const { membership, relation, rights } = standing;
    const name = this.#directory.nameOf({ record, standing });
    return { peerId, name, owner: membership.owner, relation, membership, rights };
  }

  /** A session that answers: one in doubt is asked first, and replaced if it is dead. */
  async #liveLink(peerId: string, signal?: AbortSignal): Promise<Link> {
    const existing = this.#links.get(peerId);
    if (existing) await this.#probes.settle(existing);
    return this.#links.connect(peerId, signal);
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
