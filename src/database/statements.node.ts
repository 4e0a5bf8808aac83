/**
 * Statements that are built once and run often: putting a query together takes Kysely longer than SQLite needs to
 * answer it. Each is one statement by itself, never part of a transaction.
 */

import type { CompiledQuery, Kysely, RawBuilder } from 'kysely';
import { sql } from 'kysely';
import { databaseError } from './serial-driver.node.ts';
import type { DirectSqlite } from './sqlite-database.node.ts';

/** Stands where a value will stand. */
export type Slot = <T>(name: string) => RawBuilder<T>;

interface Statement {
  readonly query: CompiledQuery;
  /** Of each parameter, in their order; null for one that is always the same. */
  readonly slots: readonly (string | null)[];
}

class Place {
  readonly name: string;

  constructor(name: string) {
    this.name = name;
  }
}

const slot: Slot = (name) => sql`${new Place(name)}`;

/** SQLite databases that are open here; what is asked of others goes through Kysely. */
const direct = new WeakMap<object, DirectSqlite>();

export function registerDirect(db: object, database: DirectSqlite): void {
  direct.set(db, database);
}

export class Statements<Tables> {
  readonly #db: Kysely<Tables>;
  readonly #direct: DirectSqlite | undefined;
  readonly #known = new Map<string, Statement>();

  constructor(db: Kysely<Tables>) {
    this.#db = db;
    this.#direct = direct.get(db);
  }

  /**
   * SQLite answers at once; a promise around that would take as long as the answer.
   * @param key names the text that `build` makes; the caller has a bounded number of them
   * @throws MeshError storage_full | storage_failed | database_corrupt
   */
  run<Row>(
    key: string,
    build: (db: Kysely<Tables>, slot: Slot) => CompiledQuery<Row>,
    values: Readonly<Record<string, unknown>>,
  ): Row[] | Promise<Row[]> {
    let statement = this.#known.get(key);
    if (!statement) {
      const query = build(this.#db, slot);
      const slots = query.parameters.map((value) => (value instanceof Place ? value.name : null));
      statement = { query, slots };
      this.#known.set(key, statement);
    }
    const { query, slots } = statement;
    const parameters = slots.map((name, i) => (name === null ? query.parameters[i] : values[name]));
    if (!this.#direct) return this.#db.executeQuery<Row>({ ...query, parameters }).then(({ rows }) => rows);
    try {
      return this.#direct(query.sql, parameters) as Row[];
    } catch (thrown) {
      throw databaseError(thrown);
    }
  }
}
