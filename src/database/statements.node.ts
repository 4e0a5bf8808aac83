/**
 * Statements that are built once and run often: putting a query together takes Kysely longer than SQLite needs to
 * answer it. Each is one statement by itself, never part of a transaction.
 */

import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import type { CompiledQuery, Kysely, RawBuilder } from 'kysely';
import { sql } from 'kysely';
import { databaseError } from './serial-driver.node.ts';

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

/** Runs one statement by itself and gives its rows, past Kysely, which takes longer than some of them. */
export type Direct = (
  text: string,
  parameters: readonly unknown[],
) => readonly unknown[] | Promise<readonly unknown[]>;

/** Of databases that are open here. */
const directs = new WeakMap<object, Direct>();

export function registerDirect(db: object, direct: Direct): void {
  directs.set(db, direct);
}

export class Statements<Tables> {
  readonly #db: Kysely<Tables>;
  readonly #direct: Direct;
  readonly #known = new Map<string, Statement>();

  constructor(db: Kysely<Tables>) {
    this.#db = db;
    const direct = directs.get(db);
    if (!direct) throw new MeshError('internal', 'The database was not opened by openDatabase');
    this.#direct = direct;
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
    try {
      const rows = this.#direct(query.sql, parameters);
      return rows instanceof Promise ? rows.then(asRows<Row>, asDatabaseError) : asRows<Row>(rows);
    } catch (thrown) {
      throw databaseError(thrown);
    }
  }
}

/** What rows a statement gives is known to who wrote it. */
function asRows<Row>(rows: readonly unknown[]): Row[] {
  return rows as Row[];
}

function asDatabaseError(thrown: unknown): never {
  throw databaseError(thrown);
}
