import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { openDatabase } from '@cocoon-mesh/database';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import Sqlite from 'better-sqlite3';
import { sql } from 'kysely';
import { taskSearch } from './task-search.node.ts';
import { device, refusal, taskStoreContract } from './task-store.contract.ts';
import { TaskStore, openTaskStore } from './task-store.node.ts';
import type { TaskTables } from './task-tables.node.ts';
import { taskMigrations } from './task-tables.node.ts';

const folder = mkdtempSync(join(tmpdir(), 'cocoon-tasks-'));
after(() => rmSync(folder, { recursive: true }));
let files = 0;
const newPath = (): string => join(folder, `${++files}`, 'tasks.db');

taskStoreContract('SQLite', {
  newUrl: async () => `sqlite:${newPath()}`,
  async run(url, statement) {
    const database = new Sqlite(url.slice('sqlite:'.length));
    database.exec(statement);
    database.close();
  },
});

describe('a SQLite file of tasks', () => {
  test('that is full says so, loses nothing, and takes more when there is room again', async () => {
    const path = newPath();
    const db = await openDatabase<TaskTables>({
      url: `sqlite:${path}`,
      migrations: taskMigrations('sqlite'),
      what: 'tasks',
      setting: 'COCOON_DATABASE_URL',
    });
    await using store = new TaskStore(db, taskSearch('sqlite'), { clock: new SteppedClock() });
    const kept = await store.create({ title: 'kept', description: 'a'.repeat(1_000) });
    await sql.raw('pragma max_page_count = 40').execute(db);
    const description = 'x'.repeat(60_000);
    let made = 1;
    const fill = async (): Promise<void> => {
      for (; made < 100; made++) await store.create({ title: 'more', description });
    };
    await assert.rejects(fill(), refusal('storage_full', /no room/));
    await assert.rejects(store.update(kept.id, { description }), refusal('storage_full'));
    assert.deepEqual(await store.get(kept.id), kept);
    assert.equal((await store.stats()).total, made);
    assert.equal((await store.search('more', { limit: 200, after: null })).rows.length, made - 1);
    await sql.raw('pragma max_page_count = 100000').execute(db);
    await store.create({ title: 'more', description });
    const { rows } = await sql<{ integrity_check: string }>`pragma integrity_check`.execute(db);
    assert.deepEqual(rows, [{ integrity_check: 'ok' }]);
    await sql`insert into task_text (task_text) values ('integrity-check')`.execute(db);
  });

  test('can be read by its owner alone', async () => {
    const path = newPath();
    await using store = await openTaskStore({ url: `sqlite:${path}`, device, clock: new SteppedClock() });
    await store.create({ title: 'private' });
    const names = readdirSync(join(path, '..'));
    assert.ok(names.length > 1);
    for (const name of names) assert.equal(statSync(join(path, '..', name)).mode & 0o077, 0, name);
  });

  test('that is none is refused', async () => {
    const clock = new SteppedClock();
    await assert.rejects(
      openTaskStore({ url: `sqlite:${import.meta.filename}`, device, clock }),
      refusal('database_corrupt'),
    );
    await assert.rejects(openTaskStore({ url: 'mysql://x', device, clock }), refusal('usage', /tasks/));
    await assert.rejects(openTaskStore({ url: '', device, clock }), refusal('usage'));
  });
});
