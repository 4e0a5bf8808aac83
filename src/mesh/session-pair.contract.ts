/**
 * Sessions for tests: a pair joined in memory, or one session whose other end is bare bytes. Time is stepped
 * and everything else runs in microtasks, so `turn` lets all that can happen happen.
 */

import { fromHex, readFrameHead, frameHeadBytes, toHex } from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { memoryCarrierPair } from './memory-carrier.ts';
import type { MemoryCarrier, MemoryCarrierOptions } from './memory-carrier.ts';
import type { Scheduler } from './scheduler.ts';
import { Session } from './session.ts';
import type { SessionOptions } from './session.ts';
import type { Stream } from './stream.ts';

export const microtasks: Scheduler = {
  soon: (callback) => queueMicrotask(callback),
  later: (callback) => queueMicrotask(callback),
};

/** Every microtask that is due, and those they cause. */
export function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

interface PairOptions {
  readonly limits?: SessionOptions['limits'];
  readonly carrier?: MemoryCarrierOptions;
  readonly acceptLeft?: (stream: Stream) => void;
  readonly acceptRight?: (stream: Stream) => void;
}

export interface SessionPair {
  readonly clock: SteppedClock;
  /** Has the lower PeerId: its streams are odd. */
  readonly left: Session;
  readonly right: Session;
  readonly leftCarrier: MemoryCarrier;
  readonly rightCarrier: MemoryCarrier;
  /** What the other side opened and nobody handled, in order. */
  readonly acceptedByLeft: Stream[];
  readonly acceptedByRight: Stream[];
}

export function sessionPair(options: PairOptions = {}): SessionPair {
  const clock = new SteppedClock();
  const [leftCarrier, rightCarrier] = memoryCarrierPair({ clock, ...options.carrier });
  const acceptedByLeft: Stream[] = [];
  const acceptedByRight: Stream[] = [];
  const shared = { clock, scheduler: microtasks, ...(options.limits ? { limits: options.limits } : {}) };
  const left = new Session({
    ...shared,
    carrier: leftCarrier,
    localPeer: 'peer-1',
    remotePeer: 'peer-2',
    acceptStream: options.acceptLeft ?? ((stream) => acceptedByLeft.push(stream)),
  });
  const right = new Session({
    ...shared,
    carrier: rightCarrier,
    localPeer: 'peer-2',
    remotePeer: 'peer-1',
    acceptStream: options.acceptRight ?? ((stream) => acceptedByRight.push(stream)),
  });
  return { clock, left, right, leftCarrier, rightCarrier, acceptedByLeft, acceptedByRight };
}

/** One session with odd ids, and the wire in hand instead of the other side. */
export interface BareWire {
  readonly clock: SteppedClock;
  readonly session: Session;
  readonly accepted: Stream[];
  /** Sends one carrier message, given in hex, to the session. */
  say(hex: string): Promise<void>;
  /** The frames the session sent since the last call, each as hex in the parts type+flags, length, stream, payload. */
  heard(): string[];
  /** Resolves to the reason when the session closed the carrier. */
  readonly closed: Promise<string>;
}

export function bareWire(limits: SessionOptions['limits'] = {}): BareWire {
  const clock = new SteppedClock();
  const [carrier, wire] = memoryCarrierPair({ clock });
  const accepted: Stream[] = [];
  const frames: string[] = [];
  const closed = Promise.withResolvers<string>();
  wire.start({
    message: (bytes) => frames.push(...framesOf(bytes)),
    writable: () => {},
    closed: (reason) => closed.resolve(reason),
  });
  const session = new Session({
    carrier,
    clock,
    limits,
    scheduler: microtasks,
    localPeer: 'peer-1',
    remotePeer: 'peer-2',
    acceptStream: (stream) => accepted.push(stream),
  });
  return {
    clock,
    session,
    accepted,
    async say(hex) {
      wire.send(fromHex(hex.replaceAll(/\s/g, '')));
      await turn();
    },
    heard: () => frames.splice(0),
    closed: closed.promise,
  };
}

function framesOf(message: Uint8Array): string[] {
  const frames: string[] = [];
  for (let at = 0; at < message.length;) {
    const { length } = readFrameHead(message, at);
    const hex = toHex(message.subarray(at, at + frameHeadBytes + length));
    const parts = [hex.slice(0, 2), hex.slice(2, 8), hex.slice(8, 16), hex.slice(16)];
    frames.push(parts.filter((part) => part !== '').join(' '));
    at += frameHeadBytes + length;
  }
  return frames;
}

/** Everything until the other side's end. */
export async function readAll(stream: Stream): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for (let chunk = await stream.read(); chunk; chunk = await stream.read()) chunks.push(chunk);
  const all = new Uint8Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
  let at = 0;
  for (const chunk of chunks) {
    all.set(chunk, at);
    at += chunk.length;
  }
  return all;
}

/** Writes as a good program does: it waits when it is asked to. */
export async function writeAll(stream: Stream, bytes: number, chunkBytes = 16 * 1024): Promise<void> {
  for (let left = bytes; left > 0; left -= chunkBytes) {
    if (!stream.write(new Uint8Array(Math.min(left, chunkBytes)))) await stream.drained();
  }
}
