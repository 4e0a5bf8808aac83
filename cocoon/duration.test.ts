import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseDate, parseDuration } from './duration.ts';

test('a duration is a number and a unit', () => {
  assert.deepEqual(['90s', '10m', '1h', '7d', '2w'].map(parseDuration), [90, 600, 3600, 604_800, 1_209_600]);
  for (const text of ['soon', '1', '0s', '-1h', '1.5h', '1 h', '', '1y'])
    assert.throws(() => parseDuration(text), { code: 'usage' }, text);
});

test('a date lies in the future', () => {
  const now = Date.UTC(2026, 0, 1);
  assert.equal(parseDate('2026-01-02', now), Date.UTC(2026, 0, 2) / 1000);
  assert.equal(parseDate('2026-01-01T00:00:01Z', now), now / 1000 + 1);
  for (const text of ['2025-12-31', 'tomorrow', '2026-13-01', '1'])
    assert.throws(() => parseDate(text, now), { code: 'usage' }, text);
});
