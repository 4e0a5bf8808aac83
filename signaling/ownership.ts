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
  SigningKey,
} from '@cocoon-mesh/protocol';
import {
  MeshError,
  assertGrantValidAt,
  hashObject,
  limits,
  signReceipt,
  toBase64Url,
  verifyDeviceRecord,
  verifyMembership,
  verifyOwnerRecords,
  verifyRedemption,
  verifyRevocations,
} from '@cocoon-mesh/protocol';
import type { SignalingAudit } from './audit.ts';
import type { Store, StoredDevice, StoredMembership } from './store.ts';

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

  /** @throws MeshError membership_invalid | membership_expired | revoked | bad_signature | overloaded | … */
  async admit(peerId: string, recordJws: string, proof: MembershipProof): Promise<Admitted> {
    const { store, maxDevicesPerOwner } = this.#options;
    const nowSeconds = this.nowSeconds;
    const record = await verifyDeviceRecord(recordJws, peerId);
    const { membership, owner } = await this.#judge(proof, peerId);
    const device = await store.admit(
      { seq: record.seq, record: recordJws, lastSeen: nowSeconds, membership },
      owner,
      { nowSeconds, maxDevices: maxDevicesPerOwner },
    );
    // The store may know a newer record than the one that was shown.
    return {
      device,
      record: device.record === recordJws ? record : await verifyDeviceRecord(device.record, peerId),
    };
  }

  /** For the HTTP routes: as `admit`, and the device is not entered. */
  async check(peerId: string, proof: MembershipProof): Promise<StoredMembership> {
    const { store } = this.#options;
    const { membership, owner } = await this.#judge(proof, peerId);
    await store.assertFirstRedeemer(membership);
    if (await store.isRevoked(membership.owner, peerId, membership.jti)) throw new MeshError('revoked');
    await store.keepOwner(owner);
    return membership;
  }

  /**
   * Redeems a token once, by our own clock. The same redeemer may repeat itself and gets the same receipt, so that
   * a lost answer does not cost the token.
   * @returns the receipt
   * @throws MeshError token_invalid | token_wrong_signaling | token_not_yet_valid | token_expired | token_used |
   *   revoked | unsupported; then nothing is recorded
   */
  async redeem(peerId: string, redemption: Redemption): Promise<string> {
    const { store, receiptKey, maxDevicesPerOwner, audit } = this.#options;
    const { owner, grant } = await verifyRedemption(redemption);
    if (grant.receipt_key !== toBase64Url(receiptKey.publicKey)) throw new MeshError('token_wrong_signaling');
    if (grant.scope !== 'enroll')
      throw new MeshError('unsupported', 'Tokens for co-owners are not supported yet');
    if (redemption.redeemer !== peerId)
      throw new MeshError('token_invalid', 'The setup token was redeemed by another device');
    const now = this.nowSeconds;
    const known = await store.claim(grant.jti);
    // A repeated redemption may come late: its first time was in time.
    if (!known) assertInTime(grant, now);
    const claim = await store.claimToken(
      {
        jti: grant.jti,
        owner: owner.id,
        scope: grant.scope,
        grantHash: toBase64Url(await hashObject(redemption.grant)),
        redeemer: peerId,
        receipt: known?.receipt ?? (await signReceipt(receiptKey, { jti: grant.jti, redeemer: peerId, now })),
        claimedAt: now,
      },
      owner,
      maxDevicesPerOwner,
    );
    const { jti, scope } = grant;
    if (!known)
      audit.append('token.redeemed', { redeemer: redemption.redeemer, owner: owner.id, jti, scope });
    return claim.receipt;
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
    const { whole, entries } = await verifyList(owner, list, knownList);
    if (whole.length > limits.maxRevocations)
      throw new MeshError('overloaded', 'The owner has too many revocations');
    return store.addRevocations(ownerId, owner.epoch, whole, entries);
  }

  /** Does a membership that was valid still stand? @throws MeshError revoked | membership_invalid | membership_expired */
  async assertStanding(membership: {
    readonly owner: string;
    readonly peerId: string;
    readonly epoch: number;
    readonly jti: string | null;
    readonly expires: number | null;
  }): Promise<void> {
    const { store } = this.#options;
    const { owner, peerId, epoch, jti, expires } = membership;
    if (await store.isRevoked(owner, peerId, jti)) throw new MeshError('revoked');
    const known = await store.owner(owner);
    if (known && known.epoch > epoch)
      throw new MeshError('membership_invalid', 'The owner has a newer secret; ask for a new membership');
    if (expires !== null && expires <= this.nowSeconds) throw new MeshError('membership_expired');
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

function assertInTime(grant: Grant, now: number): void {
  assertGrantValidAt(grant, now);
  if (grant.until !== undefined && grant.until <= now)
    throw new MeshError('token_expired', 'The right that the setup token gives has ended');
}
