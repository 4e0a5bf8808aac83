/**
 * The keys that sign access tokens. They are replaced by and by and lie in the database, so that several servers
 * share them and a restart changes nothing. The old key goes on verifying until its last token has ended.
 */

import type { Clock, SigningKey } from '@cocoon-mesh/protocol';
import {
  fromBase64Url,
  importPublicKey,
  randomBytes,
  signingKeyFromSeed,
  toBase64Url,
} from '@cocoon-mesh/protocol';
import type { CryptoKey, JWK } from 'jose';
import { calculateJwkThumbprint } from 'jose';
import type { Kysely } from 'kysely';
import type { Tables } from './tables.ts';

/** One row for each generation: two servers that replace a key at the same moment get the same new one. */
export interface AccessKeyTable {
  generation: number;
  seed: string;
  /** Seconds since 1970. */
  created: number;
}

/** Migration 0003. */
export async function createAccessKeys(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('access_key')
    .addColumn('generation', 'integer', (column) => column.primaryKey())
    .addColumn('seed', 'text', (column) => column.notNull())
    .addColumn('created', 'bigint', (column) => column.notNull())
    .execute();
}

export interface AccessKey {
  readonly id: string;
  readonly key: SigningKey;
  readonly publicKey: CryptoKey;
  readonly jwk: JWK;
}

type StoredKey = AccessKey & Readonly<AccessKeyTable>;

interface AccessKeysOptions {
  readonly db: Kysely<Tables>;
  readonly clock: Clock;
  /** A key signs for this long, */
  readonly signSeconds: number;
  /** and verifies for this much longer. */
  readonly overlapSeconds: number;
  /** Clocks of servers that share the database may differ by this. */
  readonly skewSeconds: number;
  /** The database is asked at most this often about keys that nobody knows. */
  readonly rereadMs: number;
}

export class AccessKeys {
  readonly #options: AccessKeysOptions;
  /** Newest first. */
  #keys: readonly StoredKey[] = [];
  #reading: Promise<void> | null = null;
  #readAt = -Infinity;

  private constructor(options: AccessKeysOptions) {
    this.#options = options;
  }

  static async open(options: AccessKeysOptions): Promise<AccessKeys> {
    const keys = new AccessKeys(options);
    await keys.current();
    return keys;
  }

  /** The one that signs now; replaces it when it is too old. */
  async current(): Promise<AccessKey> {
    const known = this.#signing();
    if (known) return known;
    // Another server may have replaced it already.
    await this.#read();
    return this.#signing() ?? this.#replace();
  }

  /** Every key of which tokens may be about. */
  async verifying(): Promise<readonly AccessKey[]> {
    // A server that only answers for its keys learns of those that others made.
    await this.#reread();
    await this.current();
    return this.#keys.filter((key) => this.#verifies(key));
  }

  /** One that this server does not know may be another server's newest. */
  async find(id: string): Promise<AccessKey | null> {
    if (!this.#keys.some((key) => key.id === id)) await this.#reread();
    return this.#keys.find((key) => key.id === id && this.#verifies(key)) ?? null;
  }

  get #now(): number {
    return Math.floor(this.#options.clock.now() / 1000);
  }

  #signing(): StoredKey | null {
    const { signSeconds, skewSeconds } = this.#options;
    const [newest] = this.#keys;
    if (!newest) return null;
    const age = this.#now - newest.created;
    // One of the future was made while a clock was wrong; waiting for it would keep it for as long.
    return age >= -skewSeconds && age < signSeconds ? newest : null;
  }

  #verifies({ created }: StoredKey): boolean {
    const { signSeconds, overlapSeconds, skewSeconds } = this.#options;
    const age = this.#now - created;
    return age >= -skewSeconds && age < signSeconds + overlapSeconds;
  }

  async #replace(): Promise<AccessKey> {
    const { db, signSeconds, overlapSeconds } = this.#options;
    const now = this.#now;
    const generation = (this.#keys[0]?.generation ?? 0) + 1;
    await db
      .insertInto('access_key')
      .values({ generation, seed: toBase64Url(randomBytes(32)), created: now })
      .onConflict((conflict) => conflict.column('generation').doNothing())
      .execute();
    // Never the newest, from which the next one counts.
    await db
      .deleteFrom('access_key')
      .where('created', '<=', now - signSeconds - overlapSeconds)
      .where('generation', '<', generation)
      .execute();
    await this.#read();
    const [newest] = this.#keys;
    if (!newest) throw new Error('The new access key is not in the database');
    return newest;
  }

  /** Tokens of made-up keys must not become as many queries. */
  async #reread(): Promise<void> {
    const { clock, rereadMs } = this.#options;
    if (clock.monotonic() - this.#readAt >= rereadMs) await this.#read();
    else await this.#reading;
  }

  async #read(): Promise<void> {
    this.#reading ??= this.#readAll().finally(() => (this.#reading = null));
    await this.#reading;
  }

  async #readAll(): Promise<void> {
    const { db, clock } = this.#options;
    this.#readAt = clock.monotonic();
    const rows = await db.selectFrom('access_key').selectAll().orderBy('generation', 'desc').execute();
    const known = new Map(this.#keys.map((key) => [key.seed, key]));
    this.#keys = await Promise.all(rows.map(async (row) => known.get(row.seed) ?? keyFromRow(row)));
  }
}

async function keyFromRow(row: AccessKeyTable): Promise<StoredKey> {
  const key = await signingKeyFromSeed(fromBase64Url(row.seed));
  const jwk = publicJwk(key.publicKey);
  return {
    ...row,
    id: await calculateJwkThumbprint(jwk),
    key,
    publicKey: await importPublicKey(key.publicKey),
    jwk,
  };
}

/** RFC 8037. */
export function publicJwk(publicKey: Uint8Array): { kty: string; crv: string; x: string } {
  return { kty: 'OKP', crv: 'Ed25519', x: toBase64Url(publicKey) };
}
