import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FairQueue } from './fair-queue.ts';

function takeAll(queue: FairQueue): string {
  const ids: string[] = [];
  for (let next = queue.take(); next; next = queue.take()) ids.push(next.id);
  return ids.join(' ');
}

function filled(...ids: readonly string[]): FairQueue {
  const queue = new FairQueue();
  for (const id of ids) queue.add({ id, by: id[0] ?? '' });
  return queue;
}

test('who asks for much takes turns with who asks for little', () => {
  assert.equal(takeAll(filled('a1', 'a2', 'a3', 'b1', 'c1', 'b2')), 'a1 b1 c1 a2 b2 a3');
});

test('what one asks for keeps its order, and waits once only', () => {
  const queue = filled('a1', 'a2', 'a1');
  assert.equal(queue.size, 2);
  assert.equal(takeAll(queue), 'a1 a2');
  assert.equal(queue.size, 0);
});

test('what is put back is the next again', () => {
  const queue = filled('a1', 'b1', 'a2');
  const taken = queue.take();
  assert.ok(taken);
  queue.putBack(taken);
  assert.equal(takeAll(queue), 'a1 b1 a2');
  queue.putBack(taken);
  assert.equal(takeAll(queue), 'a1');
});

test('what is deleted does not come, and holds up nobody', () => {
  const queue = filled('a1', 'b1', 'b2');
  assert.equal(queue.delete('a1'), true);
  assert.equal(queue.delete('a1'), false);
  assert.equal(queue.has('a1'), false);
  assert.equal(takeAll(queue), 'b1 b2');
  assert.deepEqual(filled('x1', 'y1').clear(), ['x1', 'y1']);
});
