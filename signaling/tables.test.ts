import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { verifyOwnerRecords } from '@cocoon-mesh/protocol';
import Sqlite from 'better-sqlite3';
import { Kysely, SqliteDialect } from 'kysely';
import { Migrator } from 'kysely/migration';
import { openDatabase } from './open-database.ts';
import { Store } from './store.ts';
import { migrations } from './tables.ts';
import { newOwner } from './test-client.ts';

test('a database of the first version is brought to the newest with all that it holds', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'cocoon-signaling-'));
  const path = join(folder, 'signaling.db');
  try {
    const owner = await verifyOwnerRecords((await newOwner()).records);
    await writeFirstVersion(path, owner);
    const store = new Store(await openDatabase(`sqlite:${path}`));
    try {
      const [device] = await store.devices(owner.id, 1);
      assert.deepEqual([device?.membership.peerId, device?.record], ['device', 'a.b.c']);
      assert.deepEqual(await store.owner(owner.id), {
        epoch: 0,
        publicKey: 'key',
        records: owner.records,
        keeps: [],
      });
      assert.equal((await store.claim('token'))?.redeemer, 'device');
      const lost = { owner: owner.id, peerId: 'lost', jti: null };
      assert.equal(await store.isRevoked({ ...lost, epoch: 0 }), true);
      assert.equal(await store.isRevoked({ ...lost, epoch: 1 }), false);
    } finally {
      await store.close();
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});

async function writeFirstVersion(
  path: string,
  owner: { readonly id: string; readonly records: readonly string[] },
): Promise<void> {
  const db = new Kysely<unknown>({ dialect: new SqliteDialect({ database: new Sqlite(path) }) });
  const provider = {
    getMigrations: async () =>
      Object.fromEntries(Object.entries(migrations).filter(([name]) => name === '0001-ownership')),
  };
  await new Migrator({ db, provider }).migrateToLatest();
  await db.destroy();
  const database = new Sqlite(path);
  database
    .prepare('insert into owner values (?, 0, ?, ?)')
    .run(owner.id, 'key', JSON.stringify(owner.records));
  database.prepare('insert into device values (?, 1, ?, 1)').run('device', 'a.b.c');
  database
    .prepare('insert into membership values (?, ?, ?, 0, 1, 0, null, null, ?)')
    .run(owner.id, 'device', 'member', '{}');
  database
    .prepare('insert into claim values (?, ?, ?, ?, ?, ?, 1)')
    .run('token', owner.id, 'enroll', 'hash', 'device', 'a.b.c');
  database.prepare('insert into revoked values (?, ?, ?)').run(owner.id, 'device', 'lost');
  database.close();
}
