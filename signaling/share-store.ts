/**
 * Cocoons that their owners let others use. A row is what was proved; whether it stands is asked of revocations,
 * rotations and dates each time, so that nothing has to be taken back.
 */

import type { NewestRecord, Owner } from '@cocoon-mesh/protocol';
import { MeshError, limits } from '@cocoon-mesh/protocol';
import type { Kysely } from 'kysely';
import type { Claim } from './claim-store.ts';
import { assertRedeemer, claimInChain, noteClaim, useToken, voidToken } from './claim-store.ts';
import type { StoredRecord } from './membership-store.ts';
import { isVoid, keepOwner } from './owner-store.ts';
import type { SharedCocoon, StoredShare, VerifiedShare } from './share-rows.ts';
import {
  cocoonFromRow,
  cocoons,
  notVoid,
  rowFromShare,
  shareFromRow,
  shareOf,
  standing,
} from './share-rows.ts';
import type { Db, Tables } from './tables.ts';

export type { SharedCocoon, StoredShare, VerifiedShare } from './share-rows.ts';

export class ShareStore {
  readonly #db: Kysely<Tables>;

  constructor(db: Kysely<Tables>) {
    this.#db = db;
  }

  /**
   * Records the redemption of a token and the share that comes of it.
   * @returns the claim that counts, with the receipt that was given first, and whether the share is new
   * @throws MeshError token_used | token_invalid | and as `save`; then nothing is recorded
   */
  async claim(
    claim: Claim,
    share: VerifiedShare,
    owner: Owner,
    nowSeconds: number,
  ): Promise<{ readonly claim: Claim; readonly isNew: boolean }> {
    return this.#change(async (db) => {
      const first = await useToken(db, claim);
      const newest = await keepOwner(db, owner);
      if (await isVoid(share, newest)) throw voidToken();
      await assertUnused(db, claim);
      return { claim: first, isNew: await saveShare(db, share, newest, nowSeconds) };
    });
  }

  /**
   * Keeps a share when it is newer than the one that is known.
   * @returns whether it is
   * @throws MeshError membership_invalid | membership_expired | revoked | overloaded, and nothing is recorded
   */
  async save(share: VerifiedShare, owner: Owner, nowSeconds: number): Promise<boolean> {
    const claim = await claimInChain({ ...share, scope: 'co-own', redeemer: share.coOwner }, nowSeconds);
    return this.#change(async (db) => {
      const newest = await keepOwner(db, owner);
      if (await isVoid(share, newest))
        throw new MeshError('membership_invalid', 'The share is of an epoch before the last rotation');
      if (claim) assertRedeemer(await noteClaim(db, claim), claim.redeemer);
      return saveShare(db, share, newest, nowSeconds);
    });
  }

  /** Is this very proof known already? Then nothing needs to be verified. */
  async isKnown(share: Pick<VerifiedShare, 'owner' | 'cocoon' | 'coOwner' | 'proof'>): Promise<boolean> {
    const row = await shareOf(this.#db, share);
    return row?.proof === JSON.stringify(share.proof);
  }

  /**
   * Keeps what a cocoon says of itself to a co-owner.
   * @returns whether there is such a share and the record is newer
   */
  async saveRecord(
    { owner, cocoon, coOwner }: Pick<VerifiedShare, 'owner' | 'cocoon' | 'coOwner'>,
    { seq, record }: StoredRecord,
  ): Promise<boolean> {
    const { numUpdatedRows } = await this.#db
      .updateTable('share')
      .set({ seq, record })
      .where('owner', '=', owner)
      .where('cocoon', '=', cocoon)
      .where('co_owner', '=', coOwner)
      .where((where) => where.or([where('seq', 'is', null), where('seq', '<', seq)]))
      .executeTakeFirst();
    return numUpdatedRows > 0n;
  }

  /** Of an owner's cocoons, with whomever; those that stand. */
  async ofOwner(owner: string, nowSeconds: number): Promise<StoredShare[]> {
    const rows = await standing(this.#db, nowSeconds).where('share.owner', '=', owner).execute();
    return (await notVoid(rows)).map(shareFromRow);
  }

  /** Of one cocoon; those that stand. */
  async ofCocoon(owner: string, cocoon: string, nowSeconds: number): Promise<StoredShare[]> {
    const rows = await standing(this.#db, nowSeconds)
      .where('share.owner', '=', owner)
      .where('share.cocoon', '=', cocoon)
      .execute();
    return (await notVoid(rows)).map(shareFromRow);
  }

  /** Cocoons of others that this owner may use. */
  async withCoOwner(coOwner: string, nowSeconds: number): Promise<SharedCocoon[]> {
    const rows = await cocoons(this.#db, coOwner, nowSeconds).execute();
    return (await notVoid(rows)).map(cocoonFromRow);
  }

  /** The same query whether there is such a cocoon or not. */
  async find(coOwner: string, cocoon: string, nowSeconds: number): Promise<SharedCocoon | null> {
    const rows = await cocoons(this.#db, coOwner, nowSeconds).where('share.cocoon', '=', cocoon).execute();
    return (await notVoid(rows)).map(cocoonFromRow)[0] ?? null;
  }

  /** Every owner with whom this one shares or has shared a cocoon, either way: they need its revocations. */
  async partners(owner: string): Promise<{ readonly coOwners: string[]; readonly owners: string[] }> {
    const rows = await this.#db
      .selectFrom('share')
      .select(['owner', 'co_owner'])
      .distinct()
      .where((where) => where.or([where('owner', '=', owner), where('co_owner', '=', owner)]))
      .execute();
    return {
      coOwners: rows.filter((row) => row.owner === owner).map((row) => row.co_owner),
      owners: rows.filter((row) => row.co_owner === owner).map((row) => row.owner),
    };
  }

  #change<T>(work: (db: Db) => Promise<T>): Promise<T> {
    return this.#db.transaction().execute(work);
  }
}

/** A later grant replaces an earlier one; of the same token what the owner signed counts, the last one first. */
export function isNewerShare(known: VerifiedShare, shown: VerifiedShare): boolean {
  if (!known.provisional && !shown.provisional)
    return shown.epoch === known.epoch ? shown.serial > known.serial : shown.epoch > known.epoch;
  if (known.jti !== shown.jti) return shown.granted >= known.granted;
  return known.provisional && !shown.provisional;
}

async function saveShare(
  db: Db,
  share: VerifiedShare,
  newest: NewestRecord,
  nowSeconds: number,
): Promise<boolean> {
  if (share.expires !== null && share.expires <= nowSeconds) throw new MeshError('membership_expired');
  const row = await shareOf(db, share);
  const known = row ? shareFromRow(row) : null;
  if (known && (await counts(db, known, newest, share, nowSeconds))) return false;
  if (!known) await assertRoom(db, share, nowSeconds);
  // What the cocoon says of itself follows from the grant.
  const record = known?.jti === share.jti ? known.record : null;
  const values = rowFromShare({ ...share, record });
  await db
    .insertInto('share')
    .values(values)
    .onConflict((conflict) => conflict.columns(['owner', 'cocoon', 'co_owner']).doUpdateSet(values))
    .execute();
  if (!(await stands(db, share, nowSeconds))) throw new MeshError('revoked');
  return true;
}

/** Does the known one count, rather than the one that is shown? One that has ended is no match for another grant. */
async function counts(
  db: Db,
  known: StoredShare,
  newest: NewestRecord,
  shown: VerifiedShare,
  nowSeconds: number,
): Promise<boolean> {
  if (await isVoid(known, newest)) return false;
  if (known.jti !== shown.jti && !(await stands(db, known, nowSeconds))) return false;
  return !isNewerShare(known, shown);
}

async function stands(db: Db, share: VerifiedShare, nowSeconds: number): Promise<boolean> {
  const row = await standing(db, nowSeconds)
    .where('share.owner', '=', share.owner)
    .where('share.cocoon', '=', share.cocoon)
    .where('share.co_owner', '=', share.coOwner)
    .executeTakeFirst();
  return row !== undefined;
}

/** A share that its owner signed names the token it came from, even if nobody here has seen the token. */
async function assertUnused(db: Db, { owner, jti, redeemer }: Claim): Promise<void> {
  const other = await db
    .selectFrom('share')
    .select('cocoon')
    .where('owner', '=', owner)
    .where('jti', '=', jti)
    .where('co_owner', '!=', redeemer)
    .executeTakeFirst();
  if (other) throw new MeshError('token_used');
}

/** As many as a welcome tells, on either side. */
async function assertRoom(db: Db, { owner, coOwner }: VerifiedShare, nowSeconds: number): Promise<void> {
  for (const [column, id] of [
    ['share.owner', owner],
    ['share.co_owner', coOwner],
  ] as const) {
    const { count } = await standing(db, nowSeconds)
      .where(column, '=', id)
      .clearSelect()
      .select((select) => select.fn.countAll().as('count'))
      .executeTakeFirstOrThrow();
    if (Number(count) >= limits.maxShares) throw new MeshError('overloaded', 'There are too many shares');
  }
}
