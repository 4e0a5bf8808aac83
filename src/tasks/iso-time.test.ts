import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { isoTime } from './iso-time.ts';

test('a time is written as a Date writes it', () => {
  const last = 8.64e15;
  fc.assert(
    fc.property(fc.oneof(fc.integer({ min: 0, max: 4e12 }), fc.integer({ min: -last, max: last })), (ms) =>
      assert.equal(isoTime(ms), new Date(ms).toISOString()),
    ),
    { numRuns: 2_000 },
  );
  for (const ms of [0, 1, -1, 86_399_999, 86_400_000, last, -last])
    assert.equal(isoTime(ms), new Date(ms).toISOString());
});

test('what is no time is an error, and the next one is written right', () => {
  for (const ms of [Number.NaN, Number.POSITIVE_INFINITY, 1e16]) assert.throws(() => isoTime(ms), RangeError);
  assert.equal(isoTime(5), '1970-01-01T00:00:00.005Z');
});
