import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { taskIdField } from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { TaskIds } from './task-id.ts';

function timeIn(id: string): number {
  return Number.parseInt(id.replaceAll('-', '').slice(0, 12), 16);
}

describe('ids of tasks', () => {
  test('are UUIDs of version 7 with the time that they say', () => {
    const clock = new SteppedClock();
    const ids = new TaskIds(clock);
    for (let n = 0; n < 1000; n++) {
      const { id, ms } = ids.next();
      assert.ok(taskIdField.safeParse(id).success, id);
      assert.equal(timeIn(id), ms);
      clock.step(n % 3);
    }
  });

  test('rise, however many are made at one time', () => {
    const ids = new TaskIds(new SteppedClock());
    let last = ids.next();
    for (let n = 0; n < 20_000; n++) {
      const next = ids.next();
      assert.ok(next.id > last.id, `${last.id} ${next.id}`);
      assert.ok(next.ms >= last.ms);
      last = next;
    }
  });

  test('rise when the clock is set back, too', () => {
    let now = Date.UTC(2026, 0, 1);
    const clock = Object.assign(new SteppedClock(), { now: () => now });
    const ids = new TaskIds(clock);
    const before = ids.next();
    now -= 3_600_000;
    const after = ids.next();
    assert.ok(after.id > before.id);
    assert.ok(after.ms >= before.ms);
  });
});
