/**
 * An owner's revocations: a numbered, hash-linked list, each entry signed by the owner, so that whoever hands
 * it on can withhold its end but change nothing. A rotation of the owner's key begins a new list, for the old key
 * counts no more; what the owner wants to stay revoked it signs anew (`renewRevocations`).
 */

import * as z from 'zod/mini';
import { toBase64Url } from './bytes.ts';
import { MeshError } from './errors.ts';
import { jwsField, key32Field, ownerIdField, signedFields, timeField } from './fields.ts';
import { limits } from './limits.ts';
import type { Owner, OwnerKeys } from './owner.ts';
import { ownerRecordsField } from './owner.ts';
import { hashObject, peekObject, signObject, verifyObject } from './signed-object.ts';

/**
 * Written out and never reused. A device (PeerId), for good; what another owner was given until then (owner id); a
 * token and what came from it (jti); a cocoon of somebody else that this owner gives back (its PeerId).
 */
export type RevocationKind = 'device' | 'owner' | 'token' | 'share';

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

/** The newest end of a list, in HELLO: most lists are shorter than what fits, and nothing needs to be asked. */
export const helloRevocationsSchema = z.object({
  ...revocationHeadSchema.shape,
  entries: z.array(jwsField).check(z.maxLength(limits.maxHelloRevocations)),
});
export type HelloRevocations = z.infer<typeof helloRevocationsSchema>;

/** A piece of a list, with the records to verify it by. */
export const revocationTellSchema = z.object({
  kind: z.literal('tell'),
  owner: ownerIdField,
  /** Of the owner, up to the epoch of the list: a rotation is told the same way. */
  records: ownerRecordsField,
  after: z.int().check(z.nonnegative()),
  list: z.array(jwsField).check(z.maxLength(limits.maxRevocationsPerMessage)),
});
export type RevocationTell = z.infer<typeof revocationTellSchema>;

/**
 * `/cocoon/revocations/1`: one message, then the end. `ask` is answered with one `tell`, whose list goes on after
 * entry `after`; a `tell` that nobody asked for is news and has no answer.
 */
export const revocationMessageSchema = z.discriminatedUnion('kind', [
  z.object({
    kind: z.literal('ask'),
    owner: ownerIdField,
    epoch: z.int().check(z.nonnegative()),
    after: z.int().check(z.nonnegative()),
  }),
  revocationTellSchema,
]);
export type RevocationMessage = z.infer<typeof revocationMessageSchema>;

/** A membership or a share, as entries are held against it. */
export interface Revocable {
  /** The device; for a share the cocoon. */
  readonly peerId: string;
  readonly jti: string | null;
  /** Seconds since 1970. */
  readonly granted: number;
  /** The owner that the device is shared with, for a share. */
  readonly coOwner?: string;
}

/**
 * Does an entry of the owner who gave the right end it? A device is revoked for good: its key is not trusted any
 * more. An owner can be invited again, so only what was given before the entry ends, or in the same second.
 * Whose list it is, the caller sees to: an entry ends rights of its own owner only.
 */
export function ends({ kind, subject, iat }: Revocation, right: Revocable): boolean {
  switch (kind) {
    case 'device':
      return subject === right.peerId;
    case 'token':
      return subject === right.jti;
    case 'owner':
      return subject === right.coOwner && right.granted <= iat;
    default:
      return false;
  }
}

/** Does an entry of the co-owner's own list give the share back? Only it, and only its own. */
export function givesBack({ kind, subject, iat }: Revocation, share: Revocable): boolean {
  return kind === 'share' && subject === share.peerId && share.granted <= iat;
}

/**
 * The next entry after `list`, which is of the owner's present epoch.
 * @param content.least when what it is to end was granted (`ends`), where the owner's clocks differ. The entry is
 * never before that nor before the entry before it, but no more than a day ahead of `now`: a wrong clock must not
 * set the date of all that follow. What claims to be granted later than that is refused (`assertNotAhead`).
 * @throws MeshError bad_message | message_too_large
 */
export async function signRevocation(
  owner: OwnerKeys,
  list: readonly string[],
  content: { kind: RevocationKind; subject: string; now: number; least?: number },
): Promise<string> {
  const last = list.at(-1);
  const before = last === undefined ? 0 : peekObject('revocation', revocationSchema, last).iat;
  const { kind, subject, now, least = 0 } = content;
  const latest = now + limits.maxOwnerClockAheadMs / 1000;
  return signEntry(owner, list, { kind, subject, iat: Math.min(Math.max(now, before, least), latest) });
}

/**
 * The first entries after a rotation. A revoked device stays revoked for good, and a token that the rotation keeps
 * must not come to somebody who was removed: the old list does not count any more, so they are said again, with
 * their own dates, for an owner may have been invited again since.
 * @param owner of the new epoch
 * @param entries of the epoch before, oldest first, without those that whoever had the old secret made
 */
export async function renewRevocations(
  owner: OwnerKeys,
  entries: readonly Pick<Revocation, 'kind' | 'subject' | 'iat'>[],
): Promise<string[]> {
  const list: string[] = [];
  for (const { kind, subject, iat } of entries)
    list.push(await signEntry(owner, list, { kind, subject, iat }));
  return list;
}

async function signEntry(
  owner: OwnerKeys,
  list: readonly string[],
  content: Pick<Revocation, 'kind' | 'subject' | 'iat'>,
): Promise<string> {
  const last = list.at(-1);
  const link = last === undefined ? {} : { previous: toBase64Url(await hashObject(last)) };
  const head = { v: 1, crit: [], iss: owner.id, epoch: owner.epoch, n: list.length + 1 };
  return signObject('revocation', revocationSchema, { ...head, ...link, ...content }, owner.key);
}

/**
 * One entry by itself, wherever in its list it stands: that its owner signed it is all that it needs to count.
 * @throws MeshError as `verifyRevocations`
 */
export async function verifyRevocation(jws: string, owner: Owner): Promise<Revocation> {
  const { n, previous } = peekRevocation(jws);
  const [entry] = await verifyRevocations([jws], owner, n === 1 ? null : { n: n - 1, hash: previous ?? '' });
  if (!entry) throw new MeshError('bad_message');
  return entry;
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

/** Reads an entry before its signature is checked, or one whose signature was checked before. */
export function peekRevocation(jws: string): Revocation {
  return peekObject('revocation', revocationSchema, jws);
}
