import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { describe, it } from 'node:test';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import type { KnowledgeOptions } from './knowledge-base.node.ts';
import { KnowledgeBase } from './knowledge-base.node.ts';
import { TextTree } from './text-tree.contract.ts';

async function open(tree: TextTree, options: KnowledgeOptions = {}) {
  const base = await KnowledgeBase.open(tree.database, options);
  return Object.assign(base, { [Symbol.asyncDispose]: () => base.close() });
}

function manyFiles(count: number): Record<string, string> {
  const files = Array.from({ length: count }, (_, n) => [
    `${n}.md`,
    `# File ${n}\n\n${'some words. '.repeat(500)}`,
  ]);
  return Object.fromEntries(files) as Record<string, string>;
}

describe('a knowledge base', () => {
  it('does nothing until something is added, and then answers from its thread', async () => {
    using tree = new TextTree({ 'a.md': '# Alpha\n\nbravo\n' });
    await using base = await open(tree);
    assert.deepEqual([await base.search('bravo'), await base.sources()], [[], []]);
    assert.equal(existsSync(tree.database), false);
    const progress: string[] = [];
    const report = await base.add(tree.root, { onProgress: ({ path }) => progress.push(path) });
    assert.equal(report.added, 1);
    assert.deepEqual(progress, [tree.path('a.md')]);
    assert.equal((await base.search('bravo'))[0]?.file, tree.path('a.md'));
    assert.equal((await base.sources())[0]?.path, tree.root);
    assert.equal((await base.refresh())[0]?.unchanged, 1);
    assert.equal((await base.stats()).chunks, 1);
    assert.equal(await base.remove(tree.root), 1);
    assert.deepEqual(await base.search('bravo'), []);
  });

  it('passes errors on with their codes', async () => {
    using tree = new TextTree({ 'a.md': 'alpha\n' });
    await using base = await open(tree, { maxBytes: 150_000 });
    await assert.rejects(base.add(tree.path('missing')), { name: 'MeshError', code: 'not_found' });
    tree.write('b.md', Array.from({ length: 20_000 }, (_, n) => `word${n}`).join(' '));
    await assert.rejects(base.add(tree.root), { name: 'MeshError', code: 'storage_full' });
    assert.equal((await base.search('alpha')).length, 1);
  });

  it('says at once that its file is no database, each time', async () => {
    using tree = new TextTree();
    const path = tree.write('no.db', 'this is not SQLite'.repeat(100));
    await assert.rejects(KnowledgeBase.open(path), { code: 'database_corrupt' });
    await assert.rejects(KnowledgeBase.open(path), { code: 'database_corrupt' });
  });

  it('answers searches while it indexes, and stops when it is cancelled', async () => {
    using tree = new TextTree(manyFiles(300));
    await using base = await open(tree);
    const cancelling = new AbortController();
    const begun = Promise.withResolvers<void>();
    const adding = base.add(tree.root, { signal: cancelling.signal, onProgress: () => begun.resolve() });
    const outcome = adding.then(
      () => 'done',
      (thrown: { code: string }) => thrown.code,
    );
    await begun.promise;
    assert.ok((await base.search('words')).length > 0);
    cancelling.abort();
    assert.equal(await outcome, 'cancelled');
    const { files } = await base.stats();
    assert.ok(files > 0 && files < 300, `${files} files`);
  });

  it('answers at the deadline, and a cancelled question at once', async () => {
    using tree = new TextTree({ 'a.md': 'alpha\n' });
    const clock = new SteppedClock();
    await using base = await open(tree, { clock });
    await base.add(tree.root);
    const late = base.search('alpha', { timeoutMs: 100 });
    clock.step(100);
    await assert.rejects(late, { code: 'timeout' });
    await assert.rejects(base.search('alpha', { signal: AbortSignal.abort() }), { code: 'cancelled' });
    const cancelling = new AbortController();
    const cancelled = base.search('alpha', { signal: cancelling.signal });
    cancelling.abort();
    await assert.rejects(cancelled, { code: 'cancelled' });
    assert.equal((await base.search('alpha')).length, 1);
  });

  it('lets its thread go when nobody asks, and starts another for the next question', async () => {
    using tree = new TextTree({ 'a.md': 'alpha\n' });
    const clock = new SteppedClock();
    await using base = await open(tree, { clock });
    await base.add(tree.root);
    assert.equal(base.isAwake, true);
    clock.step(5 * 60_000);
    assert.equal(base.isAwake, false);
    assert.equal((await base.search('alpha')).length, 1);
  });

  it('keeps its thread while it watches, and sees changes', async () => {
    using tree = new TextTree({ 'a.md': 'alpha\n' });
    const clock = new SteppedClock();
    await using base = await open(tree, { clock });
    await base.add(tree.root, { watch: true });
    clock.step(5 * 60_000);
    assert.equal(base.isAwake, true);
    await base.watch(tree.root, false);
    clock.step(5 * 60_000);
    assert.equal(base.isAwake, false);
  });

  it('fails what runs when it is closed, and everything afterwards', async () => {
    using tree = new TextTree(manyFiles(50));
    const base = await KnowledgeBase.open(tree.database);
    const adding = assert.rejects(base.add(tree.root), { code: 'cancelled' });
    await base.close();
    await adding;
    await assert.rejects(base.add(tree.root), { code: 'cancelled' });
  });
});
