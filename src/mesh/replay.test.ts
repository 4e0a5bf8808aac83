import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fromHex, MeshError, toHex } from '@cocoon-mesh/protocol';
import { Replay } from './replay.ts';

const resetOf = (id: number) => `50000002${id.toString(16).padStart(8, '0')}0001`;
const message = (...ids: number[]) => fromHex(ids.map(resetOf).join(''));
const kept = (replay: Replay, position: number) => [...replay.after(position)].map(toHex);

test('frames are kept until they are acknowledged, whole messages at a time', () => {
  const replay = new Replay(10_000);
  replay.add(message(1, 3), 2);
  replay.add(message(5), 1);
  assert.deepEqual([replay.sent, replay.acknowledged], [3, 0]);
  const full = replay.bytes;
  replay.acknowledge(1);
  assert.equal(replay.bytes, full, 'half a message is still needed');
  replay.acknowledge(2);
  assert.ok(replay.bytes < full);
  replay.acknowledge(3);
  assert.equal(replay.bytes, 0);
});

test('what comes after a position is exactly what the other side has not received', () => {
  const replay = new Replay(10_000);
  replay.add(message(1, 3, 5), 3);
  replay.add(message(7), 1);
  assert.deepEqual(kept(replay, 0), [resetOf(1) + resetOf(3) + resetOf(5), resetOf(7)]);
  assert.deepEqual(kept(replay, 2), [resetOf(5), resetOf(7)]);
  assert.deepEqual(kept(replay, 3), [resetOf(7)]);
  assert.deepEqual(kept(replay, 4), []);
  replay.acknowledge(3);
  assert.deepEqual(kept(replay, 3), [resetOf(7)]);
});

test('an acknowledgement of what was never sent is refused, an old one ignored', () => {
  const replay = new Replay(10_000);
  replay.add(message(1, 3), 2);
  replay.acknowledge(2);
  replay.acknowledge(1);
  assert.equal(replay.acknowledged, 2);
  assert.throws(
    () => replay.acknowledge(3),
    (error) => error instanceof MeshError && error.code === 'protocol_violation',
  );
});

test('a full buffer has no room, an empty one takes any message', () => {
  const replay = new Replay(1000);
  assert.ok(replay.hasRoom(2000));
  replay.add(new Uint8Array(800), 1);
  assert.equal(replay.hasRoom(100), false, 'what an entry costs counts too');
  replay.acknowledge(1);
  assert.ok(replay.hasRoom(100));
});
