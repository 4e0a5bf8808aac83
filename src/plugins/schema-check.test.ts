import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { JsonOf } from './json-of.ts';
import { compileSchema } from './schema-check.ts';

const schema = {
  type: 'object',
  properties: {
    text: { type: 'string', maxLength: 3 },
    list: { type: 'array', items: { $ref: '#/$defs/item' } },
    // A property may be called like a rule.
    contains: { type: 'integer', default: 7 },
  },
  required: ['text'],
  additionalProperties: false,
  $defs: { item: { type: 'integer' } },
} as const;

describe('a JSON Schema', () => {
  it('says what is wrong and where', () => {
    const check = compileSchema(schema);
    assert.equal(check.problem({ text: 'abc', list: [1, 2] }), null);
    assert.match(check.problem({ text: 'abcd' }) ?? '', /^text: /);
    assert.match(check.problem({ text: 'a', list: [1, 'x'] }) ?? '', /^list\.1: /);
    assert.match(check.problem({}) ?? '', /^text: /);
    assert.match(check.problem({ text: 'a', other: 1 }) ?? '', /other/);
    assert.match(check.problem(3) ?? '', /^the value: /);
  });

  it('fills in its defaults', () => {
    assert.deepEqual(compileSchema(schema).withDefaults({ text: 'a' }), { text: 'a', contains: 7 });
  });

  it('with a rule that is not known, or lies elsewhere, is refused', () => {
    for (const rule of [
      { type: 'array', uniqItems: true },
      { type: 'object', properties: { deep: { type: 'array', minContain: 1 } } },
      { type: 'string', format: 'emial' },
      { $ref: 'https://example.org/schema' },
    ])
      assert.throws(() => compileSchema(rule), { code: 'bad_manifest' }, JSON.stringify(rule));
  });

  it('may have the name of another one, and be used again', () => {
    const [a, b] = ['string', 'number'].map((type) =>
      compileSchema({ $id: 'https://example.org/one', type }),
    );
    assert.deepEqual([a?.problem('x'), b?.problem(1)], [null, null]);
    assert.equal(compileSchema(schema), compileSchema(schema));
  });

  it('that is none is refused', () => {
    for (const none of [
      { type: 'text' },
      { minLength: 'x' },
      { required: 'a' },
      { required: [1] },
      { properties: 1 },
      { properties: { a: 'string' } },
      { pattern: '(' },
      { anyOf: [] },
      { $ref: '#/$defs/nowhere' },
    ])
      assert.throws(() => compileSchema(none), { code: 'bad_manifest' }, JSON.stringify(none));
  });

  const own = { type: 'object', properties: { next: { $ref: '#' } }, additionalProperties: false } as const;
  for (const [rules, holds, breaks] of [
    // Also where nothing else says what kind of value it is.
    [{ type: 'object', required: ['ok'] }, { ok: null }, {}],
    [{ type: 'object', required: ['toString'] }, { toString: 1 }, {}],
    [{ required: ['ok'] }, 3, {}],
    [{ properties: { a: { type: 'string' } } }, { a: 'x' }, { a: 1 }],
    [{ minLength: 2 }, 1, 'a'],
    [{ maxLength: 1 }, '😀', 'ab'],
    [{ minimum: 2 }, 'a', 1],
    [{ items: { type: 'string' } }, ['a'], [1]],
    [{ type: 'array', minItems: 1 }, [1], []],
    [{ type: 'array', maxItems: 1 }, [1], [1, 2]],
    [{ type: ['string', 'null'] }, null, 1],
    [{ type: 'integer' }, 1e20, 1.5],
    [{ multipleOf: 0.1 }, 0.3, 0.35],
    [{ const: { a: [1] } }, { a: [1] }, { a: [2] }],
    [{ enum: [{ a: 1 }, 'b'] }, { a: 1 }, { a: 2 }],
    [{ prefixItems: [{ type: 'string' }], items: false }, ['a'], ['a', 1]],
    [{ patternProperties: { '^a': { type: 'number' } }, additionalProperties: false }, { ab: 1 }, { b: 1 }],
    [{ propertyNames: { pattern: '^a' } }, { ab: 1 }, { b: 1 }],
    [{ minProperties: 1, maxProperties: 1 }, { a: 1 }, { a: 1, b: 2 }],
    [{ dependentRequired: { a: ['b'] } }, { b: 1 }, { a: 1 }],
    [{ properties: { a: {} }, allOf: [{ required: ['a'] }] }, { a: 1 }, {}],
    [{ anyOf: [{ required: ['a'] }, { required: ['b'] }] }, { b: 1 }, { c: 1 }],
    [{ oneOf: [{ type: 'number' }, { type: 'integer' }] }, 1.5, 1],
    [{ not: { type: 'string' } }, 1, 'a'],
    [{ uniqueItems: true }, [{ a: 1 }, { a: 2 }], [{ a: 1 }, { a: 1 }]],
    [{ contains: { type: 'string' } }, [1, 'a'], [1]],
    [{ if: { type: 'string' }, else: { minimum: 2 } }, 'a', 1],
    [{ type: 'string', format: 'email' }, 'anna@example.org', 'anna'],
    [{ $ref: '#/$defs/a', minLength: 3, $defs: { a: { type: 'string' } } }, 'abc', 'ab'],
    [own, { next: { next: {} } }, { next: { next: { other: 1 } } }],
    [false, undefined, 1],
  ] as const)
    it(`holds ${JSON.stringify(rules)}`, () => {
      const check = compileSchema(rules);
      if (holds !== undefined) assert.equal(check.problem(holds), null);
      assert.notEqual(check.problem(breaks), null);
    });

  it('that refers to itself ends', () => {
    const all = { allOf: [{ $ref: '#' }, { $ref: '#' }] };
    assert.match(compileSchema(all).problem(1) ?? '', /too long/);
    const field = { $ref: '#', default: {} };
    assert.equal(typeof compileSchema({ properties: { a: field, b: field } }).withDefaults({}), 'object');
  });

  it('is a type too', () => {
    const value: JsonOf<typeof schema> = { text: 'a', list: [1] };
    // @ts-expect-error a text is no number
    const wrong: JsonOf<typeof schema> = { text: 1 };
    // @ts-expect-error the text is required
    const missing: JsonOf<typeof schema> = {};
    assert.ok([value, wrong, missing].every((one) => typeof one === 'object'));
  });
});
