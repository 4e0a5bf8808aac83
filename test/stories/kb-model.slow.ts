/*
 * A knowledge base on a device with a model: its passages are in the space of the model too, a search compares both,
 * another model is another space, and without the model words go on.
 */

import assert from 'node:assert/strict';
import { execFile, spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import Database from 'better-sqlite3';
import { writeTextModel } from '../../src/ai/text-models.contract.ts';
import type { CocoonProcess } from './cocoon-process.ts';
import { bin, meshOfTwo } from './cocoon-process.ts';
import { askEmbeddings, modelProcesses, vectorsIn } from './embeddings-client.ts';

const withTerminal = spawnSync('script', ['--version']).status === 0;

let folder: string;
let notes: string;
let laptop: CocoonProcess;
let server: CocoonProcess;

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'cocoon-kb-model-'));
  notes = join(folder, 'notes');
  mkdirSync(notes);
  writeTextModel(join(folder, 'first'), { seed: 1 });
  writeTextModel(join(folder, 'second'), { seed: 2 });
  cpSync(join(folder, 'first'), join(folder, 'model'), { recursive: true });
  writeFileSync(join(notes, 'peer.md'), 'hello peer\n');
  writeFileSync(join(notes, 'node.md'), 'the node of a mesh\n');
  ({ laptop, server } = await meshOfTwo({
    engines: ['libdatachannel', 'libdatachannel'],
    runEnv: { COCOON_EMBEDDING_MODEL: join(folder, 'model') },
  }));
});

after(async () => {
  await Promise.all([laptop, server].map((cocoon) => cocoon?.[Symbol.asyncDispose]()));
  rmSync(folder, { recursive: true, force: true });
});

interface Indexed {
  readonly added: number;
  readonly vectors: { readonly model: string | null; readonly problem: string | null; readonly embedded: number };
} // prettier-ignore

interface Hit {
  readonly file: string;
  readonly space: string;
}

async function search(cocoon: CocoonProcess, text: string): Promise<readonly Hit[]> {
  return (await cocoon.json<{ rows: Hit[] }>('kb', 'search', text, '--timeout', '20s')).rows;
}

/** What is stored: fingerprints of spaces with the numbers of their vectors. */
function storedSpaces(cocoon: CocoonProcess): Record<string, number> {
  const db = new Database(join(cocoon.home, 'knowledge.db'), { readonly: true });
  try {
    const rows = db
      .prepare('select fingerprint, (select count(*) from vector where space_id = space.id) as n from space')
      .all() as { fingerprint: string; n: number }[];
    return Object.fromEntries(rows.map(({ fingerprint, n }) => [fingerprint, n]));
  } finally {
    db.close();
  }
}

/** No word of these is in the notes, so that only the model can find them. */
const strange = 'zzz qqq';

/** By the vectors that the device gives to anybody who asks it. */
async function nearestTo(text: string, files: Readonly<Record<string, string>>): Promise<string> {
  const names = Object.keys(files);
  // A passage is embedded below its heading; these files have none.
  const input = [text, ...names.map((name) => `\n${files[name]}`)];
  const [question, ...vectors] = vectorsIn(await askEmbeddings(server, { input }));
  const alike = vectors.map((vector) => vector.reduce((sum, value, i) => sum + value * (question?.[i] ?? 0), 0)); // prettier-ignore
  return names[alike.indexOf(Math.max(...alike))] ?? '';
}

const texts = { 'peer.md': 'hello peer', 'node.md': 'the node of a mesh' };

describe('the knowledge base of a device with a model', () => {
  test('has its passages in the space of the model, and finds by it what shares no word', async () => {
    const added = await server.json<Indexed>('kb', 'add', notes);
    assert.deepEqual(added.vectors, { model: 'model', problem: null, embedded: 2 });
    const { space } = (await askEmbeddings(server, { input: 'x' })).result;
    assert.equal(storedSpaces(server)[space], 2);
    const hits = await search(laptop, strange);
    assert.deepEqual(
      hits.map((hit) => hit.space),
      ['model', 'model'],
    );
    assert.equal(hits[0]?.file, join(notes, await nearestTo(strange, texts)));
    const again = await server.json<Indexed>('kb', 'add', notes);
    assert.equal(again.vectors.embedded, 0, 'what has a vector is not embedded again');
  });

  test(
    'says on a terminal how far the model is',
    { skip: withTerminal ? false : 'no script (util-linux)' },
    async () => {
      writeFileSync(join(notes, 'mesh.md'), 'a mesh\n');
      const line = `'${bin}' kb add '${notes}' --home '${server.home}'`;
      const { stdout } = await promisify(execFile)('script', ['-qec', line, '/dev/null'], {
        timeout: 60_000,
      });
      assert.match(stdout, /3 files looked at, 1 indexed, 1 passages embedded/);
      assert.match(stdout, /1 passages embedded by model\./);
      rmSync(join(notes, 'mesh.md'));
      await server.json('kb', 'add', notes);
    },
  );

  test('compares words only where there is no model, and needs no process for it', async () => {
    const added = await laptop.json<Indexed>('kb', 'add', notes);
    assert.deepEqual(added.vectors, { model: null, problem: null, embedded: 0 });
    const { rows } = await laptop.json<{ rows: Hit[] }>('kb', 'search', strange, '--device', 'laptop');
    assert.deepEqual(rows, []);
    const [hit] = (await laptop.json<{ rows: Hit[] }>('kb', 'search', 'hello', '--device', 'laptop')).rows;
    assert.equal(hit?.space, 'cocoon-lexical-v1');
    assert.deepEqual(modelProcesses(laptop), []);
  });

  test('with another model has another space, which the next add fills, and mixes no two', async () => {
    const { space: before } = (await askEmbeddings(server, { input: 'x' })).result;
    cpSync(join(folder, 'second'), join(folder, 'model'), { recursive: true, force: true });
    await server.restart();
    const { space } = (await askEmbeddings(server, { input: 'x' })).result;
    assert.notEqual(space, before);
    const local = async (text: string): Promise<readonly Hit[]> =>
      (await server.json<{ rows: Hit[] }>('kb', 'search', text, '--device', 'server')).rows;
    assert.deepEqual(await local(strange), [], 'vectors of the model before are not compared');
    assert.equal((await local('hello'))[0]?.space, 'cocoon-lexical-v1');
    assert.equal((await server.json<Indexed>('kb', 'add', notes)).vectors.embedded, 2);
    const stored = storedSpaces(server);
    assert.deepEqual([stored[before], stored[space]], [2, 2]);
    const [hit] = await local(strange);
    assert.deepEqual([hit?.space, hit?.file], ['model', join(notes, await nearestTo(strange, texts))]);
  });

  test('that does not load says so, and goes on with words', async () => {
    writeFileSync(join(folder, 'model/tokenizer.json'), '');
    writeFileSync(join(notes, 'owner.md'), 'an owner is here\n');
    await server.restart();
    const added = await server.json<Indexed>('kb', 'add', notes);
    assert.equal(added.added, 1);
    assert.match(added.vectors.problem ?? '', /tokenizer.json of the model is empty/);
    const { rows } = await server.json<{ rows: Hit[] }>('kb', 'search', 'owner', '--device', 'server');
    assert.deepEqual([rows[0]?.file, rows[0]?.space], [join(notes, 'owner.md'), 'cocoon-lexical-v1']);
    const { stderr, code } = await server.command(['kb', 'list']);
    assert.equal(code, 0);
    assert.match(stderr, /compared by their words only: tokenizer.json/);
  });
});
