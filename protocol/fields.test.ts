import assert from 'node:assert/strict';
import { test } from 'node:test';
import { dateText, timeField } from './fields.ts';

test('a time that is accepted can be shown as a date, and any other number too', () => {
  assert.equal(timeField.safeParse(8.64e12).success, true);
  for (const time of [8.64e12 + 1, Number.MAX_SAFE_INTEGER, -1, 0.5])
    assert.equal(timeField.safeParse(time).success, false, String(time));
  assert.equal(dateText(8.64e12), '+275760-09-13T00:00:00.000Z');
  assert.equal(dateText(0), '1970-01-01T00:00:00.000Z');
  for (const seconds of [Number.MAX_VALUE, -Infinity, Number.NaN]) assert.match(dateText(seconds), /Z$/);
});
