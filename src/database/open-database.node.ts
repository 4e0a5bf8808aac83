/**
 * Opens the database that a URL names and brings it to the newest version, once, however many programs start on it
 * together. A database that is damaged or too new is left exactly as it is.
 */

import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import { Kysely, sql } from 'kysely';
import type { Migration } from 'kysely/migration';
import { DEFAULT_MIGRATION_TABLE, Migrator } from 'kysely/migration';
import type { PostgresUse } from './postgres-database.node.ts';
import { readSchemaVersion } from './schema-version.node.ts';
import { databaseError } from './serial-driver.node.ts';
import {
  SerialSqliteDialect,
  directSqlite,
  openSqliteFile,
  prepareForWriting,
} from './sqlite-database.node.ts';
import { registerDirect } from './statements.node.ts';

export interface DatabaseUse {
  /** `sqlite:PATH`, `sqlite::memory:` or `postgres://…` */
  readonly url: string;
  /** Numbered by their names. One that was released is never changed; the next one is added behind it. */
  readonly migrations: Readonly<Record<string, Migration>>;
  /** Whose it is, in a word: for messages, and the name that PostgreSQL shows. */
  readonly what: string;
  /** What the user sets the URL with. */
  readonly setting: string;
  /** Of the schema: a newer minor version of it is used as it is. Absent: no newer version is. */
  readonly major?: number;
}

const sqlitePrefix = 'sqlite:';

/** @throws MeshError usage | database_corrupt | database_newer | storage_full | storage_failed */
export async function openDatabase<Tables>(use: DatabaseUse): Promise<Kysely<Tables>> {
  const { url } = use;
  if (/^postgres(ql)?:/.test(url)) return openPostgres(use);
  if (url.startsWith(sqlitePrefix) && url !== sqlitePrefix)
    return openSqlite(url.slice(sqlitePrefix.length), use);
  throw new MeshError(
    'usage',
    `The database of ${use.what} is written sqlite:PATH or postgres://HOST/DATABASE`,
    { hint: `Correct ${use.setting}.` },
  );
}

async function openSqlite<Tables>(path: string, use: DatabaseUse): Promise<Kysely<Tables>> {
  const database = openSqliteFile(path);
  const db = new Kysely<Tables>({ dialect: new SerialSqliteDialect(database) });
  try {
    const found = await versionOf(db, use);
    // Only now is the file known to be ours to change.
    prepareForWriting(database);
    if (found === 'older') await migrate(db, use);
    registerDirect(db, directSqlite(database));
    return db;
  } catch (thrown) {
    await db.destroy();
    throw databaseError(thrown, `The database ${path}`);
  }
}

async function openPostgres<Tables>(use: DatabaseUse): Promise<Kysely<Tables>> {
  // Loaded only where it is used: most devices have a file.
  const { SerialPostgresDialect, postgresAddress, postgresStartError } =
    await import('./postgres-database.node.ts');
  const address = postgresAddress(use.url);
  const connect = (mode: PostgresUse): Kysely<Tables> => {
    const dialect = new SerialPostgresDialect(use.url, mode, `cocoon-${use.what}`);
    const db = new Kysely<Tables>({ dialect });
    registerDirect(db, dialect.direct);
    return db;
  };
  try {
    const migrating = connect('migrate');
    try {
      if ((await versionOf(migrating, use)) === 'older') await migrate(migrating, use);
    } finally {
      await migrating.destroy();
    }
    return connect('serve');
  } catch (thrown) {
    throw postgresStartError(thrown, address, use.setting);
  }
}

/**
 * `older` is also what the newest one is: the migrator finds nothing to do.
 * @throws MeshError database_newer
 */
async function versionOf<Tables>(db: Kysely<Tables>, use: DatabaseUse): Promise<'older' | 'newer'> {
  const tables = await db.introspection.getTables({ withInternalKyselyTables: true });
  if (!tables.some(({ name }) => name === DEFAULT_MIGRATION_TABLE)) return 'older';
  const { rows } = await sql<{
    name: string;
  }>`select name from ${sql.table(DEFAULT_MIGRATION_TABLE)}`.execute(db);
  const done = new Set(rows.map(({ name }) => name));
  if ([...done].every((name) => Object.hasOwn(use.migrations, name))) return 'older';
  const ours = Object.keys(use.migrations).every((name) => done.has(name));
  if (use.major === undefined || !ours || (await readSchemaVersion(db))?.major !== use.major)
    throw new MeshError('database_newer');
  return 'newer';
}

/** Kysely takes its lock, looks at what was done, and does the rest in one transaction. */
async function migrate<Tables>(db: Kysely<Tables>, use: DatabaseUse): Promise<void> {
  const migrator = new Migrator({ db, provider: { getMigrations: async () => ({ ...use.migrations }) } });
  const { error } = await migrator.migrateToLatest();
  // A newer program may have been first since we looked.
  if (error === undefined || (await versionOf(db, use)) === 'newer') return;
  throw error instanceof Error && error.message.startsWith('corrupted migrations')
    ? new MeshError('database_corrupt', 'The database does not say which version it has', { cause: error })
    : error;
}
