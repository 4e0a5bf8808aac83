/**
 * Which version a database has, for programs that share it or come back to it after an update was taken back.
 * A newer minor version has only added tables, and columns that an older program need not fill; a newer major one
 * is for newer programs alone. Migrations write it; without it, whatever is newer is taken for another major.
 */

import type { Kysely } from 'kysely';
import { sql } from 'kysely';

export interface SchemaVersion {
  readonly major: number;
  readonly minor: number;
}

type VersionTables = Record<'schema_version', { major: number; minor: number }>;

/** The one row of `schema_version`; for migrations, each of which raises one of the two. */
export async function recordSchemaVersion(db: Kysely<unknown>, version: SchemaVersion): Promise<void> {
  const tables = db.withTables<VersionTables>();
  await tables.schema
    .createTable('schema_version')
    .ifNotExists()
    .addColumn('major', 'integer', (column) => column.notNull())
    .addColumn('minor', 'integer', (column) => column.notNull())
    .execute();
  await tables.deleteFrom('schema_version').execute();
  await tables.insertInto('schema_version').values(version).execute();
}

/** Null for a database that does not say. */
export async function readSchemaVersion<Tables>(db: Kysely<Tables>): Promise<SchemaVersion | null> {
  const tables = await db.introspection.getTables();
  if (!tables.some(({ name }) => name === 'schema_version')) return null;
  const { rows } = await sql<SchemaVersion>`select major, minor from schema_version`.execute(db);
  return rows[0] ?? null;
}
