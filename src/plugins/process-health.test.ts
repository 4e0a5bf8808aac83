import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { ProcessHealth } from './process-health.ts';

function makeHealth() {
  const clock = new SteppedClock();
  const pings: number[] = [];
  const problems: string[] = [];
  const health = new ProcessHealth({
    clock,
    maxRssBytes: 100 * 1024 * 1024,
    ping: (id) => pings.push(id),
    onProblem: (problem) => problems.push(problem),
  });
  return { clock, pings, problems, health };
}

describe('the process of a plugin', () => {
  it('is well as long as it answers', () => {
    const { clock, pings, problems, health } = makeHealth();
    for (let seconds = 0; seconds < 600; seconds += 3) {
      clock.step(3_000);
      health.pong(pings.at(-1) ?? 0, 1024);
    }
    assert.deepEqual(problems, []);
  });

  it('has to end when it did not answer for 15 s', () => {
    const { clock, problems } = makeHealth();
    clock.step(17_999);
    assert.deepEqual(problems, []);
    clock.step(1);
    assert.deepEqual(problems, ['It did not answer for 15 s: its event loop was blocked']);
    clock.step(60_000);
    assert.equal(problems.length, 1);
    assert.equal(clock.pendingTimers, 0);
  });

  it('has to end when it holds too much memory', () => {
    const { problems, health, clock } = makeHealth();
    health.pong(1, 101 * 1024 * 1024);
    assert.deepEqual(problems, ['It held 101 MiB of memory, more than 100']);
    assert.equal(clock.pendingTimers, 0);
  });
});
