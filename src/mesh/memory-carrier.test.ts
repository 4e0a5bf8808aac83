import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import type { Carrier } from './carrier.ts';
import { memoryCarrierPair } from './memory-carrier.ts';
import { turn } from './session-pair.contract.ts';

function listen(carrier: Carrier): string[] {
  const events: string[] = [];
  carrier.start({
    message: (bytes) => events.push(`message ${bytes.join(' ')}`),
    writable: () => events.push('writable'),
    closed: (reason) => events.push(`closed ${reason}`),
  });
  return events;
}

test('messages arrive in order, copied, and never inside send', async () => {
  const [left, right] = memoryCarrierPair();
  const events = listen(right);
  const message = Uint8Array.of(1);
  left.send(message);
  left.send(Uint8Array.of(2, 3));
  assert.deepEqual(events, []);
  message[0] = 9;
  await turn();
  assert.deepEqual(events, ['message 1', 'message 2 3']);
});

test('what came before start is delivered first, and a close that came before is told', async () => {
  const [left, right] = memoryCarrierPair();
  left.send(Uint8Array.of(1));
  await left.close('done');
  assert.deepEqual(listen(right), ['message 1', 'closed done']);
  assert.deepEqual(listen(right), ['closed done'], 'to whoever takes over as well');
});

test('delays keep the order, and a killed carrier leaves no timer', () => {
  const clock = new SteppedClock();
  const delays = [30, 10];
  const [left, right] = memoryCarrierPair({ clock, delayMs: () => delays.shift() ?? 50 });
  const events = listen(right);
  left.send(Uint8Array.of(1));
  left.send(Uint8Array.of(2));
  left.send(Uint8Array.of(3));
  clock.step(29);
  assert.deepEqual(events, []);
  clock.step(1);
  assert.deepEqual(events, ['message 1', 'message 2']);
  left.abort('cut');
  assert.equal(clock.pendingTimers, 0);
  assert.deepEqual(events.at(-1), 'closed cut');
  left.send(Uint8Array.of(4));
  clock.step(100);
  assert.equal(events.length, 3);
});

test('above the high-water mark it is not writable until half of it has left', async () => {
  const clock = new SteppedClock();
  const [left, right] = memoryCarrierPair({ clock, delayMs: () => 10, highWaterBytes: 4 });
  listen(right);
  const events = listen(left);
  left.send(new Uint8Array(3));
  assert.ok(left.writable);
  clock.step(5);
  left.send(new Uint8Array(2));
  assert.ok(!left.writable);
  assert.equal(left.bufferedBytes, 5);
  clock.step(5);
  assert.deepEqual([left.bufferedBytes, events.join()], [2, 'writable']);
});

test('close delivers what was sent and is told once to both sides', async () => {
  const [left, right] = memoryCarrierPair();
  const [here, there] = [listen(left), listen(right)];
  left.send(Uint8Array.of(1));
  await Promise.all([left.close('bye'), left.close('again')]);
  right.abort('late');
  assert.deepEqual(there, ['message 1', 'closed bye']);
  assert.deepEqual(here, ['closed bye']);
});

test('messages that no carrier takes are a mistake of the sender', () => {
  const [left] = memoryCarrierPair({ maxMessageBytes: 10 });
  assert.throws(() => left.send(new Uint8Array(0)), RangeError);
  assert.throws(() => left.send(new Uint8Array(11)), RangeError);
});
