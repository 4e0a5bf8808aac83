import assert from 'node:assert/strict';
import { test } from 'node:test';
import { laterByMessage, platformScheduler } from './scheduler.ts';

test('soon comes before later, and later lets a turn pass', async () => {
  const order: string[] = [];
  await new Promise<void>((resolve) => {
    platformScheduler.later(() => {
      order.push('later');
      resolve();
    });
    platformScheduler.soon(() => order.push('soon'));
    order.push('now');
  });
  assert.deepEqual(order, ['now', 'soon', 'later']);
});

test('where there is no setImmediate, later still runs all in order and in later turns', async () => {
  const { later, close } = laterByMessage();
  const order: string[] = [];
  const done = Promise.withResolvers<void>();
  later(() => {
    order.push('first');
    queueMicrotask(() => order.push('between'));
  });
  later(() => {
    order.push('second');
    done.resolve();
  });
  await done.promise;
  close();
  assert.deepEqual(order, ['first', 'between', 'second']);
});
