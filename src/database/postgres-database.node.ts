/**
 * A PostgreSQL server, which several programs may share. It may go away and come back: what is asked
 * meanwhile fails, and the next request finds a new connection.
 */

import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import { PostgresDialect, PostgresDriver } from 'kysely';
import { Pool, types } from 'pg';
import { SerialDriver, databaseError } from './serial-driver.node.ts';
import type { Direct } from './statements.node.ts';

const poolLimits = {
  /** Of the hundred that PostgreSQL grants by default; ten programs fit. */
  max: 10,
  /** Also what a request waits for a free one when every device comes back at once. */
  connectionTimeoutMillis: 10_000,
  idleTimeoutMillis: 60_000,
  keepAlive: true,
  /** A transaction that holds up all others must not outlive a server that vanished. */
  idle_in_transaction_session_timeout: 10_000,
};
/** No query of ours takes a tenth of a second; the wait for its turn is in it. */
const statementTimeoutMs = 10_000;
/** Beyond what the server itself would have cut off: the server, or the way to it, is gone. */
const answerGraceMs = 5_000;
/** A large table may be rewritten, and another server may be at it. */
const migrationTimeoutMs = 10 * 60_000;

/** The type of `bigint`, which pg gives as text. Ours are times and counters that a number holds. */
const int8 = 20;

/** Of transactions that write, held to their end. Any number that nobody else uses in this database. */
const turnLock = '7165402318845190723';

export type PostgresUse = 'serve' | 'migrate';

export class SerialPostgresDialect extends PostgresDialect {
  readonly #pool: Pool;

  /** @param name as PostgreSQL shows it */
  constructor(url: string, use: PostgresUse, name: string) {
    const pool = openPool(url, use, name);
    super({ pool });
    this.#pool = pool;
  }

  /** On any free connection. */
  readonly direct: Direct = async (text, parameters) =>
    (await this.#pool.query<Record<string, unknown>>(text, [...parameters])).rows;

  /**
   * The store reads and then writes what follows from it. Left to themselves, two such transactions would not see
   * each other, and the later one could bring back an older state.
   */
  override createDriver(): SerialDriver {
    return new SerialDriver(new PostgresDriver({ pool: this.#pool }), [
      `begin; select pg_advisory_xact_lock(${turnLock})`,
    ]);
  }
}

function openPool(url: string, use: PostgresUse, name: string): Pool {
  const timeoutMs = use === 'serve' ? statementTimeoutMs : migrationTimeoutMs;
  const pool = new Pool({
    connectionString: url,
    ...poolLimits,
    ...(use === 'serve' ? {} : { max: 1 }),
    statement_timeout: timeoutMs,
    query_timeout: timeoutMs + answerGraceMs,
    application_name: name,
    types: {
      getTypeParser: (oid: number, format?: 'text' | 'binary') =>
        oid === int8 ? Number : types.getTypeParser(oid, format),
    },
  });
  // Whoever uses a connection that breaks gets the error, too; unheard, it would end the process.
  const heard = (): void => undefined;
  pool.on('error', heard);
  pool.on('connect', (client) => client.on('error', heard));
  return pool;
}

/**
 * Where the server is, without user and password: for messages.
 * @throws MeshError usage
 */
export function postgresAddress(url: string): string {
  const parsed = URL.parse(url);
  // A password with one of / ? # in it ends the host's name for a parser, and the rest would be shown.
  if (
    !parsed ||
    parsed.hash !== '' ||
    (parsed.username === '' && /@|%40/.test(parsed.pathname + parsed.search))
  )
    throw new MeshError('usage', 'The URL of the PostgreSQL database is malformed', {
      hint: 'It is written postgres://USER:PASSWORD@HOST:5432/DATABASE, with / ? # @ in the password as %2F %3F %23 %40.',
    });
  const host = parsed.host || parsed.searchParams.get('host') || 'localhost';
  return `postgres://${host}${parsed.pathname}`;
}

/**
 * What keeps a program from starting, and what to look at.
 * @param setting what the user sets the URL with
 */
export function postgresStartError(thrown: unknown, address: string, setting: string): MeshError {
  if (thrown instanceof MeshError && thrown.code !== 'storage_failed') return thrown;
  const cause = thrown instanceof MeshError ? thrown.cause : thrown;
  const known = databaseError(cause, `The database ${address}`);
  return known.code === 'storage_failed'
    ? new MeshError('storage_failed', known.message, { cause, hint: hintFor(codeOf(cause), setting) })
    : known;
}

function codeOf(thrown: unknown): string {
  return thrown instanceof Error && 'code' in thrown ? String(thrown.code) : '';
}

function hintFor(code: string, setting: string): string {
  switch (code) {
    case '28P01':
    case '28000':
      return `PostgreSQL refuses the user or its password: correct ${setting}.`;
    case '3D000':
      return `There is no such database: create it with \`createdb\`, or correct ${setting}.`;
    case '42501':
      return 'The user may not create tables there: make it the owner of the database.';
    case '53300':
      return 'PostgreSQL has no free connections: raise max_connections.';
    default:
      return `Check that PostgreSQL runs there, that this machine may reach it, and ${setting}.`;
  }
}
