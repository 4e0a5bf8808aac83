/** The rows of shares: which of them stand, and with which cocoon. Inside of a transaction of the store, or alone. */

import type { MembershipProof, ShareProof } from '@cocoon-mesh/protocol';
import type { Selectable, SqlBool } from 'kysely';
import { sql } from 'kysely';
import type { StoredRecord } from './membership-store.ts';
import { isVoid } from './owner-store.ts';
import type { Db, Tables } from './tables.ts';

/** Names and claims what a verified share says. */
export interface VerifiedShare {
  /** Of the cocoon. */
  readonly owner: string;
  /** PeerId. */
  readonly cocoon: string;
  /** Who may use it. */
  readonly coOwner: string;
  readonly epoch: number;
  readonly serial: number;
  readonly provisional: boolean;
  /** Seconds since 1970. */
  readonly granted: number;
  readonly expires: number | null;
  readonly jti: string;
  readonly proof: ShareProof;
}

export interface StoredShare extends VerifiedShare {
  /** What the cocoon says of itself to the co-owner; until it does, the co-owner does not see it. */
  readonly record: StoredRecord | null;
}

/** A share with the cocoon as its co-owner may see it. */
export interface SharedCocoon {
  readonly share: StoredShare;
  readonly membership: MembershipProof;
  readonly lastSeen: number;
}

/** Neither past its time nor revoked by its owner nor given back by its co-owner. */
export function standing(db: Db, nowSeconds: number) {
  return db
    .selectFrom('share')
    .innerJoin('owner', 'owner.id', 'share.owner')
    .selectAll('share')
    .select(['owner.epoch as newest_epoch', 'owner.keeps as newest_keeps'])
    .where((where) => where.or([where('share.expires', 'is', null), where('share.expires', '>', nowSeconds)]))
    .where(sql<SqlBool>`not ${isRevoked(null)}`);
}

/**
 * By its owner or by its co-owner, as `ends` and `givesBack` of the protocol have it. What the co-owner gave back with
 * the secret that it has replaced since, it says again.
 * @param before seconds since 1970, or null: whenever
 */
export function isRevoked(before: number | null) {
  const inTime = before === null ? sql`` : sql`and revoked.iat < ${before}`;
  return sql<SqlBool>`exists (
    select 1 from revoked where (
      (revoked.owner = share.owner and revoked.epoch >= share.epoch and (
        (revoked.kind = 'token' and revoked.subject = share.jti) or
        (revoked.kind = 'device' and revoked.subject = share.cocoon) or
        (revoked.kind = 'owner' and revoked.subject = share.co_owner and revoked.iat >= share.granted)
      )) or
      (revoked.owner = share.co_owner and
        revoked.epoch >= coalesce((select epoch from owner as giving where giving.id = share.co_owner), 0) and
        revoked.kind = 'share' and revoked.subject = share.cocoon and revoked.iat >= share.granted)
    ) ${inTime}
  )`;
}

/** Only a cocoon's own owner can share it: the one it signed in for. */
export function cocoons(db: Db, coOwner: string, nowSeconds: number) {
  return standing(db, nowSeconds)
    .innerJoin('membership', (join) =>
      join
        .onRef('membership.owner', '=', 'share.owner')
        .onRef('membership.peer_id', '=', 'share.cocoon')
        .on('membership.relation', '=', 'member'),
    )
    .innerJoin('device', (join) =>
      join.onRef('device.peer_id', '=', 'share.cocoon').onRef('device.owner', '=', 'share.owner'),
    )
    .select(['membership.proof as membership_proof', 'device.last_seen'])
    .where('share.co_owner', '=', coOwner)
    .where((where) =>
      where.or([where('membership.expires', 'is', null), where('membership.expires', '>', nowSeconds)]),
    )
    .where(
      sql<SqlBool>`not exists (
        select 1 from revoked
        where revoked.owner = membership.owner and revoked.epoch >= membership.epoch and revoked.kind = 'token' and revoked.subject = membership.jti
      )`,
    );
}

/** Leaves out what a rotation has made void. */
export async function notVoid<
  Row extends Selectable<Tables['share']> & { newest_epoch: number; newest_keeps: string },
>(rows: readonly Row[]): Promise<Row[]> {
  const kept: Row[] = [];
  for (const row of rows) {
    const newest = { epoch: row.newest_epoch, keeps: JSON.parse(row.newest_keeps) as string[] };
    if (!(await isVoid(shareFromRow(row), newest))) kept.push(row);
  }
  return kept;
}

export async function shareOf(
  db: Db,
  { owner, cocoon, coOwner }: Pick<VerifiedShare, 'owner' | 'cocoon' | 'coOwner'>,
): Promise<Selectable<Tables['share']> | undefined> {
  return db
    .selectFrom('share')
    .selectAll()
    .where('owner', '=', owner)
    .where('cocoon', '=', cocoon)
    .where('co_owner', '=', coOwner)
    .executeTakeFirst();
}

export function rowFromShare(share: StoredShare): Selectable<Tables['share']> {
  return {
    owner: share.owner,
    cocoon: share.cocoon,
    co_owner: share.coOwner,
    epoch: share.epoch,
    serial: share.serial,
    provisional: share.provisional ? 1 : 0,
    granted: share.granted,
    expires: share.expires,
    jti: share.jti,
    proof: JSON.stringify(share.proof),
    seq: share.record?.seq ?? null,
    record: share.record?.record ?? null,
  };
}

export function shareFromRow(row: Selectable<Tables['share']>): StoredShare {
  return {
    owner: row.owner,
    cocoon: row.cocoon,
    coOwner: row.co_owner,
    epoch: row.epoch,
    serial: row.serial,
    provisional: row.provisional === 1,
    granted: row.granted,
    expires: row.expires,
    jti: row.jti,
    proof: JSON.parse(row.proof) as ShareProof,
    record: row.seq === null || row.record === null ? null : { seq: row.seq, record: row.record },
  };
}

export function cocoonFromRow(
  row: Selectable<Tables['share']> & { membership_proof: string; last_seen: number },
): SharedCocoon {
  return {
    share: shareFromRow(row),
    membership: JSON.parse(row.membership_proof) as MembershipProof,
    lastSeen: row.last_seen,
  };
}
