/**
 * Who belongs to whom: verifies what a peer shows, judges it by what the store knows, and redeems setup tokens.
 * The store's transactions have the last word, so nothing is recorded of what is refused.
 */

import type {
  Clock,
  DeviceRecord,
  Grant,
  MembershipProof,
  Owner,
  Redemption,
  Revocation,
  ShareProof,
  SigningKey,
} from '@cocoon-mesh/protocol';
import {
  MeshError,
  assertGrantValidAt,
  assertRightLasts,
  hashObject,
  limits,
  peekGrant,
  shareRecords,
  signReceipt,
  toBase64Url,
  verifyDeviceRecord,
  verifyMembership,
  verifyOwnerRecords,
  verifyRedemption,
  verifyRevocations,
  verifyShare,
} from '@cocoon-mesh/protocol';
import type { SignalingAudit } from './audit.ts';
import { isVoid, outdated } from './owner-store.ts';
import type { VerifiedShare } from './share-store.ts';
import type { Claim, Store, StoredDevice, StoredMembership } from './store.ts';

interface OwnershipOptions {
  readonly store: Store;
  readonly receiptKey: SigningKey;
  readonly clock: Clock;
  readonly maxDevicesPerOwner: number;
  readonly audit: SignalingAudit;
}

/** A device as it counts from now on. */
export interface Admitted {
  readonly device: StoredDevice;
  readonly record: DeviceRecord;
  /** A newer membership than the one it showed. */
  readonly newer: MembershipProof | null;
  /** Its owner was known by an older secret until now. */
  readonly rotated: boolean;
}

/** Who redeems. */
export interface Redeemer {
  readonly peerId: string;
  /** Null for a device key that is nobody's yet. */
  readonly owner: string | null;
}

export interface Redeemed {
  readonly receipt: string;
  /** What came of a co-own token, when it is new. */
  readonly share: VerifiedShare | null;
}

interface Judged {
  readonly membership: StoredMembership;
  readonly owner: Owner;
}

export class Ownership {
  readonly #options: OwnershipOptions;

  constructor(options: OwnershipOptions) {
    this.#options = options;
  }

  get nowSeconds(): number {
    return Math.floor(this.#options.clock.now() / 1000);
  }

  /**
   * @param of the owner it must be of; default: any
   * @throws MeshError membership_invalid | membership_expired | revoked | bad_signature | overloaded | …
   */
  async admit(peerId: string, recordJws: string, proof: MembershipProof, of?: string): Promise<Admitted> {
    const { store } = this.#options;
    const record = await verifyDeviceRecord(recordJws, peerId);
    assertOwnRecord(record);
    const { membership, owner } = await this.#judge(proof, peerId);
    if (of !== undefined && owner.id !== of)
      throw new MeshError('membership_invalid', 'Sign in again to change to another owner');
    const before = owner.epoch > 0 ? await store.owner(owner.id) : null;
    const device = await store.admit(
      { seq: record.seq, record: recordJws, lastSeen: this.nowSeconds, membership },
      owner,
      this.#admitLimits,
    );
    return {
      device,
      // The store may know a newer record than the one that was shown.
      record: device.record === recordJws ? record : await verifyDeviceRecord(device.record, peerId),
      newer: device.membership === membership ? null : device.membership.proof,
      rotated: before !== null && before.epoch < owner.epoch,
    };
  }

  /** For the HTTP routes: as `admit`, and the device is not entered. @returns the membership that counts */
  async check(peerId: string, proof: MembershipProof): Promise<StoredMembership> {
    const { membership, owner } = await this.#judge(proof, peerId);
    return this.#options.store.judge(membership, owner, this.nowSeconds);
  }

  /**
   * Takes a membership that an owner signed for a device of its own.
   * @param from the owner who brings it
   * @returns it, or null when a newer one is known
   * @throws MeshError membership_invalid | membership_expired | revoked | overloaded
   */
  async issue(from: string, peerId: string, proof: MembershipProof): Promise<StoredMembership | null> {
    const { membership, owner } = await this.#judge(proof, peerId);
    if (membership.provisional || owner.id !== from)
      throw new MeshError('membership_invalid', 'An owner signs memberships for its own devices');
    return (await this.#options.store.issue(membership, owner, this.#admitLimits)) ? membership : null;
  }

  /**
   * Redeems a token once, by our own clock. The same redeemer may repeat itself and gets the same receipt, so that
   * a lost answer does not cost the token.
   * @throws MeshError token_invalid | token_wrong_signaling | token_not_yet_valid | token_expired | token_used |
   *   denied | revoked | membership_expired | overloaded; then nothing is recorded
   */
  async redeem(redeemer: Redeemer, redemption: Redemption): Promise<Redeemed> {
    const { store, receiptKey, maxDevicesPerOwner, audit } = this.#options;
    const { owner, grant, grantHash } = await verifyRedemption(redemption);
    if (grant.receipt_key !== toBase64Url(receiptKey.publicKey)) throw new MeshError('token_wrong_signaling');
    assertRedeemer(grant, redeemer, redemption.redeemer, owner.id);
    const now = this.nowSeconds;
    const { jti, scope, exp: expires } = grant;
    const { redeemer: named } = redemption;
    const known = await store.claim(jti);
    // The receipt of somebody else would prove nothing, which says less than this.
    if (known && known.redeemer !== named) throw new MeshError('token_used');
    // A repeated redemption may come late: its first time was in time. Of a right that has ended nothing comes.
    if (!known) assertGrantValidAt(grant, now);
    assertRightLasts(grant, now);
    const receipt = known?.receipt ?? (await signReceipt(receiptKey, { jti, redeemer: named, now }));
    const about = { jti, owner: owner.id, scope, redeemer: named };
    const claim = { ...about, grantHash, receipt, claimedAt: now, expires };
    const redeemed =
      scope === 'co-own'
        ? await this.#redeemShare(claim, owner, redemption)
        : { receipt: (await store.claimToken(claim, owner, maxDevicesPerOwner)).receipt, share: null };
    if (!known) audit.append('token.redeemed', about);
    return redeemed;
  }

  /**
   * Takes a share.
   * @param from the owner who brings it: the one who shares the cocoon, or the one it is shared with
   * @returns it, or null when it or a newer one is known
   * @throws MeshError membership_invalid | membership_expired | revoked | unknown_constraint | overloaded | bad_message
   */
  async share(proof: ShareProof, from: string): Promise<VerifiedShare | null> {
    const { store } = this.#options;
    const { iss: granter, cocoon = '' } = peekGrant(proof.redemption.grant);
    const { redeemer: coOwner } = proof.redemption;
    if (from !== granter && from !== coOwner)
      throw new MeshError('membership_invalid', 'The share is of no concern to its bearer');
    // Every device brings what it has at every sign-in; mostly it is what we have.
    if (await store.shares.isKnown({ owner: granter, cocoon, coOwner, proof })) return null;
    const { share, owner } = await this.#verifyShare(proof);
    return (await store.shares.save(share, owner, this.nowSeconds)) ? share : null;
  }

  /**
   * Keeps an owner's list of revocations when it is genuine and goes further than the known one. A long list may
   * come in pieces, each going on where the known one ends.
   * @returns whether it is news
   * @throws MeshError bad_signature | bad_message | wrong_type | unknown_constraint | overloaded
   */
  async addRevocations(ownerId: string, list: readonly string[]): Promise<boolean> {
    const { store } = this.#options;
    const stored = await store.owner(ownerId);
    if (!stored) return false;
    const owner = await verifyOwnerRecords(stored.records);
    const known = await store.revocations(ownerId);
    const knownList = known?.epoch === owner.epoch ? known.list : [];
    // Every device brings its list at every sign-in; mostly it is ours.
    if (list.every((entry, n) => entry === knownList[n])) return false;
    const isKnown = list.length > knownList.length && knownList.every((entry, n) => entry === list[n]);
    const news = isKnown ? list.slice(knownList.length) : list;
    const { whole, entries } = await verifyList(owner, news, knownList);
    if (whole.length > limits.maxRevocations)
      throw new MeshError('overloaded', 'The owner has too many revocations');
    return store.addRevocations(ownerId, owner.epoch, whole, entries);
  }

  /**
   * Does a membership that was valid still stand?
   * @returns the one that counts: its owner may have signed a newer one since
   * @throws MeshError revoked | membership_invalid | membership_expired
   */
  async standing(membership: StoredMembership): Promise<StoredMembership> {
    const { owner, peerId } = membership;
    const counts = (await this.#options.store.membership(owner, peerId)) ?? membership;
    await this.assertStanding(counts);
    return counts;
  }

  /** @throws MeshError revoked | membership_invalid | membership_expired */
  async assertStanding(membership: {
    readonly owner: string;
    readonly peerId: string;
    readonly epoch: number;
    readonly jti: string | null;
    readonly expires: number | null;
  }): Promise<void> {
    const { store } = this.#options;
    const { owner, peerId, epoch, expires } = membership;
    if (await store.isRevoked(membership)) throw new MeshError('revoked');
    const newest = await store.owner(owner);
    if (newest && newest.epoch > epoch) {
      // It may have been renewed since, or be of a token that the rotation keeps.
      const known = await store.membership(owner, peerId);
      if (!known || (await isVoid(known, newest))) throw outdated();
    }
    if (expires !== null && expires <= this.nowSeconds) throw new MeshError('membership_expired');
  }

  get #admitLimits(): { readonly nowSeconds: number; readonly maxDevices: number } {
    return { nowSeconds: this.nowSeconds, maxDevices: this.#options.maxDevicesPerOwner };
  }

  async #judge(proof: MembershipProof, peerId: string): Promise<Judged> {
    const proven = await verifyMembership(proof, peerId, this.nowSeconds);
    const records = proof.kind === 'membership' ? proof.records : proof.redemption.records;
    const { owner, epoch, serial, provisional, expires, jti } = proven;
    return {
      membership: { owner, peerId, epoch, serial, provisional, expires, jti, proof },
      owner: await verifyOwnerRecords(records),
    };
  }

  async #verifyShare(proof: ShareProof): Promise<{ share: VerifiedShare; owner: Owner }> {
    const proven = await verifyShare(proof, this.nowSeconds);
    const { owner, cocoon, coOwner, epoch, serial, provisional, granted, expires, jti } = proven;
    return {
      share: { owner, cocoon, coOwner, epoch, serial, provisional, granted, expires, jti, proof },
      owner: await verifyOwnerRecords([...shareRecords(proof)]),
    };
  }

  /**
   * Whether the cocoon is the granting owner's, nobody is told here: that would say of any PeerId whether it is
   * known. A share of a foreign cocoon is kept and has no effect.
   */
  async #redeemShare(claim: Claim, owner: Owner, redemption: Redemption): Promise<Redeemed> {
    const { share } = await this.#verifyShare({ kind: 'claim', redemption, receipt: claim.receipt });
    const first = await this.#options.store.shares.claim(claim, share, owner, this.nowSeconds);
    return { receipt: first.claim.receipt, share: first.isNew ? share : null };
  }
}

async function verifyList(
  owner: Owner,
  list: readonly string[],
  known: readonly string[],
): Promise<{ whole: readonly string[]; entries: readonly Revocation[] }> {
  const last = known.at(-1);
  try {
    return { whole: list, entries: await verifyRevocations(list, owner) };
  } catch (thrown) {
    if (last === undefined) throw thrown;
    const after = { n: known.length, hash: toBase64Url(await hashObject(last)) };
    return { whole: [...known, ...list], entries: await verifyRevocations(list, owner, after) };
  }
}

/** @throws MeshError token_invalid | denied */
function assertRedeemer(grant: Grant, by: Redeemer, named: string, owner: string): void {
  if (grant.scope === 'enroll') {
    if (named !== by.peerId)
      throw new MeshError('token_invalid', 'The setup token was redeemed by another device');
    return;
  }
  if (by.owner === null) throw new MeshError('denied', 'Only a device of an owner claims a cocoon for it');
  if (named !== by.owner)
    throw new MeshError('token_invalid', 'The setup token was redeemed by another owner');
  if (named === owner)
    throw new MeshError('token_invalid', 'The cocoon is your own; the setup token is for somebody else');
}

/** One that is written for another owner hides what its own may see. @throws MeshError bad_message */
export function assertOwnRecord({ audience }: DeviceRecord): void {
  if (audience !== undefined)
    throw new MeshError('bad_message', 'The device record is written for somebody else');
}
