import assert from 'node:assert/strict';
import { test } from 'node:test';
import { printableLine, printableText } from './terminal-text.ts';

test('a line of a table steers no terminal', () => {
  assert.equal(printableLine('a\u001b[2Jb\nc\u202Ed\u009be'), 'a?[2Jb?c?d?e');
});

test('a log keeps its colours and lines, and steers nothing else', () => {
  assert.equal(printableText('\u001b[31mred\u001b[0m\tx\r\n'), '\u001b[31mred\u001b[0m\tx\r\n');
  assert.equal(printableText('\u001b]0;title\u0007\u001b[2J\u001b[31'), '?]0;title??[2J?[31');
});
