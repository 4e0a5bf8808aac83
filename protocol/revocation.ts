/**
 * An owner's revocations: a numbered, hash-linked list, each entry signed by the owner, so that whoever hands
 * it on can withhold its end but change nothing.
 */

import * as z from 'zod/mini';
import { toBase64Url } from './bytes.ts';
import { MeshError } from './errors.ts';
import { jwsField, key32Field, ownerIdField, signedFields, timeField } from './fields.ts';
import { limits } from './limits.ts';
import type { Owner, OwnerKeys } from './owner.ts';
import { hashObject, signObject, verifyObject } from './signed-object.ts';

const revocationSchema = z.object({
  ...signedFields,
  iss: ownerIdField,
  epoch: z.int().check(z.nonnegative()),
  /** 1 for the first entry. */
  n: z.int().check(z.positive()),
  /** SHA-256 of the entry before; absent in the first. */
  previous: z.optional(key32Field),
  /** What ends: a device (PeerId), an owner's access (owner id), or a token and what came from it (jti). */
  kind: z.enum(['device', 'owner', 'token']),
  subject: z.string().check(z.minLength(1), z.maxLength(80)),
  iat: timeField,
});
export type Revocation = z.infer<typeof revocationSchema>;

export const revocationListField = z.array(jwsField).check(z.maxLength(limits.maxRevocations));

/** How far a list goes: compared in HELLO, fetched when the other side's goes further. */
export const revocationHeadSchema = z.object({
  owner: ownerIdField,
  n: z.int().check(z.nonnegative()),
  hash: z.optional(key32Field),
});
export type RevocationHead = z.infer<typeof revocationHeadSchema>;

/** The next entry after `list`. */
export async function signRevocation(
  owner: OwnerKeys,
  list: readonly string[],
  content: { kind: Revocation['kind']; subject: string; now: number },
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

/** Every entry, in order. @throws MeshError bad_signature | bad_message | wrong_type | unknown_constraint */
export async function verifyRevocations(list: readonly string[], owner: Owner): Promise<Revocation[]> {
  const entries: Revocation[] = [];
  let previous: string | undefined;
  for (const jws of list) {
    const entry = await verifyObject('revocation', revocationSchema, jws, owner.publicKey);
    if (entry.iss !== owner.id || entry.n !== entries.length + 1 || entry.previous !== previous)
      throw new MeshError('bad_signature', 'A list of revocations has a gap');
    previous = toBase64Url(await hashObject(jws));
    entries.push(entry);
  }
  return entries;
}
