/**
 * A share: one cocoon that its owner lets another owner use, wholly or narrowed. Like a membership it is at first
 * the chain of a redeemed token (scope `co-own`) and then signed by the owner; the cocoon itself verifies it, and
 * so does every peer of the other owner. It gives nothing to be passed on.
 *
 * The redemption stays in it for good: it holds the other owner's own signature, without which anybody could attach
 * a cocoon to an owner that never asked for it.
 */

import * as z from 'zod/mini';
import { MeshError } from './errors.ts';
import { jwsField, key32Field, ownerIdField, peerIdField, signedFields, timeField } from './fields.ts';
import type { Redemption } from './grant.ts';
import { assertNotAhead, redemptionSchema, verifyReceipt, verifyRedemption } from './grant.ts';
import { limits } from './limits.ts';
import type { NewestRecord } from './membership.ts';
import { earlier, isOutdated } from './membership.ts';
import type { OwnerKeys } from './owner.ts';
import { ownerRecordsField, verifyOwnerRecords } from './owner.ts';
import type { Rights } from './rights.ts';
import { coOwnerRights, commonRights, rightsSchema } from './rights.ts';
import { signObject, verifyObject } from './signed-object.ts';

const shareSchema = z.strictObject({
  ...signedFields,
  /** The owner of the cocoon. */
  iss: ownerIdField,
  epoch: z.int().check(z.nonnegative()),
  /** Rises with each share of this cocoon with this owner; the highest one counts. */
  serial: z.int().check(z.nonnegative()),
  cocoon: peerIdField,
  /** The owner who may use it. */
  sub: ownerIdField,
  rights: rightsSchema,
  iat: timeField,
  /** When the owner said yes: the date of the grant. */
  granted: timeField,
  /** The end of the right; absent: until revoked. */
  until: z.optional(timeField),
  /** The token it came from; revoking the token ends it. */
  jti: key32Field,
});
type Share = z.infer<typeof shareSchema>;

export const shareProofSchema = z.discriminatedUnion('kind', [
  z.object({
    kind: z.literal('share'),
    records: ownerRecordsField,
    share: jwsField,
    redemption: redemptionSchema,
  }),
  z.object({ kind: z.literal('claim'), redemption: redemptionSchema, receipt: jwsField }),
]);
export type ShareProof = z.infer<typeof shareProofSchema>;

/** What a verified share says. */
export interface ProvenShare {
  /** The owner of the cocoon, whose revocations count. */
  readonly owner: string;
  readonly epoch: number;
  /** PeerId of the cocoon. */
  readonly cocoon: string;
  /** The owner who may use it. */
  readonly coOwner: string;
  /** Never more than `coOwnerRights`, whatever was signed. */
  readonly rights: Rights;
  /** When the owner said yes, seconds since 1970. */
  readonly granted: number;
  /** Seconds since 1970, or null when it does not end by itself. */
  readonly expires: number | null;
  /** Which no renewal passes; null: no such end. */
  readonly until: number | null;
  /** The token behind it. */
  readonly jti: string;
  /** SHA-256 of the grant for a claim, which a rotation may keep; null for what the owner signed directly. */
  readonly grantHash: string | null;
  readonly serial: number;
  /** True for a chain that no device with the owner's secret has confirmed yet. */
  readonly provisional: boolean;
  /** The co-owner's own signature. */
  readonly redemption: Redemption;
}

/**
 * Puts an owner's signature in the place of a claimed chain, or of a share of the epoch before.
 * @param claimed as it was verified
 * @param serial above that of any earlier one
 * @throws MeshError membership_invalid when the cocoon is another owner's
 */
export async function signShare(
  owner: OwnerKeys,
  claimed: ProvenShare,
  serial: number,
  now: number,
): Promise<ShareProof> {
  const { cocoon, coOwner, rights, granted, until, jti, redemption } = claimed;
  if (claimed.owner !== owner.id)
    throw new MeshError('membership_invalid', 'The cocoon to be shared belongs to another owner');
  const share = await signObject(
    'share',
    shareSchema,
    {
      v: 1,
      crit: [],
      iss: owner.id,
      epoch: owner.epoch,
      serial,
      cocoon,
      sub: coOwner,
      rights,
      iat: now,
      granted,
      ...(until === null ? {} : { until }),
      jti,
    },
    owner.key,
  );
  return { kind: 'share', records: owner.records, share, redemption };
}

/**
 * Whether it is this cocoon's and this co-owner's, the caller compares, with what their own memberships say.
 * @param now seconds since 1970; null for one that was judged before and may have ended since
 * @param newest the newest record of the cocoon's owner that was ever seen
 * @throws MeshError membership_invalid | membership_expired | unknown_constraint
 */
export async function verifyShare(
  proof: ShareProof,
  now: number | null,
  newest: NewestRecord | null = null,
): Promise<ProvenShare> {
  const proven = await verifyChain(proof, now);
  if (isOutdated(proven, newest))
    throw new MeshError('membership_invalid', 'The share is of an epoch before the last rotation');
  if (proven.coOwner === proven.owner)
    throw new MeshError('membership_invalid', 'A cocoon is not shared with its own owner');
  // A removal ends what was given until then: nothing is given later than that.
  if (now !== null) assertNotAhead(proven.granted, now);
  if (now !== null && proven.expires !== null && proven.expires <= now)
    throw new MeshError('membership_expired');
  return proven;
}

/** The records of the owner whose cocoon it is. */
export function shareRecords(proof: ShareProof): readonly string[] {
  return proof.kind === 'share' ? proof.records : proof.redemption.records;
}

async function verifyChain(proof: ShareProof, now: number | null): Promise<ProvenShare> {
  try {
    return proof.kind === 'share' ? await verifySigned(proof) : await verifyClaim(proof, now);
  } catch (cause) {
    if (cause instanceof MeshError && cause.code === 'unknown_constraint') throw cause;
    throw new MeshError('membership_invalid', undefined, { cause });
  }
}

async function verifySigned(proof: ShareProof & { kind: 'share' }): Promise<ProvenShare> {
  const owner = await verifyOwnerRecords(proof.records);
  const share = await verifyObject('share', shareSchema, proof.share, owner.publicKey);
  if (share.iss !== owner.id || share.epoch !== owner.epoch)
    throw new MeshError('membership_invalid', 'The share is of another owner or epoch');
  await assertAccepted(proof.redemption, share);
  return {
    owner: owner.id,
    epoch: owner.epoch,
    cocoon: share.cocoon,
    coOwner: share.sub,
    rights: commonRights(share.rights, coOwnerRights),
    granted: share.granted,
    expires: share.until ?? null,
    until: share.until ?? null,
    jti: share.jti,
    grantHash: null,
    serial: share.serial,
    provisional: false,
    redemption: proof.redemption,
  };
}

/**
 * The grant may be of an earlier epoch of the same owner; what it allows is the share's to say. That it names a cocoon
 * says that it is a co-own token.
 */
async function assertAccepted(redemption: Redemption, share: Share): Promise<void> {
  const { owner, grant } = await verifyRedemption(redemption);
  const same =
    owner.id === share.iss &&
    grant.cocoon === share.cocoon &&
    grant.jti === share.jti &&
    redemption.redeemer === share.sub;
  if (!same) throw new MeshError('membership_invalid', 'The co-owner did not accept this share');
}

async function verifyClaim(proof: ShareProof & { kind: 'claim' }, now: number | null): Promise<ProvenShare> {
  const { redemption } = proof;
  const { owner, grant, grantHash } = await verifyRedemption(redemption);
  if (grant.scope !== 'co-own' || grant.cocoon === undefined)
    throw new MeshError('membership_invalid', 'Only a cocoon that was granted is shared');
  const receipt = await verifyReceipt(proof.receipt, grant, redemption.redeemer);
  if (now !== null) assertNotAhead(receipt.iat, now);
  return {
    owner: owner.id,
    epoch: owner.epoch,
    cocoon: grant.cocoon,
    coOwner: redemption.redeemer,
    rights: commonRights(grant.rights, coOwnerRights),
    granted: grant.iat,
    expires: earlier(receipt.iat + limits.provisionalMs / 1000, grant.until),
    until: grant.until ?? null,
    jti: grant.jti,
    grantHash,
    serial: 0,
    provisional: true,
    redemption,
  };
}
