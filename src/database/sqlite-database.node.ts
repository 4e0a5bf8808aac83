/** A SQLite file. Several programs of one machine may use it at once; what is damaged is left exactly as it is. */

import { closeSync, mkdirSync, openSync } from 'node:fs';
import { dirname } from 'node:path';
import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import Sqlite from 'better-sqlite3';
import type { SqliteDatabase, SqliteStatement } from 'kysely';
import { SqliteAdapter, SqliteDialect, SqliteDriver } from 'kysely';
import { SerialDriver, databaseError } from './serial-driver.node.ts';
import type { Direct } from './statements.node.ts';

/** Another server holds the file for the few milliseconds of a transaction. */
const busyTimeoutMs = 5_000;
/** Two servers that start on a new file get in each other's way once or twice. */
const maxSwitches = 50;
/** Signaling has about a hundred. */
const maxStatements = 500;

/** @throws MeshError database_corrupt | storage_failed */
export function openSqliteFile(path: string): Sqlite.Database {
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
    throw databaseError(thrown, `The database ${path}`);
  }
}

/** The signing keys are in it: for nobody else to read, from its first byte. SQLite's other files follow it. */
function createPrivately(path: string): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  closeSync(openSync(path, 'a', 0o600));
}

/** For a file that is known to be ours to change. */
export function prepareForWriting(database: Sqlite.Database): void {
  switchToWal(database);
  // A used token must stay used when the power fails right after the receipt was given.
  database.pragma('synchronous = FULL');
}

/** SQLite does not wait by itself in this one statement when another process has the file open. */
function switchToWal(database: Sqlite.Database): void {
  for (let turn = 1; ; turn++) {
    try {
      database.pragma('journal_mode = WAL');
      return;
    } catch (thrown) {
      if (!(thrown instanceof Sqlite.SqliteError) || !thrown.code.startsWith('SQLITE_BUSY')) throw thrown;
      if (turn === maxSwitches) throw thrown;
      // Waits for the other one.
      database.exec('begin exclusive; rollback');
    }
  }
}

/** Runs one statement on the only connection there is. */
export function directSqlite(database: Sqlite.Database): Direct {
  const prepared = new PreparedOnce(database);
  return (text, parameters) => {
    const statement = prepared.prepare(text);
    if (statement.reader) return statement.all(parameters);
    statement.run(parameters);
    return [];
  };
}

export class SerialSqliteDialect extends SqliteDialect {
  readonly #database: Sqlite.Database;

  constructor(database: Sqlite.Database) {
    super({ database });
    this.#database = database;
  }

  /**
   * A plain `begin` only reads at first; when another server writes before our own first write, SQLite can but fail.
   */
  override createDriver(): SerialDriver {
    const database = new PreparedOnce(this.#database);
    return new SerialDriver(new SqliteDriver({ database }), ['begin immediate']);
  }

  override createAdapter(): SqliteAdapter {
    return new TransactionalAdapter();
  }
}

/** Preparing a statement takes longer than running it. SQLite itself prepares it anew when tables change. */
class PreparedOnce implements SqliteDatabase {
  readonly #database: Sqlite.Database;
  readonly #statements = new Map<string, SqliteStatement>();

  constructor(database: Sqlite.Database) {
    this.#database = database;
  }

  prepare(text: string): SqliteStatement {
    const known = this.#statements.get(text);
    if (known) return known;
    const statement: SqliteStatement = this.#database.prepare(text);
    // Lists of different lengths are different texts.
    if (this.#statements.size >= maxStatements) this.#statements.clear();
    this.#statements.set(text, statement);
    return statement;
  }

  close(): void {
    this.#statements.clear();
    this.#database.close();
  }
}

/** SQLite does take back changed tables. With this, Kysely migrates in one transaction, which is the lock it lacks. */
class TransactionalAdapter extends SqliteAdapter {
  override get supportsTransactionalDdl(): boolean {
    return true;
  }
}
