/** What is kept in `knowledge.db`: sources, their files, chunks and vectors. It knows nothing of the disk's files. */

import { databaseError, openDatabase } from '@cocoon-mesh/database';
import { packVector, unpackVector } from '@cocoon-mesh/vectors';
import type { Kysely } from 'kysely';
import { sql } from 'kysely';
import type { Chunk } from './chunks.ts';
import type { KnowledgeTables } from './knowledge-tables.node.ts';
import { knowledgeMigrations, knowledgeSchemaMajor } from './knowledge-tables.node.ts';

type Db = Kysely<KnowledgeTables>;

export interface SourceRow {
  readonly id: number;
  readonly path: string;
  readonly only: readonly string[] | null;
  readonly watched: boolean;
  readonly addedMs: number;
  readonly scannedMs: number | null;
  readonly skipped: Readonly<Record<string, number>>;
  readonly files: number;
}

export interface FileRow {
  readonly id: number;
  readonly path: string;
  readonly hash: string;
  readonly stamp: string;
  readonly settled: number;
}

export interface NewFile {
  readonly path: string;
  readonly hash: string;
  readonly stamp: string;
  readonly settled: boolean;
  readonly title: string;
  readonly chunks: readonly (Chunk & { readonly vector: Float32Array })[];
}

export interface ChunkRow extends Chunk {
  readonly id: number;
  readonly file: string;
  readonly title: string;
}

export interface Space {
  readonly name: string;
  /** Vectors of two spaces are comparable exactly when these are equal. */
  readonly fingerprint: string;
  readonly dimensions: number;
  readonly semantic: boolean;
}

export interface StoredVector {
  readonly id: number;
  readonly vector: Float32Array;
}

/** Ids of chunks, for whoever keeps them in memory, too. */
export interface Change {
  readonly fileId: number;
  readonly removed: readonly number[];
  readonly added: readonly number[];
}

export interface Removed {
  readonly files: number;
  /** Their ids. */
  readonly chunks: readonly number[];
}

/** Rows of one statement; SQLite allows 32,766 values. */
const rowsAtOnce = 200;
/** Pages of SQLite have 4 KiB. */
const pageBytes = 4096;

export class KnowledgeStore {
  readonly #db: Db;

  private constructor(db: Db) {
    this.#db = db;
  }

  /**
   * @param maxBytes of the file; null for what the disk holds
   * @throws MeshError database_corrupt | database_newer | storage_full | storage_failed
   */
  static async open(path: string, maxBytes: number | null): Promise<KnowledgeStore> {
    const db = await openDatabase<KnowledgeTables>({
      url: `sqlite:${path}`,
      migrations: knowledgeMigrations,
      what: 'the knowledge base',
      setting: 'the folder of the cocoon',
      major: knowledgeSchemaMajor,
    });
    try {
      // What the last seconds before a power cut lose is read from the files again.
      await sql`pragma synchronous = normal`.execute(db);
      if (maxBytes !== null)
        await sql.raw(`pragma max_page_count = ${Math.ceil(maxBytes / pageBytes)}`).execute(db);
      return new KnowledgeStore(db);
    } catch (thrown) {
      await db.destroy();
      throw databaseError(thrown, `The database ${path}`);
    }
  }

  async close(): Promise<void> {
    await this.#db.destroy();
  }

  async sources(): Promise<SourceRow[]> {
    const rows = await this.#db
      .selectFrom('source')
      .selectAll()
      .select(
        sql<number>`(select count(*) from source_file where source_file.source_id = source.id)`.as('files'),
      )
      .orderBy('path')
      .execute();
    return rows.map((row) => ({
      id: row.id,
      path: row.path,
      only: row.only === null ? null : (JSON.parse(row.only) as string[]),
      watched: row.watched === 1,
      addedMs: row.added_ms,
      scannedMs: row.scanned_ms,
      skipped: JSON.parse(row.skipped) as Record<string, number>,
      files: row.files,
    }));
  }

  /** Makes the source or changes it. */
  async putSource(path: string, only: readonly string[] | null, nowMs: number): Promise<number> {
    const row = { path, only: only && JSON.stringify(only), watched: 0, added_ms: nowMs, scanned_ms: null };
    const { id } = await this.#db
      .insertInto('source')
      .values(row)
      .onConflict((conflict) => conflict.column('path').doUpdateSet({ only: row.only }))
      .returning('id')
      .executeTakeFirstOrThrow();
    return id;
  }

  async setWatched(id: number, watched: boolean): Promise<void> {
    await this.#db
      .updateTable('source')
      .set({ watched: watched ? 1 : 0 })
      .where('id', '=', id)
      .execute();
  }

  async scanned(id: number, nowMs: number, skipped: Readonly<Record<string, number>>): Promise<void> {
    await this.#db
      .updateTable('source')
      .set({ scanned_ms: nowMs, skipped: JSON.stringify(skipped) })
      .where('id', '=', id)
      .execute();
  }

  /** Files that lie in no other source go with it. */
  async removeSource(id: number): Promise<Removed> {
    return this.#db.transaction().execute(async (db) => {
      await db.deleteFrom('source_file').where('source_id', '=', id).execute();
      await db.deleteFrom('source').where('id', '=', id).execute();
      return removeOrphans(db);
    });
  }

  async file(path: string): Promise<FileRow | undefined> {
    return this.#db.selectFrom('file').selectAll().where('path', '=', path).executeTakeFirst();
  }

  async fileIdsOf(sourceId: number): Promise<Set<number>> {
    const rows = await this.#db
      .selectFrom('source_file')
      .select('file_id')
      .where('source_id', '=', sourceId)
      .execute();
    return new Set(rows.map(({ file_id }) => file_id));
  }

  /** Files of the source below a folder that cannot be looked into. */
  async fileIdsBelow(sourceId: number, folder: string): Promise<number[]> {
    const rows = await this.#db
      .selectFrom('source_file')
      .innerJoin('file', 'file.id', 'source_file.file_id')
      .select('file.id')
      .where('source_id', '=', sourceId)
      .where(sql<boolean>`substr(file.path, 1, length(${folder}) + 1) = ${folder} || '/'`)
      .execute();
    return rows.map(({ id }) => id);
  }

  async link(sourceId: number, fileId: number): Promise<void> {
    await linkFile(this.#db, sourceId, fileId);
  }

  async unlink(sourceId: number, fileIds: readonly number[]): Promise<Removed> {
    return this.#db.transaction().execute(async (db) => {
      for (const ids of slices(fileIds))
        await db
          .deleteFrom('source_file')
          .where('source_id', '=', sourceId)
          .where('file_id', 'in', ids)
          .execute();
      return removeOrphans(db);
    });
  }

  /** Written to, with the same content as before. */
  async touchFile(id: number, stamp: string, settled: boolean): Promise<void> {
    await this.#db
      .updateTable('file')
      .set({ stamp, settled: settled ? 1 : 0 })
      .where('id', '=', id)
      .execute();
  }

  /** Puts the file's chunks in the place of those it had, or changes nothing. */
  async replaceFile(sourceId: number, spaceId: number, file: NewFile): Promise<Change> {
    return this.#db.transaction().execute(async (db) => {
      const { path, hash, stamp } = file;
      const settled = file.settled ? 1 : 0;
      const { id: fileId } = await db
        .insertInto('file')
        .values({ path, hash, stamp, settled })
        .onConflict((conflict) => conflict.column('path').doUpdateSet({ hash, stamp, settled }))
        .returning('id')
        .executeTakeFirstOrThrow();
      const removed = await removeChunks(db, [fileId]);
      await linkFile(db, sourceId, fileId);
      const first = await nextChunkId(db);
      const rows = file.chunks.map(({ heading, line, text, vector }, i) => ({
        chunk: { id: first + i, file_id: fileId, title: file.title, heading, line, text },
        vector: { chunk_id: first + i, space_id: spaceId, value: packVector(vector) },
      }));
      for (const some of slices(rows)) {
        await db
          .insertInto('chunk')
          .values(some.map(({ chunk }) => chunk))
          .execute();
        await db
          .insertInto('vector')
          .values(some.map(({ vector }) => vector))
          .execute();
      }
      return { fileId, removed, added: rows.map(({ chunk }) => chunk.id) };
    });
  }

  /** Ids of chunks by rank, the best first. @param query of `fullTextQuery` */
  async fullText(query: string, count: number): Promise<readonly number[]> {
    const { rows } = await sql<{ rowid: number }>`
      select rowid from chunk_text where chunk_text match ${query} order by rank limit ${count}`.execute(
      this.#db,
    );
    return rows.map(({ rowid }) => rowid);
  }

  /** In the order of the ids; those that are gone are left out. */
  async chunks(ids: readonly number[]): Promise<readonly ChunkRow[]> {
    if (ids.length === 0) return [];
    const rows = await this.#db
      .selectFrom('chunk')
      .innerJoin('file', 'file.id', 'chunk.file_id')
      .select(['chunk.id', 'file.path as file', 'title', 'heading', 'line', 'text'])
      .where('chunk.id', 'in', ids)
      .execute();
    const byId = new Map(rows.map((row) => [row.id, row]));
    return ids.flatMap((id) => byId.get(id) ?? []);
  }

  async chunkCount(): Promise<number> {
    return countOf(this.#db, 'chunk');
  }

  async fileCount(): Promise<number> {
    return countOf(this.#db, 'file');
  }

  async bytes(): Promise<number> {
    const { rows } = await sql<{ bytes: number }>`
      select (select page_count from pragma_page_count) * (select page_size from pragma_page_size) as bytes`.execute(
      this.#db,
    );
    return rows[0]?.bytes ?? 0;
  }

  /** @throws when the database fails */
  async putSpace({ name, fingerprint, dimensions, semantic }: Space): Promise<number> {
    const { id } = await this.#db
      .insertInto('space')
      .values({ name, fingerprint, dimensions, semantic: semantic ? 1 : 0 })
      .onConflict((conflict) => conflict.column('fingerprint').doUpdateSet({ name }))
      .returning('id')
      .executeTakeFirstOrThrow();
    return id;
  }

  async spaces(): Promise<readonly (Space & { readonly id: number; readonly vectors: number })[]> {
    const rows = await this.#db
      .selectFrom('space')
      .selectAll()
      .select(sql<number>`(select count(*) from vector where vector.space_id = space.id)`.as('vectors'))
      .orderBy('id')
      .execute();
    return rows.map((row) => ({ ...row, semantic: row.semantic === 1 }));
  }

  /** Chunks that have no vector in the space yet, oldest first. */
  async chunksWithout(spaceId: number, count: number): Promise<readonly ChunkRow[]> {
    const rows = await this.#db
      .selectFrom('chunk')
      .select('chunk.id')
      .where(
        sql<boolean>`not exists (select 1 from vector where chunk_id = chunk.id and space_id = ${spaceId})`,
      )
      .orderBy('chunk.id')
      .limit(count)
      .execute();
    return this.chunks(rows.map(({ id }) => id));
  }

  /** Those of chunks that are gone meanwhile are left out. Answers the ids that were kept. */
  async putVectors(spaceId: number, vectors: readonly StoredVector[]): Promise<readonly number[]> {
    return this.#db.transaction().execute(async (db) => {
      const kept: number[] = [];
      for (const { id, vector } of vectors) {
        const value = packVector(vector);
        const { rows } = await sql<{ chunk_id: number }>`insert into vector (chunk_id, space_id, value)
          select id, ${spaceId}, ${value} from chunk where id = ${id}
          on conflict do update set value = excluded.value returning chunk_id`.execute(db);
        if (rows.length > 0) kept.push(id);
      }
      return kept;
    });
  }

  async vectors(spaceId: number, ids: readonly number[]): Promise<readonly StoredVector[]> {
    if (ids.length === 0) return [];
    const rows = await this.#db
      .selectFrom('vector')
      .select(['chunk_id', 'value'])
      .where('space_id', '=', spaceId)
      .where('chunk_id', 'in', ids)
      .execute();
    return rows.map(stored);
  }

  /** Those of chunks behind `afterId`, in order. */
  async vectorsAfter(spaceId: number, afterId: number, count: number): Promise<readonly StoredVector[]> {
    const rows = await this.#db
      .selectFrom('vector')
      .select(['chunk_id', 'value'])
      .where('space_id', '=', spaceId)
      .where('chunk_id', '>', afterId)
      .orderBy('chunk_id')
      .limit(count)
      .execute();
    return rows.map(stored);
  }
}

async function linkFile(db: Db, sourceId: number, fileId: number): Promise<void> {
  await db
    .insertInto('source_file')
    .values({ source_id: sourceId, file_id: fileId })
    .onConflict((conflict) => conflict.doNothing())
    .execute();
}

async function removeOrphans(db: Db): Promise<Removed> {
  const orphans = await db
    .selectFrom('file')
    .select('id')
    .where(sql<boolean>`not exists (select 1 from source_file where file_id = file.id)`)
    .execute();
  const ids = orphans.map(({ id }) => id);
  const chunks = await removeChunks(db, ids);
  for (const some of slices(ids)) await db.deleteFrom('file').where('id', 'in', some).execute();
  return { files: ids.length, chunks };
}

async function removeChunks(db: Db, fileIds: readonly number[]): Promise<number[]> {
  const removed: number[] = [];
  for (const some of slices(fileIds)) {
    const rows = await db.deleteFrom('chunk').where('file_id', 'in', some).returning('id').execute();
    for (const { id } of rows) removed.push(id);
  }
  return removed;
}

async function nextChunkId(db: Db): Promise<number> {
  const { rows } = await sql<{ seq: number }>`select seq from sqlite_sequence where name = 'chunk'`.execute(
    db,
  );
  return (rows[0]?.seq ?? 0) + 1;
}

async function countOf(db: Db, table: 'chunk' | 'file'): Promise<number> {
  const { count } = await db
    .selectFrom(table)
    .select(sql<number>`count(*)`.as('count'))
    .executeTakeFirstOrThrow();
  return count;
}

function stored(row: { chunk_id: number; value: Uint8Array }): StoredVector {
  return { id: row.chunk_id, vector: unpackVector(row.value) };
}

function* slices<T>(items: readonly T[]): Generator<readonly T[]> {
  for (let at = 0; at < items.length; at += rowsAtOnce) yield items.slice(at, at + rowsAtOnce);
}
