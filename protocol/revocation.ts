/**
 * An owner's revocations: a numbered, hash-linked list, each entry signed by the owner, so that whoever hands
 * it on can withhold its end but change nothing. A rotation of the owner's key begins a new list: memberships
 * and grants of the epoch before are void, and so is what was said about them.
 */

import * as z from 'zod/mini';
import { toBase64Url } from './bytes.ts';
import { MeshError } from './errors.ts';
import { jwsField, key32Field, ownerIdField, signedFields, timeField } from './fields.ts';
import { limits } from './limits.ts';
import type { Owner, OwnerKeys } from './owner.ts';
import { hashObject, signObject, verifyObject } from './signed-object.ts';

/** Written out and never reused. A device (PeerId), an owner's access (owner id), a token and what came from it (jti). */
export type RevocationKind = 'device' | 'owner' | 'token';

const revocationSchema = z.strictObject({
  ...signedFields,
  iss: ownerIdField,
  epoch: z.int().check(z.nonnegative()),
  /** 1 for the first entry. */
  n: z.int().check(z.positive()),
  /** SHA-256 of the entry before; absent in the first. */
  previous: z.optional(key32Field),
  /**
   * What ends: a `RevocationKind`, or one that a newer version knows. The one place where the unknown is not
   * refused: without the entry, all that follow it in the list would be lost too.
   */
  kind: z.string().check(z.regex(/^[a-z][a-z-]{0,31}$/)),
  subject: z.string().check(z.minLength(1), z.maxLength(80)),
  iat: timeField,
});
export type Revocation = z.infer<typeof revocationSchema>;

export const revocationListField = z.array(jwsField).check(z.maxLength(limits.maxRevocations));

/** How far a list goes: compared in HELLO, fetched when the other side's goes further (epoch first, then n). */
export const revocationHeadSchema = z.object({
  owner: ownerIdField,
  epoch: z.int().check(z.nonnegative()),
  n: z.int().check(z.nonnegative()),
  hash: z.optional(key32Field),
});
export type RevocationHead = z.infer<typeof revocationHeadSchema>;

/** The next entry after `list`, which is of the owner's present epoch. */
export async function signRevocation(
  owner: OwnerKeys,
  list: readonly string[],
  content: { kind: RevocationKind; subject: string; now: number },
): Promise<string> {
  const last = list.at(-1);
  return signObject(
    'revocation',
    revocationSchema,
    {
      v: 1,
      crit: [],
      iss: owner.id,
      epoch: owner.epoch,
      n: list.length + 1,
      ...(last === undefined ? {} : { previous: toBase64Url(await hashObject(last)) }),
      kind: content.kind,
      subject: content.subject,
      iat: content.now,
    },
    owner.key,
  );
}

/**
 * Every entry, in order.
 * @param after the last entry that is known already, when `list` goes on from there: a long list travels in
 * pieces
 * @throws MeshError bad_signature | bad_message | wrong_type | message_too_large | unknown_constraint
 */
export async function verifyRevocations(
  list: readonly string[],
  owner: Owner,
  after: { readonly n: number; readonly hash: string } | null = null,
): Promise<Revocation[]> {
  const entries: Revocation[] = [];
  let previous = after?.hash;
  for (const jws of list) {
    const entry = await verifyObject('revocation', revocationSchema, jws, owner.publicKey);
    if (entry.iss !== owner.id || entry.epoch !== owner.epoch)
      throw new MeshError('bad_signature', 'A revocation is of another owner or epoch');
    if (entry.n !== (after?.n ?? 0) + entries.length + 1 || entry.previous !== previous)
      throw new MeshError('bad_signature', 'A list of revocations has a gap');
    previous = toBase64Url(await hashObject(jws));
    entries.push(entry);
  }
  return entries;
}
