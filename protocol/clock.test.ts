import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { deadline, every, systemClock } from './clock.ts';
import { SteppedClock } from './stepped-clock.ts';

describe('the stepped clock', () => {
  it('runs timers in the order of their time, those of one time in the order they were set', () => {
    const clock = new SteppedClock(1000);
    const ran: string[] = [];
    clock.after(20, () => ran.push('c'));
    clock.after(10, () => ran.push('a'));
    clock.after(10, () => ran.push('b'));
    clock.after(-5, () => ran.push('at once'));
    clock.step(9);
    assert.deepEqual(ran, ['at once']);
    clock.step(11);
    assert.deepEqual(ran, ['at once', 'a', 'b', 'c']);
    assert.equal(clock.now(), 1020);
    assert.equal(clock.monotonic(), 20);
    assert.equal(clock.pendingTimers, 0);
  });

  it('shows a callback its own time, also when it sets the next timer', () => {
    const clock = new SteppedClock(0);
    const seen: number[] = [];
    clock.after(10, () => {
      seen.push(clock.now());
      clock.after(10, () => seen.push(clock.now()));
    });
    clock.step(100);
    assert.deepEqual(seen, [10, 20]);
    assert.equal(clock.now(), 100);
  });

  it('forgets what was cancelled', () => {
    const clock = new SteppedClock();
    const timer = clock.after(1, () => assert.fail());
    timer.cancel();
    timer.cancel();
    assert.equal(clock.pendingTimers, 0);
    clock.step(10);
  });
});

describe('a repeated timer', () => {
  it('goes on until it is cancelled, also from inside', () => {
    const clock = new SteppedClock();
    let runs = 0;
    const timer = every(clock, 10, () => {
      runs++;
      if (runs === 3) timer.cancel();
    });
    clock.step(100);
    assert.equal(runs, 3);
    assert.equal(clock.pendingTimers, 0);
  });
});

describe('a deadline', () => {
  it('aborts with a TimeoutError, and never after it was cancelled', () => {
    const clock = new SteppedClock();
    const met = deadline(clock, 10);
    const missed = deadline(clock, 10);
    met.cancel();
    clock.step(10);
    assert.equal(met.signal.aborted, false);
    assert.equal((missed.signal.reason as Error).name, 'TimeoutError');
  });
});

describe('the system clock', () => {
  it('waits for longer than the timers of the platform can', (context) => {
    const delays: number[] = [];
    const waiting: (() => void)[] = [];
    const fake = (callback: () => void, delayMs: number) => {
      delays.push(delayMs);
      waiting.push(callback);
      return 0;
    };
    context.mock.method(globalThis, 'setTimeout', fake as unknown as typeof setTimeout);
    const wantedMs = 60 * 86_400_000;
    let runs = 0;
    systemClock.after(wantedMs, () => runs++);
    for (let next = waiting.shift(); next; next = waiting.shift()) next();
    assert.equal(runs, 1);
    assert.equal(
      delays.reduce((sum, ms) => sum + ms, 0),
      wantedMs,
    );
    // Above, Node and browsers fire after a millisecond.
    for (const delayMs of delays) assert.ok(delayMs < 2 ** 31);
  });

  it('cancels and runs', async () => {
    const ran = Promise.withResolvers<void>();
    systemClock.after(0, () => assert.fail()).cancel();
    // The clock's own timers hold no process, so this one does while the test waits.
    const hold = setInterval(() => {}, 1000);
    systemClock.after(1, () => ran.resolve());
    await ran.promise;
    clearInterval(hold);
  });
});
