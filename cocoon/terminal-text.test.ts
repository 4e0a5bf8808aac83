import assert from 'node:assert/strict';
import { test } from 'node:test';
import { printableJson, printableLine, printableText } from './terminal-text.ts';

test('a line of a table steers no terminal', () => {
  assert.equal(printableLine('a\u001b[2Jb\nc\u202Ed\u009be'), 'a?[2Jb?c?d?e');
});

test('a log keeps its colours and lines, and steers nothing else', () => {
  assert.equal(printableText('\u001b[31mred\u001b[0m\tx\r\n'), '\u001b[31mred\u001b[0m\tx\r\n');
  assert.equal(printableText('\u001b]0;title\u0007\u001b[2J\u001b[31'), '?]0;title??[2J?[31');
});

test('JSON means the same, and steers no terminal', () => {
  const value = { text: 'a\u001b[2J\u009b2J\u202e\u{e0041}\u2028ü 👍' };
  for (const text of [printableJson(value), printableJson(value, 2)]) {
    assert.deepEqual(JSON.parse(text), value);
    assert.doesNotMatch(text.replaceAll('\n', ''), /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u);
    assert.match(text, /ü 👍/);
  }
});
