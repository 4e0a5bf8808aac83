import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { QueryRow, TaskStats } from '@cocoon-mesh/protocol';
import fc from 'fast-check';
import { fuseRanks, reciprocalRank } from './fuse.ts';
import { mergeRows } from './merge.ts';
import { compareKeys } from './row-order.ts';
import { addStats } from './stats.ts';
import { rowOf } from './targets.contract.ts';

const keyArbitrary = fc.array(
  fc.oneof(fc.integer({ min: 0, max: 3 }), fc.constantFrom('', 'a', 'b', '\uffff', '😀')),
  {
    minLength: 1,
    maxLength: 3,
  },
);

describe('the order of keys', () => {
  test('is descending, numbers before texts, texts by code unit, longer before shorter', () => {
    const order: QueryRow['key'][] = [[2, 'b'], [2, 'a'], [2], [1.5], [-1], ['b'], ['a', 1], ['a']];
    assert.deepEqual(order.toReversed().toSorted(compareKeys), order);
    // By code point it would be the other way round.
    assert.ok(compareKeys(['\uffff'], ['😀']) < 0);
  });

  test('is a total order', () => {
    fc.assert(
      fc.property(keyArbitrary, keyArbitrary, keyArbitrary, (a, b, c) => {
        const sign = (one: QueryRow['key'], other: QueryRow['key']) => Math.sign(compareKeys(one, other));
        assert.equal(sign(a, b) + sign(b, a), 0);
        assert.equal(sign(a, a), 0);
        if (sign(a, b) <= 0 && sign(b, c) <= 0) assert.ok(sign(a, c) <= 0);
        if (sign(a, b) === 0) assert.deepEqual(a, b);
      }),
    );
  });
});

describe('a merge', () => {
  test('gives what sorting everything would give, equal keys by peer and then as they came', () => {
    fc.assert(
      fc.property(fc.array(fc.array(keyArbitrary, { maxLength: 20 }), { maxLength: 9 }), (lists) => {
        const sources = lists.map((keys, i) => ({
          peerId: `peer-${i}`,
          open: false,
          rows: keys.toSorted(compareKeys).map((key, at) => ({ ...rowOf(...key), at: `${i}/${at}` })),
        }));
        const merged = [...mergeRows(sources)].map(({ row }) => row);
        const sorted = sources.flatMap(({ rows }) => rows).toSorted((a, b) => compareKeys(a.key, b.key));
        assert.deepEqual(merged, sorted);
      }),
    );
  });

  test('ends where a source that has more runs out, because what follows may not be next', () => {
    const source = (peerId: string, open: boolean, ...keys: number[]) => ({
      peerId,
      open,
      rows: keys.map((key) => rowOf(key)),
    });
    const merged = (...sources: Parameters<typeof mergeRows>[0]) =>
      [...mergeRows(sources)].map(({ row }) => row.key[0]);
    assert.deepEqual(merged(source('a', true, 9, 7), source('b', false, 8, 6, 5)), [9, 8, 7]);
    assert.deepEqual(merged(source('a', false, 9, 7), source('b', false, 8, 6, 5)), [9, 8, 7, 6, 5]);
    assert.deepEqual(merged(source('a', true), source('b', false, 8)), []);
  });
});

describe('ranks', () => {
  test('are fused by the sum of their reciprocals, 60 added', () => {
    const fused = fuseRanks(
      [
        ['a', 'b', 'c'],
        ['c', 'd', 'd'],
      ],
      (item) => item,
    );
    assert.deepEqual(fused, [
      { item: 'c', score: 1 / 63 + 1 / 61 },
      { item: 'a', score: 1 / 61 },
      { item: 'b', score: 1 / 62 },
      { item: 'd', score: 1 / 62 },
    ]);
    assert.equal(reciprocalRank(1), 1 / 61);
    assert.deepEqual(
      fuseRanks([], (item: string) => item),
      [],
    );
  });
});

describe('statistics', () => {
  test('add up, also when there are none', () => {
    const stats = (pending: number, failed: number): TaskStats => ({
      total: pending + failed,
      by_status: { pending, running: 0, completed: 0, failed, cancelled: 0 },
    });
    assert.deepEqual(addStats([stats(1, 2), stats(3, 0), stats(0, 4)]), stats(4, 6));
    assert.deepEqual(addStats([]), stats(0, 0));
  });
});
