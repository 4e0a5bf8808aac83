/**
 * What the stores rely on, whichever database is below: transactions come one after the other, those of other
 * programs on the same database included, and what fails is a MeshError that names no password.
 */

import type {
  AbortableOperationOptions,
  CompiledQuery,
  DatabaseConnection,
  Driver,
  QueryResult,
} from 'kysely';
import { CompiledQuery as Query } from 'kysely';
import { MeshError } from '@cocoon-mesh/protocol/errors.ts';

export class SerialDriver implements Driver {
  readonly #inner: Driver;
  readonly #begin: readonly string[];

  /** @param begin statements that start a transaction and wait until it is its turn */
  constructor(inner: Driver, begin: readonly string[]) {
    this.#inner = inner;
    this.#begin = begin;
  }

  async init(options?: AbortableOperationOptions): Promise<void> {
    await clearly(this.#inner.init(options));
  }

  async acquireConnection(options?: AbortableOperationOptions): Promise<DatabaseConnection> {
    return new ClearConnection(await clearly(this.#inner.acquireConnection(options)));
  }

  async beginTransaction(connection: DatabaseConnection): Promise<void> {
    try {
      for (const statement of this.#begin) await connection.executeQuery(Query.raw(statement));
    } catch (thrown) {
      // Kysely takes back only what had begun, and the next user of the connection must not be inside of it.
      await this.#inner.rollbackTransaction(innerOf(connection)).catch(() => undefined);
      throw thrown;
    }
  }

  async commitTransaction(connection: DatabaseConnection): Promise<void> {
    await clearly(this.#inner.commitTransaction(innerOf(connection)));
  }

  async rollbackTransaction(connection: DatabaseConnection): Promise<void> {
    await clearly(this.#inner.rollbackTransaction(innerOf(connection)));
  }

  async releaseConnection(connection: DatabaseConnection): Promise<void> {
    await this.#inner.releaseConnection(innerOf(connection));
  }

  async destroy(options?: AbortableOperationOptions): Promise<void> {
    await this.#inner.destroy(options);
  }
}

class ClearConnection implements DatabaseConnection {
  readonly inner: DatabaseConnection;

  constructor(inner: DatabaseConnection) {
    this.inner = inner;
  }

  async executeQuery<Row>(query: CompiledQuery): Promise<QueryResult<Row>> {
    return clearly(this.inner.executeQuery<Row>(query));
  }

  streamQuery<Row>(query: CompiledQuery, chunkSize: number): AsyncIterableIterator<QueryResult<Row>> {
    return this.inner.streamQuery<Row>(query, chunkSize);
  }
}

function innerOf(connection: DatabaseConnection): DatabaseConnection {
  return connection instanceof ClearConnection ? connection.inner : connection;
}

async function clearly<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (thrown) {
    throw databaseError(thrown);
  }
}

/**
 * Of SQLite and of PostgreSQL: damage, and a schema that is not the one our migrations make, of which nothing is
 * repaired here.
 */
const corruptCodes = /^(SQLITE_NOTADB|SQLITE_CORRUPT.*|XX001|XX002|42P01|42P07|42703|42701|58P01)$/;

/** No room: SQLite's file or its disk, PostgreSQL's disk. */
const fullCodes = /^(SQLITE_FULL|53100|ENOSPC)$/;

/** @param what the database in words that may be shown */
export function databaseError(thrown: unknown, what = 'The database'): MeshError {
  if (thrown instanceof MeshError) return thrown;
  const text = thrown instanceof Error ? thrown.message : String(thrown);
  const code = thrown instanceof Error && 'code' in thrown ? String(thrown.code) : '';
  if (corruptCodes.test(code) || /^no such (table|column)|^table .* already exists/.test(text))
    return new MeshError(
      'database_corrupt',
      `${what} is damaged, or holds other tables than ours (${code})`,
      {
        cause: thrown,
      },
    );
  if (fullCodes.test(code))
    return new MeshError('storage_full', `${what} has no room left`, { cause: thrown });
  return new MeshError('storage_failed', `${what} could not be used (${code || text})`, { cause: thrown });
}
