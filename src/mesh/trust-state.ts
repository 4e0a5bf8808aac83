/**
 * What a peer keeps about owners, as it is stored. Whatever an owner signed is kept as it was signed and verified
 * again when it is opened: files are copied, restored and edited.
 */

import type { Schema } from '@cocoon-mesh/protocol';
import {
  check,
  jwsField,
  limits,
  MeshError,
  nonceField,
  ownerIdField,
  ownerRecordsField,
  peerIdField,
  revocationListField,
  shareProofSchema,
  timeField,
} from '@cocoon-mesh/protocol';
import * as z from 'zod/mini';

const ownerStateSchema = z.object({
  /** The newest that were seen. */
  records: ownerRecordsField,
  /** The list of the newest epoch, oldest first. */
  revocations: revocationListField,
  /** Entries of that epoch that have no place in the list: those before them are missing, or it forked. */
  loose: revocationListField,
  /** The newest that the owner signed in that epoch for each device, oldest first. */
  memberships: z.array(jwsField).check(z.maxLength(limits.maxKnownMemberships)),
  /** First redeemer (PeerId or owner id) by token, oldest first. */
  redeemers: z.record(nonceField, z.union([peerIdField, ownerIdField])),
});
export type OwnerState = z.infer<typeof ownerStateSchema>;

const trustStateSchema = z.object({
  v: z.literal(1),
  /** Highest time that my owner has signed, seconds since 1970: a clock set back ends no end. */
  time: timeField,
  /** Mine, and those I share a cocoon with. */
  owners: z.record(ownerIdField, ownerStateSchema),
  /** Of my owner's cocoons with others, and of others' cocoons with my owner. */
  shares: z.array(shareProofSchema).check(z.maxLength(2 * limits.maxShares)),
});
/** JSON; kept by the `MeshStore`. */
export type TrustState = z.infer<typeof trustStateSchema>;

const versionSchema: Schema<{ v: number }> = z.object({ v: z.int() });

/** @throws MeshError database_corrupt | database_newer */
export function parseTrustState(state: unknown): TrustState {
  const version = versionSchema.safeParse(state);
  if (version.success && version.data.v > 1) throw new MeshError('database_newer');
  try {
    return check(trustStateSchema, state);
  } catch (cause) {
    throw damaged(cause);
  }
}

export function damaged(cause: unknown): MeshError {
  return new MeshError('database_corrupt', 'What this device knows about owners is damaged', { cause });
}
