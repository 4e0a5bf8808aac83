import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { check, decode, encode } from './codec.ts';
import type { Json } from './json.ts';
import { jsonBytes, jsonField, jsonOfDepth } from './json.ts';
import { limits } from './limits.ts';

const field = jsonField(64, 3);

describe('JSON from outside', () => {
  it('is any value that JSON has', () => {
    for (const value of [null, true, 0, -1.5e300, '', 'a\u0000b🦋', [], {}, { constructor: 1, toJSON: 2 }])
      assert.deepEqual(check(field, value), value);
  });

  it('is nothing else, wherever it stands', () => {
    const others = [
      undefined,
      Number.NaN,
      Infinity,
      1n,
      Symbol('x'),
      () => 1,
      new Date(0),
      new Map(),
      new Uint8Array(1),
      Object.create({ inherited: 1 }) as unknown,
    ];
    for (const value of others)
      for (const place of [value, [value], { a: value }])
        assert.throws(() => check(field, place), { code: 'bad_message' }, typeof value);
  });

  it('has no half of a character and no key that objects have of themselves', () => {
    const bad = ['\ud800', 'a\udc00b', { '\ud800': 1 }, JSON.parse('{"__proto__":1}') as unknown];
    for (const value of bad) assert.throws(() => check(field, value), { code: 'bad_message' });
  });

  it('with half of a character is refused by its place', () => {
    const value = { input: ['fine', 'half \ud83d'] };
    const result = jsonOfDepth(5).safeParse(value);
    assert.equal(result.error?.issues[0]?.message, 'input.1 has half a character');
    const named = jsonOfDepth(5).safeParse(JSON.parse('{"a":{"__proto__":1}}'));
    assert.equal(named.error?.issues[0]?.message, 'a has a field that is called __proto__');
  });

  it('has at most so many values', () => {
    const schema = jsonOfDepth(3, 4);
    assert.deepEqual(check(schema, { a: [1, 2] }), { a: [1, 2] });
    assert.throws(() => check(schema, { a: [1, 2, 3] }), { code: 'bad_message' });
    assert.throws(
      () =>
        check(
          jsonOfDepth(3),
          Array.from({ length: 500_000 }, () => 0),
        ),
      { code: 'bad_message' },
    );
  });

  it('has at most so many bytes of text and so many levels', () => {
    assert.equal(jsonBytes('ü'), 4);
    check(field, 'x'.repeat(62));
    check(field, 'ü'.repeat(31));
    assert.throws(() => check(field, 'x'.repeat(63)), { code: 'bad_message' });
    assert.throws(() => check(field, 'ü'.repeat(32)), { code: 'bad_message' });
    check(field, [{ a: [1] }]);
    assert.throws(() => check(field, [{ a: [[]] }]), { code: 'bad_message' });
    assert.throws(() => check(jsonOfDepth(3), [{ a: [[]] }]), { code: 'bad_message' });
  });

  it('that never ends, or is nested beyond every stack, is refused at once', () => {
    const circle: unknown[] = [];
    circle.push(circle);
    let deep: unknown = 1;
    for (let level = 0; level < 100_000; level++) deep = [deep];
    for (const value of [circle, deep]) assert.throws(() => check(field, value), { code: 'bad_message' });
  });

  it('of the deepest kind that a task or a row may have passes through a message', () => {
    let deep: Json = 1;
    for (let level = 0; level < Math.max(limits.maxTaskJsonDepth, limits.maxQueryRowDepth); level++)
      deep = level % 2 === 0 ? [deep] : { a: deep };
    // A row is the deeper of the two: the list of rows is around it.
    const message = { rows: [{ value: deep }] };
    const schema = jsonOfDepth(32);
    assert.deepEqual(decode(schema, encode(schema, message), 1_000), message);
  });
});
