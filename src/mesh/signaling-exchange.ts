/**
 * What this peer and signaling say to each other: sign-in, who is there, introductions, what is handed on for others.
 * What signaling tells is taken in one after the other, and nothing of it is believed without its proof.
 */

import type {
  ClientMessage,
  DeviceEntry,
  ErrorCode,
  MembershipProof,
  Redemption,
  ServerMessage,
  Timer,
} from '@cocoon-mesh/protocol';
import { MeshError, every, peekTicket, randomBytes, redeem } from '@cocoon-mesh/protocol';
import type { Admission } from './admission.ts';
import type { Directory } from './directory.ts';
import type { LinkWatch } from './link-watch.ts';
import type { Links } from './links.ts';
import type { MeshOptions, SelfDescription } from './mesh.ts';
import type { Ownership } from './ownership.ts';
import type { RevocationNews } from './revocation-news.ts';
import type { SelfRecords } from './self-records.ts';
import type { SessionProbes } from './session-probes.ts';
import type { Credentials, SignalingState, Welcome } from './signaling-client.ts';
import { SignalingClient } from './signaling-client.ts';
import type { Trust } from './trust.ts';

const requestTimeoutMs = 5_000;
/** How often the load is compared with what signaling was told. */
const loadCheckMs = 5_000;

/** The parts that act on what is said. */
export interface SignalingParts {
  readonly trust: Trust;
  readonly directory: Directory;
  readonly records: SelfRecords;
  readonly ownership: Ownership;
  readonly news: RevocationNews;
  readonly admission: Admission;
  readonly links: Links;
  readonly watch: LinkWatch;
  readonly probes: SessionProbes;
}

export interface SignalingExchangeEvents {
  state(state: SignalingState): void;
  devices(): void;
}

export class SignalingExchange {
  readonly #options: MeshOptions;
  /** Made after this, for they speak through it. */
  readonly #parts: () => SignalingParts;
  readonly #events: SignalingExchangeEvents;
  readonly #client: SignalingClient;
  /** Of an epoch before the last rotation: good for nothing but to be given the next one. */
  #outdated: { readonly membership: MembershipProof; readonly code: ErrorCode } | null = null;
  /** Told before there was a membership to judge them by. */
  #unjudged: readonly DeviceEntry[] = [];
  #redemption: Redemption | null = null;
  #load = 0;
  #loadCheck: Timer | null = null;
  /** So that an old word never overtakes a new one. */
  #told: Promise<unknown> = Promise.resolve();

  constructor(options: MeshOptions, parts: () => SignalingParts, events: SignalingExchangeEvents) {
    this.#options = options;
    this.#parts = parts;
    this.#events = events;
    this.#client = new SignalingClient({
      url: options.signalingUrl,
      openSocket: options.openSocket,
      key: options.key,
      clock: options.clock,
      random: randomFraction,
      credentials: () => this.#credentials(),
      welcomed: (welcome) => this.#welcomed(welcome),
      message: (message) => this.#message(message),
      changed: (state) => this.#changed(state),
    });
  }

  get state(): SignalingState {
    return this.#client.state;
  }

  get load(): number {
    return this.#load;
  }

  /** A membership that signaling may exchange for one of the newest epoch. */
  showOutdated(membership: MembershipProof, code: ErrorCode): void {
    this.#outdated = { membership, code };
  }

  /** What was refused is not what this device would show now. */
  again(): void {
    this.#client.again();
  }

  start(): void {
    this.#client.start();
    this.#loadCheck = every(this.#options.clock, loadCheckMs, () => this.#tellLoad());
  }

  /** Says whether it was sent. */
  send(message: ClientMessage): boolean {
    return this.#client.send(message);
  }

  /** @throws MeshError signaling_unreachable, or what this peer was refused with | timeout | whatever the server answers */
  request(build: (id: number) => ClientMessage): Promise<ServerMessage> {
    return this.#client.request(build, requestTimeoutMs);
  }

  async describe(self: SelfDescription): Promise<void> {
    await this.#parts().records.describe(self);
    await this.uploadRecords();
    this.#events.devices();
  }

  /** The newest of what this device says of itself, to each owner that may know of it. */
  async uploadRecords(): Promise<void> {
    const { records } = this.#parts();
    this.send({ type: 'record', record: await records.own() });
    await records.follow();
    for (const record of records.granted()) this.send({ type: 'record', record });
  }

  /** Asks for a ticket to a peer. @throws MeshError device_offline | ticket_invalid | signaling_unreachable | … */
  async introduce(peerId: string): Promise<string> {
    const { directory } = this.#parts();
    const known = directory.get(peerId);
    if (this.state.state === 'connected' && known && !known.online)
      throw new MeshError('device_offline', `${known.name} is offline`);
    const answer = await this.request((id) => ({ type: 'introduce', id, peer_id: peerId }));
    if (answer.type !== 'introduction') throw new MeshError('bad_message');
    if (peekTicket(answer.ticket).answerer !== peerId) throw new MeshError('ticket_invalid');
    // What we show to it depends on whose it is. Not awaited: its signals come right behind this.
    if (!known) this.#later(() => directory.apply(answer.device));
    return answer.ticket;
  }

  /** Resolves when everything that was told is taken in. */
  async settled(): Promise<void> {
    await this.#told;
  }

  /** The key and clock of signaling, for tickets. @throws MeshError as `SignalingClient.problem` */
  ticketAuthority(): { key: Uint8Array; nowSeconds: number } {
    const { state } = this;
    if (state.state !== 'connected') throw this.#client.problem;
    return { key: state.ticketKey, nowSeconds: (this.#options.clock.now() + state.clockOffsetMs) / 1000 };
  }

  async close(): Promise<void> {
    this.#loadCheck?.cancel();
    this.#client.close();
    await this.#told;
  }

  async #credentials(): Promise<Credentials> {
    const { token, key, oidcToken } = this.#options;
    const { records, trust } = this.#parts();
    const record = await records.own();
    const idToken = (await oidcToken?.()) ?? null;
    const common = { record, ...(idToken === null ? {} : { oidc_token: idToken }) };
    const membership = trust.membership ?? this.#outdated?.membership;
    if (membership) return { membership, ...common };
    if (!token) throw new MeshError('membership_invalid', 'This device has neither a membership nor a token');
    this.#redemption ??= await redeem(token, key, key.peerId);
    return { redemption: this.#redemption, ...common };
  }

  /** Everything is verified before anybody sees it. */
  async #welcomed(welcome: Welcome): Promise<void> {
    const { trust, ownership, directory, news, watch } = this.#parts();
    if (!trust.membership && !this.#outdated) await ownership.redeemed(this.#redemption, welcome);
    await this.#inTurn(async () => {
      await ownership.welcomed(welcome);
      // It has forgotten what we know, and has nothing that would change it.
      if (!trust.membership && this.#outdated?.code === 'revoked') throw new MeshError('revoked');
      // Before the devices, which may be those it ends.
      await this.#learn(welcome);
      // The list replaces what was known to be online.
      directory.allOffline();
      this.#unjudged = trust.owner === null ? welcome.devices : [];
      for (const entry of welcome.devices) await directory.apply(entry);
      // A share may have come with a device, and its co-owner be known only since then.
      await this.#learn(welcome);
    });
    const mine = welcome.revocations.find(({ owner }) => owner === trust.owner);
    news.signalingHas(mine?.list ?? []);
    await this.#avoidTakenName();
    watch.followDirectory();
    this.#events.devices();
  }

  async #learn({ revocations }: Welcome): Promise<void> {
    for (const { owner, records, list } of revocations)
      await this.#parts().news.learn(owner, records, list, null);
  }

  async #avoidTakenName(): Promise<void> {
    const { records, directory } = this.#parts();
    const { self } = records;
    const free = directory.takeName(self.name);
    if (free === self.name) return;
    const message = `The name ${self.name} is taken; this device is called ${free}`;
    this.#options.log('warn', message, { name: free });
    await this.describe({ ...self, name: free });
  }

  #changed(state: SignalingState): void {
    const { directory, watch } = this.#parts();
    // Presence is signaling's to tell; without it nobody is known to be online but those we have a session with.
    if (state.state === 'waiting' || state.state === 'refused') directory.allOffline();
    if (state.state === 'refused' && state.code === 'revoked') watch.sayRevoked();
    if (state.state === 'connected') this.#connected();
    this.#events.state(state);
    this.#events.devices();
  }

  /** Tells what changed while the sign-in was under way, and what signaling did not show that it knows. */
  #connected(): void {
    const { ownership, news } = this.#parts();
    // Shares first: records for other owners hang on them.
    ownership.restore();
    news.upload();
    void this.uploadRecords();
    this.send({ type: 'load', load: this.#load });
    ownership.announce();
  }

  #message(message: ServerMessage): void {
    switch (message.type) {
      case 'device':
        return this.#device(message.device);
      case 'membership':
      case 'share':
        return this.#later(() => this.#proof(message));
      case 'revocations':
        return this.#later(() =>
          this.#parts().news.learn(message.owner, message.records, message.list, null),
        );
      case 'introduction':
        // With an id it answers our own request.
        if (message.id === undefined) this.#introducedBy(message);
        return;
      case 'signal':
        return this.#parts().links.signal(message.jti, message.payload);
      default:
    }
  }

  #device(device: DeviceEntry): void {
    const { directory, watch, ownership, links, probes } = this.#parts();
    this.#later(async () => {
      if (!(await directory.apply(device))) return;
      watch.followDirectory();
      ownership.announce();
      this.#events.devices();
    });
    // Its process may be gone, or only its line to signaling: the session itself knows.
    const link = device.online ? undefined : links.get(device.peer_id);
    if (link) probes.doubt(link);
  }

  async #proof(message: ServerMessage & { type: 'membership' | 'share' }): Promise<void> {
    const { ownership, trust, directory } = this.#parts();
    await ownership.message(message);
    const waiting = trust.owner === null ? [] : this.#unjudged;
    if (waiting.length === 0) return;
    this.#unjudged = [];
    for (const entry of waiting) await directory.apply(entry);
    this.#events.devices();
  }

  #introducedBy({ device, ticket }: ServerMessage & { type: 'introduction' }): void {
    const { links, admission, directory } = this.#parts();
    links.introduced(ticket, device.peer_id, async () => {
      const standing = await admission.vouch(device);
      if (standing.relation === 'own') this.#later(() => directory.apply(device));
      return standing;
    });
  }

  #tellLoad(): void {
    const load = Math.min(1, Math.max(0, this.#options.load?.() ?? 0));
    if (Math.abs(load - this.#load) < 0.05) return;
    this.#load = load;
    this.send({ type: 'load', load });
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#told.then(work);
    this.#told = result.catch(() => undefined);
    return result;
  }

  #later(work: () => Promise<unknown>): void {
    this.#inTurn(work).catch((error: unknown) =>
      this.#options.log('warn', 'What signaling told could not be taken in', { error: String(error) }),
    );
  }
}

function randomFraction(): number {
  const [high = 0, low = 0] = randomBytes(2);
  return (high * 256 + low) / 65_536;
}
