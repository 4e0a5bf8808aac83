/**
 * Setup tokens: a grant signed by an owner, and the one-time key with which it is redeemed. Redeeming is two
 * signatures: the one-time key over the redeemer, the redeemer over the grant. Neither signaling nor whoever
 * watches can make one of them. Single use and expiry are signaling's to enforce, with a receipt.
 */

import * as z from 'zod/mini';
import type { Bytes } from './bytes.ts';
import {
  equalBytes,
  fromBase64Url,
  lengthPrefixed,
  randomBytes,
  sha256,
  toBase64Url,
  utf8,
} from './bytes.ts';
import { decodeJson, encodeJson } from './codec.ts';
import { MeshError } from './errors.ts';
import {
  dateText,
  jwsField,
  key32Field,
  ownerIdField,
  peerIdField,
  signatureField,
  signedFields,
  timeField,
} from './fields.ts';
import type { SigningKey } from './identity.ts';
import { SignatureLabel, publicKeyOf, signLabelled, signingKeyFromSeed, verifyLabelled } from './identity.ts';
import { limits } from './limits.ts';
import type { Owner, OwnerKeys, OwnerRecords } from './owner.ts';
import { ownerRecordsField, verifyOwnerRecords } from './owner.ts';
import type { Rights } from './rights.ts';
import { rightsSchema } from './rights.ts';
import { hashObject, peekObject, signObject, verifyObject } from './signed-object.ts';

export const grantSchema = z.strictObject({
  ...signedFields,
  /**
   * Name of the token: the hash of its owner and its one-time key (`tokenId`). Nobody can make another grant of
   * the same name, so a receipt, which names only this, is for no other token.
   */
  jti: key32Field,
  /** The owner who grants, and the epoch of the key that signs. */
  iss: ownerIdField,
  epoch: z.int().check(z.nonnegative()),
  /** `enroll`: a device or browser of the owner's own. `co-own`: another owner may use `cocoon`. */
  scope: z.enum(['enroll', 'co-own']),
  rights: rightsSchema,
  iat: timeField,
  nbf: timeField,
  /** End of the token: it cannot be redeemed later. */
  exp: timeField,
  /** End of the right that comes from it; without it the right does not end by itself. */
  until: z.optional(timeField),
  /** Ed25519 public key whose private half is in the token only. */
  one_time_key: key32Field,
  /** The key with which signaling must sign the receipt. */
  receipt_key: key32Field,
  /** WebSocket URL of that signaling server. */
  signaling: z.string().check(z.maxLength(512)),
  /** co-own only: the device it is about. */
  cocoon: z.optional(peerIdField),
});
export type Grant = z.infer<typeof grantSchema>;

const setupTokenSchema = z.strictObject({
  records: ownerRecordsField,
  grant: jwsField,
  /** Seed of the one-time key. */
  key: key32Field,
});

/** A token as its redeemer holds it. */
export interface SetupToken {
  readonly owner: Owner;
  readonly grant: Grant;
  readonly grantJws: string;
  readonly oneTimeKey: SigningKey;
}

const receiptSchema = z.strictObject({
  ...signedFields,
  jti: key32Field,
  /** PeerId (enroll) or owner id (co-own) of the first redeemer. */
  redeemer: z.union([peerIdField, ownerIdField]),
  iat: timeField,
});
export type Receipt = z.infer<typeof receiptSchema>;

/** What the redeemer sends to signaling. */
export const redemptionSchema = z.object({
  records: ownerRecordsField,
  grant: jwsField,
  /** PeerId (enroll) or owner id (co-own). */
  redeemer: z.union([peerIdField, ownerIdField]),
  /** co-own only: the redeeming owner's records, which say whose key its acceptance is by. */
  redeemer_records: z.optional(ownerRecordsField),
  /** By the one-time key, over the redeemer and the grant's hash. */
  one_time_signature: signatureField,
  /** By the redeemer's key, over the grant's hash: nobody is attached to an owner unwillingly. */
  acceptance: signatureField,
});
export type Redemption = z.infer<typeof redemptionSchema>;

const tokenPrefix = 'cocoon-token-1.';

export interface GrantTerms {
  readonly scope: Grant['scope'];
  readonly rights: Rights;
  /** Seconds since 1970. */
  readonly now: number;
  readonly expires: number;
  readonly until?: number;
  readonly signaling: string;
  readonly receiptKey: Uint8Array;
  readonly cocoon?: string;
}

/**
 * Makes a setup token. Only a holder of the secret can. `grantHash` (SHA-256, base64url) is what a rotation names to
 * let it live.
 * @param oneTimeSeed never used twice; given only where the same token must come out again (vectors)
 * @throws MeshError message_too_large | bad_message when nobody would accept it
 */
export async function createSetupToken(
  owner: OwnerKeys,
  terms: GrantTerms,
  oneTimeSeed: Uint8Array = randomBytes(32),
): Promise<{ token: string; jti: string; grantHash: string }> {
  const oneTimeKey = await signingKeyFromSeed(oneTimeSeed);
  const jti = await tokenId(owner.id, oneTimeKey.publicKey);
  const grant = await signObject(
    'grant',
    grantSchema,
    {
      v: 1,
      crit: [],
      jti,
      iss: owner.id,
      epoch: owner.epoch,
      scope: terms.scope,
      rights: terms.rights,
      iat: terms.now,
      // Signaling judges by its own clock, which may be behind ours.
      nbf: Math.max(0, terms.now - limits.clockSkewMs / 1000),
      exp: terms.expires,
      ...(terms.until === undefined ? {} : { until: terms.until }),
      one_time_key: toBase64Url(oneTimeKey.publicKey),
      receipt_key: toBase64Url(terms.receiptKey),
      signaling: terms.signaling,
      ...(terms.cocoon === undefined ? {} : { cocoon: terms.cocoon }),
    },
    owner.key,
  );
  const body = encodeJson(setupTokenSchema, { records: owner.records, grant, key: toBase64Url(oneTimeSeed) });
  const token = tokenPrefix + toBase64Url(utf8(body));
  if (token.length > limits.maxTokenBytes)
    throw new MeshError('message_too_large', 'The setup token would be too large for anybody to accept');
  return { token, jti, grantHash: toBase64Url(await hashObject(grant)) };
}

/**
 * Reads a token and checks everything that needs no other party: form, signature, one-time key. Dates are
 * signaling's to judge, by its own clock.
 * @throws MeshError token_malformed | token_invalid | unknown_constraint
 */
export async function readSetupToken(text: string): Promise<SetupToken> {
  const trimmed = text.trim();
  if (!trimmed.startsWith(tokenPrefix) || trimmed.length > limits.maxTokenBytes)
    throw new MeshError('token_malformed');
  let body;
  try {
    body = decodeJson(
      setupTokenSchema,
      fromBase64Url(trimmed.slice(tokenPrefix.length)),
      limits.maxTokenBytes,
    );
  } catch (cause) {
    throw new MeshError('token_malformed', undefined, { cause });
  }
  const { owner, grant } = await verifyGrant(body.records, body.grant);
  const oneTimeKey = await signingKeyFromSeed(fromBase64Url(body.key));
  if (!equalBytes(oneTimeKey.publicKey, fromBase64Url(grant.one_time_key)))
    throw new MeshError('token_invalid', 'The key in the setup token is not the one it was made with');
  return { owner, grant, grantJws: body.grant, oneTimeKey };
}

/** @throws MeshError token_invalid | unknown_constraint */
export async function verifyGrant(
  records: readonly string[],
  grantJws: string,
): Promise<{ owner: Owner; grant: Grant }> {
  try {
    const owner = await verifyOwnerRecords([...records]);
    const grant = await verifyObject('grant', grantSchema, grantJws, owner.publicKey);
    if (grant.iss !== owner.id || grant.epoch !== owner.epoch)
      throw new MeshError('token_invalid', 'The setup token is not of the owner it names');
    if ((grant.scope === 'co-own') !== (grant.cocoon !== undefined))
      throw new MeshError('token_invalid', 'The setup token does not say which device it is about');
    if (grant.jti !== (await tokenId(owner.id, fromBase64Url(grant.one_time_key))))
      throw new MeshError('token_invalid', 'The setup token bears the name of another one');
    return { owner, grant };
  } catch (cause) {
    if (cause instanceof MeshError && cause.code === 'unknown_constraint') throw cause;
    throw new MeshError('token_invalid', undefined, { cause });
  }
}

/** Base64url. */
async function tokenId(owner: string, oneTimeKey: Uint8Array): Promise<string> {
  const parts = lengthPrefixed(utf8('cocoon/token/1'), utf8(owner), oneTimeKey);
  return toBase64Url(await sha256(parts));
}

/** @throws MeshError token_not_yet_valid | token_expired unless the token can be redeemed at `now` (seconds) */
export function assertGrantValidAt(grant: Grant, now: number): void {
  if (now < grant.nbf) throw new MeshError('token_not_yet_valid');
  if (now >= grant.exp) throw new MeshError('token_expired');
}

/** @throws MeshError token_expired when what would come of the token has ended already */
export function assertRightLasts({ until }: Grant, now: number): void {
  if (until !== undefined && until <= now)
    throw new MeshError('token_expired', `The right that the setup token gives ended at ${dateText(until)}`);
}

/**
 * The two signatures. `redeemer` signs with the key that its id names.
 * @param redeemerRecords of the redeeming owner, for a co-own token
 */
export async function redeem(
  token: SetupToken,
  redeemer: SigningKey,
  redeemerId: string,
  redeemerRecords?: OwnerRecords,
): Promise<Redemption> {
  const grantHash = await hashObject(token.grantJws);
  const oneTime = await signLabelled(
    token.oneTimeKey,
    SignatureLabel.redeemOneTime,
    utf8(redeemerId),
    grantHash,
  );
  const acceptance = await signLabelled(redeemer, SignatureLabel.redeemAccept, grantHash);
  return {
    records: token.owner.records,
    grant: token.grantJws,
    redeemer: redeemerId,
    ...(redeemerRecords === undefined ? {} : { redeemer_records: redeemerRecords }),
    one_time_signature: toBase64Url(oneTime),
    acceptance: toBase64Url(acceptance),
  };
}

export interface VerifiedRedemption {
  /** Who grants. */
  readonly owner: Owner;
  readonly grant: Grant;
  /** SHA-256 of the grant, base64url. */
  readonly grantHash: string;
}

/**
 * Checks grant and both signatures; dates are the caller's matter (`assertGrantValidAt`).
 * @throws MeshError token_invalid | unknown_constraint
 */
export async function verifyRedemption(redemption: Redemption): Promise<VerifiedRedemption> {
  const { owner, grant } = await verifyGrant(redemption.records, redemption.grant);
  const grantHash = await hashObject(redemption.grant);
  try {
    const redeemerKey = await redeemerKeyOf(redemption, grant.scope);
    await verifyLabelled(
      fromBase64Url(grant.one_time_key),
      fromBase64Url(redemption.one_time_signature),
      SignatureLabel.redeemOneTime,
      utf8(redemption.redeemer),
      grantHash,
    );
    await verifyLabelled(
      redeemerKey,
      fromBase64Url(redemption.acceptance),
      SignatureLabel.redeemAccept,
      grantHash,
    );
  } catch (cause) {
    throw new MeshError('token_invalid', 'The setup token was not redeemed by its holder', { cause });
  }
  return { owner, grant, grantHash: toBase64Url(grantHash) };
}

/** Of a device for `enroll`, of an owner for `co-own`, and of nothing else. */
async function redeemerKeyOf(redemption: Redemption, scope: Grant['scope']): Promise<Bytes> {
  if (scope === 'enroll') return publicKeyOf(redemption.redeemer);
  const { id, publicKey } = await verifyOwnerRecords(redemption.redeemer_records ?? []);
  if (id !== redemption.redeemer) throw new MeshError('token_invalid', 'The records are of another owner');
  return publicKey;
}

/** Signaling's word that this redeemer was the first, and when. */
export async function signReceipt(
  key: SigningKey,
  content: { jti: string; redeemer: string; now: number },
): Promise<string> {
  const payload = { v: 1, crit: [], jti: content.jti, redeemer: content.redeemer, iat: content.now };
  return signObject('receipt', receiptSchema, payload, key);
}

/**
 * Signaling's clock is not believed without bounds: a chain from the future would outlive every revocation by date,
 * and the seven days that it has.
 * @param now seconds since 1970
 * @throws MeshError membership_invalid
 */
export function assertNotAhead(signed: number, now: number): void {
  if (signed > now + limits.maxOwnerClockAheadMs / 1000)
    throw new MeshError(
      'membership_invalid',
      `It is of ${dateText(signed)}, and here it is ${dateText(now)}: one of the two clocks is wrong`,
    );
}

/** @throws MeshError token_invalid | token_not_yet_valid | token_expired | unknown_constraint */
export async function verifyReceipt(receiptJws: string, grant: Grant, redeemer: string): Promise<Receipt> {
  try {
    const receipt = await verifyObject(
      'receipt',
      receiptSchema,
      receiptJws,
      fromBase64Url(grant.receipt_key),
    );
    if (receipt.jti !== grant.jti || receipt.redeemer !== redeemer)
      throw new MeshError('token_invalid', 'The receipt is for another redemption');
    assertGrantValidAt(grant, receipt.iat);
    return receipt;
  } catch (cause) {
    if (cause instanceof MeshError && receiptCodes.has(cause.code)) throw cause;
    throw new MeshError('token_invalid', undefined, { cause });
  }
}

const receiptCodes: ReadonlySet<string> = new Set([
  'token_not_yet_valid',
  'token_expired',
  'unknown_constraint',
]);

/** Reads a grant whose signature was checked before. */
export function peekGrant(grantJws: string): Grant {
  return peekObject('grant', grantSchema, grantJws);
}
