/**
 * The proof that a peer belongs to an owner: either a membership signed by the owner, or, for the first days,
 * the chain of a redeemed token. Whoever meets a peer verifies this by itself; nobody's word is needed.
 */

import * as z from 'zod/mini';
import { fromBase64Url } from './bytes.ts';
import { MeshError } from './errors.ts';
import type { DeviceKind } from './fields.ts';
import {
  deviceKind,
  jwsField,
  key32Field,
  nonceField,
  ownerIdField,
  peerIdField,
  signedFields,
  timeField,
} from './fields.ts';
import { assertNotAhead, redemptionSchema, verifyReceipt, verifyRedemption } from './grant.ts';
import { limits } from './limits.ts';
import type { OwnerKeys } from './owner.ts';
import { ownerRecordsField, verifyOwnerRecords } from './owner.ts';
import type { Rights } from './rights.ts';
import { rightsSchema } from './rights.ts';
import { peekObject, signObject, verifyObject } from './signed-object.ts';

export const membershipSchema = z.strictObject({
  ...signedFields,
  iss: ownerIdField,
  epoch: z.int().check(z.nonnegative()),
  /** Rises with each membership an owner signs for this device; the highest one counts. */
  serial: z.int().check(z.nonnegative()),
  /** The device. */
  sub: peerIdField,
  /** What the device is; it does not decide that by itself, and its record says the same. Absent: not known yet. */
  kind: z.optional(deviceKind),
  rights: rightsSchema,
  iat: timeField,
  /** When the owner said yes: the date of the grant, kept when the membership is signed again. */
  granted: timeField,
  /** Absent: until revoked. */
  exp: z.optional(timeField),
  /** The end of the right itself, which no renewal passes. */
  until: z.optional(timeField),
  /** The token it came from, if any; revoking the token ends it. */
  jti: z.optional(nonceField),
  /** SHA-256 of the LAN discovery key, which travels beside the membership and never in it. */
  discovery_key_hash: key32Field,
});
export type Membership = z.infer<typeof membershipSchema>;

/** What a peer shows in HELLO and at sign-in. */
export const membershipProofSchema = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('membership'), records: ownerRecordsField, membership: jwsField }),
  z.object({ kind: z.literal('claim'), redemption: redemptionSchema, receipt: jwsField }),
]);
export type MembershipProof = z.infer<typeof membershipProofSchema>;

/** What a verified proof says. */
export interface ProvenMembership {
  readonly owner: string;
  readonly epoch: number;
  readonly peerId: string;
  /** Absent where the owner has not said it. */
  readonly kind?: DeviceKind;
  readonly rights: Rights;
  /** When the owner said yes, seconds since 1970. */
  readonly granted: number;
  /** Seconds since 1970, or null when it does not end by itself. */
  readonly expires: number | null;
  /** Which no renewal passes; null: no such end. */
  readonly until: number | null;
  /** The token behind it, or null. */
  readonly jti: string | null;
  /** SHA-256 of the grant for a claim, which a rotation may keep; null for what the owner signed directly. */
  readonly grantHash: string | null;
  readonly serial: number;
  /** True for a chain that no owner device has confirmed yet. */
  readonly provisional: boolean;
}

export interface MembershipTerms {
  readonly peerId: string;
  readonly serial: number;
  readonly kind?: DeviceKind;
  readonly rights: Rights;
  readonly now: number;
  /** Default: now. */
  readonly granted?: number;
  readonly expires?: number;
  readonly until?: number;
  readonly jti?: string;
}

/** Only a holder of the secret can sign one. */
export async function signMembership(owner: OwnerKeys, terms: MembershipTerms): Promise<MembershipProof> {
  const { discoveryKeyHash } = await verifyOwnerRecords(owner.records);
  const membership = await signObject(
    'membership',
    membershipSchema,
    {
      v: 1,
      crit: [],
      iss: owner.id,
      epoch: owner.epoch,
      serial: terms.serial,
      sub: terms.peerId,
      ...(terms.kind === undefined ? {} : { kind: terms.kind }),
      rights: terms.rights,
      iat: terms.now,
      granted: terms.granted ?? terms.now,
      ...(terms.expires === undefined ? {} : { exp: terms.expires }),
      ...(terms.until === undefined ? {} : { until: terms.until }),
      ...(terms.jti === undefined ? {} : { jti: terms.jti }),
      discovery_key_hash: discoveryKeyHash,
    },
    owner.key,
  );
  return { kind: 'membership', records: owner.records, membership };
}

/**
 * @param peerId the proven peer that shows it
 * @param now seconds since 1970; null for one that was judged before and may have ended since
 * @param newest the newest record of its owner that was ever seen: what a lost secret signed is void
 * @throws MeshError membership_invalid | membership_expired | unknown_constraint
 */
export async function verifyMembership(
  proof: MembershipProof,
  peerId: string,
  now: number | null,
  newest: NewestRecord | null = null,
): Promise<ProvenMembership> {
  const proven = await verifyChain(proof, now);
  if (isOutdated(proven, newest))
    throw new MeshError('membership_invalid', 'The membership is of an epoch before the last rotation');
  if (proven.peerId !== peerId)
    throw new MeshError('membership_invalid', 'The membership belongs to another device');
  if (now !== null && proven.expires !== null && proven.expires <= now)
    throw new MeshError('membership_expired');
  return proven;
}

/** What a rotation leaves: everything of its own epoch, and the grants it names. An `Owner` is one. */
export interface NewestRecord {
  readonly epoch: number;
  /** SHA-256 of grants. */
  readonly keeps: readonly string[];
}

/**
 * Was it signed before the last rotation? A grant that the rotation keeps, and what claims it, still stands.
 * @param proven a proof, or a redemption that signaling is to give a receipt for
 */
export function isOutdated(
  proven: { readonly epoch: number; readonly grantHash: string | null },
  newest: NewestRecord | null,
): boolean {
  if (!newest || proven.epoch >= newest.epoch) return false;
  return proven.grantHash === null || !newest.keeps.includes(proven.grantHash);
}

async function verifyChain(proof: MembershipProof, now: number | null): Promise<ProvenMembership> {
  try {
    return proof.kind === 'membership' ? await verifySigned(proof) : await verifyClaim(proof, now);
  } catch (cause) {
    if (cause instanceof MeshError && cause.code === 'unknown_constraint') throw cause;
    throw new MeshError('membership_invalid', undefined, { cause });
  }
}

async function verifySigned(proof: MembershipProof & { kind: 'membership' }): Promise<ProvenMembership> {
  const owner = await verifyOwnerRecords(proof.records);
  const membership = await verifyObject('membership', membershipSchema, proof.membership, owner.publicKey);
  if (membership.iss !== owner.id || membership.epoch !== owner.epoch)
    throw new MeshError('membership_invalid', 'The membership is of another owner or epoch');
  return {
    owner: owner.id,
    epoch: owner.epoch,
    peerId: membership.sub,
    ...(membership.kind === undefined ? {} : { kind: membership.kind }),
    rights: membership.rights,
    granted: membership.granted,
    expires: earlier(membership.exp, membership.until),
    until: membership.until ?? null,
    jti: membership.jti ?? null,
    grantHash: null,
    serial: membership.serial,
    provisional: false,
  };
}

async function verifyClaim(
  proof: MembershipProof & { kind: 'claim' },
  now: number | null,
): Promise<ProvenMembership> {
  const { owner, grant, grantHash } = await verifyRedemption(proof.redemption);
  if (grant.scope !== 'enroll')
    throw new MeshError('membership_invalid', 'Only an enrolled device is a member');
  const receipt = await verifyReceipt(proof.receipt, grant, proof.redemption.redeemer);
  if (now !== null) assertNotAhead(Math.max(grant.iat, receipt.iat), now);
  return {
    owner: owner.id,
    epoch: owner.epoch,
    peerId: proof.redemption.redeemer,
    rights: grant.rights,
    granted: grant.iat,
    expires: earlier(receipt.iat + limits.provisionalMs / 1000, grant.until),
    until: grant.until ?? null,
    jti: grant.jti,
    grantHash,
    serial: 0,
    provisional: true,
  };
}

/** The end of what ends at either of two times; null when it has none. */
export function earlier(one: number | undefined, other: number | undefined): number | null {
  const end = Math.min(one ?? Infinity, other ?? Infinity);
  return end === Infinity ? null : end;
}

/** Reads a membership whose signature was checked before. */
export function peekMembership(membershipJws: string): Membership {
  return peekObject('membership', membershipSchema, membershipJws);
}

/** Does the discovery key that came beside a membership fit it? */
export function discoveryKeyHashOf(membershipJws: string): Uint8Array {
  return fromBase64Url(peekMembership(membershipJws).discovery_key_hash);
}
