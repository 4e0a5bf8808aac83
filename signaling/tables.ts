/**
 * The tables of the server, as Kysely types, and the numbered migrations that make them. A migration that was
 * released is never changed; the next one is added behind it. Only types that SQLite and Postgres both have.
 */

import type { Kysely } from 'kysely';
import type { Migration } from 'kysely/migration';
import type { AccessKeyTable } from './access-keys.ts';
import { createAccessKeys } from './access-keys.ts';

export interface Tables {
  /** Seeds of this server's own keys, one for each purpose. */
  signing_key: { purpose: string; seed: string };
  access_key: AccessKeyTable;
  /** Owners by their newest records. */
  owner: { id: string; epoch: number; public_key: string; records: string };
  device: { peer_id: string; seq: number; record: string; last_seen: number };
  /** `relation` is `member`; co-owners of a device will be rows beside it. */
  membership: {
    owner: string;
    peer_id: string;
    relation: string;
    epoch: number;
    serial: number;
    provisional: number;
    expires: number | null;
    jti: string | null;
    proof: string;
  };
  /** Used tokens with the receipt that was given. */
  claim: {
    jti: string;
    owner: string;
    scope: string;
    grant_hash: string;
    redeemer: string;
    receipt: string;
    claimed_at: number;
  };
  /** The longest list of revocations of each owner, as it is handed out. */
  revocation_list: { owner: string; epoch: number; entries: string };
  /** Every revocation ever verified: a list that is replaced by a longer one takes nothing back. */
  revoked: { owner: string; kind: string; subject: string };
}

export const migrations: Readonly<Record<string, Migration>> = {
  '0001-ownership': { up: createOwnership },
  '0003-access-keys': { up: createAccessKeys },
};

async function createOwnership(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('signing_key')
    .addColumn('purpose', 'text', (column) => column.primaryKey())
    .addColumn('seed', 'text', (column) => column.notNull())
    .execute();
  await db.schema
    .createTable('owner')
    .addColumn('id', 'text', (column) => column.primaryKey())
    .addColumn('epoch', 'integer', (column) => column.notNull())
    .addColumn('public_key', 'text', (column) => column.notNull())
    .addColumn('records', 'text', (column) => column.notNull())
    .execute();
  await db.schema
    .createTable('device')
    .addColumn('peer_id', 'text', (column) => column.primaryKey())
    .addColumn('seq', 'bigint', (column) => column.notNull())
    .addColumn('record', 'text', (column) => column.notNull())
    .addColumn('last_seen', 'bigint', (column) => column.notNull())
    .execute();
  await db.schema
    .createTable('membership')
    .addColumn('owner', 'text', (column) => column.notNull())
    .addColumn('peer_id', 'text', (column) => column.notNull())
    .addColumn('relation', 'text', (column) => column.notNull())
    .addColumn('epoch', 'integer', (column) => column.notNull())
    .addColumn('serial', 'bigint', (column) => column.notNull())
    .addColumn('provisional', 'integer', (column) => column.notNull())
    .addColumn('expires', 'bigint')
    .addColumn('jti', 'text')
    .addColumn('proof', 'text', (column) => column.notNull())
    .addPrimaryKeyConstraint('membership_key', ['owner', 'peer_id', 'relation'])
    .execute();
  await db.schema.createIndex('membership_peer').on('membership').column('peer_id').execute();
  await db.schema
    .createTable('claim')
    .addColumn('jti', 'text', (column) => column.primaryKey())
    .addColumn('owner', 'text', (column) => column.notNull())
    .addColumn('scope', 'text', (column) => column.notNull())
    .addColumn('grant_hash', 'text', (column) => column.notNull())
    .addColumn('redeemer', 'text', (column) => column.notNull())
    .addColumn('receipt', 'text', (column) => column.notNull())
    .addColumn('claimed_at', 'bigint', (column) => column.notNull())
    .execute();
  await db.schema
    .createTable('revocation_list')
    .addColumn('owner', 'text', (column) => column.primaryKey())
    .addColumn('epoch', 'integer', (column) => column.notNull())
    .addColumn('entries', 'text', (column) => column.notNull())
    .execute();
  await db.schema
    .createTable('revoked')
    .addColumn('owner', 'text', (column) => column.notNull())
    .addColumn('kind', 'text', (column) => column.notNull())
    .addColumn('subject', 'text', (column) => column.notNull())
    .addPrimaryKeyConstraint('revoked_key', ['owner', 'kind', 'subject'])
    .execute();
}
