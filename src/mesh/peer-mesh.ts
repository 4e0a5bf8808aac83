/**
 * The mesh of one peer, put together: what is said with signaling, the directory of devices, the links, what is known
 * of owners. It hands streams to the handlers of features, and what becomes known of owners to those it concerns.
 */

import type {
  ClientMessage,
  MembershipProof,
  OwnerKeys,
  OwnerRecords,
  ProvenMembership,
  ProvenShare,
  SetupToken,
  ShareProof,
} from '@cocoon-mesh/protocol';
import {
  MeshError,
  ResetCode,
  allows,
  randomBytes,
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
import { refusalLevel } from './refusal.ts';
import { RevocationNews } from './revocation-news.ts';
import { SelfRecords } from './self-records.ts';
import { SessionProbes } from './session-probes.ts';
import type { SignalingState } from './signaling-client.ts';
import type { SignalingParts } from './signaling-exchange.ts';
import { SignalingExchange } from './signaling-exchange.ts';
import type { Stream } from './stream.ts';
import type { TrustEvent, TrustState } from './trust.ts';
import { Trust } from './trust.ts';

/** A heartbeat ends a ping that nobody answers, even without a signal. */
const never = new AbortController().signal;

/** A claim, too: when the owner says whose it was, the chain of whoever came first falls. */
const endsRights: ReadonlySet<TrustEvent['kind']> = new Set(['revocation', 'rotation', 'claim']);

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
  readonly #trust: Trust;
  readonly #saved: LatestWrite<TrustState>;
  readonly #directory: Directory;
  readonly #records: SelfRecords;
  readonly #signaling: SignalingExchange;
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
    denied: new Set(),
  };
  /** Devices of mine that said that they hold the secret; whether they may, `signers` judges. */
  readonly #signers = new Set<string>();

  constructor(
    options: MeshOptions,
    trust: Trust,
    saved: LatestWrite<TrustState>,
    pins: Record<string, string>,
  ) {
    const { key, engine, clock, log, store } = options;
    this.#options = options;
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
        const level = refusalLevel(error);
        log(level, 'Signaling named a device that proves nothing', { peer: peerId, code, why });
      },
    });
    this.#signaling = new SignalingExchange(options, () => this.#parts(), {
      state: (state) => this.#emit('signaling', state),
      devices: () => this.#emit('devices'),
    });
    const send = (message: ClientMessage): boolean => this.#signaling.send(message);
    this.#ownership = new Ownership({
      self: key.peerId,
      trust,
      directory: this.#directory,
      saveMembership: (membership) => store.saveMembership(membership),
      send,
      request: (build) => this.#signaling.request(build),
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
      denied: (peer, right) => this.#emit('denied', peer, right),
      log,
    });
    this.#links = new Links({
      key,
      engine,
      iceServers: options.iceServers,
      clock,
      ...(options.aead ? { aead: options.aead } : {}),
      introduce: (peerId) => this.#signaling.introduce(peerId),
      sendSignal: (jti, payload) => void send({ type: 'signal', jti, payload }),
      ticketAuthority: () => this.#signaling.ticketAuthority(),
      hello: async (peerId, vouched) => {
        // Whose device it is may have been told with the introduction.
        await this.#signaling.settled();
        return this.#admission.hello(peerId, vouched);
      },
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
      // Whoever holds the secret can undo it, and has to see whom to leave out.
      revoked: () => options.signs?.() !== true && this.isRevoked,
      description: () => this.#records.self,
      load: () => this.#signaling.load,
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

  get isRevoked(): boolean {
    return this.#trust.problem?.code === 'revoked' || isRevokedBy(this.#signaling.state);
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
      // A device with the secret can undo what another one with it has revoked.
      await this.#trust.adopt(membership, this.#options.signs?.() ?? false);
    } catch (thrown) {
      const { code } = toMeshError(thrown);
      if (code !== 'membership_invalid' && code !== 'revoked') throw thrown;
      // Genuine, but of an epoch before the last rotation, or revoked: signaling may have the next one.
      await verifyMembership(membership, this.peerId, this.#trust.now);
      this.#signaling.showOutdated(membership, code);
      this.#options.log('warn', 'This device waits for a new membership', { code });
    }
  }

  start(): void {
    this.#signaling.start();
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
    await this.#signaling.describe(self);
  }

  async acceptName(name: string): Promise<void> {
    this.#directory.acceptName(name);
    this.#emit('devices');
  }

  members(): readonly ProvenMembership[] {
    return this.#ownership.members();
  }

  signedMembership(peerId: string): ProvenMembership | null {
    return this.#trust.signedMembership(peerId);
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
    await this.#kept();
  }

  async issueShare(share: ShareProof): Promise<void> {
    await this.#ownership.issueShare(share);
    await this.#kept();
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
    this.#news.spread(owner, before, null, list);
    this.#emit('devices');
    await this.#kept();
  }

  async claim(token: SetupToken, keys: OwnerKeys): Promise<ProvenShare> {
    const share = await this.#ownership.claim(token, keys);
    await this.#kept();
    return share;
  }

  signers(): readonly Device[] {
    return this.devices()
      .filter(({ peerId }) => this.#signers.has(peerId) && this.#maySign(peerId))
      .toSorted((a, b) => Number(b.online) - Number(a.online));
  }

  on<K extends keyof MeshEvents>(event: K, listener: MeshEvents[K]): () => void {
    this.#listeners[event].add(listener);
    return () => void this.#listeners[event].delete(listener);
  }

  async close(): Promise<void> {
    await this.#links.close();
    await this.#signaling.close();
    await this.#saved.flush();
  }

  // What is known of owners changes

  /** From `Trust`, in the middle of its work: whatever follows from it comes after. */
  trustChanged(event: TrustEvent): void {
    if (event.kind === 'revocation' && event.entry.kind === 'device' && event.owner === this.owner)
      this.#directory.freeNamesOf(event.entry.subject);
    this.#emit('trust', event);
    queueMicrotask(() => {
      if (endsRights.has(event.kind)) this.#enforce();
      if (event.kind === 'share') void this.#sharesChanged();
      if (event.kind === 'membership') this.#signaling.again();
    });
  }

  async #sharesChanged(): Promise<void> {
    if (await this.#records.follow()) await this.#signaling.uploadRecords();
    await this.#watch.followShares();
    this.#ownership.announce();
    this.#emit('devices');
  }

  /** Ends at once what does not stand any more. */
  #enforce(): void {
    this.#watch.enforce();
    this.#emit('devices');
  }

  #parts(): SignalingParts {
    return {
      trust: this.#trust,
      directory: this.#directory,
      records: this.#records,
      ownership: this.#ownership,
      news: this.#news,
      admission: this.#admission,
      links: this.#links,
      watch: this.#watch,
      probes: this.#probes,
    };
  }

  // Links

  #made(link: Link): void {
    const { standing, hello, peerId } = link;
    // News may have come between its HELLO and now, and other rights.
    if (!this.#watch.stands(link)) return;
    this.#watch.followDirectory();
    void this.#watch.followShare(link);
    if (standing.relation === 'own' && hello.signs === true) this.#signers.add(peerId);
    else this.#signers.delete(peerId);
    this.#news.ask(link);
    this.#ownership.announce();
  }

  /** Whoever holds the secret gives itself the right to be asked; nobody else has it who was not trusted with it. */
  #maySign(peerId: string): boolean {
    const standing = this.#directory.get(peerId)?.standing;
    return standing?.relation === 'own' && allows(standing.rights, 'owner', 'admin', null);
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

  /**
   * What is known of owners would be forgotten by a restart otherwise, and with it what its user was told is done.
   * @throws MeshError storage_failed
   */
  async #kept(): Promise<void> {
    try {
      await this.#saved.written();
    } catch (cause) {
      const why = cause instanceof MeshError ? `: ${cause.message}` : '';
      throw new MeshError('storage_failed', `It counts from now on, but it could not be stored${why}`, {
        cause,
        hint: 'Free some disk space, or make the folder writable, and do the same once more before this device is started again: a start forgets what was not stored.',
      });
    }
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

function isRevokedBy(state: SignalingState): boolean {
  return state.state === 'refused' && state.code === 'revoked';
}
