import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { check, decode, encode } from './codec.ts';
import type { Json } from './json.ts';
import { limits } from './limits.ts';
import { queryPartSchema, queryRequestSchema, queryRowSchema, queryTypes } from './query-messages.ts';
import { sampleQueryParts, sampleQueryRequests } from './sample-messages.ts';

const [request] = sampleQueryRequests;
const refused = { code: 'bad_message' };

describe('a query', () => {
  it('is of a type that is known, within its limits', () => {
    for (const type of queryTypes) check(queryRequestSchema, { ...request, type });
    for (const change of [
      { type: 'drop_tasks' },
      { limit: 0 },
      { limit: limits.maxQueryRows + 1 },
      { limit: 1.5 },
      { after: 'x'.repeat(limits.maxQueryPositionLength + 1) },
      { after: undefined },
      { timeout_ms: 0 },
      { timeout_ms: limits.maxQueryTimeoutMs + 1 },
      { max_bytes: limits.maxQueryAnswerBytes + 1 },
      { params: undefined },
      { params: 'x'.repeat(limits.maxQueryParamsBytes) },
    ])
      assert.throws(
        () => check(queryRequestSchema, { ...request, ...change }),
        refused,
        JSON.stringify(change).slice(0, 80),
      );
  });
});

describe('an answer to a query', () => {
  const row = { key: [1, 'a'], at: 'c:1', value: { a: 1 } };

  it('has rows with a key to merge them by', () => {
    check(queryRowSchema, row);
    for (const key of [[], [1, 2, 3, 4, 5], [null], [Number.NaN], [{}], ['x'.repeat(257)], 'a'])
      assert.throws(() => check(queryRowSchema, { ...row, key }), refused, JSON.stringify(key));
    assert.throws(() => check(queryRowSchema, { key: [1], at: 'c:1' }), refused);
  });

  it('carries JSON of every depth that a row may have', () => {
    let value: Json = 0;
    for (let level = 0; level < limits.maxQueryRowDepth; level++) value = [value];
    const part = { kind: 'part', seq: 0, rows: [{ ...row, value }], is_final: true } as const;
    const bytes = encode(queryPartSchema, { ...part, rows: [{ key: [1], at: 'c:1', value }] });
    const read = decode(queryPartSchema, bytes, limits.maxQueryPartBytes);
    assert.deepEqual(read.kind === 'part' ? read.rows[0]?.value : null, value);
    assert.throws(() => check(queryPartSchema, { ...part, rows: [{ ...row, value: [value] }] }), refused);
  });

  it('is parts that are counted, or an error', () => {
    for (const part of sampleQueryParts) assert.deepEqual(check(queryPartSchema, part), part);
    const [first] = sampleQueryParts;
    for (const change of [{ seq: -1 }, { seq: 0.5 }, { is_final: undefined }, { rows: null }])
      assert.throws(() => check(queryPartSchema, { ...first, ...change }), refused);
    const rows = Array.from({ length: limits.maxQueryRows + 1 }, () => row);
    assert.throws(() => check(queryPartSchema, { ...first, rows }), refused);
    assert.throws(() => check(queryPartSchema, { kind: 'rows' }), { code: 'unsupported' });
  });
});
