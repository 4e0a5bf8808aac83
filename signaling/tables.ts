/**
 * The tables of the server, as Kysely types, and the numbered migrations that make them. A migration that was
 * released is never changed; the next one is added behind it. Only types that SQLite and Postgres both have.
 */

import type { Generated, Kysely } from 'kysely';
import { sql } from 'kysely';
import type { Migration } from 'kysely/migration';
import type { AccessKeyTable } from './access-keys.ts';
import { createAccessKeys } from './access-keys.ts';

export interface Tables {
  /** Seeds of this server's own keys, one for each purpose. */
  signing_key: { purpose: string; seed: string };
  access_key: AccessKeyTable;
  /** Owners by their newest records. */
  owner: { id: string; epoch: number; public_key: string; records: string; keeps: Generated<string> };
  /** `owner` is the one it last signed in for: a membership of any other shows nothing of it. */
  device: { peer_id: string; seq: number; record: string; last_seen: number; owner: string | null };
  /** `relation` is `member`. */
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
  /**
   * Cocoons and the other owners that may use them. Whose a cocoon is, its own membership says: a row of anybody
   * else's has no effect. `record` is what the cocoon says of itself to the co-owner.
   */
  share: {
    owner: string;
    cocoon: string;
    co_owner: string;
    epoch: number;
    serial: number;
    provisional: number;
    granted: number;
    expires: number | null;
    jti: string;
    proof: string;
    seq: number | null;
    record: string | null;
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
    /** End of the token; null in rows of the first version. */
    expires: number | null;
  };
  /** The longest list of revocations of each owner, as it is handed out. */
  revocation_list: { owner: string; epoch: number; entries: string };
  /**
   * Every revocation ever verified: a list that is replaced by a longer one takes nothing back. An entry ends what
   * was given in its epoch or before, so that a rotation can undo what a thief of the secret has revoked, by giving
   * it anew, and undoes nothing by itself.
   */
  revoked: { owner: string; kind: string; subject: string; epoch: number; iat: number };
}

/** The database, or one transaction of it. */
export type Db = Kysely<Tables>;

export const migrations: Readonly<Record<string, Migration>> = {
  '0001-ownership': { up: createOwnership },
  '0002-shares': { up: createShares },
  '0003-access-keys': { up: createAccessKeys },
  '0004-revocation-epoch': { up: addRevocationEpoch },
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

async function createShares(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('share')
    .addColumn('owner', 'text', (column) => column.notNull())
    .addColumn('cocoon', 'text', (column) => column.notNull())
    .addColumn('co_owner', 'text', (column) => column.notNull())
    .addColumn('epoch', 'integer', (column) => column.notNull())
    .addColumn('serial', 'bigint', (column) => column.notNull())
    .addColumn('provisional', 'integer', (column) => column.notNull())
    .addColumn('granted', 'bigint', (column) => column.notNull())
    .addColumn('expires', 'bigint')
    .addColumn('jti', 'text', (column) => column.notNull())
    .addColumn('proof', 'text', (column) => column.notNull())
    .addColumn('seq', 'bigint')
    .addColumn('record', 'text')
    .addPrimaryKeyConstraint('share_key', ['owner', 'cocoon', 'co_owner'])
    .execute();
  await db.schema.createIndex('share_co_owner').on('share').columns(['co_owner', 'cocoon']).execute();
  // There were no shares before, for which alone the date counts.
  await db.schema
    .alterTable('revoked')
    .addColumn('iat', 'bigint', (column) => column.notNull().defaultTo(0))
    .execute();
  await db.schema
    .alterTable('owner')
    .addColumn('keeps', 'text', (column) => column.notNull().defaultTo('[]'))
    .execute();
  await db.schema.alterTable('claim').addColumn('expires', 'bigint').execute();
  await db.schema.alterTable('device').addColumn('owner', 'text').execute();
  await db.schema.createIndex('device_owner').on('device').column('owner').execute();
  await sql`update device set owner =
    (select min(membership.owner) from membership where membership.peer_id = device.peer_id)`.execute(db);
}

/** The epoch is a part of the key, which SQLite cannot change. Of what is there nobody knows the epoch: the newest. */
async function addRevocationEpoch(db: Kysely<unknown>): Promise<void> {
  await db.schema.alterTable('revoked').renameTo('revoked_before').execute();
  await db.schema
    .createTable('revoked')
    .addColumn('owner', 'text', (column) => column.notNull())
    .addColumn('kind', 'text', (column) => column.notNull())
    .addColumn('subject', 'text', (column) => column.notNull())
    .addColumn('epoch', 'integer', (column) => column.notNull())
    .addColumn('iat', 'bigint', (column) => column.notNull())
    .addPrimaryKeyConstraint('revoked_epoch_key', ['owner', 'kind', 'subject', 'epoch'])
    .execute();
  await sql`insert into revoked (owner, kind, subject, epoch, iat)
    select revoked_before.owner, kind, subject, coalesce(owner.epoch, 0), iat
    from revoked_before left join owner on owner.id = revoked_before.owner`.execute(db);
  await db.schema.dropTable('revoked_before').execute();
}
