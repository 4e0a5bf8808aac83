/** Used tokens: whoever was first, for good. Inside of a transaction of the store. */

import type { MembershipProof, ShareProof } from '@cocoon-mesh/protocol';
import { MeshError, hashObject, peekGrant, toBase64Url } from '@cocoon-mesh/protocol';
import type { Db } from './tables.ts';

export interface Claim {
  readonly jti: string;
  readonly owner: string;
  readonly scope: string;
  readonly grantHash: string;
  /** PeerId (enroll) or owner id (co-own). */
  readonly redeemer: string;
  readonly receipt: string;
  readonly claimedAt: number;
  /** End of the token, after which it cannot be redeemed anyway. Unknown: it is remembered for good. */
  readonly expires?: number | null;
}

export async function claimOf(db: Db, jti: string): Promise<Claim | null> {
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
    expires: row.expires,
  };
}

/**
 * Uses a token up, or finds that the same redeemer did.
 *
 * A `jti` counts across all owners, for that is all that a receipt names beside its redeemer.
 * @returns the claim that counts, with the receipt that was given first
 * @throws MeshError token_used
 */
export async function useToken(db: Db, claim: Claim): Promise<Claim> {
  const first = await noteClaim(db, claim);
  if (first.redeemer !== claim.redeemer || first.grantHash !== claim.grantHash)
    throw new MeshError('token_used');
  return first;
}

/** @throws MeshError membership_invalid when somebody else was first */
export function assertRedeemer(first: Claim | null, redeemer: string): void {
  if (first && first.redeemer !== redeemer)
    throw new MeshError('membership_invalid', 'The setup token was redeemed by somebody else first');
}

/**
 * Remembers who was first, whoever signed the receipt.
 * @returns the claim that was known before, or this one
 */
export async function noteClaim(db: Db, claim: Claim): Promise<Claim> {
  const known = await claimOf(db, claim.jti);
  if (known) return known;
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
      expires: claim.expires ?? null,
    })
    // Transactions take turns; should two ever meet, the first row stays.
    .onConflict((conflict) => conflict.column('jti').doNothing())
    .execute();
  return (await claimOf(db, claim.jti)) ?? claim;
}

/** The redemption that a shown chain tells of; null for what its owner signed. */
export async function claimInChain(
  shown: Pick<Claim, 'owner' | 'scope' | 'redeemer'> & {
    readonly jti: string | null;
    readonly proof: MembershipProof | ShareProof;
  },
  nowSeconds: number,
): Promise<Claim | null> {
  const { owner, scope, redeemer, jti, proof } = shown;
  if (proof.kind !== 'claim' || jti === null) return null;
  const { grant } = proof.redemption;
  return {
    jti,
    owner,
    scope,
    grantHash: toBase64Url(await hashObject(grant)),
    redeemer,
    receipt: proof.receipt,
    claimedAt: nowSeconds,
    expires: peekGrant(grant).exp,
  };
}

export function voidToken(): MeshError {
  return new MeshError('token_invalid', 'The setup token was made before the owner changed its secret');
}
