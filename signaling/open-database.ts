/**
 * Opens the database that a URL names and brings it to the newest version, once, however many servers start on it
 * together. A database that is damaged or of a newer version is left exactly as it is.
 */

import { MeshError } from '@cocoon-mesh/protocol';
import { Kysely, sql } from 'kysely';
import { DEFAULT_MIGRATION_TABLE, Migrator } from 'kysely/migration';
import type { PostgresUse } from './postgres-database.ts';
import { databaseError } from './serial-driver.ts';
import { SerialSqliteDialect, openSqliteFile, prepareForWriting } from './sqlite-database.ts';
import type { Tables } from './tables.ts';
import { migrations } from './tables.ts';

const sqlitePrefix = 'sqlite:';

/**
 * @param url `sqlite:PATH`, `sqlite::memory:` or `postgres://…`
 * @throws MeshError usage | database_corrupt | database_newer | storage_failed
 */
export async function openDatabase(url: string): Promise<Kysely<Tables>> {
  if (/^postgres(ql)?:/.test(url)) return openPostgres(url);
  if (url.startsWith(sqlitePrefix) && url !== sqlitePrefix) return openSqlite(url.slice(sqlitePrefix.length));
  throw new MeshError(
    'usage',
    'The database of signaling is written sqlite:PATH or postgres://HOST/DATABASE',
  );
}

async function openSqlite(path: string): Promise<Kysely<Tables>> {
  const database = openSqliteFile(path);
  const db = new Kysely<Tables>({ dialect: new SerialSqliteDialect(database) });
  try {
    await assertNotNewer(db);
    // Only now is the file known to be ours to change.
    prepareForWriting(database);
    await migrate(db);
    return db;
  } catch (thrown) {
    await db.destroy();
    throw databaseError(thrown, `The database ${path}`);
  }
}

async function openPostgres(url: string): Promise<Kysely<Tables>> {
  // Loaded only where it is used: most servers have a file.
  const { SerialPostgresDialect, postgresAddress, postgresStartError } =
    await import('./postgres-database.ts');
  const address = postgresAddress(url);
  const connect = (use: PostgresUse): Kysely<Tables> =>
    new Kysely<Tables>({ dialect: new SerialPostgresDialect(url, use) });
  try {
    const migrating = connect('migrate');
    try {
      await assertNotNewer(migrating);
      await migrate(migrating);
    } finally {
      await migrating.destroy();
    }
    return connect('serve');
  } catch (thrown) {
    throw postgresStartError(thrown, address);
  }
}

async function assertNotNewer(db: Kysely<Tables>): Promise<void> {
  const tables = await db.introspection.getTables({ withInternalKyselyTables: true });
  if (!tables.some(({ name }) => name === DEFAULT_MIGRATION_TABLE)) return;
  const done = await sql<{ name: string }>`select name from ${sql.table(DEFAULT_MIGRATION_TABLE)}`.execute(
    db,
  );
  if (done.rows.some(({ name }) => !Object.hasOwn(migrations, name))) throw new MeshError('database_newer');
}

/** Kysely takes its lock, looks at what was done, and does the rest in one transaction. */
async function migrate(db: Kysely<Tables>): Promise<void> {
  const migrator = new Migrator({ db, provider: { getMigrations: async () => ({ ...migrations }) } });
  const { error } = await migrator.migrateToLatest();
  if (error === undefined) return;
  // A newer server may have been first since we looked.
  await assertNotNewer(db);
  throw error instanceof Error && error.message.startsWith('corrupted migrations')
    ? new MeshError('database_corrupt', 'The database does not say which version it has', { cause: error })
    : error;
}
