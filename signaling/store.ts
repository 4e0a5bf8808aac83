/**
 * What the server remembers: owners, devices, memberships, used tokens, revocations, its own keys. Rules that two
 * requests at once could break are kept here, each inside one transaction; everything was verified before.
 */

import type { MembershipProof, Owner, Revocation } from '@cocoon-mesh/protocol';
import { MeshError, toBase64Url } from '@cocoon-mesh/protocol';
import type { Kysely, Selectable, Transaction } from 'kysely';
import type { Tables } from './tables.ts';

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

export interface Claim {
  readonly jti: string;
  readonly owner: string;
  readonly scope: string;
  readonly grantHash: string;
  readonly redeemer: string;
  readonly receipt: string;
  readonly claimedAt: number;
}

export interface RevocationList {
  /** Of the key that signed it. */
  readonly epoch: number;
  readonly list: readonly string[];
}

type Db = Kysely<Tables> | Transaction<Tables>;

export class Store {
  readonly #db: Kysely<Tables>;

  constructor(db: Kysely<Tables>) {
    this.#db = db;
  }

  async close(): Promise<void> {
    await this.#db.destroy();
  }

  /** The seed for a purpose; the first one ever stored wins. */
  async signingKeySeed(purpose: string, fresh: string): Promise<string> {
    await this.#db
      .insertInto('signing_key')
      .values({ purpose, seed: fresh })
      .onConflict((conflict) => conflict.column('purpose').doNothing())
      .execute();
    const row = await this.#db
      .selectFrom('signing_key')
      .select('seed')
      .where('purpose', '=', purpose)
      .executeTakeFirstOrThrow();
    return row.seed;
  }

  async claim(jti: string): Promise<Claim | null> {
    return claimOf(this.#db, jti);
  }

  /**
   * Records a redemption, or finds that the same one was recorded before.
   *
   * A `jti` counts across all owners, for that is all that a receipt names beside its redeemer.
   * @returns the claim that counts, with the receipt that was given first
   * @throws MeshError token_used | revoked | membership_invalid | overloaded, and then nothing is recorded
   */
  async claimToken(claim: Claim, owner: Owner, maxDevices: number): Promise<Claim> {
    return this.#db.transaction().execute(async (db) => {
      await assertNotRevoked(db, owner.id, claim.redeemer, claim.jti);
      await keepOwner(db, owner);
      await assertRoom(db, owner.id, claim.redeemer, maxDevices);
      await db
        .insertInto('claim')
        .values({
          jti: claim.jti,
          owner: claim.owner,
          scope: claim.scope,
          grant_hash: claim.grantHash,
          redeemer: claim.redeemer,
          receipt: claim.receipt,
          claimed_at: claim.claimedAt,
        })
        .onConflict((conflict) => conflict.column('jti').doNothing())
        .execute();
      const first = await claimOf(db, claim.jti);
      if (first?.redeemer !== claim.redeemer || first.grantHash !== claim.grantHash)
        throw new MeshError('token_used');
      return first;
    });
  }

  /**
   * Takes a device in, or brings what is known of it up to date. Of two memberships the newer one counts,
   * whichever the device shows; of two records the one with the higher `seq`.
   * @returns what counts now
   * @throws MeshError revoked | membership_invalid | membership_expired | overloaded, and nothing is recorded
   */
  async admit(
    device: StoredDevice,
    owner: Owner,
    limits: { readonly nowSeconds: number; readonly maxDevices: number },
  ): Promise<StoredDevice> {
    const { peerId } = device.membership;
    return this.#db.transaction().execute(async (db) => {
      await assertFirstRedeemer(db, device.membership);
      await keepOwner(db, owner);
      const known = await deviceOf(db, owner.id, peerId);
      await assertRoom(db, owner.id, peerId, limits.maxDevices);
      const membership = newerMembership(known?.membership ?? null, device.membership);
      await assertNotRevoked(db, owner.id, peerId, membership.jti);
      if (membership.expires !== null && membership.expires <= limits.nowSeconds)
        throw new MeshError('membership_expired');
      await saveMembership(db, membership);
      const record = await saveRecord(db, peerId, device, device.lastSeen);
      return { ...record, lastSeen: device.lastSeen, membership };
    });
  }

  /** @returns the record that counts */
  async saveRecord(peerId: string, record: StoredRecord, lastSeen: number): Promise<StoredRecord> {
    return this.#db.transaction().execute((db) => saveRecord(db, peerId, record, lastSeen));
  }

  async seen(peerIds: readonly string[], lastSeen: number): Promise<void> {
    if (peerIds.length === 0) return;
    await this.#db
      .updateTable('device')
      .set({ last_seen: lastSeen })
      .where('peer_id', 'in', peerIds)
      .execute();
  }

  /** Every device of the owner that is neither revoked nor past its time. */
  async devices(owner: string, nowSeconds: number): Promise<StoredDevice[]> {
    const rows = await devicesQuery(this.#db, owner).execute();
    const revoked = await this.#db
      .selectFrom('revoked')
      .select(['kind', 'subject'])
      .where('owner', '=', owner)
      .execute();
    const ended = new Set(revoked.map(({ kind, subject }) => `${kind} ${subject}`));
    return rows
      .map(deviceFromRow)
      .filter(
        ({ membership: { peerId, jti, expires } }) =>
          !ended.has(`device ${peerId}`) &&
          (jti === null || !ended.has(`token ${jti}`)) &&
          (expires === null || expires > nowSeconds),
      );
  }

  /** Was it ever let in? */
  async knowsDevice(peerId: string): Promise<boolean> {
    const row = await this.#db
      .selectFrom('device')
      .select('peer_id')
      .where('peer_id', '=', peerId)
      .executeTakeFirst();
    return row !== undefined;
  }

  /** The same query whether the device is unknown or of another owner, so that both take the same time. */
  async device(owner: string, peerId: string, nowSeconds: number): Promise<StoredDevice | null> {
    const device = await deviceOf(this.#db, owner, peerId);
    const revoked = await isRevoked(this.#db, owner, peerId, device?.membership.jti ?? null);
    const expires = device?.membership.expires ?? null;
    return revoked || (expires !== null && expires <= nowSeconds) ? null : device;
  }

  async owner(id: string): Promise<{ epoch: number; publicKey: string; records: string[] } | null> {
    return ownerOf(this.#db, id);
  }

  /** Keeps the newest epoch of an owner. @throws MeshError membership_invalid for an older one */
  async keepOwner(owner: Owner): Promise<void> {
    await this.#db.transaction().execute((db) => keepOwner(db, owner));
  }

  /** @throws MeshError membership_invalid unless `claim` chains are of the first redeemer */
  async assertFirstRedeemer(membership: StoredMembership): Promise<void> {
    await assertFirstRedeemer(this.#db, membership);
  }

  async isRevoked(owner: string, peerId: string, jti: string | null): Promise<boolean> {
    return isRevoked(this.#db, owner, peerId, jti);
  }

  async revocations(owner: string): Promise<RevocationList | null> {
    return revocationsOf(this.#db, owner);
  }

  /**
   * Keeps a verified list when it goes further than the one that is known.
   * @returns whether it did
   */
  async addRevocations(
    owner: string,
    epoch: number,
    list: readonly string[],
    entries: readonly Revocation[],
  ): Promise<boolean> {
    return this.#db.transaction().execute(async (db) => {
      for (const { kind, subject } of entries)
        await db
          .insertInto('revoked')
          .values({ owner, kind, subject })
          .onConflict((conflict) => conflict.columns(['owner', 'kind', 'subject']).doNothing())
          .execute();
      const known = await revocationsOf(db, owner);
      // A new epoch starts its list anew, for it is signed by a new key.
      const further = known?.epoch === epoch ? list.length > known.list.length : epoch > (known?.epoch ?? -1);
      if (!further) return false;
      const row = { owner, epoch, entries: JSON.stringify(list) };
      await db
        .insertInto('revocation_list')
        .values(row)
        .onConflict((conflict) => conflict.column('owner').doUpdateSet(row))
        .execute();
      return true;
    });
  }

  /** Memberships past their time and devices without any: nobody asks for them again. */
  async forgetExpired(nowSeconds: number): Promise<void> {
    await this.#db.transaction().execute(async (db) => {
      await db.deleteFrom('membership').where('expires', '<=', nowSeconds).execute();
      await db
        .deleteFrom('device')
        .where('peer_id', 'not in', db.selectFrom('membership').select('peer_id'))
        .execute();
    });
  }
}

/**
 * The membership of a device that counts. Showing an older one brings back neither a right nor a date that its
 * owner has narrowed since.
 */
export function newerMembership(known: StoredMembership | null, shown: StoredMembership): StoredMembership {
  if (!known || shown.epoch > known.epoch) return shown;
  if (known.provisional) return shown;
  // The chain that the known membership replaced; one of another token is news.
  if (shown.provisional) return shown.jti === known.jti ? known : shown;
  return shown.serial >= known.serial ? shown : known;
}

async function claimOf(db: Db, jti: string): Promise<Claim | null> {
  const row = await db.selectFrom('claim').selectAll().where('jti', '=', jti).executeTakeFirst();
  if (!row) return null;
  return {
    jti: row.jti,
    owner: row.owner,
    scope: row.scope,
    grantHash: row.grant_hash,
    redeemer: row.redeemer,
    receipt: row.receipt,
    claimedAt: row.claimed_at,
  };
}

async function assertFirstRedeemer(db: Db, { provisional, jti, peerId }: StoredMembership): Promise<void> {
  if (!provisional || jti === null) return;
  const claim = await claimOf(db, jti);
  if (claim && claim.redeemer !== peerId)
    throw new MeshError('membership_invalid', 'The setup token was redeemed by another device first');
}

async function ownerOf(
  db: Db,
  id: string,
): Promise<{ epoch: number; publicKey: string; records: string[] } | null> {
  const row = await db.selectFrom('owner').selectAll().where('id', '=', id).executeTakeFirst();
  if (!row) return null;
  return { epoch: row.epoch, publicKey: row.public_key, records: JSON.parse(row.records) as string[] };
}

async function keepOwner(db: Db, owner: Owner): Promise<void> {
  const publicKey = toBase64Url(owner.publicKey);
  const known = await ownerOf(db, owner.id);
  if (known && known.epoch === owner.epoch && known.publicKey === publicKey) return;
  if (known && known.epoch >= owner.epoch)
    throw new MeshError('membership_invalid', 'The owner has a newer secret; ask for a new membership');
  const row = {
    id: owner.id,
    epoch: owner.epoch,
    public_key: publicKey,
    records: JSON.stringify(owner.records),
  };
  await db
    .insertInto('owner')
    .values(row)
    .onConflict((conflict) => conflict.column('id').doUpdateSet(row))
    .execute();
}

async function isRevoked(db: Db, owner: string, peerId: string, jti: string | null): Promise<boolean> {
  const rows = await db
    .selectFrom('revoked')
    .select('kind')
    .where('owner', '=', owner)
    .where((where) =>
      where.or([
        where.and([where('kind', '=', 'device'), where('subject', '=', peerId)]),
        where.and([where('kind', '=', 'token'), where('subject', '=', jti ?? '')]),
      ]),
    )
    .execute();
  return rows.length > 0;
}

async function assertNotRevoked(db: Db, owner: string, peerId: string, jti: string | null): Promise<void> {
  if (await isRevoked(db, owner, peerId, jti)) throw new MeshError('revoked');
}

async function assertRoom(db: Db, owner: string, peerId: string, maxDevices: number): Promise<void> {
  if (await deviceOf(db, owner, peerId)) return;
  const row = await db
    .selectFrom('membership')
    .select((select) => select.fn.countAll().as('count'))
    .where('owner', '=', owner)
    .where('relation', '=', 'member')
    .executeTakeFirstOrThrow();
  if (Number(row.count) >= maxDevices) throw new MeshError('overloaded', 'This owner has too many devices');
}

async function revocationsOf(db: Db, owner: string): Promise<RevocationList | null> {
  const row = await db
    .selectFrom('revocation_list')
    .select(['epoch', 'entries'])
    .where('owner', '=', owner)
    .executeTakeFirst();
  return row ? { epoch: row.epoch, list: JSON.parse(row.entries) as string[] } : null;
}

async function saveMembership(db: Db, membership: StoredMembership): Promise<void> {
  const { owner, peerId } = membership;
  // A device is a member of one owner: joining another leaves the first.
  await db
    .deleteFrom('membership')
    .where('peer_id', '=', peerId)
    .where('relation', '=', 'member')
    .where('owner', '!=', owner)
    .execute();
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

async function saveRecord(
  db: Db,
  peerId: string,
  { seq, record }: StoredRecord,
  lastSeen: number,
): Promise<StoredRecord> {
  const known = await db.selectFrom('device').selectAll().where('peer_id', '=', peerId).executeTakeFirst();
  const counts = known && known.seq >= seq ? { seq: known.seq, record: known.record } : { seq, record };
  const row = { peer_id: peerId, ...counts, last_seen: lastSeen };
  await db
    .insertInto('device')
    .values(row)
    .onConflict((conflict) => conflict.column('peer_id').doUpdateSet(row))
    .execute();
  return counts;
}

function devicesQuery(db: Db, owner: string) {
  return db
    .selectFrom('membership')
    .innerJoin('device', 'device.peer_id', 'membership.peer_id')
    .selectAll('membership')
    .select(['device.seq', 'device.record', 'device.last_seen'])
    .where('membership.owner', '=', owner)
    .where('membership.relation', '=', 'member');
}

async function deviceOf(db: Db, owner: string, peerId: string): Promise<StoredDevice | null> {
  const row = await devicesQuery(db, owner).where('membership.peer_id', '=', peerId).executeTakeFirst();
  return row ? deviceFromRow(row) : null;
}

function deviceFromRow(
  row: Selectable<Tables['membership']> & Omit<Selectable<Tables['device']>, 'peer_id'>,
): StoredDevice {
  return {
    seq: row.seq,
    record: row.record,
    lastSeen: row.last_seen,
    membership: {
      owner: row.owner,
      peerId: row.peer_id,
      epoch: row.epoch,
      serial: row.serial,
      provisional: row.provisional === 1,
      expires: row.expires,
      jti: row.jti,
      proof: JSON.parse(row.proof) as MembershipProof,
    },
  };
}
