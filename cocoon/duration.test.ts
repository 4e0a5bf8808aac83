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
  assert.equal(parseDate('2026-01-01T00:00:01Z', now), now / 1000 + 1);
  assert.equal(parseDate('2026-01-01T02:00:00+01:00', now), now / 1000 + 3600);
  for (const text of ['2025-12-31', '2026-01-01T00:00:00Z', 'tomorrow', '2026-13-01', '1'])
    assert.throws(() => parseDate(text, now), { code: 'usage' }, text);
});

test('a day lasts until its end, UTC, also as a date: today is not over', () => {
  const now = Date.UTC(2026, 0, 1, 12);
  assert.equal(parseDate('2026-01-01', now), Date.UTC(2026, 0, 1, 23, 59, 59) / 1000);
  assert.equal(parseDate('2028-02-29', now), Date.UTC(2028, 1, 29, 23, 59, 59) / 1000);
});

test('a day that the calendar has not is refused, not moved to the next month', () => {
  const now = Date.UTC(2026, 0, 1);
  for (const text of [
    '2027-02-31',
    '2027-02-29',
    '2027-04-31T12:00:00Z',
    '2027-01-31T25:00:00Z',
    '2027-01-00',
  ])
    assert.throws(() => parseDate(text, now), { code: 'usage' }, text);
});

test('a time without its zone is refused, for nobody says whose it is', () => {
  assert.throws(() => parseDate('2027-01-31T12:00:00', Date.UTC(2026, 0, 1)), { code: 'usage' });
});
