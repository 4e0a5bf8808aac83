/**
 * Seeded random schedules: both sides open, write, end, reset and read at random while messages take random
 * times. Every byte of every stream arrives in order and once, and every stream ends as it was ended.
 * And random bytes in place of the other side: they end the session, and nothing else happens.
 */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ResetCode, toHex } from '@cocoon-mesh/protocol';
import type { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { bareWire, sessionPair, turn } from './session-pair.contract.ts';
import { resetCodeOf } from './session-stream.ts';
import type { Stream } from './stream.ts';

/** mulberry32: small, good enough, the same everywhere. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 0x1_0000_0000;
  };
}

/** One direction of a stream, as its writer knows it. */
interface Flow {
  written: number;
  ended: boolean;
  resetBy: ResetCode | null;
}

/** The byte at a place of a stream says where it is, so that a lost or doubled one shows. */
function byteAt(id: number, offset: number): number {
  return (id * 31 + offset * 7 + (offset >>> 8)) & 255;
}

function content(id: number, from: number, length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => byteAt(id, from + i));
}

interface Actor {
  readonly side: 'left' | 'right';
  readonly stream: Stream;
  readonly flow: Flow;
  readonly reader: Promise<void>;
}

const small = {
  streamWindowBytes: 8 * 1024,
  sessionWindowBytes: 16 * 1024,
  streamMinimumBytes: 1024,
  streamQueueBytes: 8 * 1024,
  smallWriteBytes: 256,
  replayBytes: 32 * 1024,
  ackEveryBytes: 4 * 1024,
};

async function schedule(seed: number, steps: number): Promise<void> {
  const chance = random(seed);
  const pick = (below: number) => Math.floor(chance() * below);
  const actors: Actor[] = [];
  const flows = new Map<string, Flow>();
  let problem: unknown = null;

  function act(side: 'left' | 'right', stream: Stream): void {
    const flow: Flow = { written: 0, ended: false, resetBy: null };
    flows.set(`${side} ${stream.id}`, flow);
    const other = side === 'left' ? 'right' : 'left';
    const reader = read(stream, () => flows.get(`${other} ${stream.id}`), chance).catch((error: unknown) => {
      problem ??= error;
    });
    actors.push({ side, stream, flow, reader });
  }

  const pair = sessionPair({
    limits: small,
    carrier: {
      delayMs: () => pick(3) * pick(20),
      maxMessageBytes: 4096 + pick(60_000),
      highWaterBytes: 8192,
    },
    acceptLeft: (stream) => act('left', stream),
    acceptRight: (stream) => act('right', stream),
  });
  const { clock } = pair;
  for (let step = 0; step < steps && !problem; step++) {
    const side = pick(2) === 0 ? 'left' : 'right';
    const able = actors.filter((one) => one.side === side && !one.flow.ended && one.flow.resetBy === null);
    const actor = able[pick(able.length)];
    const what = pick(20);
    if (what < 3 || !actor) {
      if (pair[side].streams < 60) act(side, pair[side].open(`/fuzz/${pick(30)}`, content(0, 0, pick(40))));
    } else if (actor.stream.signal.aborted) {
      actor.flow.resetBy = resetCodeOf(actor.stream.signal.reason);
    } else if (what < 15) {
      const length = pick(8) === 0 ? pick(20_000) : pick(500);
      actor.stream.write(content(actor.stream.id, actor.flow.written, length));
      actor.flow.written += length;
    } else if (what < 18) {
      actor.stream.end();
      actor.flow.ended = true;
    } else if (what === 18) {
      actor.flow.resetBy = ResetCode.cancel;
      actor.stream.reset(ResetCode.cancel);
    }
    if (pick(3) === 0) {
      clock.step(pick(15));
      await turn();
    }
  }
  const done = await finish(actors, () => problem !== null, clock);
  if (problem) throw problem;
  assert.ok(done, 'every stream ends');
  assert.deepEqual([pair.left.state, pair.right.state], ['open', 'open']);
  assert.deepEqual([pair.left.streams, pair.right.streams], [0, 0]);
  const closing = pair.left.close();
  for (let turns = 0; turns < 50; turns++) {
    clock.step(20);
    await turn();
  }
  await Promise.all([closing, pair.right.closed]);
  assert.equal(clock.pendingTimers, 0);
}

/** Ends what is open, also streams that are still on their way, and waits until all is quiet. */
async function finish(actors: Actor[], stop: () => boolean, clock: SteppedClock): Promise<boolean> {
  let known = 0;
  let over = 0;
  let quietTurns = 0;
  for (let turns = 0; turns < 10_000 && quietTurns < 40 && !stop(); turns++) {
    for (const { stream, flow, reader } of actors.slice(known)) {
      if (flow.resetBy === null && !stream.signal.aborted) stream.end();
      flow.ended = true;
      void Promise.all([reader, stream.closed]).then(() => over++);
    }
    known = actors.length;
    quietTurns = over === known ? quietTurns + 1 : 0;
    clock.step(5);
    await turn();
  }
  return over === known;
}

/** Reads with pauses and checks each byte; the end must be the one the writer chose. */
async function read(stream: Stream, writer: () => Flow | undefined, chance: () => number): Promise<void> {
  let offset = 0;
  for (;;) {
    if (chance() < 0.3) await turn();
    let chunk: Uint8Array | null;
    try {
      chunk = await stream.read();
    } catch (error) {
      assert.equal(resetCodeOf(error), ResetCode.cancel);
      return;
    }
    if (chunk === null) break;
    for (const byte of chunk) {
      if (byte !== byteAt(stream.id, offset)) assert.fail(`stream ${stream.id}: byte ${offset} is wrong`);
      offset++;
    }
  }
  const flow = writer();
  assert.ok(flow?.ended, `stream ${stream.id} ended and nobody ended it`);
  assert.equal(offset, flow.written, `stream ${stream.id} lost or doubled bytes`);
}

for (let seed = 1; seed <= 30; seed++) {
  test(
    `a random schedule delivers every byte once and in order (seed ${seed})`,
    { timeout: 20_000 },
    async () => {
      await schedule(seed, 400);
    },
  );
}

test('random bytes never throw out of a session nor hang it', { timeout: 20_000 }, async () => {
  const chance = random(7);
  for (let round = 0; round < 300; round++) {
    const wire = bareWire();
    const ours = wire.session.open('/p');
    const read = ours.read().catch(() => null);
    for (let i = 0; i < 20 && wire.session.state !== 'closed'; i++) {
      const bytes = Uint8Array.from({ length: 1 + Math.floor(chance() * 60) }, () => chance() * 256);
      await wire.say(toHex(bytes));
    }
    if (wire.session.state !== 'closed') wire.session.abort('no luck');
    await wire.session.closed;
    await read;
    assert.equal(wire.clock.pendingTimers, 0);
  }
});

test(
  'random frames of the right shape never throw out of a session nor hang it',
  { timeout: 20_000 },
  async () => {
    const chance = random(8);
    const pick = (below: number) => Math.floor(chance() * below);
    const lengths = [0, 3, 20, 8, 2, 8, 8, 2];
    let survived = 0;
    for (let round = 0; round < 300; round++) {
      const wire = bareWire(small);
      wire.session.open('/p');
      const theirs = '20 000003 00000002 02 2f70';
      await wire.say(theirs);
      for (let i = 0; i < 30 && wire.session.state !== 'closed'; i++) {
        const type = 2 + pick(7);
        const length = lengths[type - 1] ?? 0;
        const id = type >= 6 ? 0 : pick(5);
        const payload = Array.from({ length }, () => (pick(3) === 0 ? pick(256) : 0))
          .map(hexByte)
          .join('');
        await wire.say(
          `${hexByte((type << 4) | (type === 3 ? pick(4) : 0))}${hexByte(0)}${hexByte(0)}${hexByte(length)}000000${hexByte(id)}${payload}`,
        );
      }
      if (wire.session.state !== 'closed') survived++;
      wire.session.abort('enough');
      await wire.session.closed;
      assert.equal(wire.clock.pendingTimers, 0);
    }
    assert.ok(survived < 300);
  },
);

function hexByte(value: number): string {
  return value.toString(16).padStart(2, '0');
}
