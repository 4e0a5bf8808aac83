/**
 * Opens the database that a URL names and brings it to the newest version. A file that is damaged or of a newer
 * version is left exactly as it is.
 */

import { closeSync, mkdirSync, openSync } from 'node:fs';
import { dirname } from 'node:path';
import { MeshError } from '@cocoon-mesh/protocol';
import Sqlite from 'better-sqlite3';
import { Kysely, SqliteDialect, sql } from 'kysely';
import { DEFAULT_MIGRATION_TABLE, Migrator } from 'kysely/migration';
import type { Tables } from './tables.ts';
import { migrations } from './tables.ts';

const busyTimeoutMs = 5_000;
const sqlitePrefix = 'sqlite:';

/**
 * @param url `sqlite:PATH`, or `sqlite::memory:`
 * @throws MeshError usage | database_corrupt | database_newer | storage_failed
 */
export async function openDatabase(url: string): Promise<Kysely<Tables>> {
  if (/^postgres(ql)?:/.test(url))
    throw new MeshError('usage', 'Postgres is not supported yet; use sqlite:PATH');
  if (!url.startsWith(sqlitePrefix) || url === sqlitePrefix)
    throw new MeshError('usage', 'The database of signaling is written sqlite:PATH');
  const database = openSqlite(url.slice(sqlitePrefix.length));
  const db = new Kysely<Tables>({ dialect: new SqliteDialect({ database }) });
  try {
    await assertNotNewer(db);
    // Only now is the file known to be ours to change.
    database.pragma('journal_mode = WAL');
    // A used token must stay used when the power fails right after the receipt was given.
    database.pragma('synchronous = FULL');
    await migrate(db);
    return db;
  } catch (thrown) {
    await db.destroy();
    throw databaseError(thrown);
  }
}

function openSqlite(path: string): Sqlite.Database {
  try {
    if (path !== ':memory:') createPrivately(path);
    const database = new Sqlite(path, { timeout: busyTimeoutMs });
    try {
      const findings = database.pragma('quick_check', { simple: true });
      if (findings !== 'ok') throw new MeshError('database_corrupt', `The database ${path} is damaged`);
      return database;
    } catch (thrown) {
      database.close();
      throw thrown;
    }
  } catch (thrown) {
    throw databaseError(thrown, path);
  }
}

/** The signing keys are in it: for nobody else to read, from its first byte. SQLite's other files follow it. */
function createPrivately(path: string): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  closeSync(openSync(path, 'a', 0o600));
}

async function assertNotNewer(db: Kysely<Tables>): Promise<void> {
  const tables = await db.introspection.getTables({ withInternalKyselyTables: true });
  if (!tables.some(({ name }) => name === DEFAULT_MIGRATION_TABLE)) return;
  const done = await sql<{ name: string }>`select name from ${sql.table(DEFAULT_MIGRATION_TABLE)}`.execute(
    db,
  );
  if (done.rows.some(({ name }) => !Object.hasOwn(migrations, name))) throw new MeshError('database_newer');
}

async function migrate(db: Kysely<Tables>): Promise<void> {
  const migrator = new Migrator({ db, provider: { getMigrations: async () => ({ ...migrations }) } });
  const { error } = await migrator.migrateToLatest();
  if (error !== undefined) throw error;
}

/** What a failing database means to whoever started the server. */
export function databaseError(thrown: unknown, path?: string): MeshError {
  if (thrown instanceof MeshError) return thrown;
  const code = thrown instanceof Error && 'code' in thrown ? String(thrown.code) : '';
  const what = path === undefined ? 'The database' : `The database ${path}`;
  if (code === 'SQLITE_NOTADB' || code.startsWith('SQLITE_CORRUPT'))
    return new MeshError('database_corrupt', `${what} is damaged`, { cause: thrown });
  return new MeshError('storage_failed', `${what} could not be used (${code || String(thrown)})`, {
    cause: thrown,
  });
}
