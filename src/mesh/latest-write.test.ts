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

test('whoever waits for a write is told when the newest could not be written, and it is tried again', async () => {
  const { writes, latest, values } = slowStore();
  await latest.written();
  latest.put(1);
  const first = latest.written();
  writes[0]?.done.reject(new Error('no space'));
  await assert.rejects(first, /no space/);
  const again = latest.written();
  assert.deepEqual(values(), [1, 1]);
  writes[1]?.done.reject(new Error('still none'));
  await assert.rejects(again, /still none/);
  latest.put(2);
  const next = latest.written();
  writes[2]?.done.resolve();
  await next;
  assert.deepEqual(values(), [1, 1, 2]);
  await latest.written();
  assert.equal(writes.length, 3);
});

test('a write that failed is of no matter when what came meanwhile is written', async () => {
  const { writes, latest } = slowStore();
  latest.put(1);
  latest.put(2);
  const written = latest.written();
  writes[0]?.done.reject(new Error('no space'));
  await new Promise((resolve) => setImmediate(resolve));
  writes[1]?.done.resolve();
  await written;
});
