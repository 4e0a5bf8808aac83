import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { lstatSync, renameSync, rmSync, symlinkSync, utimesSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { watchTimes } from './folder-watch.node.ts';
import type { AddRequest, ServiceParts } from './knowledge-service.node.ts';
import { KnowledgeService } from './knowledge-service.node.ts';
import { KnowledgeStore } from './knowledge-store.node.ts';
import { stampOf } from './read-text.node.ts';
import { TextTree } from './text-tree.contract.ts';

const quiet = { signal: new AbortController().signal, onProgress: () => undefined };

interface Opened extends AsyncDisposable {
  readonly service: KnowledgeService;
  readonly clock: SteppedClock;
  readonly problems: MeshError[];
  add(path: string, request?: Partial<AddRequest>): ReturnType<KnowledgeService['add']>;
  find(text: string, limit?: number): Promise<string[]>;
}

async function open(tree: TextTree, parts: Partial<ServiceParts> = {}): Promise<Opened> {
  // Files of the tests are old on this clock, so that a stat tells that they are unchanged.
  const clock = new SteppedClock(Date.now() + 3600_000);
  const problems: MeshError[] = [];
  const service = await KnowledgeService.open({
    path: tree.database,
    clock,
    maxBytes: null,
    onProblem: (error) => problems.push(error),
    ...parts,
  });
  return {
    service,
    clock,
    problems,
    add: (path, request) => service.add({ path, only: null, watch: false, ...request }, quiet),
    find: async (text, limit = 10) => {
      const rows = await service.search({ text, limit, vector: null });
      return rows.map(({ file, line }) => `${file.replace(`${tree.root}/`, '')}:${line}`);
    },
    [Symbol.asyncDispose]: () => service.close(),
  };
}

describe('the index', () => {
  it('answers where a passage stands, with its headings and what it says', async () => {
    using tree = new TextTree({
      'a/guide.md': '# Guide\n\nHello.\n\n## Revoking\n\nA stolen laptop is revoked at once.\n',
    });
    await using base = await open(tree);
    await base.add(tree.root);
    const [row] = await base.service.search({ text: 'stolen laptop', limit: 5, vector: null });
    assert.ok(row);
    const { score, ...rest } = row;
    assert.ok(score > 0);
    assert.deepEqual(rest, {
      file: tree.path('a/guide.md'),
      heading: 'Guide > Revoking',
      line: 5,
      snippet: '## Revoking A stolen laptop is revoked at once.',
      space: 'cocoon-lexical-v1',
    });
  });

  it('finds by words without their accents, by the start of the last word, by typos and by title', async () => {
    using tree = new TextTree({
      'one.md': '# Köln\n\nDas Café am Rhein.\n',
      'two.txt': 'Photosynthesis turns light into sugar.\n',
      'three.md': '# Zebras\n\nStripes everywhere.\n',
    });
    await using base = await open(tree);
    await base.add(tree.root);
    assert.deepEqual(await base.find('cafe'), ['one.md:1']);
    assert.deepEqual(await base.find('photosyn'), ['two.txt:1']);
    assert.deepEqual(await base.find('fotosynthesys lite'), ['two.txt:1']);
    assert.deepEqual(await base.find('zebras'), ['three.md:1']);
    assert.deepEqual(await base.find('qqqqzz'), []);
  });

  it('reads files again only when they changed, and forgets those that are gone', async () => {
    using tree = new TextTree({ 'a.md': 'alpha\n', 'b.md': 'bravo\n', 'c.md': 'charlie\n' });
    await using base = await open(tree);
    const first = await base.add(tree.root);
    assert.deepEqual([first.added, first.changed, first.unchanged, first.removed], [3, 0, 0, 0]);
    tree.write('a.md', 'delta\n');
    tree.remove('b.md');
    // Written to without a change.
    utimesSync(tree.path('c.md'), 1, 1);
    const second = await base.add(tree.root);
    assert.deepEqual([second.added, second.changed, second.unchanged, second.removed], [0, 1, 1, 1]);
    assert.deepEqual(await base.find('alpha'), []);
    assert.deepEqual(await base.find('bravo'), []);
    assert.deepEqual(await base.find('delta'), ['a.md:1']);
    assert.deepEqual(await base.find('charlie'), ['c.md:1']);
    assert.equal((await base.service.stats()).chunks, 2);
  });

  it('sees a change within the same tick of the file system', async () => {
    using tree = new TextTree({ 'a.md': 'alpha\n' });
    await using base = await open(tree);
    base.clock.step(-3600_000);
    await base.add(tree.root);
    assert.equal((await base.add(tree.root)).unchanged, 1);
    const path = tree.write('a.md', 'bravo\n');
    const store = await KnowledgeStore.open(tree.database, null);
    const known = await store.file(path);
    assert.ok(known);
    // As if both had been written at the same moment.
    await store.touchFile(known.id, stampOf(lstatSync(path, { bigint: true })), known.settled === 1);
    await store.close();
    assert.equal((await base.add(tree.root)).changed, 1);
  });

  it('keeps what it has over a restart', async () => {
    using tree = new TextTree({ 'a.md': 'alpha fotosynthesis\n' });
    {
      await using base = await open(tree);
      await base.add(tree.root);
    }
    await using base = await open(tree);
    assert.deepEqual(await base.find('photosynthesys'), ['a.md:1']);
    assert.equal((await base.add(tree.root)).unchanged, 1);
  });

  it('keeps a file that lies in two sources until both are removed', async () => {
    using tree = new TextTree({ 'a/b.md': 'alpha\n', 'c.md': 'charlie\n' });
    await using base = await open(tree);
    await base.add(tree.root);
    await base.add(tree.path('a'));
    assert.deepEqual(
      (await base.service.sources()).map(({ files }) => files),
      [2, 1],
    );
    assert.equal(await base.service.remove({ path: tree.root }, quiet), 1);
    assert.deepEqual(await base.find('alpha'), ['a/b.md:1']);
    tree.remove('a');
    assert.equal(await base.service.remove({ path: tree.path('a') }, quiet), 1);
    assert.deepEqual(await base.find('alpha'), []);
    await assert.rejects(base.service.remove({ path: tree.root }, quiet), { code: 'not_found' });
  });

  it('leaves out what was not meant, and says why', async () => {
    using tree = new TextTree({
      'good.md': 'word\n',
      '.hidden.md': 'word\n',
      '.git/config.md': 'word\n',
      'node_modules/p/readme.md': 'word\n',
      'node_modules/p/node_modules/q/readme.md': 'word\n',
      'image.png': 'word\n',
      'data.bin.txt': 'word\0\x01\x02',
      'big.md': 'word '.repeat(2_100_000),
    });
    symlinkSync('/etc/hostname', tree.path('outside.md'));
    symlinkSync(tree.root, tree.path('loop'));
    execFileSync('mkfifo', [tree.path('pipe.md')]);
    await using base = await open(tree);
    const report = await base.add(tree.root);
    assert.deepEqual(report.skipped, { hidden: 3, binary: 2, too_large: 1, link: 2, special: 1 });
    assert.deepEqual(
      report.examples.map(({ path, reason }) => [path.replace(`${tree.root}/`, ''), reason]),
      [
        ['big.md', 'too_large'],
        ['pipe.md', 'special'],
      ],
    );
    assert.deepEqual(await base.find('word'), ['good.md:1']);
    assert.equal((await base.add(tree.path('node_modules'))).added, 2);
    assert.equal((await base.add(tree.path('.hidden.md'))).added, 1);
  });

  it('leaves out the home of a cocoon, whose keys nobody may find, however it was named', async () => {
    using tree = new TextTree({
      'notes.md': 'zebra\n',
      'own/identity.key': 'zebra\n',
      'own/secret': 'zebra\n',
      'own/logs/cocoon.log': 'zebra\n',
    });
    await using base = await open(tree);
    const reports = [
      await base.add(tree.root),
      await base.add(tree.path('own')),
      await base.add(tree.path('own/secret')),
    ];
    assert.deepEqual(
      reports.map(({ added, examples }) => [added, examples.map(({ reason }) => reason)]),
      [
        [1, ['home_of_a_cocoon']],
        [0, ['home_of_a_cocoon']],
        [0, ['home_of_a_cocoon']],
      ],
    );
    assert.deepEqual(await base.find('zebra'), ['notes.md:1']);
  });

  it('forgets the keys that lay in a folder before it became a home', async () => {
    using tree = new TextTree({ 'own/secret': 'zebra\n' });
    await using base = await open(tree);
    await base.add(tree.root);
    assert.deepEqual(await base.find('zebra'), ['own/secret:1']);
    tree.write('own/identity.key', 'x');
    assert.equal((await base.add(tree.root)).removed, 1);
    assert.deepEqual(await base.find('zebra'), []);
  });

  it('says why it left out a file that was named', async () => {
    using tree = new TextTree({ 'data.bin.txt': 'word\0\x01\x02' });
    await using base = await open(tree);
    const { examples } = await base.add(tree.path('data.bin.txt'));
    assert.deepEqual(examples, [{ path: tree.path('data.bin.txt'), reason: 'binary' }]);
  });

  it('goes no deeper than sixty-four folders', async () => {
    const deep = (levels: number): string => `${'d/'.repeat(levels)}deep.md`;
    using tree = new TextTree({ [deep(64)]: 'word\n', [deep(65)]: 'word\n' });
    await using base = await open(tree);
    const { added, skipped } = await base.add(tree.root);
    assert.deepEqual([added, skipped], [1, { too_many: 1 }]);
  });

  it('forgets nothing of a folder that it cannot look into, and what is gone beside it', async () => {
    using tree = new TextTree({ 'a.md': 'alpha\n', 'z/b.md': 'bravo\n', 'zz/c.md': 'charlie\n' });
    await using base = await open(tree);
    await base.add(tree.root);
    // Gone between being listed and being read.
    const onProgress = (): void => rmSync(tree.path('z'), { recursive: true, force: true });
    tree.remove('zz/c.md');
    const request = { path: tree.root, only: null, watch: false };
    const { removed, skipped } = await base.service.add(request, { ...quiet, onProgress });
    assert.deepEqual([removed, skipped], [1, { unreadable: 1 }]);
    assert.deepEqual(await base.find('bravo'), ['z/b.md:1']);
    assert.deepEqual(await base.find('charlie'), []);
  });

  it('has room again for as much as was changed or is gone', async () => {
    using tree = new TextTree();
    await using base = await open(tree, { maxChunks: 2 });
    for (let n = 0; n < 4; n++) {
      tree.write('a.md', `changed ${n}\n`);
      assert.deepEqual((await base.add(tree.root)).skipped, {}, 'changed');
    }
    for (let n = 0; n < 4; n++) {
      tree.remove(n === 0 ? 'a.md' : `${n}.md`);
      await base.add(tree.root);
      tree.write(`${n + 1}.md`, 'other\n');
      assert.deepEqual((await base.add(tree.root)).skipped, {}, 'gone');
    }
    for (let n = 0; n < 4; n++) {
      await base.service.remove({ path: tree.root }, quiet);
      assert.deepEqual((await base.add(tree.root)).skipped, {}, 'removed');
    }
  });

  it('lets go what is under way or waits when it is closed or cancelled', async () => {
    using tree = new TextTree({ 'a.md': 'alpha\n', 'sub/b.md': 'bravo\n' });
    const base = await open(tree);
    const request = { path: tree.path('sub'), only: null, watch: false };
    const under = base.add(tree.root);
    const waiting = base.service.add(request, { ...quiet, signal: AbortSignal.abort() });
    await assert.rejects(waiting, { code: 'cancelled' });
    await under;
    assert.equal((await base.service.sources()).length, 1);
    const last = assert.rejects(base.add(tree.path('sub')), { code: 'cancelled' });
    await base.service.close();
    await last;
  });

  it('takes only the named extensions', async () => {
    using tree = new TextTree({ 'a.md': 'word\n', 'b.ts': 'word\n', 'c.TXT': 'word\n' });
    await using base = await open(tree);
    const report = await base.add(tree.root, { only: ['md', 'TXT'] });
    assert.deepEqual([report.added, report.skipped], [2, { other_name: 1 }]);
    assert.deepEqual((await base.service.sources())[0]?.only, ['md', 'txt']);
  });

  it('reads names with spaces and line breaks, a file of one line, and an empty one', async () => {
    using tree = new TextTree({
      'with space\nand break/ü.md': 'alpha\n',
      'line.txt': `${'filler '.repeat(280_000)}needle`,
      'empty.md': '',
    });
    await using base = await open(tree);
    assert.equal((await base.add(tree.root)).added, 3);
    assert.deepEqual(await base.find('alpha'), ['with space\nand break/ü.md:1']);
    const [row] = await base.service.search({ text: 'needle', limit: 1, vector: null });
    assert.match(row?.snippet ?? '', /needle$/);
  });

  it('goes on from where it was cancelled', async () => {
    using tree = new TextTree(
      Object.fromEntries(Array.from({ length: 20 }, (_, n) => [`${n}.md`, `word ${n}\n`])),
    );
    await using base = await open(tree);
    const cancelling = new AbortController();
    const onProgress = (): void => cancelling.abort();
    await assert.rejects(
      base.service.add(
        { path: tree.root, only: null, watch: false },
        { signal: cancelling.signal, onProgress },
      ),
      { code: 'cancelled' },
    );
    const { files } = await base.service.stats();
    assert.ok(files > 0 && files < 20);
    assert.equal((await base.service.sources())[0]?.scannedMs, null);
    const report = await base.add(tree.root);
    assert.deepEqual([report.added, report.unchanged], [20 - files, files]);
  });

  it('does not grow beyond its limits: of the file, and of chunks', async () => {
    using tree = new TextTree({ 'a.md': 'alpha\n' });
    {
      await using base = await open(tree, { maxBytes: 300_000 });
      await base.add(tree.root);
      tree.write('b.md', Array.from({ length: 20_000 }, (_, n) => `word${n} bravo`).join(' '));
      await assert.rejects(base.add(tree.root), { code: 'storage_full' });
      assert.deepEqual(await base.find('bravo'), []);
      assert.deepEqual(await base.find('alpha'), ['a.md:1']);
    }
    await using base = await open(tree, { maxChunks: 3 });
    assert.deepEqual((await base.add(tree.root)).skipped, { too_many: 1 });
  });

  it('refuses a path where nothing is, and a database that is none', async () => {
    using tree = new TextTree({ 'no.db': 'this is not SQLite'.repeat(100) });
    await using base = await open(tree);
    await assert.rejects(base.add(tree.path('missing')), { code: 'not_found' });
    await assert.rejects(open(tree, { path: tree.path('no.db') }), { code: 'database_corrupt' });
  });
});

describe('questions', () => {
  const hostile = [
    '"',
    "'",
    '*',
    '(',
    ')',
    'AND',
    'OR NOT',
    'NEAR(a b)',
    'title:x',
    '^a',
    '-a',
    'a"b',
    '{a b}: c',
    '\0',
    '\ud800',
    "'; drop table chunk; --",
    'a'.repeat(100_000),
    'word '.repeat(10_000),
    '',
    ' ',
    '%_\\',
    '中文',
    '😀',
    '+',
    'a NEAR/2 b',
  ];

  it('never break the search, whatever is in them, and harm nothing', async () => {
    using tree = new TextTree({ 'a.md': 'alpha near and or not drop table chunk\n' });
    await using base = await open(tree);
    await base.add(tree.root);
    for (const text of hostile) await base.find(text);
    assert.deepEqual(await base.find("'; DROP TABLE chunk; --"), ['a.md:1']);
    assert.deepEqual(await base.find('alpha'), ['a.md:1']);
  });

  it('are answered with some rows of a file, so that others are seen', async () => {
    const sections = Array.from({ length: 20 }, (_, n) => `# Part ${n}\n\nalpha alpha\n`).join('\n');
    using tree = new TextTree({ 'many.md': sections, 'one.md': 'A single alpha among other words.\n' });
    await using base = await open(tree);
    await base.add(tree.root);
    const found = await base.find('alpha', 50);
    assert.equal(found.filter((place) => place.startsWith('many.md')).length, 3);
    assert.ok(found.includes('one.md:1'));
    assert.equal((await base.find('alpha', 2)).length, 2);
  });
});

describe('spaces', () => {
  const space = { name: 'mini', fingerprint: 'f'.repeat(64), dimensions: 2, semantic: true };

  it('are never mixed: each question is compared with vectors of its own space', async () => {
    using tree = new TextTree({ 'car.md': 'car\n', 'sun.md': 'sunshine\n' });
    await using base = await open(tree);
    const { service } = base;
    await base.add(tree.root);
    await service.useSpace(space);
    const missing = await service.chunksWithout({ fingerprint: space.fingerprint, count: 10 });
    const vectors = missing.map(({ id, text }) => ({
      id,
      vector: text === 'car' ? Float32Array.of(1, 0) : Float32Array.of(0, 1),
    }));
    const late = { id: 9999, vector: Float32Array.of(1, 0) };
    const put = { fingerprint: space.fingerprint, vectors: [...vectors, late] };
    assert.equal(await service.putVectors(put, quiet), 2);
    assert.deepEqual(await service.chunksWithout({ fingerprint: space.fingerprint, count: 10 }), []);
    const vector = { fingerprint: space.fingerprint, values: Float32Array.of(1, 0) };
    const rows = await service.search({ text: 'automobile', limit: 5, vector });
    assert.deepEqual(
      rows.map(({ file, space }) => [file, space]),
      [[tree.path('car.md'), 'mini']],
    );
    assert.deepEqual(await base.find('automobile'), []);
  });

  it('refuse what is not theirs, and forget what is gone', async () => {
    using tree = new TextTree({ 'car.md': 'car\n' });
    await using base = await open(tree);
    const { service } = base;
    await base.add(tree.root);
    const search = (values: Float32Array) =>
      service.search({ text: 'x', limit: 1, vector: { fingerprint: space.fingerprint, values } });
    await assert.rejects(search(Float32Array.of(1, 0)), { code: 'bad_filter' });
    await service.useSpace(space);
    await assert.rejects(search(Float32Array.of(1, 0, 0)), { code: 'bad_filter' });
    const [chunk] = await service.chunksWithout({ fingerprint: space.fingerprint, count: 1 });
    const vectors = [{ id: chunk?.id ?? 0, vector: Float32Array.of(1, 0) }];
    await service.putVectors({ fingerprint: space.fingerprint, vectors }, quiet);
    assert.equal((await search(Float32Array.of(1, 0))).length, 1);
    tree.write('car.md', 'other\n');
    await base.add(tree.root);
    assert.deepEqual(await search(Float32Array.of(1, 0)), []);
    assert.equal((await service.chunksWithout({ fingerprint: space.fingerprint, count: 9 })).length, 1);
  });
});

describe('watching', () => {
  it('reads again what changed, once it rests, and again after a restart', async () => {
    using tree = new TextTree({ 'a.md': 'alpha\n', 'sub/b.md': 'bravo\n' });
    const changed = new Map<string, () => void>();
    const watchFolder: NonNullable<ServiceParts['watchFolder']> = (folder, onChange) => {
      changed.set(folder, onChange);
      return { close: () => changed.delete(folder) };
    };
    const settle = async (base: Opened): Promise<void> => {
      base.clock.step(watchTimes.restMs);
      // Changes take turns; this one comes behind the scan.
      await base.service.putVectors(
        { fingerprint: (await base.service.stats()).spaces[0]?.fingerprint ?? '', vectors: [] },
        quiet,
      );
    };
    {
      await using base = await open(tree, { watchFolder });
      await base.add(tree.root, { watch: true });
      await settle(base);
      assert.deepEqual([...changed.keys()], [tree.root, tree.path('sub')]);
      tree.write('sub/b.md', 'charlie\n');
      tree.write('new/c.md', 'delta\n');
      changed.get(tree.root)?.();
      base.clock.step(watchTimes.restMs - 1);
      assert.deepEqual(await base.find('charlie'), []);
      await settle(base);
      assert.deepEqual(await base.find('charlie'), ['sub/b.md:1']);
      assert.deepEqual(await base.find('delta'), ['new/c.md:1']);
      assert.ok(changed.has(tree.path('new')));
      assert.equal((await base.service.sources())[0]?.watched, true);
    }
    assert.equal(changed.size, 0);
    renameSync(tree.path('new'), join(tree.folder, 'moved'));
    await using base = await open(tree, { watchFolder });
    await settle(base);
    assert.deepEqual(await base.find('delta'), []);
    assert.deepEqual([...changed.keys()], [tree.root, tree.path('sub')]);
    await base.service.watch({ path: tree.root, on: false }, quiet);
    assert.equal(changed.size, 0);
    assert.equal(base.service.watches, 0);
    await base.service.watch({ path: tree.root, on: true }, quiet);
    assert.equal(base.service.watches, 1);
    await base.service.remove({ path: tree.root }, quiet);
    assert.deepEqual([base.service.watches, changed.size], [0, 0], 'what was removed is not watched');
    await base.add(tree.root, { watch: true });
    await base.service.watch({ path: tree.root, on: false }, quiet);
    assert.deepEqual(base.problems, []);
    await base.service.close();
    await using last = await open(tree, { watchFolder });
    assert.equal(last.service.watches, 0, 'nor after a restart');
  });
});
