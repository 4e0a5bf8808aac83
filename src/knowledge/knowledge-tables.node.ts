/** The tables of `knowledge.db`, as Kysely types, and the numbered migrations that make them. */

import { recordSchemaVersion } from '@cocoon-mesh/database';
import type { Generated, Kysely } from 'kysely';
import { sql } from 'kysely';
import type { Migration } from 'kysely/migration';

export interface KnowledgeTables {
  /** What the user named. `only`: extensions as JSON. `scanned_ms` is null until a scan came to its end. */
  source: {
    id: Generated<number>;
    path: string;
    only: string | null;
    watched: number;
    added_ms: number;
    scanned_ms: number | null;
    /** Counts of the last scan by reason, JSON. */
    skipped: Generated<string>;
  };
  /** `stamp` is what a stat says; it counts only if `settled`: a file just written may change within one tick. */
  file: { id: Generated<number>; path: string; hash: string; stamp: string; settled: number };
  /** A file may lie in several sources. */
  source_file: { source_id: number; file_id: number };
  /** Ids are never used again: a vector that comes late finds no other chunk under its id. */
  chunk: { id: number; file_id: number; title: string; heading: string; line: number; text: string };
  space: {
    id: Generated<number>;
    name: string;
    fingerprint: string;
    dimensions: number;
    semantic: number;
  };
  /** `value`: packed little-endian float32. */
  vector: { chunk_id: number; space_id: number; value: Uint8Array };
}

export const knowledgeSchemaMajor = 1;

export const knowledgeMigrations: Readonly<Record<string, Migration>> = {
  '0001-knowledge': { up: createKnowledge },
};

async function createKnowledge(db: Kysely<unknown>): Promise<void> {
  const statements = [
    sql`create table source (id integer primary key, path text not null unique, only text, watched integer not null,
      added_ms integer not null, scanned_ms integer, skipped text not null default '{}')`,
    sql`create table file (id integer primary key, path text not null unique, hash text not null, stamp text not null,
      settled integer not null)`,
    sql`create table source_file (source_id integer not null references source on delete cascade,
      file_id integer not null references file on delete cascade, primary key (source_id, file_id)) without rowid`,
    sql`create index source_file_file on source_file (file_id)`,
    sql`create table chunk (id integer primary key autoincrement, file_id integer not null references file,
      title text not null, heading text not null, line integer not null, text text not null)`,
    sql`create index chunk_file on chunk (file_id)`,
    sql`create table space (id integer primary key, name text not null, fingerprint text not null unique,
      dimensions integer not null, semantic integer not null)`,
    sql`create table vector (chunk_id integer not null references chunk on delete cascade,
      space_id integer not null references space on delete cascade, value blob not null,
      primary key (chunk_id, space_id))`,
    sql`create virtual table chunk_text using fts5 (title, heading, text, content = 'chunk', content_rowid = 'id',
      tokenize = 'unicode61 remove_diacritics 2')`,
    // What a title and a heading say counts more than the text below them.
    sql`insert into chunk_text (chunk_text, rank) values ('rank', 'bm25(3.0, 2.0, 1.0)')`,
    sql`create trigger chunk_added after insert on chunk begin
      insert into chunk_text (rowid, title, heading, text) values (new.id, new.title, new.heading, new.text); end`,
    sql`create trigger chunk_removed after delete on chunk begin
      insert into chunk_text (chunk_text, rowid, title, heading, text)
      values ('delete', old.id, old.title, old.heading, old.text); end`,
  ];
  for (const statement of statements) await statement.execute(db);
  await recordSchemaVersion(db, { major: knowledgeSchemaMajor, minor: 0 });
}
