import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { lexicalVector } from './lexical.ts';
import type { TextPair } from './text-pairs.contract.ts';
import { nearDuplicates, packageReadmes, recallAt1, sameTopic, typos } from './text-pairs.contract.ts';

function recall(pairs: readonly TextPair[]): number {
  return recallAt1(
    pairs.map(({ query }) => lexicalVector(query)),
    pairs.map(({ target }) => lexicalVector(target)),
  );
}

describe('the lexical space finds', { timeout: 120_000 }, () => {
  it('nearly the same text among forty', (t) => {
    const found = recall(nearDuplicates());
    t.diagnostic(`recall@1 ${found}`);
    assert.ok(found >= 0.95, String(found));
  });

  it('the text without the typos', (t) => {
    const found = recall(typos());
    t.diagnostic(`recall@1 ${found}`);
    assert.ok(found >= 0.95, String(found));
  });

  it('another text about the same thing', (t) => {
    const found = recall(sameTopic());
    t.diagnostic(`recall@1 ${found}`);
    assert.ok(found >= 0.95, String(found));
  });

  it('the README of a package by its description, which was taken out of it', (t) => {
    const pairs = packageReadmes();
    const found = recall(pairs);
    t.diagnostic(`recall@1 ${found} of ${pairs.length}`);
    assert.ok(pairs.length >= 100);
    assert.ok(found >= 0.5, String(found));
  });
});
