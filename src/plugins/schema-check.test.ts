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

  it('with a rule that is not held is refused', () => {
    for (const rule of [
      { type: 'array', uniqueItems: true },
      { type: 'object', properties: { deep: { type: 'object', minProperties: 1 } } },
      { anyOf: [{ type: 'string' }, { type: 'array', contains: { type: 'string' } }] },
      { not: { type: 'string' } },
      { if: { type: 'string' }, else: { minLength: 1 } },
      { $ref: 'https://example.org/schema' },
    ])
      assert.throws(() => compileSchema(rule), { code: 'bad_manifest' }, JSON.stringify(rule));
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
