/**
 * Devices and the memberships by which they belong to an owner: which of two counts, and the rows. Inside of a
 * transaction of the store.
 */

import type { MembershipProof, NewestRecord } from '@cocoon-mesh/protocol';
import { MeshError } from '@cocoon-mesh/protocol';
import type { Selectable } from 'kysely';
import { isVoid, outdated } from './owner-store.ts';
import { assertNotRevoked } from './revocation-store.ts';
import type { Db, Tables } from './tables.ts';

/** Names and claims what a verified membership says. */
export interface StoredMembership {
  readonly owner: string;
  readonly peerId: string;
  readonly epoch: number;
  readonly serial: number;
  readonly provisional: boolean;
  /** Seconds since 1970. */
  readonly expires: number | null;
  readonly jti: string | null;
  readonly proof: MembershipProof;
}

export interface StoredRecord {
  readonly seq: number;
  readonly record: string;
}

export interface StoredDevice extends StoredRecord {
  readonly lastSeen: number;
  readonly membership: StoredMembership;
}

/**
 * The membership of a device that counts, when both are of the newest epoch. Showing an older one brings back
 * neither a right nor a date that its owner has narrowed since.
 */
export function newerMembership(known: StoredMembership | null, shown: StoredMembership): StoredMembership {
  if (!known || shown.epoch > known.epoch) return shown;
  if (known.provisional) return shown;
  // The chain that the known membership replaced; one of another token is news.
  if (shown.provisional) return shown.jti === known.jti ? known : shown;
  return shown.serial >= known.serial ? shown : known;
}

/** @throws MeshError revoked | membership_invalid | membership_expired */
export async function counting(
  db: Db,
  known: StoredMembership | null,
  shown: StoredMembership,
  newest: NewestRecord,
  nowSeconds: number,
): Promise<StoredMembership> {
  const standing = known && !(await isVoid(known, newest)) ? known : null;
  const counts = (await isVoid(shown, newest)) ? standing : newerMembership(standing, shown);
  if (!counts) throw outdated();
  await assertNotRevoked(db, counts);
  if (counts.expires !== null && counts.expires <= nowSeconds) throw new MeshError('membership_expired');
  return counts;
}

export function isSame(one: StoredMembership, other: StoredMembership): boolean {
  return one.epoch === other.epoch && one.serial === other.serial && one.provisional === other.provisional;
}

export async function assertRoom(db: Db, owner: string, maxDevices: number): Promise<void> {
  const row = await db
    .selectFrom('membership')
    .select((select) => select.fn.countAll().as('count'))
    .where('owner', '=', owner)
    .where('relation', '=', 'member')
    .executeTakeFirstOrThrow();
  if (Number(row.count) >= maxDevices) throw new MeshError('overloaded', 'This owner has too many devices');
}

export async function membershipOf(db: Db, owner: string, peerId: string): Promise<StoredMembership | null> {
  const row = await db
    .selectFrom('membership')
    .selectAll()
    .where('owner', '=', owner)
    .where('peer_id', '=', peerId)
    .where('relation', '=', 'member')
    .executeTakeFirst();
  return row ? membershipFromRow(row) : null;
}

export async function saveMembership(
  db: Db,
  membership: StoredMembership,
  known: StoredMembership | null,
): Promise<void> {
  // Every sign-in comes through here, and a write waits for the disk.
  if (known && isSame(known, membership) && JSON.stringify(known.proof) === JSON.stringify(membership.proof))
    return;
  const { owner, peerId } = membership;
  const row = {
    owner,
    peer_id: peerId,
    relation: 'member',
    epoch: membership.epoch,
    serial: membership.serial,
    provisional: membership.provisional ? 1 : 0,
    expires: membership.expires,
    jti: membership.jti,
    proof: JSON.stringify(membership.proof),
  };
  await db
    .insertInto('membership')
    .values(row)
    .onConflict((conflict) => conflict.columns(['owner', 'peer_id', 'relation']).doUpdateSet(row))
    .execute();
}

/** When a device was last seen is written when it goes; for a server that is killed this must do. */
const staleSeconds = 3600;

/** @param owner the one it has just signed in for; null: as it is */
export async function saveDevice(
  db: Db,
  owner: string | null,
  peerId: string,
  { seq, record, lastSeen }: StoredRecord & { readonly lastSeen: number },
): Promise<StoredRecord> {
  const known = await db.selectFrom('device').selectAll().where('peer_id', '=', peerId).executeTakeFirst();
  const counts = known && known.seq >= seq ? { seq: known.seq, record: known.record } : { seq, record };
  const row = { peer_id: peerId, ...counts, last_seen: lastSeen, owner: owner ?? known?.owner ?? null };
  const isNews = known?.seq !== row.seq || known.record !== row.record || known.owner !== row.owner;
  if (!isNews && lastSeen - known.last_seen < staleSeconds) return counts;
  await db
    .insertInto('device')
    .values(row)
    .onConflict((conflict) => conflict.column('peer_id').doUpdateSet(row))
    .execute();
  // A device is a member of one owner: joining another leaves the first.
  if (row.owner !== null && known && known.owner !== row.owner)
    await db.deleteFrom('membership').where('peer_id', '=', peerId).where('owner', '!=', row.owner).execute();
  return counts;
}

export function devicesQuery(db: Db, owner: string) {
  return db
    .selectFrom('membership')
    .innerJoin('device', (join) =>
      join.onRef('device.peer_id', '=', 'membership.peer_id').onRef('device.owner', '=', 'membership.owner'),
    )
    .selectAll('membership')
    .select(['device.seq', 'device.record', 'device.last_seen'])
    .where('membership.owner', '=', owner)
    .where('membership.relation', '=', 'member');
}

export function deviceFromRow(
  row: Selectable<Tables['membership']> & Pick<Selectable<Tables['device']>, 'seq' | 'record' | 'last_seen'>,
): StoredDevice {
  return {
    seq: row.seq,
    record: row.record,
    lastSeen: row.last_seen,
    membership: membershipFromRow(row),
  };
}

function membershipFromRow(row: Selectable<Tables['membership']>): StoredMembership {
  return {
    owner: row.owner,
    peerId: row.peer_id,
    epoch: row.epoch,
    serial: row.serial,
    provisional: row.provisional === 1,
    expires: row.expires,
    jti: row.jti,
    proof: JSON.parse(row.proof) as MembershipProof,
  };
}
