import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Clock } from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { Heartbeat } from './heartbeat.ts';

const limits = { pingAfterMs: 1_200, deadAfterMs: 4_000 };

function beating(clock: Clock = new SteppedClock()) {
  const events: string[] = [];
  const heartbeat = new Heartbeat(clock, limits, {
    ping: () => events.push(`ping ${clock.monotonic()}`),
    dead: () => events.push(`dead ${clock.monotonic()}`),
  });
  return { heartbeat, events };
}

test('silence is pinged every 1.2 s and is death at 4 s', () => {
  const clock = new SteppedClock();
  const { events } = beating(clock);
  clock.step(10_000);
  assert.deepEqual(events, ['ping 1200', 'ping 2400', 'ping 3600', 'dead 4000']);
  assert.equal(clock.pendingTimers, 0);
});

test('as long as something comes nothing is pinged', () => {
  const clock = new SteppedClock();
  const { heartbeat, events } = beating(clock);
  for (let i = 0; i < 20; i++) {
    clock.step(1_000);
    heartbeat.heard(clock.monotonic());
  }
  assert.deepEqual(events, []);
  clock.step(4_000);
  assert.equal(events.at(-1), 'dead 24000');
});

test('an answer to the last ping saves the carrier', () => {
  const clock = new SteppedClock();
  const { heartbeat, events } = beating(clock);
  clock.step(3_900);
  heartbeat.heard(clock.monotonic());
  clock.step(1_199);
  assert.equal(events.length, 3);
  clock.step(2_800);
  assert.ok(!events.some((event) => event.startsWith('dead')));
  clock.step(1);
  assert.equal(events.at(-1), 'dead 7900');
});

test('a process that stood still asks again before it calls the other side dead', () => {
  // A laptop that slept: the timer of 1.2 s fires after an hour.
  const clock = new SteppedClock();
  let asleep = 0;
  const sleeping: Clock = {
    now: () => clock.now() + asleep,
    monotonic: () => clock.monotonic() + asleep,
    after: (delayMs, callback) => clock.after(delayMs, callback),
  };
  const { heartbeat, events } = beating(sleeping);
  asleep = 3_600_000;
  clock.step(1_200);
  assert.deepEqual(events, ['ping 3601200']);
  clock.step(100);
  heartbeat.heard(sleeping.monotonic());
  clock.step(1_300);
  assert.ok(!events.some((event) => event.startsWith('dead')));
  clock.step(4_000);
  assert.match(events.at(-1) ?? '', /^dead/, 'but not for ever');
});

test('a stopped heartbeat leaves no timer', () => {
  const clock = new SteppedClock();
  const { heartbeat, events } = beating(clock);
  clock.step(1_300);
  heartbeat.stop();
  assert.equal(clock.pendingTimers, 0);
  clock.step(10_000);
  assert.equal(events.length, 1);
});
