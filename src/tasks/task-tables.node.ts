/**
 * The tables of tasks and the numbered migrations that make it, on SQLite and on PostgreSQL. A migration that was
 * released is never changed. Within a major version they only add tables, and columns that are null or have a
 * default: an older program goes on reading and writing what it knows.
 */

import { recordSchemaVersion } from '@cocoon-mesh/database';
import type { TaskStatus } from '@cocoon-mesh/protocol';
import type { ColumnType, Kysely } from 'kysely';
import { sql } from 'kysely';
import type { Migration } from 'kysely/migration';

/** Of what is written here. A newer one is not opened. */
export const taskSchemaMajor = 1;

export type DatabaseKind = 'sqlite' | 'postgres';

export interface TaskTable {
  id: string;
  title: string;
  description: string;
  status: TaskStatus;
  command: string | null;
  /** JSON, as are the next three. */
  input: string;
  output: string;
  labels: string;
  requires: string;
  timeout_ms: number | null;
  exit_code: number | null;
  error: string | null;
  /** Milliseconds since 1970, as are all times. */
  created_at: number;
  updated_at: number;
  started_at: number | null;
  finished_at: number | null;
  version: number;
  /** PostgreSQL only: a tsvector, which is never read back. */
  search: ColumnType<never, unknown, unknown>;
}

/** One row: the device whose tasks these are. */
export interface TaskHomeTable {
  /** Always 1. */
  one: number;
  peer_id: string;
  name: string;
}

export interface TaskTables {
  task: TaskTable;
  task_home: TaskHomeTable;
}

export function taskMigrations(kind: DatabaseKind): Readonly<Record<string, Migration>> {
  return {
    '0001-tasks': {
      async up(db: Kysely<unknown>) {
        await (kind === 'sqlite' ? createOnSqlite(db) : createOnPostgres(db));
        await createIndexes(db);
        await createHome(db);
        await recordSchemaVersion(db, { major: taskSchemaMajor, minor: 0 });
      },
    },
  };
}

async function createOnSqlite(db: Kysely<unknown>): Promise<void> {
  // The search index refers to rows by number, and only a column of its own keeps its number.
  await sql`create table task (
    number integer primary key,
    id text not null unique,
    title text not null,
    description text not null,
    status text not null,
    command text,
    input text not null,
    output text not null,
    labels text not null,
    requires text not null,
    timeout_ms integer,
    exit_code integer,
    error text,
    created_at integer not null,
    updated_at integer not null,
    started_at integer,
    finished_at integer,
    version integer not null
  )`.execute(db);
  await sql`create virtual table task_text using fts5 (
    title, description, command,
    content = 'task', content_rowid = 'number', tokenize = 'unicode61 remove_diacritics 2'
  )`.execute(db);
  // A word in a title says more than one in a text.
  await sql`insert into task_text (task_text, rank) values ('rank', 'bm25(8.0, 1.0, 2.0)')`.execute(db);
  await sql`create trigger task_text_add after insert on task begin
    insert into task_text (rowid, title, description, command)
    values (new.number, new.title, new.description, new.command);
  end`.execute(db);
  await sql`create trigger task_text_remove after delete on task begin
    insert into task_text (task_text, rowid, title, description, command)
    values ('delete', old.number, old.title, old.description, old.command);
  end`.execute(db);
  await sql`create trigger task_text_change after update of title, description, command on task begin
    insert into task_text (task_text, rowid, title, description, command)
    values ('delete', old.number, old.title, old.description, old.command);
    insert into task_text (rowid, title, description, command)
    values (new.number, new.title, new.description, new.command);
  end`.execute(db);
}

async function createOnPostgres(db: Kysely<unknown>): Promise<void> {
  // Ids are compared by their bytes, as on SQLite, whatever the language of the database.
  await sql`create table task (
    id text collate "C" primary key,
    title text not null,
    description text not null,
    status text not null,
    command text,
    input text not null,
    output text not null,
    labels text not null,
    requires text not null,
    timeout_ms bigint,
    exit_code integer,
    error text,
    created_at bigint not null,
    updated_at bigint not null,
    started_at bigint,
    finished_at bigint,
    version bigint not null,
    search tsvector not null default ''
  )`.execute(db);
  await sql`create index task_search on task using gin (search)`.execute(db);
}

/** For both orders of a list, and for lists and counts of one status. */
async function createIndexes(db: Kysely<unknown>): Promise<void> {
  await db.schema.createIndex('task_created').on('task').columns(['created_at', 'id']).execute();
  await db.schema.createIndex('task_updated').on('task').columns(['updated_at', 'id']).execute();
  await db.schema.createIndex('task_status').on('task').columns(['status', 'created_at', 'id']).execute();
}

async function createHome(db: Kysely<unknown>): Promise<void> {
  await sql`create table task_home (
    one integer primary key check (one = 1),
    peer_id text not null,
    name text not null
  )`.execute(db);
}
