/*
 * A knowledge base of real documents on one device, searched from another: passages that were planted, and those
 * that are there by nature.
 */

import assert from 'node:assert/strict';
import { execFile, spawnSync } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import type { CocoonProcess } from './cocoon-process.ts';
import { failure, meshOfTwo } from './cocoon-process.ts';

const root = resolve(import.meta.dirname, '../..');

interface Hit {
  readonly device: string;
  readonly file: string;
  readonly line: number;
  readonly snippet: string;
}

interface Indexed {
  readonly added: number;
  readonly changed: number;
  readonly unchanged: number;
  readonly removed: number;
  readonly examples: readonly { readonly reason: string }[];
}

const withTerminal = spawnSync('script', ['--version']).status === 0;

let laptop: CocoonProcess;
let server: CocoonProcess;
let notes: string;

before(async () => {
  notes = await mkdtemp(join(tmpdir(), 'cocoon-notes-'));
  ({ laptop, server } = await meshOfTwo({ engines: ['libdatachannel', 'libdatachannel'] }));
});

after(async () => {
  await Promise.all([laptop, server].map((cocoon) => cocoon?.[Symbol.asyncDispose]()));
  await rm(notes, { recursive: true, force: true });
});

async function search(cocoon: CocoonProcess, ...words: readonly string[]): Promise<readonly Hit[]> {
  return (await cocoon.json<{ rows: Hit[] }>('kb', 'search', ...words, '--timeout', '20s')).rows;
}

describe('the knowledge base', () => {
  test('finds planted and natural passages of another device, with file, place and snippet', async () => {
    const planted = join(notes, 'garden.md');
    const text = [
      '# Garden',
      '',
      'Water the roses.',
      '',
      '## Quokka',
      '',
      'The quokka key hangs behind the boiler.',
    ];
    await writeFile(planted, `${text.join('\n')}\n`);
    const added = await server.json<Indexed>('kb', 'add', join(root, 'docs'), notes);
    assert.ok(added.added > 5, JSON.stringify(added));
    const library = await server.json<Indexed>('kb', 'add', join(root, 'node_modules'), '--only', 'md');
    assert.ok(library.added > 50, JSON.stringify(library));
    const [hit] = await search(laptop, 'where', 'is', 'the', 'quokka', 'key');
    assert.deepEqual([hit?.device, hit?.file], ['server', planted]);
    assert.ok(hit && hit.line >= 5 && hit.line <= 7, `line ${hit?.line}`);
    assert.match(hit.snippet, /quokka key/);
    const natural = await search(laptop, 'revoke', 'a', 'lost', 'device');
    assert.ok(natural.some(({ file }) => file.startsWith(join(root, 'docs'))));
  });

  test('reads again what has changed, and forgets what is gone', async () => {
    const again = await server.json<Indexed>('kb', 'add', notes);
    assert.deepEqual([again.added, again.changed, again.unchanged], [0, 0, 1]);
    await writeFile(join(notes, 'garden.md'), '# Garden\n\nThe wombat key hangs in the shed.\n');
    const changed = await server.json<Indexed>('kb', 'add', notes);
    assert.deepEqual([changed.added, changed.changed], [0, 1]);
    assert.match((await search(laptop, 'wombat', 'key'))[0]?.snippet ?? '', /wombat/);
    await server.json('kb', 'remove', notes);
    assert.ok((await search(laptop, 'wombat')).every(({ snippet }) => !snippet.includes('wombat')));
    assert.deepEqual(await failure(server.home, ['kb', 'remove', notes]), { code: 'not_found', exit: 3 });
  });

  test('is fused over devices, and says for people where it found what', async () => {
    await writeFile(join(notes, 'own.md'), '# Own\n\nThe axolotl manual lies on the laptop.\n');
    await laptop.json('kb', 'add', notes);
    const { sources } = await laptop.json<{ sources: { path: string }[] }>('kb', 'list');
    assert.deepEqual(
      sources.map(({ path }) => path),
      [notes],
    );
    const { stdout } = await server.command(['kb', 'search', 'axolotl', 'manual']);
    // The best of each device come first, in no order among themselves.
    const best = stdout.split('\n\n').slice(0, 2);
    assert.ok(
      best.some((hit) => hit.startsWith(`laptop: ${join(notes, 'own.md')}:`)),
      stdout,
    );
  });

  test('holds no key of a cocoon, whatever was added', async () => {
    const token = (await readFile(join(laptop.home, 'gateway.token'), 'utf8')).trim();
    for (const path of [laptop.home, join(laptop.home, 'secret'), join(laptop.home, 'gateway.token')]) {
      const { examples } = await laptop.json<Indexed>('kb', 'add', path);
      assert.deepEqual(
        examples.map(({ reason }) => reason),
        ['home_of_a_cocoon'],
        path,
      );
    }
    for (const hit of await search(server, token)) assert.ok(!hit.file.startsWith(laptop.home), hit.file);
  });

  test(
    'says on a terminal how far it is',
    { skip: withTerminal ? false : 'no script (util-linux)' },
    async () => {
      const line = `npx cocoon kb add '${notes}' --home '${server.home}'`;
      const { stdout } = await promisify(execFile)('script', ['-qec', line, '/dev/null'], { cwd: root });
      assert.match(stdout, /\d+ files looked at, \d+ indexed/);
      assert.match(stdout, /files added/);
    },
  );

  test('is off where it was switched off', async () => {
    await server.restart({ args: [...serverArgs, '--disable-capability', 'knowledgebase'] });
    assert.deepEqual(await failure(server.home, ['kb', 'list']), { code: 'capability_off', exit: 3 });
    assert.deepEqual(
      await failure(laptop.home, [
        'query',
        'search_knowledgebase',
        '--params',
        '{"text":"x"}',
        '--device',
        'server',
      ]),
      {
        code: 'capability_off',
        exit: 3,
      },
    );
    const { capabilities } = await server.json<{ capabilities: { protocol: string }[] }>('status');
    assert.deepEqual(
      capabilities.map(({ protocol }) => protocol),
      ['tasks', 'embeddings'],
    );
  });
});

/** Without the token it joined with. */
const serverArgs = ['--name', 'server', '--gateway-port', '0'];
