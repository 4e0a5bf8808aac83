import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LatestWrite } from './latest-write.ts';

function slowStore() {
  const writes: { value: number; done: PromiseWithResolvers<void> }[] = [];
  const failures: unknown[] = [];
  const latest = new LatestWrite<number>(
    (value) => {
      const done = Promise.withResolvers<void>();
      writes.push({ value, done });
      return done.promise;
    },
    (error) => failures.push(error),
  );
  return { writes, failures, latest, values: () => writes.map(({ value }) => value) };
}

test('what comes during a write is written after it, and only the newest of it', async () => {
  const { writes, latest, values } = slowStore();
  for (const value of [1, 2, 3]) latest.put(value);
  assert.deepEqual(values(), [1]);
  const flushed = latest.flush();
  writes[0]?.done.resolve();
  await Promise.resolve();
  assert.deepEqual(values(), [1, 3]);
  writes[1]?.done.resolve();
  await flushed;
  latest.put(4);
  assert.deepEqual(values(), [1, 3, 4]);
});

test('a write that fails is told of and does not stop the next one', async () => {
  const { writes, failures, latest, values } = slowStore();
  latest.put(1);
  latest.put(2);
  writes[0]?.done.reject(new Error('no space'));
  writes.length = 0;
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(failures.length, 1);
  assert.deepEqual(values(), [2]);
  writes[0]?.done.resolve();
  await latest.flush();
});
