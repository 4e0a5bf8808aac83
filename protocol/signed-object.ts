/**
 * Signed objects are compact JWS (RFC 7515, EdDSA by jose) with a `typ` that is checked, a version and a list
 * of critical extensions. A verifier refuses what it does not know, so narrowing a right is safe for old devices:
 * every payload that gives a right is a strict schema, where an unknown field is refused and not dropped.
 */

import { CompactSign, compactVerify } from 'jose';
import * as z from 'zod/mini';
import type { Bytes } from './bytes.ts';
import { equalBytes, fromBase64Url, fromUtf8, sha256, utf8 } from './bytes.ts';
import type { Schema } from './codec.ts';
import { check, decodeJson } from './codec.ts';
import { MeshError } from './errors.ts';
import type { SigningKey } from './identity.ts';
import { importPublicKey } from './identity.ts';
import { limits } from './limits.ts';

/** Written out and never reused. `access` is signaling's JWT and never a right at a device. */
export const signedTypes = [
  'owner-record',
  'grant',
  'receipt',
  'membership',
  'share',
  'device-record',
  'revocation',
  'ticket',
  'access',
] as const;
export type SignedType = (typeof signedTypes)[number];

export const maxSignedObjectBytes = limits.maxSignedObjectBytes;

interface Signed {
  readonly v: number;
  readonly crit: readonly string[];
}

/** Exactly what `signObject` writes: every other member could change what the signature means. */
const headerSchema = z.looseObject({ alg: z.optional(z.string()), typ: z.optional(z.string()) });
const payloadHeadSchema = z.object({ v: z.int(), crit: z.array(z.string()) });

/** @throws MeshError bad_message | message_too_large, since nobody would accept it */
export async function signObject<T extends Signed>(
  type: SignedType,
  schema: Schema<T>,
  payload: T,
  key: SigningKey,
): Promise<string> {
  const bytes = utf8(JSON.stringify(check(schema, payload)));
  const jws = await new CompactSign(bytes)
    .setProtectedHeader({ alg: 'EdDSA', typ: type })
    .sign(key.privateKey);
  assertSize(type, jws);
  return jws;
}

/**
 * Form and type first, then the signature, and only then what the payload says.
 * @param publicKey 32 bytes, of whoever must have signed
 * @throws MeshError message_too_large | bad_message | wrong_type | bad_signature | unknown_constraint
 */
export async function verifyObject<T extends Signed>(
  type: SignedType,
  schema: Schema<T>,
  jws: string,
  publicKey: Uint8Array,
): Promise<T> {
  const payload = open(type, jws);
  try {
    await compactVerify(jws, await importPublicKey(publicKey), { algorithms: ['EdDSA'] });
  } catch (cause) {
    throw new MeshError('bad_signature', `The signature of a ${type} does not fit`, { cause });
  }
  return read(type, schema, payload);
}

/** Reads without verifying: only to learn whose key must have signed. Same errors as `verifyObject`. */
export function peekObject<T extends Signed>(type: SignedType, schema: Schema<T>, jws: string): T {
  return read(type, schema, open(type, jws));
}

/** SHA-256 of the compact form: what links and acceptance signatures refer to. */
export async function hashObject(jws: string): Promise<Bytes> {
  return sha256(utf8(jws));
}

/** The payload, after everything that can be told without a key. */
function open(type: SignedType, jws: string): Bytes {
  assertSize(type, jws);
  const segments = jws.split('.');
  let header: Bytes;
  let payload: Bytes;
  try {
    // The signature too: its hash is what others refer to, so it must not have a second spelling.
    [header, payload] = segments.map(fromBase64Url) as [Bytes, Bytes];
    if (segments.length !== 3) throw new TypeError('not three segments');
  } catch (cause) {
    throw new MeshError('bad_message', `A ${type} is not a signed object`, { cause });
  }
  const { alg, typ, ...more } = decodeJson(headerSchema, header, maxSignedObjectBytes);
  if (typ !== type) throw new MeshError('wrong_type', `A ${type} was expected`);
  if (alg !== 'EdDSA') throw new MeshError('bad_signature', 'Only EdDSA signatures are accepted');
  if (Object.keys(more).length > 0) throw unknown(type);
  return payload;
}

function read<T extends Signed>(type: SignedType, schema: Schema<T>, payload: Bytes): T {
  if (!isCanonical(payload))
    throw new MeshError('bad_message', `A ${type} is not written the one way there is`);
  // The version is judged before the rest: a newer object may have other fields.
  const head = decodeJson(payloadHeadSchema, payload, maxSignedObjectBytes);
  if (head.v !== 1 || head.crit.length > 0) throw unknown(type);
  try {
    return decodeJson(schema, payload, maxSignedObjectBytes);
  } catch (cause) {
    throw namesSomethingUnknown(cause) ? unknown(type, cause) : cause;
  }
}

/**
 * Whoever keeps what others have signed keeps what it says and nothing else: no spaces, no second spelling, no field
 * twice.
 */
function isCanonical(payload: Bytes): boolean {
  try {
    // Bytes, for a decoder leaves out the mark at the beginning of a text.
    return equalBytes(utf8(JSON.stringify(JSON.parse(fromUtf8(payload)))), payload);
  } catch {
    return false;
  }
}

/** A field the schema does not have, or a word (scope, verb, kind) that is not among those it knows. */
function namesSomethingUnknown(thrown: unknown): boolean {
  const error = thrown instanceof MeshError ? thrown.cause : undefined;
  return (
    error instanceof z.core.$ZodError &&
    error.issues.some((issue) => issue.code === 'unrecognized_keys' || issue.code === 'invalid_value')
  );
}

function unknown(type: SignedType, cause?: unknown): MeshError {
  const message = `A ${type} carries something this version does not know`;
  return new MeshError('unknown_constraint', message, { cause });
}

function assertSize(type: SignedType, jws: string): void {
  if (jws.length > maxSignedObjectBytes)
    throw new MeshError('message_too_large', `A ${type} is larger than ${maxSignedObjectBytes} bytes`);
}
