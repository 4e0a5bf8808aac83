import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { OwnersFile } from './mesh-store.ts';

let folder: string;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cocoon-owners-'));
});

after(async () => {
  await rm(folder, { recursive: true });
});

test('who asked for a token is known after a restart, so that its tokens still end with it', async () => {
  const path = join(folder, 'owners.json');
  const token = { jti: 'one', grantHash: 'hash', expires: 200 };
  const owners = await OwnersFile.open(path);
  await owners.noteMade({ ...token, jti: 'expired', expires: 50, asker: null }, 10);
  await owners.noteMade({ ...token, asker: 'p-phone' }, 100);
  await owners.noteMade({ ...token, jti: 'two', asker: null }, 100);
  const again = await OwnersFile.open(path);
  assert.deepEqual(again.owners.made, [
    { ...token, asker: 'p-phone' },
    { ...token, jti: 'two', asker: null },
  ]);
});

test('tokens that were noted before anybody noted who asked are nobody’s', async () => {
  const path = join(folder, 'older.json');
  await (await OwnersFile.open(path)).noteMade({ jti: 'one', grantHash: 'h', expires: 200, asker: 'p' }, 100);
  const text = await readFile(path, 'utf8');
  await writeFile(path, text.replace(/,\s*"asker": "p"/, ''));
  assert.equal((await OwnersFile.open(path)).owners.made[0]?.asker, null);
});
