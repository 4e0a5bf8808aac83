import assert from 'node:assert/strict';
import { test } from 'node:test';
import { backoffMs } from './backoff.ts';

test('the wait grows from half a second to half a minute and stays there', () => {
  assert.equal(backoffMs(0, 1), 500);
  assert.equal(backoffMs(3, 1), 1_688);
  assert.equal(backoffMs(40, 1), 30_000);
});

test('two peers that lost the same server do not come back at the same instant', () => {
  assert.equal(backoffMs(4, 0), 253);
  assert.equal(backoffMs(4, 0.5), 1_392);
});
