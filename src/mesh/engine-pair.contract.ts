/**
 * Two connections introduced to each other without signaling, for suites: descriptions and candidates go
 * straight across, and what goes across can be watched or changed. Also carriers as promises, because tests
 * wait for events and never sleep.
 */

import type { Carrier, CarrierEvents } from './carrier.ts';
import type { ConnectionOptions, Engine, PeerConnection } from './engine.ts';

export interface Introduction {
  /** Changes a description on its way. */
  readonly sdp?: (sdp: string, type: 'offer' | 'answer') => string;
  /** Changes a candidate on its way; null drops it. */
  readonly candidate?: (line: string, from: 'offerer' | 'answerer') => string | null;
  /** Candidates wait until both descriptions are there, or the answerer's go ahead of its answer. */
  readonly candidates?: 'late' | 'early';
}

export interface Side {
  readonly connection: PeerConnection;
  /** Its own candidates, as announced so far. */
  readonly candidates: string[];
  /** Resolves when it has announced its last candidate. */
  readonly gathered: Promise<void>;
}

export interface Pair extends AsyncDisposable {
  readonly offerer: Side;
  readonly answerer: Side;
}

/** What hands a side its own candidates and remembers them. */
export function openSide(engine: Engine, onCandidate?: ConnectionOptions['onCandidate']): Side {
  const candidates: string[] = [];
  const gathered = Promise.withResolvers<void>();
  const connection = engine.connect({
    iceServers: [],
    onCandidate: (line) => {
      if (line === null) gathered.resolve();
      else candidates.push(line);
      onCandidate?.(line);
    },
  });
  return { connection, candidates, gathered: gathered.promise };
}

/** Exchanges descriptions and candidates; the channel may still be opening afterwards. */
export async function introduce(offering: Engine, answering: Engine, how: Introduction = {}): Promise<Pair> {
  const change = how.candidate ?? ((line: string) => line);
  const late: (() => void)[] = [];
  let held = how.candidates === 'late';
  const deliver = (from: 'offerer' | 'answerer', line: string | null, to: () => PeerConnection): void => {
    const changed = line === null ? null : change(line, from);
    if (line !== null && changed === null) return;
    if (held) late.push(() => to().addCandidate(changed));
    else to().addCandidate(changed);
  };
  const offerer: Side = openSide(offering, (line) => deliver('offerer', line, () => answerer.connection));
  const answerer: Side = openSide(answering, (line) => deliver('answerer', line, () => offerer.connection));
  const pair: Pair = {
    offerer,
    answerer,
    async [Symbol.asyncDispose]() {
      await Promise.all([offerer.connection.close(), answerer.connection.close()]);
    },
  };
  try {
    const offer = await offerer.connection.createOffer();
    const answer = await answerer.connection.acceptOffer(how.sdp?.(offer, 'offer') ?? offer);
    if (how.candidates === 'early') await answerer.gathered;
    await offerer.connection.acceptAnswer(how.sdp?.(answer, 'answer') ?? answer);
  } catch (error) {
    await pair[Symbol.asyncDispose]();
    throw error;
  }
  held = false;
  for (const add of late) add();
  return pair;
}

export interface Linked extends AsyncDisposable {
  readonly pair: Pair;
  readonly offerer: Carrier;
  readonly answerer: Carrier;
}

export async function link(offering: Engine, answering: Engine, how: Introduction = {}): Promise<Linked> {
  const pair = await introduce(offering, answering, how);
  try {
    const signal = AbortSignal.timeout(20_000);
    const [offerer, answerer] = await Promise.all([
      pair.offerer.connection.opened(signal),
      pair.answerer.connection.opened(signal),
    ]);
    return { pair, offerer, answerer, [Symbol.asyncDispose]: () => pair[Symbol.asyncDispose]() };
  } catch (error) {
    await pair[Symbol.asyncDispose]();
    throw error;
  }
}

/** A carrier's events as things to wait for. */
export class Listener implements CarrierEvents {
  readonly messages: Uint8Array[] = [];
  bytes = 0;
  readonly closes: string[] = [];
  writables = 0;
  readonly closedOnce: Promise<string>;
  readonly #closed = Promise.withResolvers<string>();
  #waiting: { readonly done: () => boolean; readonly resolve: () => void }[] = [];

  constructor() {
    this.closedOnce = this.#closed.promise;
  }

  message(bytes: Uint8Array): void {
    this.messages.push(bytes);
    this.bytes += bytes.length;
    this.#wake();
  }

  writable(): void {
    this.writables++;
    this.#wake();
  }

  closed(reason: string): void {
    this.closes.push(reason);
    this.#closed.resolve(reason);
    this.#wake();
  }

  /** Resolves once `done` holds; checked at every event. A test's own limit is the limit. */
  until(done: (listener: this) => boolean): Promise<void> {
    if (done(this)) return Promise.resolve();
    const waiting = Promise.withResolvers<void>();
    this.#waiting.push({ done: () => done(this), resolve: waiting.resolve });
    return waiting.promise;
  }

  #wake(): void {
    const due = this.#waiting.filter(({ done }) => done());
    this.#waiting = this.#waiting.filter((waiting) => !due.includes(waiting));
    for (const { resolve } of due) resolve();
  }
}

export function listen(carrier: Carrier): Listener {
  const listener = new Listener();
  carrier.start(listener);
  return listener;
}

/** Sends all messages, waiting whenever the carrier asks for it. */
export async function sendAll(
  carrier: Carrier,
  listener: Listener,
  messages: Iterable<Uint8Array>,
): Promise<void> {
  for (const message of messages) {
    if (!carrier.writable) await listener.until(() => carrier.writable || listener.closes.length > 0);
    carrier.send(message);
  }
}

/** Bytes that tell their place, so that a swapped or torn message shows. */
export function patterned(length: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let state = (seed * 2_654_435_761 + 1) >>> 0;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    bytes[i] = state >>> 24;
  }
  return bytes;
}
