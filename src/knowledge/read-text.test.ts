import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { symlinkSync } from 'node:fs';
import { describe, it } from 'node:test';
import { readText } from './read-text.node.ts';
import { TextTree } from './text-tree.contract.ts';

describe('reading a file', () => {
  it('gives its text and a stamp that changes with it', () => {
    using tree = new TextTree();
    const first = readText(tree.write('a.md', 'alpha\n'));
    assert.ok(first.kind === 'text');
    assert.equal(first.text, 'alpha\n');
    const second = readText(tree.write('a.md', 'bravo\n'));
    assert.ok(second.kind === 'text');
    assert.notEqual(second.hash, first.hash);
    assert.notEqual(second.stamp, first.stamp);
  });

  it('neither waits for a pipe nor follows a link that took the place of a file', () => {
    using tree = new TextTree({ 'a.md': 'alpha\n' });
    execFileSync('mkfifo', [tree.path('pipe.md')]);
    symlinkSync(tree.path('a.md'), tree.path('link.md'));
    assert.deepEqual(readText(tree.path('pipe.md')), { kind: 'skipped', reason: 'special' });
    assert.deepEqual(readText(tree.path('link.md')), { kind: 'skipped', reason: 'link' });
    assert.deepEqual(readText(tree.path('missing.md')), { kind: 'skipped', reason: 'unreadable' });
  });

  it('takes no text that changes while it is read', { skip: process.platform !== 'linux' }, () => {
    // Says that it is empty, and is not.
    assert.deepEqual(readText('/proc/self/status'), { kind: 'skipped', reason: 'changing' });
  });
});
