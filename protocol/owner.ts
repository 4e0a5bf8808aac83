/**
 * Owners: a secret, the keys that come from it, and the owner records that name an owner across rotations.
 * The name is the hash of the first record's payload, so it never changes while keys do.
 */

import * as z from 'zod/mini';
import type { Bytes } from './bytes.ts';
import {
  concat,
  equalBytes,
  fromBase64Url,
  fromUtf8,
  isBase64Url,
  randomBytes,
  sha256,
  toBase64Url,
  utf8,
} from './bytes.ts';
import { MeshError } from './errors.ts';
import { key32Field, signedFields } from './fields.ts';
import type { SigningKey } from './identity.ts';
import { signingKeyFromSeed } from './identity.ts';
import { limits } from './limits.ts';
import { hashObject, peekObject, signObject, verifyObject } from './signed-object.ts';

const ownerRecordSchema = z.strictObject({
  ...signedFields,
  /** Ed25519 public key that signs grants, memberships and revocations of this epoch. */
  key: key32Field,
  /** 0 for the first record, then one more with each rotation. */
  epoch: z.int().check(z.nonnegative(), z.lt(1_000_000)),
  /** SHA-256 of the public key that may sign the next record. */
  recovery_key_hash: key32Field,
  /** SHA-256 of the key that LAN discovery uses. */
  discovery_key_hash: key32Field,
  /** From epoch 1: the recovery key itself, whose hash the previous record has. */
  recovery_key: z.optional(key32Field),
  /** From epoch 1: SHA-256 of the previous record. */
  previous: z.optional(key32Field),
  /**
   * From epoch 1: SHA-256 of each grant of an earlier epoch that can still be redeemed. All others are void. The
   * hash and not the `jti`: whoever has the old secret and such a token could sign a wider grant of that name.
   */
  keeps: z.optional(z.array(key32Field).check(z.maxLength(limits.maxKeptTokens))),
});
export type OwnerRecord = z.infer<typeof ownerRecordSchema>;

/** Compact JWS of each record, epoch 0 first. */
export const ownerRecordsField = z
  .array(z.string().check(z.maxLength(2048)))
  .check(z.minLength(1), z.maxLength(limits.maxOwnerRecords));
export type OwnerRecords = z.infer<typeof ownerRecordsField>;

/** What a holder of the secret has. */
export interface OwnerSecret {
  readonly seed: Bytes;
  readonly recoveryKeyHash: Bytes;
  /** From epoch 1, and only then, where the secret alone no longer tells whose it is: the records up to its own. */
  readonly records?: OwnerRecords;
}

export interface OwnerKeys {
  readonly id: string;
  readonly key: SigningKey;
  readonly discoveryKey: Bytes;
  readonly records: OwnerRecords;
  readonly epoch: number;
}

/** A verified list of records, by its newest. */
export interface Owner {
  readonly id: string;
  readonly epoch: number;
  readonly publicKey: Bytes;
  /** Base64url, of the newest record. */
  readonly discoveryKeyHash: string;
  /** SHA-256 of the grants of earlier epochs that the newest record lets live. */
  readonly keeps: readonly string[];
  readonly records: OwnerRecords;
}

const secretPrefix = 'cocoon-secret-1.';
const rotatedPrefix = 'cocoon-secret-2.';
const recoveryPrefix = 'cocoon-recovery-1.';

/** A fresh secret, and the recovery code that is shown once and stored nowhere. */
export async function createOwnerSecret(): Promise<{ secret: OwnerSecret; recoveryCode: string }> {
  const recoverySeed = randomBytes(32);
  const recoveryKey = await signingKeyFromSeed(recoverySeed);
  const secret = { seed: randomBytes(32), recoveryKeyHash: await sha256(recoveryKey.publicKey) };
  return { secret, recoveryCode: await sealText(recoveryPrefix, recoverySeed) };
}

/**
 * The keys of a secret: the same on every device that holds it.
 * @param records of this owner; without them those of the secret, and without any the secret is a first one
 * @throws MeshError membership_invalid when the newest record is of another secret, and those of verifyOwnerRecords
 */
export async function ownerKeys(secret: OwnerSecret, records = secret.records): Promise<OwnerKeys> {
  const { key, discoveryKey, content } = await deriveKeys(secret);
  const chain = records ?? [
    await signObject('owner-record', ownerRecordSchema, { ...content, epoch: 0 }, key),
  ];
  const { id, epoch, publicKey } = await verifyOwnerRecords(chain);
  const newest = peekObject('owner-record', ownerRecordSchema, chain.at(-1) ?? '');
  if (!equalBytes(publicKey, key.publicKey) || newest.recovery_key_hash !== content.recovery_key_hash)
    throw new MeshError('membership_invalid', 'The secret is not the newest one of this owner');
  return { id, key, discoveryKey, records: chain, epoch };
}

/**
 * Puts a new secret in the place of one that leaked. The next record is signed by the recovery key, which
 * whoever has the old secret does not have.
 * @param secret made anew, with a recovery code of its own
 * @param keeps SHA-256 (base64url) of the grants that were made before and can still be redeemed
 * @returns keys whose `records` belong into the new secret: `secretToText({ ...secret, records })`
 * @throws MeshError key_corrupt when the code is malformed or another owner's
 */
export async function rotateOwner(
  records: OwnerRecords,
  recoveryCode: string,
  secret: OwnerSecret,
  keeps: readonly string[] = [],
): Promise<OwnerKeys> {
  const { epoch } = await verifyOwnerRecords(records);
  const newest = records.at(-1) ?? '';
  const seed = await openText(recoveryPrefix, recoveryCode.trim(), 32, 'recovery code');
  const recoveryKey = await signingKeyFromSeed(seed);
  const expected = fromBase64Url(peekObject('owner-record', ownerRecordSchema, newest).recovery_key_hash);
  if (!equalBytes(await sha256(recoveryKey.publicKey), expected))
    throw new MeshError('key_corrupt', 'The recovery code is not the one of this owner', {
      hint: 'Each rotation of the secret gives a new code: use the one that was shown last.',
    });
  const { content } = await deriveKeys(secret);
  const record = {
    ...content,
    epoch: epoch + 1,
    recovery_key: toBase64Url(recoveryKey.publicKey),
    previous: toBase64Url(await hashObject(newest)),
    ...(keeps.length === 0 ? {} : { keeps: [...keeps] }),
  };
  const next = await signObject('owner-record', ownerRecordSchema, record, recoveryKey);
  const chain = [...records, next];
  if (!ownerRecordsField.safeParse(chain).success)
    throw new MeshError('message_too_large', `An owner has at most ${limits.maxOwnerRecords} records`);
  return ownerKeys(secret, chain);
}

async function deriveKeys(secret: OwnerSecret) {
  const key = await signingKeyFromSeed(await derive(secret.seed, 'cocoon/owner-key/1'));
  const discoveryKey = await derive(secret.seed, 'cocoon/discovery-key/1');
  const content = {
    v: 1,
    crit: [],
    key: toBase64Url(key.publicKey),
    recovery_key_hash: toBase64Url(secret.recoveryKeyHash),
    discovery_key_hash: toBase64Url(await sha256(discoveryKey)),
  };
  return { key, discoveryKey, content };
}

/**
 * Follows the records from the first to the newest.
 * @throws MeshError membership_invalid and those of verifyObject
 */
export async function verifyOwnerRecords(records: OwnerRecords): Promise<Owner> {
  let id = '';
  let previous: { record: OwnerRecord; hash: string } | undefined;
  for (const jws of records) {
    const record = peekObject('owner-record', ownerRecordSchema, jws);
    const signer = previous ? await successor(previous, record) : first(record);
    await verifyObject('owner-record', ownerRecordSchema, jws, signer);
    previous = { record, hash: toBase64Url(await hashObject(jws)) };
    if (id === '') id = await ownerIdOf(jws);
  }
  if (!previous) throw new MeshError('membership_invalid', 'There is no owner record');
  const { epoch, key, discovery_key_hash: discoveryKeyHash, keeps = [] } = previous.record;
  return { id, epoch, publicKey: fromBase64Url(key), discoveryKeyHash, keeps, records };
}

function first(record: OwnerRecord): Bytes {
  const { epoch, previous, recovery_key: recoveryKey, keeps } = record;
  if (epoch !== 0 || previous !== undefined || recoveryKey !== undefined || keeps !== undefined)
    throw new MeshError('membership_invalid', 'The first owner record is not of epoch 0');
  return fromBase64Url(record.key);
}

async function successor(
  previous: { record: OwnerRecord; hash: string },
  record: OwnerRecord,
): Promise<Bytes> {
  const recoveryKey = fromBase64Url(record.recovery_key ?? '');
  const expected = fromBase64Url(previous.record.recovery_key_hash);
  if (record.epoch !== previous.record.epoch + 1 || record.previous !== previous.hash)
    throw new MeshError('membership_invalid', 'An owner record does not follow the one before');
  if (!equalBytes(await sha256(recoveryKey), expected))
    throw new MeshError('membership_invalid', 'An owner record is not signed by the recovery key');
  return recoveryKey;
}

/** The payload alone is hashed: a record signed twice names the same owner. */
async function ownerIdOf(firstRecord: string): Promise<string> {
  return `own_${toBase64Url(await sha256(fromBase64Url(firstRecord.split('.')[1] ?? '')))}`;
}

/** What `cocoon secret show` prints. After a rotation it carries the records that say whose it is. */
export async function secretToText(secret: OwnerSecret): Promise<string> {
  const { seed, recoveryKeyHash, records } = secret;
  if (!records) return sealText(secretPrefix, concat(seed, recoveryKeyHash));
  return sealText(rotatedPrefix, concat(seed, recoveryKeyHash, utf8(records.join(' '))));
}

/** @throws MeshError key_corrupt saying what is wrong */
export async function secretFromText(text: string): Promise<OwnerSecret> {
  const trimmed = text.trim();
  const secret = trimmed.startsWith(rotatedPrefix)
    ? await openRotated(trimmed)
    : readHead(await openText(secretPrefix, trimmed, headBytes, 'secret'));
  if (isWeak(secret.seed))
    throw new MeshError('key_corrupt', 'The secret is weak: it was not made at random', {
      hint: 'Use one that `cocoon secret show` has printed; what somebody thought up can be guessed.',
    });
  return secret;
}

/** Seed and hash of the recovery key. */
const headBytes = 64;

function readHead(bytes: Bytes): OwnerSecret {
  return { seed: bytes.slice(0, 32), recoveryKeyHash: bytes.slice(32, headBytes) };
}

async function openRotated(text: string): Promise<OwnerSecret> {
  const bytes = await openLongText(rotatedPrefix, text, 'secret');
  let secret: OwnerSecret;
  try {
    const records = fromUtf8(bytes.slice(headBytes)).split(' ');
    secret = { ...readHead(bytes), records };
    if (!ownerRecordsField.safeParse(records).success) throw new TypeError('not a list of records');
    await ownerKeys(secret);
  } catch (cause) {
    throw new MeshError('key_corrupt', 'The secret and the records in it do not belong together', {
      cause,
      hint: copyAgain('secret'),
    });
  }
  return secret;
}

/**
 * Made up and not drawn: a pattern, a row of numbers, a sentence. Thirty-two random bytes have some thirty different
 * values, as have the steps between them; not one seed in ten thousand million is refused by mistake.
 */
function isWeak(seed: Bytes): boolean {
  const steps = [...seed].map((value, i) => (value - (seed[i - 1] ?? 0) + 256) % 256);
  const isText = seed.every((value) => value >= 0x20 && value < 0x7f);
  return isText || [seed, steps].some((values) => new Set(values).size < leastDistinct);
}

const leastDistinct = 16;
const maxSecretTextLength = 128 * 1024;

const checksumBytes = 4;

async function checksum(bytes: Uint8Array): Promise<Bytes> {
  return (await sha256(bytes)).slice(0, checksumBytes);
}

async function sealText(prefix: string, bytes: Uint8Array): Promise<string> {
  return prefix + toBase64Url(concat(bytes, await checksum(bytes)));
}

async function openText(prefix: string, text: string, length: number, what: string): Promise<Bytes> {
  if (!text.startsWith(prefix)) throw misread(what, `A ${what} starts with ${prefix}`);
  const sealed = text.slice(prefix.length);
  if (!/^[A-Za-z0-9_-]*$/.test(sealed))
    throw misread(what, `The ${what} has characters that do not belong there`);
  // Judged as text: what is cut off in the middle of a byte is incomplete before it is anything else.
  const sealedLength = Math.ceil(((length + checksumBytes) * 4) / 3);
  if (sealed.length < sealedLength) throw misread(what, `The ${what} is not complete`);
  if (sealed.length > sealedLength) throw misread(what, `The ${what} is too long`);
  const bytes = isBase64Url(sealed) ? fromBase64Url(sealed) : new Uint8Array(length + checksumBytes);
  const body = bytes.slice(0, length);
  if (!equalBytes(await checksum(body), bytes.slice(length)))
    throw misread(what, `The ${what} has a typing error`);
  return body;
}

/** Of no fixed length, so that what was cut off looks like any other change. */
async function openLongText(prefix: string, text: string, what: string): Promise<Bytes> {
  if (text.length > maxSecretTextLength) throw misread(what, `The ${what} is too long`);
  const sealed = text.slice(prefix.length);
  // What follows the head is what the prefix promises: without it the text would be of the other kind.
  if (sealed.length <= ((headBytes + checksumBytes) * 4) / 3 + 1)
    throw misread(what, `The ${what} is not complete`);
  if (!/^[A-Za-z0-9_-]*$/.test(sealed))
    throw misread(what, `The ${what} has characters that do not belong there`);
  const bytes = isBase64Url(sealed) ? fromBase64Url(sealed) : new Uint8Array(checksumBytes);
  const body = bytes.slice(0, -checksumBytes);
  if (body.length === 0 || !equalBytes(await checksum(body), bytes.slice(-checksumBytes)))
    throw misread(what, `The ${what} has a typing error or is not complete`);
  return body;
}

/** Somebody typed or pasted it, so that a look at what was kept helps; who read it from a file says so. */
function misread(what: string, message: string): MeshError {
  return new MeshError('key_corrupt', message, { hint: copyAgain(what) });
}

function copyAgain(what: string): string {
  return `Copy the whole ${what} again, from its first to its last character; capital and small letters, - and _ differ.`;
}

async function derive(seed: Bytes, info: string): Promise<Bytes> {
  const key = await crypto.subtle.importKey('raw', seed, 'HKDF', false, ['deriveBits']);
  const parameters = { name: 'HKDF', hash: 'SHA-256', salt: new Uint8Array(), info: utf8(info) };
  return new Uint8Array(await crypto.subtle.deriveBits(parameters, key, 256));
}
