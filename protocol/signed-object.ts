/**
 * Signed objects are compact JWS (RFC 7515, EdDSA by jose) with a `typ` that is checked, a version and a list
 * of critical extensions. A verifier refuses what it does not know, so narrowing a right is safe for old devices.
 */

import { CompactSign, compactVerify, decodeProtectedHeader } from 'jose';
import * as z from 'zod/mini';
import type { Bytes } from './bytes.ts';
import { fromBase64Url, sha256, utf8 } from './bytes.ts';
import type { Schema } from './codec.ts';
import { check, decodeJson } from './codec.ts';
import { MeshError } from './errors.ts';
import type { SigningKey } from './identity.ts';
import { importPublicKey } from './identity.ts';

/** Written out and never reused. `access` is signaling's JWT and never a right at a device. */
export type SignedType =
  'owner-record' | 'grant' | 'receipt' | 'membership' | 'device-record' | 'revocation' | 'ticket' | 'access';

export const maxSignedObjectBytes = 8192;

interface Signed {
  readonly v: number;
  readonly crit: readonly string[];
}

const signedHead = z.object({ v: z.int(), crit: z.array(z.string()) });

export async function signObject<T extends Signed>(
  type: SignedType,
  schema: Schema<T>,
  payload: T,
  key: SigningKey,
): Promise<string> {
  const bytes = utf8(JSON.stringify(check(schema, payload)));
  return new CompactSign(bytes).setProtectedHeader({ alg: 'EdDSA', typ: type }).sign(key.privateKey);
}

/**
 * @param publicKey 32 bytes, of whoever must have signed
 * @throws MeshError bad_message | wrong_type | bad_signature | unknown_constraint
 */
export async function verifyObject<T extends Signed>(
  type: SignedType,
  schema: Schema<T>,
  jws: string,
  publicKey: Uint8Array,
): Promise<T> {
  const payload = peekObject(type, schema, jws);
  try {
    await compactVerify(jws, await importPublicKey(publicKey), { algorithms: ['EdDSA'] });
  } catch (cause) {
    throw new MeshError('bad_signature', `The signature of a ${type} does not fit`, { cause });
  }
  return payload;
}

/** Reads without verifying: only to learn whose key must have signed. Same errors but `bad_signature`. */
export function peekObject<T extends Signed>(type: SignedType, schema: Schema<T>, jws: string): T {
  if (jws.length > maxSignedObjectBytes) throw new MeshError('message_too_large');
  let typ: unknown;
  let alg: unknown;
  let payload: Bytes;
  try {
    ({ typ, alg } = decodeProtectedHeader(jws));
    payload = fromBase64Url(jws.split('.')[1] ?? '');
  } catch (cause) {
    throw new MeshError('bad_message', `A ${type} is not a signed object`, { cause });
  }
  if (typ !== type) throw new MeshError('wrong_type', `A ${type} was expected`);
  if (alg !== 'EdDSA') throw new MeshError('bad_signature', 'Only EdDSA signatures are accepted');
  // The version is judged before the rest: a newer object may have other fields.
  const head = decodeJson(signedHead, payload, maxSignedObjectBytes);
  if (head.v !== 1 || head.crit.length > 0) throw new MeshError('unknown_constraint');
  return decodeJson(schema, payload, maxSignedObjectBytes);
}

/** SHA-256 of the compact form: what links and acceptance signatures refer to. */
export async function hashObject(jws: string): Promise<Bytes> {
  return sha256(utf8(jws));
}
