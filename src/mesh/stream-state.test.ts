import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isOver, nextReceiveState, nextSendState } from './stream-state.ts';
import type { ReceiveEvent, ReceiveState, SendEvent, SendState } from './stream-state.ts';

test('the sending half ends once its FIN is out and cannot fail afterwards', () => {
  const run = (...events: SendEvent[]) => events.reduce<SendState>(nextSendState, 'open');
  assert.equal(run('fin-sent'), 'open');
  assert.equal(run('end'), 'ending');
  assert.equal(run('end', 'end'), 'ending');
  assert.equal(run('end', 'fin-sent'), 'ended');
  assert.equal(run('end', 'fin-sent', 'fail'), 'ended');
  assert.equal(run('fail', 'end', 'fin-sent'), 'failed');
  assert.equal(run('end', 'fail'), 'failed');
});

test('the receiving half keeps what came whole and gives it up only when the program does', () => {
  const run = (...events: ReceiveEvent[]) => events.reduce<ReceiveState>(nextReceiveState, 'open');
  assert.equal(run('emptied'), 'open');
  assert.equal(run('fin'), 'ended');
  assert.equal(run('fin', 'fail'), 'ended');
  assert.equal(run('fin', 'discard'), 'failed');
  assert.equal(run('fin', 'emptied'), 'read');
  assert.equal(run('fin', 'emptied', 'discard'), 'read');
  assert.equal(run('fail', 'fin'), 'failed');
});

test('a stream is over when both halves are', () => {
  const sends: SendState[] = ['open', 'ending', 'ended', 'failed'];
  const receives: ReceiveState[] = ['open', 'ended', 'read', 'failed'];
  const over = sends.flatMap((send) =>
    receives.filter((receive) => isOver(send, receive)).map((receive) => `${send} ${receive}`),
  );
  assert.deepEqual(over, ['ended read', 'ended failed', 'failed read', 'failed failed']);
});
