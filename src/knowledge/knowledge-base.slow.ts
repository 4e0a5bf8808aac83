/** A real tree of documents: the documentation of this project and what its packages bring. */

import assert from 'node:assert/strict';
import { cpSync, existsSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { after, before, describe, it } from 'node:test';
import { KnowledgeBase } from './knowledge-base.node.ts';
import { TextTree } from './text-tree.contract.ts';

const project = resolve(import.meta.dirname, '../..');
const planted =
  'The lighthouse keeper of Ushant counted forty-one herring gulls before the fog rolled in from the west.\n';

/** Questions as somebody would ask them, and the file that answers. */
const questions = [
  ['a question and its planted answer', 'herring gulls counted by the lighthouse keeper', 'planted.md'],
  ['a planted passage that is misspelt', 'lighthose keaper of Ushant herrring guls', 'planted.md'],
  ['the first letters of a word', 'Ushant lightho', 'planted.md'],
  ['backing up', 'restore the signaling database from a backup', 'docs/operating.md'],
  ['a stolen device', 'what can somebody with a stolen device do', 'docs/security.md'],
  ['semver', 'advanced range syntax hyphen ranges tilde caret', 'node_modules/semver/README.md'],
  ['ws', 'how to detect and close broken websocket connections ping pong', 'node_modules/ws/README.md'],
  ['pino', 'pino redaction of sensitive paths', 'node_modules/pino/docs/redaction.md'],
] as const;

describe('the documents of this repository', () => {
  const tree = new TextTree();
  let base: KnowledgeBase;

  before(async () => {
    cpSync(join(project, 'docs'), tree.path('docs'), { recursive: true });
    writeFileSync(tree.path('docs/planted.md'), `# Notes\n\nNothing here.\n\n## Birds\n\n${planted}`);
    base = await KnowledgeBase.open(tree.database);
  });
  after(async () => {
    await base.close();
    tree[Symbol.dispose]();
  });

  it('are indexed while everything else goes on', async () => {
    const delay = monitorEventLoopDelay({ resolution: 5 });
    delay.enable();
    const docs = await base.add(tree.root);
    const packages = await base.add(join(project, 'node_modules'), { only: ['md'] });
    delay.disable();
    assert.ok(docs.added >= 6);
    assert.ok(packages.added >= 200, `${packages.added} files`);
    assert.deepEqual(packages.examples, []);
    // Generous: the machine may be busy. In this thread a single one of the large files takes longer.
    assert.ok(delay.percentile(99) < 200e6, `the event loop was held for ${delay.percentile(99) / 1e6} ms`);
  });

  for (const [what, question, file] of questions)
    it(`answer ${what}`, async () => {
      const rows = await base.search(question, { limit: 5, timeoutMs: 60_000 });
      const found = rows.map((row) => row.file);
      assert.ok(
        found.some((path) => path.endsWith(file)),
        `${question}: ${found.join(', ')}`,
      );
    });

  it('say where the passage stands', async () => {
    const [row] = await base.search('herring gulls');
    assert.deepEqual([row?.heading, row?.line], ['Notes > Birds', 5]);
    assert.match(row?.snippet ?? '', /forty-one herring gulls before the fog/);
  });

  it('cost little when nothing changed, and follow a change', async () => {
    const again = await base.add(join(project, 'node_modules'), { only: ['md'] });
    assert.deepEqual([again.added, again.changed, again.removed], [0, 0, 0]);
    tree.remove('docs/planted.md');
    assert.equal((await base.add(tree.root)).removed, 1);
    const rows = await base.search('herring gulls');
    assert.ok(rows.every(({ file }) => existsSync(file)));
  });

  it('are watched by the system itself', { timeout: 60_000 }, async () => {
    await base.watch(tree.root, true);
    // The watch begins with the scan; from then on the system tells.
    tree.write('docs/sub/late.md', 'Zymurgy is the last word of some dictionaries.\n');
    for (let found = 0; found === 0;) found = (await base.search('zymurgy')).length;
    await base.watch(tree.root, false);
  });
});
