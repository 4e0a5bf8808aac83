import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { fullTextQuery } from './full-text.ts';

describe('a question as a query', () => {
  it('is quoted words and nothing else, whatever is in it', () => {
    for (const question of [
      'a" OR x*',
      'title: NEAR(a b) NOT c',
      'fünf ^ {x} - y AND',
      "'); drop table",
      '""*',
    ])
      assert.match(
        fullTextQuery(question) ?? '"x"',
        /^"[\p{L}\p{N}\p{M}]+"\*?( OR "[\p{L}\p{N}\p{M}]+"\*?)*$/u,
      );
    for (const nothing of ['', ' ', '"*', '()']) assert.equal(fullTextQuery(nothing), null);
  });

  it('has a bounded number of words of a bounded length', () => {
    const words = Array.from({ length: 1000 }, (_, n) => `word${n}${'x'.repeat(100)}`);
    const terms = (fullTextQuery(words.join(' ')) ?? '').split(' OR ');
    assert.equal(terms.length, 32);
    assert.ok(terms.every((term) => term.length <= 64 + '""*'.length));
  });
});
