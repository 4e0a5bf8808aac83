/**
 * A session: streams of bytes between two proven peers, over one carrier.
 *
 * Its place: the proof has ended and both HELLOs have been exchanged before a session is made, so HELLO never
 * comes here; a HELLO frame inside a session is a violation. Who the peer is and what it may do is decided
 * outside, in `acceptStream`.
 *
 * What it drives: the lifecycle (`session-state.ts`), the streams (`session-stream.ts`), what came
 * (`incoming.ts`, which checks everything the other side sends), what leaves next (`outbox.ts`), what is
 * unacknowledged (`replay.ts`), credit (`credit.ts` says how unread streams never block others) and silence
 * (`heartbeat.ts`).
 *
 * Frames are numbered by both sides counting, acknowledged, and kept until then, so moving a session to
 * another carrier needs nothing more on the wire. It is not built here yet.
 */

import { frameHeadBytes, limits as defaults, MeshError, ResetCode, toMeshError } from '@cocoon-mesh/protocol';
import type { Clock, Timer } from '@cocoon-mesh/protocol';
import { Acknowledger } from './acknowledger.ts';
import type { Carrier } from './carrier.ts';
import { ReceiveCredit, SendCredit } from './credit.ts';
import { Heartbeat } from './heartbeat.ts';
import { Incoming } from './incoming.ts';
import { ProtocolNames } from './open-frame.ts';
import { Outbox } from './outbox.ts';
import { Pings } from './pings.ts';
import { Replay } from './replay.ts';
import { platformScheduler } from './scheduler.ts';
import type { Scheduler } from './scheduler.ts';
import { sessionLimits } from './session-limits.ts';
import type { PeerLimits, SessionLimits } from './session-limits.ts';
import { nextSessionState } from './session-state.ts';
import type { SessionAction, SessionEnd, SessionEvent, SessionState } from './session-state.ts';
import { SessionStream } from './session-stream.ts';
import type { StreamHost, StreamLimits } from './session-stream.ts';
import { StreamTable } from './stream-table.ts';
import type { Stream } from './stream.ts';

export interface SessionOptions {
  readonly carrier: Carrier;
  readonly localPeer: string;
  readonly remotePeer: string;
  readonly clock: Clock;
  /** Called for each stream the other side opens. What it throws resets the stream with `internal`. */
  readonly acceptStream: (stream: Stream) => void;
  readonly limits?: Partial<SessionLimits>;
  /** What the other side said of itself; the same as ours by default. */
  readonly peerLimits?: Partial<PeerLimits>;
  readonly scheduler?: Scheduler;
}

/** Counters since the session began. */
export interface SessionStats {
  readonly framesIn: number;
  readonly framesOut: number;
  readonly messagesIn: number;
  readonly messagesOut: number;
  readonly bytesIn: number;
  readonly bytesOut: number;
  /** Held for a replay: sent and not acknowledged, overhead included. */
  readonly unacknowledgedBytes: number;
  /** Last measured round trip; null before the first. */
  readonly rttMs: number | null;
}

const noHeader = new Uint8Array(0);
/** After this much in one turn, sockets and timers have theirs. */
const turnBytes = 256 * 1024;
/** In steps of `pingAfterMs`: still two questions before the other side is called dead. */
const secondAskerPatience = 1.5;
/** Left free in every message for what wraps a carrier, so that a frame fits any carrier it may move to. */
const wrappingBytes = 512;

export class Session {
  readonly localPeer: string;
  readonly remotePeer: string;
  readonly #carrier: Carrier;
  readonly #clock: Clock;
  readonly #scheduler: Scheduler;
  readonly #acceptStream: (stream: Stream) => void;
  readonly #limits: SessionLimits;
  readonly #peerLimits: PeerLimits;
  readonly #streamLimits: StreamLimits;
  readonly #maxMessageBytes: number;

  readonly #table: StreamTable;
  readonly #names = new ProtocolNames();
  readonly #replay: Replay;
  readonly #receiveCredit: ReceiveCredit;
  readonly #outbox: Outbox;
  readonly #incoming: Incoming;
  readonly #acknowledger: Acknowledger;
  readonly #pings: Pings;
  readonly #heartbeat: Heartbeat;
  readonly #host: StreamHost;

  #state: SessionState = { name: 'open' };
  readonly #ended = Promise.withResolvers<SessionEnd>();
  #carrierClosed: Promise<void> = Promise.resolve();
  #drainTimer: Timer | null = null;
  #pumpDue = false;
  /** What the carrier delivered while the maker of this session does not hold it yet. */
  #early: (() => void)[] | null = [];
  #idleSince: number | null;
  #messagesIn = 0;
  #messagesOut = 0;
  #bytesIn = 0;
  #bytesOut = 0;

  /** @throws MeshError self_connect when both peers are the same */
  constructor(options: SessionOptions) {
    if (options.localPeer === options.remotePeer) throw new MeshError('self_connect');
    this.localPeer = options.localPeer;
    this.remotePeer = options.remotePeer;
    this.#carrier = options.carrier;
    this.#clock = options.clock;
    this.#scheduler = options.scheduler ?? platformScheduler;
    this.#acceptStream = options.acceptStream;
    this.#limits = sessionLimits(options.limits);
    this.#peerLimits = { ...this.#limits, ...options.peerLimits };
    this.#streamLimits = {
      sendWindowBytes: this.#peerLimits.streamWindowBytes,
      receiveWindowBytes: this.#limits.streamWindowBytes,
      queueBytes: this.#limits.streamQueueBytes,
    };
    this.#maxMessageBytes = Math.min(
      options.carrier.maxMessageBytes,
      defaults.maxCarrierMessageBytes - wrappingBytes,
    );
    this.#idleSince = options.clock.monotonic();

    this.#table = new StreamTable(options.localPeer < options.remotePeer, this.#limits.maxStreamId);
    this.#replay = new Replay(this.#limits.replayBytes);
    this.#receiveCredit = new ReceiveCredit(this.#limits.sessionWindowBytes);
    const sendCredit = new SendCredit(this.#peerLimits.sessionWindowBytes);
    this.#acknowledger = new Acknowledger(this.#clock, this.#limits, () => {
      this.#outbox.acknowledge();
      this.#wake();
    });
    this.#pings = new Pings(this.#clock, (token) => {
      this.#outbox.ping(token);
      this.#wake();
    });
    this.#outbox = new Outbox({
      maxMessageBytes: this.#maxMessageBytes,
      replay: this.#replay,
      sendCredit,
      receiveCredit: this.#receiveCredit,
      peerWindowBytes: this.#peerLimits.streamWindowBytes,
      peerMinimumBytes: this.#peerLimits.streamMinimumBytes,
      smallWriteBytes: this.#limits.smallWriteBytes,
      received: () => this.#acknowledger.position,
    });
    this.#host = this.#streamHost();
    this.#incoming = new Incoming({
      limits: this.#limits,
      table: this.#table,
      names: this.#names,
      outbox: this.#outbox,
      replay: this.#replay,
      pings: this.#pings,
      acknowledger: this.#acknowledger,
      sendCredit,
      receiveCredit: this.#receiveCredit,
      isAlive: () => this.#state.name !== 'closed',
      isDraining: () => this.#state.name === 'draining',
      opened: (id, protocol, header) => this.#opened(id, protocol, header),
      dropped: (bytes) => this.#consumed(bytes),
      goaway: (code) => this.#apply({ type: 'peer-goaway', code }),
      wake: () => this.#wake(),
    });
    // One side asks before the other would: its question tells that one, too, that all is well.
    const patience = options.localPeer < options.remotePeer ? 1 : secondAskerPatience;
    const { pingAfterMs, deadAfterMs } = this.#limits;
    this.#heartbeat = new Heartbeat(
      this.#clock,
      { pingAfterMs: pingAfterMs * patience, deadAfterMs },
      {
        ping: () => this.#pings.heartbeat(),
        dead: () => this.#apply({ type: 'silent', silentMs: this.#limits.deadAfterMs }),
      },
    );
    this.#start();
  }

  /** Resolves when the session has ended and every stream of it. Never rejects. */
  get closed(): Promise<SessionEnd> {
    return this.#ended.promise;
  }

  get state(): SessionState['name'] {
    return this.#state.name;
  }

  /** Open streams, of both sides. */
  get streams(): number {
    return this.#table.size;
  }

  /** Since when there is no stream, on the clock's `monotonic`; null while there are some. */
  get idleSince(): number | null {
    return this.#idleSince;
  }

  /** Milliseconds since anything came from the other side: above `pingAfterMs` its life is in doubt. */
  get silentMs(): number {
    return this.#heartbeat.silentMs;
  }

  get stats(): SessionStats {
    return {
      framesIn: this.#incoming.frames,
      framesOut: this.#outbox.framesSent,
      messagesIn: this.#messagesIn,
      messagesOut: this.#messagesOut,
      bytesIn: this.#bytesIn,
      bytesOut: this.#bytesOut,
      unacknowledgedBytes: this.#replay.bytes,
      rttMs: this.#pings.rttMs,
    };
  }

  /**
   * Opens a stream at once; the other side may still refuse it, which resets it.
   * @param protocol `/cocoon/<name>/<major>`
   * @throws MeshError session_closed | carrier_lost | too_many_streams | header_too_large | usage
   */
  open(protocol: string, header: Uint8Array = noHeader): Stream {
    if (this.#state.name === 'closed') throw this.#state.end.error;
    if (this.#state.name === 'draining') throw new MeshError('session_closed');
    if (this.#table.local >= this.#peerLimits.maxStreams) throw new MeshError('too_many_streams');
    const name = this.#names.encode(protocol);
    const length = name.length + header.length;
    if (length > defaults.maxOpenHeaderBytes || frameHeadBytes + length > this.#maxMessageBytes) {
      throw new MeshError('header_too_large', `A stream header of ${header.length} bytes is too large`);
    }
    const id = this.#table.allocate();
    if (id === null) {
      this.goaway(ResetCode.shuttingDown, 'the stream ids are used up');
      throw new MeshError('session_closed');
    }
    const stream = this.#add(id, protocol, header);
    this.#outbox.open(id, name, header);
    this.#wake();
    return stream;
  }

  /**
   * Resolves with the round trip in ms.
   * @throws MeshError session_closed | carrier_lost, or the reason of `signal`
   */
  ping(signal: AbortSignal): Promise<number> {
    if (this.#state.name === 'closed') return Promise.reject(this.#state.end.error);
    return this.#pings.ping(signal);
  }

  /** No new streams from now on, in either direction; closes when the open ones have finished. */
  goaway(code: ResetCode, reason = 'going away'): void {
    this.#apply({ type: 'goaway', code, reason });
  }

  /**
   * Lets open streams finish for at most `drainMs`, resets the rest with `code`, sends what is queued and
   * closes the carrier. Idempotent; resolves when all is closed.
   */
  async close(
    code: ResetCode = ResetCode.shuttingDown,
    reason = 'closed',
    drainMs = this.#limits.closeDrainMs,
  ): Promise<void> {
    this.goaway(code, reason);
    if (this.#state.name === 'draining') {
      this.#drainTimer ??= this.#clock.after(drainMs, () => this.#apply({ type: 'drain-timeout' }));
    }
    await this.closed;
    await this.#carrierClosed;
  }

  /** Ends at once; what is queued is lost. */
  abort(reason: string): void {
    this.#apply({ type: 'abort', reason });
  }

  /** Ends at once as if the heartbeat had: the carrier is known to be dead. */
  giveUp(): void {
    this.#apply({ type: 'silent', silentMs: Math.round(this.silentMs) });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** What comes before the maker of this session holds it waits for the next turn. */
  #start(): void {
    this.#carrier.start({
      message: (bytes) => {
        if (this.#early) this.#early.push(() => this.#message(bytes));
        else this.#message(bytes);
      },
      writable: () => this.#pump(),
      closed: (reason) => {
        if (this.#early) this.#early.push(() => this.#apply({ type: 'carrier-closed', reason }));
        else this.#apply({ type: 'carrier-closed', reason });
      },
    });
    this.#scheduler.soon(() => {
      const early = this.#early ?? [];
      this.#early = null;
      for (const run of early) run();
    });
  }

  #message(bytes: Uint8Array): void {
    if (this.#state.name === 'closed') return;
    const now = this.#clock.monotonic();
    this.#heartbeat.heard(now);
    this.#messagesIn++;
    this.#bytesIn += bytes.length;
    try {
      this.#incoming.message(bytes, now);
    } catch (error) {
      this.#apply({ type: 'violation', error: toMeshError(error) });
    }
  }

  #opened(id: number, protocol: string, header: Uint8Array): void {
    const stream = this.#add(id, protocol, header);
    try {
      this.#acceptStream(stream);
    } catch {
      stream.reset(ResetCode.internal);
    }
  }

  #add(id: number, protocol: string, header: Uint8Array): SessionStream {
    const stream = new SessionStream(this.#host, id, protocol, header, this.#streamLimits);
    this.#table.add(stream);
    this.#idleSince = null;
    return stream;
  }

  #streamHost(): StreamHost {
    return {
      ready: (stream) => {
        this.#outbox.ready(stream);
        this.#wake();
      },
      consumed: (stream, charged) => {
        if (charged > 0) this.#consumed(charged);
        const { credit, state } = stream.receive;
        const { streamMinimumBytes } = this.#limits;
        if (state !== 'open' || !credit.due(this.#receiveCredit.tight, streamMinimumBytes / 2)) return;
        this.#outbox.credit(stream);
        this.#wake();
      },
      resetByUs: (stream, code) => {
        this.#outbox.reset(stream.id, code);
        this.#wake();
      },
      over: (stream) => {
        if (!this.#table.remove(stream)) return;
        this.#outbox.forget(stream);
        if (this.#table.size > 0) return;
        this.#idleSince = this.#clock.monotonic();
        if (this.#state.name === 'draining') this.#wake();
      },
    };
  }

  /** Bytes charged to the session were read or dropped. */
  #consumed(bytes: number): void {
    const credit = this.#receiveCredit;
    credit.consume(bytes);
    if (!credit.due(credit.tight, this.#limits.streamMinimumBytes)) return;
    this.#outbox.sessionCredit();
    this.#wake();
  }

  #wake(): void {
    if (this.#pumpDue || this.#state.name === 'closed') return;
    this.#pumpDue = true;
    this.#scheduler.soon(this.#pumpSoon);
  }

  readonly #pumpSoon = () => {
    this.#pumpDue = false;
    this.#pump();
  };

  #pump(): void {
    if (this.#state.name === 'closed') return;
    let budget = turnBytes;
    while (this.#carrier.writable) {
      const message = this.#outbox.next();
      if (!message) break;
      this.#send(message);
      budget -= message.length;
      if (budget > 0) continue;
      if (!this.#pumpDue) {
        this.#pumpDue = true;
        this.#scheduler.later(this.#pumpSoon);
      }
      return;
    }
    const drained = this.#table.size === 0 && this.#outbox.idle && this.#replay.bytes === 0;
    if (drained && this.#state.name === 'draining') this.#apply({ type: 'drained' });
  }

  #send(message: Uint8Array): void {
    this.#messagesOut++;
    this.#bytesOut += message.length;
    this.#carrier.send(message);
  }

  #apply(event: SessionEvent): void {
    const before = this.#state;
    const { state, actions } = nextSessionState(before, event);
    this.#state = state;
    for (const action of actions) this.#act(action);
    if (state.name === 'closed' && before.name !== 'closed') this.#end(state.end);
  }

  #act(action: SessionAction): void {
    switch (action.type) {
      case 'send-goaway':
        this.#outbox.goaway(action.code);
        this.#acknowledger.atOnce();
        return this.#wake();
      case 'acknowledge':
        return this.#acknowledger.atOnce();
      case 'reset-streams':
        for (const stream of this.#table) stream.cut(action.code);
        return;
      case 'close-carrier':
        this.#outbox.clearStreams();
        for (let message = this.#outbox.next(); message; message = this.#outbox.next()) this.#send(message);
        this.#carrierClosed = this.#carrier.close(action.reason);
        return;
      case 'abort-carrier':
        return this.#carrier.abort(action.reason);
    }
  }

  #end(end: SessionEnd): void {
    this.#heartbeat.stop();
    this.#acknowledger.stop();
    this.#drainTimer?.cancel();
    this.#pings.end(end.error);
    const streams = [...this.#table];
    this.#table.clear();
    for (const stream of streams) stream.sessionEnded(end.error);
    this.#outbox.clearStreams();
    this.#ended.resolve(end);
  }
}
