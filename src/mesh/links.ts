/**
 * The links of this peer: at most one live session to each other peer, made on first use by an introduction,
 * kept warm, closed when idle. When both sides dial at once, the one with the lower PeerId wins, on both sides
 * alike. What runs on a session, and who is welcome, is decided by whoever made this table.
 */

import type { Clock, DeviceRecord, Hello, SignalPayload, SigningKey, Timer } from '@cocoon-mesh/protocol';
import {
  MeshError,
  ResetCode,
  every,
  limits,
  peekTicket,
  toMeshError,
  verifyTicket,
} from '@cocoon-mesh/protocol';
import type { Engine, EngineName, IceServer, Path } from './engine.ts';
import type { ProvenLink } from './introduction.ts';
import { Introduction } from './introduction.ts';
import type { AeadFactory } from './noise-cipher.ts';
import { Session } from './session.ts';
import type { Stream } from './stream.ts';
import type { Standing } from './trust.ts';

export interface Link {
  readonly peerId: string;
  readonly session: Session;
  readonly record: DeviceRecord;
  /** As it was judged last. */
  readonly standing: Standing;
  /** What the other side said of itself. */
  readonly hello: Hello;
  readonly engine: EngineName;
  /** Null until the engine has told. */
  readonly path: Path | null;
}

export interface Judgement {
  readonly record: DeviceRecord;
  readonly standing: Standing;
}

/** Somebody that a ticket brought us together with, or should have. */
export interface Introduced {
  readonly peerId: string;
  /** Who it is to us, as far as it has been judged. */
  readonly standing: Standing | null;
  /** We asked for it. */
  readonly dialled: boolean;
}

export interface LinksOptions {
  readonly key: SigningKey;
  readonly engine: Engine;
  readonly iceServers: readonly IceServer[];
  readonly clock: Clock;
  readonly aead?: AeadFactory;
  /** Asks signaling for an introduction: resolves with the ticket. */
  readonly introduce: (peerId: string) => Promise<string>;
  readonly sendSignal: (jti: string, payload: SignalPayload) => void;
  /** The key and clock of signaling, for tickets. */
  readonly ticketAuthority: () => { key: Uint8Array; nowSeconds: number };
  /** What to say to a peer. @param vouched who it is, when it dials us */
  readonly hello: (peerId: string, vouched: Standing | null) => Promise<Hello>;
  readonly judge: (peerId: string, hello: Hello) => Promise<Judgement>;
  readonly accept: (stream: Stream, link: Link) => void;
  /** A link that was just made, before anything runs on it. */
  readonly made: (link: Link) => void;
  readonly changed: (peerId: string, up: boolean) => void;
  /** How an introduction ended; null for one that led to a link. */
  readonly introduced: (introduced: Introduced, error: MeshError | null) => void;
  readonly log: (level: 'debug' | 'info' | 'warn', message: string, fields?: Record<string, unknown>) => void;
}

/** A link being made. Whoever wants it waits for `result`, whichever side dials. */
interface Attempt {
  readonly result: PromiseWithResolvers<Link>;
  /** Cleared when the other side's dial took over. */
  dialling: Introduction | 'asking' | null;
}

/** An introduction whose ticket and peer are being judged, and the signals that came before it was ready. */
interface Judging {
  readonly peerId: string;
  readonly early: SignalPayload[];
}

class LiveLink implements Link {
  readonly peerId: string;
  readonly session: Session;
  readonly #proven: ProvenLink;
  readonly #clock: Clock;
  readonly engine: EngineName;
  path: Path | null = null;
  #standing: Standing;
  #end: Timer | null = null;

  constructor(peerId: string, session: Session, proven: ProvenLink, engine: EngineName, clock: Clock) {
    this.peerId = peerId;
    this.session = session;
    this.#proven = proven;
    this.#clock = clock;
    this.engine = engine;
    this.#standing = proven.standing;
    this.stand(proven.standing);
  }

  get record(): DeviceRecord {
    return this.#proven.record;
  }

  get standing(): Standing {
    return this.#standing;
  }

  get hello(): Hello {
    return this.#proven.hello;
  }

  /** The session ends when the right behind it does. */
  stand(standing: Standing): void {
    this.#standing = standing;
    this.#end?.cancel();
    const { expires } = standing;
    this.#end =
      expires === null
        ? null
        : this.#clock.after(Math.max(0, expires * 1000 - this.#clock.now()), () =>
            this.session.abort('the membership has ended'),
          );
  }

  /** The session is over. */
  ended(): void {
    this.#end?.cancel();
  }

  get instance(): string {
    return this.#proven.hello.instance;
  }

  get dialler(): string {
    return this.#proven.dialler;
  }

  get connection(): ProvenLink['connection'] {
    return this.#proven.connection;
  }
}

const idleCheckMs = 15_000;
/** Two minutes of tickets are remembered: 80 a second, far above what signaling hands out. */
const maxUsedTickets = 10_000;

export class Links {
  readonly #options: LinksOptions;
  readonly #live = new Map<string, LiveLink>();
  readonly #attempts = new Map<string, Attempt>();
  /** By ticket. */
  readonly #introductions = new Map<string, Introduction | Judging>();
  /** Those that have a connection, for `close` to wait for. */
  readonly #running = new Set<Promise<ProvenLink>>();
  /** Tickets seen, until they have expired by themselves. */
  readonly #usedTickets = new Map<string, number>();
  readonly #idleCheck: Timer;
  #closed = false;

  constructor(options: LinksOptions) {
    this.#options = options;
    this.#idleCheck = every(options.clock, idleCheckMs, () => this.#tidy());
  }

  get(peerId: string): Link | undefined {
    return this.#live.get(peerId);
  }

  all(): readonly Link[] {
    return [...this.#live.values()];
  }

  /**
   * The live link, or a new one; a link that is ending takes no more requests. Several callers share one
   * attempt; each waits under its own signal.
   * @throws MeshError device_offline | signaling_unreachable | connect_timeout | proof_failed | cancelled | …
   */
  async connect(peerId: string, signal?: AbortSignal): Promise<Link> {
    const live = this.#live.get(peerId);
    if (live?.session.state === 'open') return live;
    if (this.#closed) throw new MeshError('session_closed', 'This device is shutting down');
    if (peerId === this.#options.key.peerId) throw new MeshError('self_connect');
    const attempt = this.#attempts.get(peerId) ?? this.#dial(peerId);
    return abortable(attempt.result.promise, signal);
  }

  /**
   * Somebody else dials us.
   * @param vouched rejects when that device does not show to be welcome; awaited before a connection is made
   */
  introduced(ticketJws: string, peerId: string, vouched: () => Promise<Standing>): void {
    void this.#listen(ticketJws, peerId, vouched).catch((thrown: unknown) => {
      const error = toMeshError(thrown);
      this.#options.log('info', 'An introduction was refused', {
        peer: peerId,
        code: error.code,
        why: describe(error),
      });
    });
  }

  /** A live link goes on with what was judged anew. */
  stand(peerId: string, standing: Standing): void {
    this.#live.get(peerId)?.stand(standing);
  }

  /** A signal of an introduction; those that come early wait for it. */
  signal(jti: string, payload: SignalPayload): void {
    const introduction = this.#introductions.get(jti);
    if (!introduction) return;
    if (introduction instanceof Introduction) introduction.receive(payload);
    else if (introduction.early.length < limits.maxSignalsPerIntroduction) introduction.early.push(payload);
  }

  /** Ends the link to a peer at once, e.g. because its right ended. */
  cut(peerId: string, reason: string): void {
    this.#live.get(peerId)?.session.abort(reason);
  }

  /** Ends the link to a peer politely; the next request makes a new one. */
  disconnect(peerId: string): void {
    void this.#live.get(peerId)?.session.close(ResetCode.cancel, 'disconnected');
  }

  /** Says goodbye on every session; open streams get a moment to finish. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#idleCheck.cancel();
    for (const attempt of this.#attempts.values()) {
      if (attempt.dialling instanceof Introduction)
        attempt.dialling.cancel(new MeshError('cancelled', 'This device is shutting down'));
      attempt.result.reject(new MeshError('cancelled', 'This device is shutting down'));
    }
    for (const introduction of this.#introductions.values())
      if (introduction instanceof Introduction) introduction.cancel(new MeshError('cancelled'));
    await Promise.allSettled(this.#running);
    await Promise.all(
      [...this.#live.values()].map(async (link) => {
        await link.session.close(ResetCode.shuttingDown, 'shutting down');
        await link.connection.close();
      }),
    );
  }

  #dial(peerId: string): Attempt {
    const attempt: Attempt = { result: Promise.withResolvers(), dialling: 'asking' };
    this.#attempts.set(peerId, attempt);
    attempt.result.promise.then(
      () => this.#attempts.delete(peerId),
      () => this.#attempts.delete(peerId),
    );
    this.#dialTwice(peerId, attempt).catch((thrown: unknown) => {
      const error = toMeshError(thrown);
      // The other side's dial is on its way, or has taken over: its outcome is ours.
      if (error.code === 'glare') this.#awaitTheirDial(attempt);
      else if (attempt.dialling !== null) attempt.result.reject(error);
    });
    return attempt;
  }

  /** Engines lose a connection in a few hundred while it is made (libdatachannel's DTLS may start too early). */
  async #dialTwice(peerId: string, attempt: Attempt): Promise<void> {
    try {
      await this.#runDial(peerId, attempt);
    } catch (thrown) {
      if (toMeshError(thrown).code !== 'carrier_lost' || attempt.dialling === null || this.#closed)
        throw thrown;
      attempt.dialling = 'asking';
      await this.#runDial(peerId, attempt);
    }
  }

  #awaitTheirDial(attempt: Attempt): void {
    attempt.dialling = null;
    const limit = this.#options.clock.after(limits.connectTimeoutMs, () =>
      attempt.result.reject(new MeshError('connect_timeout')),
    );
    const settled = (): void => limit.cancel();
    attempt.result.promise.then(settled, settled);
  }

  async #runDial(peerId: string, attempt: Attempt): Promise<void> {
    const ticket = await this.#options.introduce(peerId);
    const { jti } = peekTicket(ticket);
    this.#reserve(peerId, jti);
    try {
      await this.#verify(ticket, { offerer: this.#options.key.peerId, answerer: peerId });
      if (attempt.dialling === null) throw new MeshError('glare');
      const introduction = this.#introduction(ticket, jti, peerId, null);
      attempt.dialling = introduction;
      const proven = await this.#run(introduction);
      attempt.result.resolve(this.#establish(peerId, proven));
      this.#options.introduced({ peerId, standing: proven.standing, dialled: true }, null);
    } catch (thrown) {
      this.#refused({ peerId, standing: null, dialled: true }, thrown);
      throw thrown;
    } finally {
      this.#introductions.delete(jti);
    }
  }

  /** That both dialled at once is no refusal, nor that this device ends. */
  #refused(introduced: Introduced, thrown: unknown): void {
    const error = toMeshError(thrown);
    if (error.code !== 'glare' && error.code !== 'cancelled') this.#options.introduced(introduced, error);
  }

  async #listen(ticket: string, peerId: string, vouched: () => Promise<Standing>): Promise<void> {
    let standing: Standing | null = null;
    try {
      const { jti } = peekTicket(ticket);
      this.#admit(peerId);
      this.#reserve(peerId, jti);
      try {
        await this.#verify(ticket, { offerer: peerId, answerer: this.#options.key.peerId });
        standing = await this.#vouched(jti, vouched);
        await this.#answer(ticket, jti, peerId, standing);
      } finally {
        this.#introductions.delete(jti);
      }
    } catch (thrown) {
      this.#refused({ peerId, standing, dialled: false }, thrown);
      throw thrown;
    }
  }

  /** Silence would leave a peer that is not welcome waiting; it learns the code and nothing else. */
  async #vouched(jti: string, vouched: () => Promise<Standing>): Promise<Standing> {
    try {
      return await vouched();
    } catch (thrown) {
      this.#options.sendSignal(jti, { kind: 'failed', code: toMeshError(thrown).code });
      throw thrown;
    }
  }

  async #answer(ticket: string, jti: string, peerId: string, vouched: Standing): Promise<void> {
    const attempt = this.#attempts.get(peerId);
    if (attempt && attempt.dialling !== null && this.#options.key.peerId < peerId) {
      this.#options.sendSignal(jti, { kind: 'failed', code: 'glare' });
      return;
    }
    if (attempt) this.#yield(attempt);
    const introduction = this.#introduction(ticket, jti, peerId, vouched);
    try {
      const proven = await this.#run(introduction);
      this.#establish(peerId, proven);
      this.#options.introduced({ peerId, standing: proven.standing, dialled: false }, null);
    } catch (thrown) {
      // Ours may have given way to this one only while it was under way.
      const waiting = this.#attempts.get(peerId);
      if (waiting?.dialling === null) waiting.result.reject(toMeshError(thrown));
      throw thrown;
    }
  }

  /** Our dial gives way to theirs. */
  #yield(attempt: Attempt): void {
    const dialling = attempt.dialling;
    attempt.dialling = null;
    if (dialling instanceof Introduction) dialling.cancel(new MeshError('glare'));
  }

  /** Half-open proofs cost memory before anybody is known: they are bounded, from their first message on. */
  #admit(peerId: string): void {
    if (this.#closed) throw new MeshError('session_closed', 'This device is shutting down');
    let ofPeer = 0;
    for (const introduction of this.#introductions.values()) if (introduction.peerId === peerId) ofPeer++;
    if (this.#introductions.size >= limits.maxHalfOpenProofs || ofPeer >= limits.maxHalfOpenProofsPerPeer)
      throw new MeshError('overloaded', 'Too many connections are being made');
  }

  /** A place for the introduction of a ticket, where signals wait until it is ready. */
  #reserve(peerId: string, jti: string): void {
    if (this.#usedTickets.has(jti) || this.#introductions.has(jti)) throw new MeshError('ticket_used');
    this.#introductions.set(jti, { peerId, early: [] });
  }

  async #verify(ticket: string, expected: { offerer: string; answerer: string }): Promise<void> {
    const { key, nowSeconds } = this.#options.ticketAuthority();
    const { jti } = await verifyTicket(ticket, key, expected, nowSeconds);
    if (this.#usedTickets.size >= maxUsedTickets) throw new MeshError('overloaded', 'Too many introductions');
    this.#usedTickets.set(jti, this.#options.clock.monotonic() + 2 * limits.ticketLifetimeMs);
  }

  /** @param vouched who it is that dials us; null when we dial */
  #introduction(ticket: string, jti: string, peerId: string, vouched: Standing | null): Introduction {
    if (this.#closed) throw new MeshError('cancelled', 'This device is shutting down');
    const { key, engine, iceServers, clock, aead, sendSignal, hello, judge } = this.#options;
    const introduction = new Introduction({
      key,
      engine,
      iceServers,
      clock,
      ...(aead ? { aead } : {}),
      peerId,
      role: vouched ? 'listener' : 'dialler',
      ticket,
      sendSignal: (payload) => sendSignal(jti, payload),
      hello: () => hello(peerId, vouched),
      judge: (theirs) => judge(peerId, theirs),
    });
    const judging = this.#introductions.get(jti);
    this.#introductions.set(jti, introduction);
    if (judging && 'early' in judging) for (const payload of judging.early) introduction.receive(payload);
    return introduction;
  }

  async #run(introduction: Introduction): Promise<ProvenLink> {
    const running = this.#proven(introduction);
    this.#running.add(running);
    try {
      return await running;
    } finally {
      this.#running.delete(running);
    }
  }

  async #proven(introduction: Introduction): Promise<ProvenLink> {
    const proven = await introduction.run();
    if (!this.#closed) return proven;
    proven.carrier.abort('this device is shutting down');
    await proven.connection.close();
    throw new MeshError('cancelled', 'This device is shutting down');
  }

  /** Makes the session; where there is one already, both sides keep the same of the two. */
  #establish(peerId: string, proven: ProvenLink): Link {
    const { key, clock, engine, accept } = this.#options;
    const session: Session = new Session({
      carrier: proven.carrier,
      localPeer: key.peerId,
      remotePeer: peerId,
      clock,
      acceptStream: (stream) => accept(stream, link),
      peerLimits: { maxStreams: proven.hello.max_streams },
    });
    const link = new LiveLink(peerId, session, proven, engine.name, clock);
    void proven.connection.path().then((path) => {
      link.path = path;
    });
    void session.closed.then(async ({ reason }) => {
      link.ended();
      this.#ended(link, reason);
      await proven.connection.close();
    });
    const rival = this.#live.get(peerId);
    if (rival && this.#keeps(rival, link)) {
      void session.close(ResetCode.glare, 'glare');
      return rival;
    }
    this.#live.set(peerId, link);
    this.#options.made(link);
    // Whoever waits for a link to this peer has one now, whichever side dialled.
    this.#attempts.get(peerId)?.result.resolve(link);
    if (rival) this.#retire(rival, link);
    else this.#options.changed(peerId, true);
    this.#options.log('debug', 'A session is up', { peer: peerId, dialler: proven.dialler });
    return link;
  }

  /** Does the older link stay? Only in a true glare that its dialler wins. */
  #keeps(older: LiveLink, newer: LiveLink): boolean {
    if (older.session.state !== 'open') return false;
    if (older.instance !== newer.instance || older.dialler === newer.dialler) return false;
    return older.dialler < newer.dialler;
  }

  #retire(older: LiveLink, newer: LiveLink): void {
    // Another instance means that the process at the other end is gone, and its streams with it.
    if (older.instance !== newer.instance) older.session.abort('the other side has restarted');
    else void older.session.close(ResetCode.glare, 'glare');
  }

  #ended(link: LiveLink, reason: string): void {
    if (this.#live.get(link.peerId) !== link) return;
    this.#live.delete(link.peerId);
    this.#options.log('debug', 'A session ended', { peer: link.peerId, reason });
    this.#options.changed(link.peerId, false);
  }

  #tidy(): void {
    const now = this.#options.clock.monotonic();
    for (const [jti, until] of this.#usedTickets) if (until <= now) this.#usedTickets.delete(jti);
    for (const { session } of this.#live.values())
      if (session.idleSince !== null && now - session.idleSince > limits.idleSessionMs)
        void session.close(ResetCode.idle, 'idle');
  }
}

async function abortable<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return promise;
  signal.throwIfAborted();
  const aborted = Promise.withResolvers<never>();
  const stop = (): void => aborted.reject(toMeshError(signal.reason, 'cancelled'));
  signal.addEventListener('abort', stop, { once: true });
  try {
    return await Promise.race([promise, aborted.promise]);
  } finally {
    signal.removeEventListener('abort', stop);
  }
}

/** The chain of causes, for the log only. */
function describe(error: Error): string {
  const cause = error.cause instanceof Error ? `: ${describe(error.cause)}` : '';
  return `${error.message}${cause}`;
}
