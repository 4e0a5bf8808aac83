import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import type { Outcome } from './breaker.ts';
import { Breaker } from './breaker.ts';

function made(outcomes: Partial<Record<Outcome, number>> = {}) {
  const clock = new SteppedClock();
  const breaker = new Breaker(clock);
  const end = (outcome: Outcome, times = 1): void => {
    for (let i = 0; i < times; i++) breaker.begin()?.(outcome);
  };
  for (const [outcome, times] of Object.entries(outcomes)) end(outcome as Outcome, times);
  return { clock, breaker, end };
}

describe('a breaker', () => {
  test('opens when half of at least twenty requests failed', () => {
    const { breaker, end } = made({ served: 10, failed: 9 });
    assert.equal(breaker.waitMs, 0);
    end('failed');
    assert.equal(breaker.waitMs, 10_000);
    assert.equal(breaker.begin(), null);
  });

  test('stays closed for fewer requests, fewer failures, and for what is no failure', () => {
    assert.equal(made({ failed: 19 }).breaker.waitMs, 0);
    assert.equal(made({ served: 31, failed: 30 }).breaker.waitMs, 0);
    assert.equal(made({ neither: 100, failed: 19 }).breaker.waitMs, 0);
  });

  test('forgets what is older than a minute', () => {
    const { breaker, clock, end } = made({ failed: 19 });
    clock.step(60_000);
    end('failed', 19);
    assert.equal(breaker.waitMs, 0);
    clock.step(59_000);
    end('failed');
    assert.equal(breaker.waitMs, 10_000);
  });

  test('lets one request try after ten seconds, whose end decides', () => {
    const { breaker, clock } = made({ failed: 20 });
    clock.step(9_999);
    assert.equal(breaker.begin(), null);
    clock.step(1);
    const first = breaker.begin();
    assert.ok(first);
    assert.equal(breaker.begin(), null);
    first('failed');
    assert.equal(breaker.waitMs, 10_000);
    clock.step(10_000);
    // One that was cancelled says nothing: the next may try.
    breaker.begin()?.('neither');
    const third = breaker.begin();
    third?.('served');
    third?.('failed');
    assert.equal(breaker.waitMs, 0);
    for (let i = 0; i < 19; i++) breaker.begin()?.('failed');
    assert.equal(breaker.waitMs, 0);
  });

  test('counts requests that began before it opened without opening again', () => {
    const { breaker, clock, end } = made();
    const late = breaker.begin();
    end('failed', 20);
    clock.step(5_000);
    late?.('failed');
    assert.equal(breaker.waitMs, 5_000);
  });
});
