/**
 * What the server remembers: owners, devices, memberships, used tokens, shares, revocations, its own keys. Rules
 * that two requests at once could break are kept here, each inside one transaction (transactions take turns, those
 * of other servers on the same database too); everything was verified before.
 */

import type { Owner, Revocation } from '@cocoon-mesh/protocol';
import { MeshError } from '@cocoon-mesh/protocol';
import type { Kysely } from 'kysely';
import type { Claim } from './claim-store.ts';
import { assertRedeemer, claimInChain, claimOf, noteClaim, useToken, voidToken } from './claim-store.ts';
import type { ForgetLimits } from './forgetting.ts';
import { forgetExpired } from './forgetting.ts';
import type { StoredDevice, StoredMembership, StoredRecord } from './membership-store.ts';
import {
  assertRoom,
  counting,
  deviceFromRow,
  devicesQuery,
  isSame,
  membershipOf,
  saveDevice,
  saveMembership,
} from './membership-store.ts';
import { LastSeen } from './last-seen.ts';
import type { StoredOwner } from './owner-store.ts';
import { keepOwner, outdated, ownerOf } from './owner-store.ts';
import type { OwnerNews, RevocableRow, RevocationList } from './revocation-store.ts';
import { addRevocations, assertNotRevoked, isRevoked, newsOf, revocationsOf } from './revocation-store.ts';
import { ShareStore } from './share-store.ts';
import type { Db, Tables } from './tables.ts';

export type { Claim } from './claim-store.ts';
export type { StoredDevice, StoredMembership, StoredRecord } from './membership-store.ts';
export { newerMembership } from './membership-store.ts';
export type { RevocationList } from './revocation-store.ts';

export interface AdmitLimits {
  readonly nowSeconds: number;
  readonly maxDevices: number;
}

export class Store {
  readonly shares: ShareStore;
  readonly #db: Kysely<Tables>;
  readonly #lastSeen: LastSeen;

  constructor(db: Kysely<Tables>) {
    this.#db = db;
    this.#lastSeen = new LastSeen(db);
    this.shares = new ShareStore(db);
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
   * Records the redemption of a token for a device, or finds that the same one was recorded before.
   * @returns the claim that counts, with the receipt that was given first
   * @throws MeshError token_used | token_invalid | revoked | membership_invalid | overloaded, and then nothing is
   * recorded
   */
  async claimToken(claim: Claim, owner: Owner, maxDevices: number): Promise<Claim> {
    return this.#change(async (db) => {
      const { redeemer: peerId, jti } = claim;
      await assertNotRevoked(db, { owner: owner.id, peerId, jti, epoch: owner.epoch });
      const newest = await keepOwner(db, owner);
      if (owner.epoch < newest.epoch && !newest.keeps.includes(claim.grantHash)) throw voidToken();
      if (!(await membershipOf(db, owner.id, claim.redeemer))) await assertRoom(db, owner.id, maxDevices);
      await assertUnused(db, claim);
      return useToken(db, claim);
    });
  }

  /**
   * Takes a device in, or brings what is known of it up to date. Of two memberships the newer one counts,
   * whichever the device shows; of two records the one with the higher `seq`.
   * @returns what counts now
   * @throws MeshError revoked | membership_invalid | membership_expired | overloaded, and nothing is recorded
   */
  async admit(device: StoredDevice, owner: Owner, limits: AdmitLimits): Promise<StoredDevice> {
    const shown = device.membership;
    const claim = await claimInChain({ ...shown, scope: 'enroll', redeemer: shown.peerId }, device.lastSeen);
    return this.#change(async (db) => {
      if (shown.provisional && shown.jti !== null) assertRedeemer(await claimOf(db, shown.jti), shown.peerId);
      if (claim) await noteClaim(db, claim);
      const newest = await keepOwner(db, owner);
      const known = await membershipOf(db, owner.id, shown.peerId);
      if (!known) await assertRoom(db, owner.id, limits.maxDevices);
      const membership = await counting(db, known, shown, newest, limits.nowSeconds);
      await saveMembership(db, membership, known);
      const record = await saveDevice(db, owner.id, shown.peerId, device);
      return { ...record, lastSeen: device.lastSeen, membership };
    });
  }

  /**
   * As `admit`, and the device is not entered.
   * @returns the membership that counts
   * @throws MeshError revoked | membership_invalid | membership_expired
   */
  async judge(shown: StoredMembership, owner: Owner, nowSeconds: number): Promise<StoredMembership> {
    if (shown.provisional && shown.jti !== null)
      assertRedeemer(await claimOf(this.#db, shown.jti), shown.peerId);
    const stored = await ownerOf(this.#db, owner.id);
    const newest =
      stored && stored.epoch >= owner.epoch
        ? await keepOwner(this.#db, owner)
        : await this.#change((db) => keepOwner(db, owner));
    const known = await membershipOf(this.#db, owner.id, shown.peerId);
    return counting(this.#db, known, shown, newest, nowSeconds);
  }

  /**
   * Keeps a membership that its owner signed for a device that need not be here. What it shows of the device is
   * nothing until that signs in for this owner by itself.
   * @returns whether it is newer than the known one
   * @throws MeshError revoked | membership_invalid | overloaded
   */
  async issue(membership: StoredMembership, owner: Owner, limits: AdmitLimits): Promise<boolean> {
    return this.#change(async (db) => {
      const newest = await keepOwner(db, owner);
      const known = await membershipOf(db, owner.id, membership.peerId);
      if (!known) await assertRoom(db, owner.id, limits.maxDevices);
      const counts = await counting(db, known, membership, newest, limits.nowSeconds);
      if (counts !== membership || (known && isSame(known, membership))) return false;
      await saveMembership(db, membership, known);
      return true;
    });
  }

  /** @returns the record that counts */
  async saveRecord(peerId: string, record: StoredRecord, lastSeen: number): Promise<StoredRecord> {
    return this.#change((db) => saveDevice(db, null, peerId, { ...record, lastSeen }));
  }

  async seen(peerId: string, lastSeen: number): Promise<void> {
    await this.#lastSeen.note(peerId, lastSeen);
  }

  /** Every device of the owner that is neither revoked nor past its time. */
  async devices(owner: string, nowSeconds: number): Promise<StoredDevice[]> {
    const rows = await devicesQuery(this.#db, owner).execute();
    const revoked = await this.#db
      .selectFrom('revoked')
      .select(['kind', 'subject', (select) => select.fn.max('epoch').as('epoch')])
      .where('owner', '=', owner)
      .where('kind', 'in', ['device', 'token'])
      .groupBy(['kind', 'subject'])
      .execute();
    const endedIn = new Map(revoked.map(({ kind, subject, epoch }) => [`${kind} ${subject}`, epoch]));
    const hasEnded = (what: string, epoch: number): boolean => (endedIn.get(what) ?? -1) >= epoch;
    return rows
      .map(deviceFromRow)
      .filter(
        ({ membership: { peerId, jti, epoch, expires } }) =>
          !hasEnded(`device ${peerId}`, epoch) &&
          (jti === null || !hasEnded(`token ${jti}`, epoch)) &&
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
    const row = await devicesQuery(this.#db, owner)
      .where('membership.peer_id', '=', peerId)
      .executeTakeFirst();
    const device = row ? deviceFromRow(row) : null;
    const { jti = null, epoch = 0 } = device?.membership ?? {};
    const revoked = await isRevoked(this.#db, { owner, peerId, jti, epoch });
    const expires = device?.membership.expires ?? null;
    return revoked || (expires !== null && expires <= nowSeconds) ? null : device;
  }

  async membership(owner: string, peerId: string): Promise<StoredMembership | null> {
    return membershipOf(this.#db, owner, peerId);
  }

  async owner(id: string): Promise<StoredOwner | null> {
    return ownerOf(this.#db, id);
  }

  /** Keeps the newest epoch of an owner. @throws MeshError membership_invalid for an older one */
  async keepOwner(owner: Owner): Promise<void> {
    const newest = await this.#change((db) => keepOwner(db, owner));
    if (newest.epoch > owner.epoch) throw outdated();
  }

  async isRevoked(right: RevocableRow): Promise<boolean> {
    return isRevoked(this.#db, right);
  }

  async revocations(owner: string): Promise<RevocationList | null> {
    return revocationsOf(this.#db, owner);
  }

  /** What there is to tell of these owners, in this order. */
  async news(owners: readonly string[]): Promise<OwnerNews[]> {
    return newsOf(this.#db, owners);
  }

  /**
   * Keeps a verified list when it goes further than the one that is known.
   * @returns whether it did
   * @throws MeshError overloaded
   */
  async addRevocations(
    owner: string,
    epoch: number,
    list: readonly string[],
    entries: readonly Revocation[],
  ): Promise<boolean> {
    return this.#change((db) => addRevocations(db, owner, { epoch, list }, entries));
  }

  async forgetExpired(nowSeconds: number, limits?: ForgetLimits): Promise<void> {
    await forgetExpired(this.#db, nowSeconds, limits);
  }

  #change<T>(work: (db: Db) => Promise<T>): Promise<T> {
    return this.#db.transaction().execute(work);
  }
}

/** A membership that its owner signed names the token it came from, even if nobody here has seen the token. */
async function assertUnused(db: Db, { owner, jti, redeemer }: Claim): Promise<void> {
  const other = await db
    .selectFrom('membership')
    .select('peer_id')
    .where('owner', '=', owner)
    .where('jti', '=', jti)
    .where('peer_id', '!=', redeemer)
    .executeTakeFirst();
  if (other) throw new MeshError('token_used');
}
