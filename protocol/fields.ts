/** The field types that several messages and signed objects share, each with its limit. */

import * as z from 'zod/mini';
import { isBase64Url } from './bytes.ts';
import { limits } from './limits.ts';

/** libp2p PeerId of an Ed25519 key in base58. */
export const peerIdField = z.string().check(z.regex(/^12D3KooW[1-9A-HJ-NP-Za-km-z]{44}$/));
/*
 * Last characters of base64url are restricted to those that leave no spare bits: for each value one text only,
 * so that comparing texts is comparing values and decoding never fails.
 */
/** `own_` and the SHA-256 of the first owner record, base64url. */
export const ownerIdField = z.string().check(z.regex(/^own_[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$/));
/** 32 bytes, base64url. */
export const key32Field = z.string().check(z.regex(/^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$/));
/** An Ed25519 signature, base64url. */
export const signatureField = z.string().check(z.regex(/^[A-Za-z0-9_-]{85}[AQgw]$/));
/** Compact JWS. */
export const jwsField = z
  .string()
  .check(
    z.maxLength(limits.maxSignedObjectBytes),
    z.regex(/^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$/),
  );
/** 16 to 48 bytes of randomness, base64url. */
export const nonceField = z
  .string()
  .check(z.minLength(22), z.maxLength(64), z.refine(isBase64Url, { error: 'not base64url' }));
const latestTime = 8.64e12;
/** Seconds since 1970, as in JWT; no later than a `Date` can be. */
export const timeField = z.int().check(z.nonnegative(), z.maximum(latestTime));
/** ISO 8601, of whatever number of seconds. */
export function dateText(seconds: number): string {
  return new Date(Math.max(-latestTime, Math.min(seconds || 0, latestTime)) * 1000).toISOString();
}
/** A browser comes and goes with what its user has open, and is trusted with less. */
export const deviceKind = z.enum(['cocoon', 'browser']);
export type DeviceKind = z.infer<typeof deviceKind>;
/** Devices and services: one DNS label, no `--` (it separates labels in app origins), no punycode. */
export const namePattern = /^(?!xn)[a-z0-9](-?[a-z0-9]){0,30}$/;
export const nameField = z.string().check(z.regex(namePattern));
/** `tasks`, `llm.chat`, `proxy.http`. */
export const protocolField = z.string().check(z.regex(/^[a-z0-9]+([.-][a-z0-9]+){0,7}$/), z.maxLength(64));
/** Exact version of a capability (semver 2.0.0). */
export const versionField = z
  .string()
  .check(z.maxLength(64), z.regex(/^\d{1,9}\.\d{1,9}\.\d{1,9}(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$/));
/** Semver range; parsed by whoever matches, who answers what is none with `badRange`. */
export const rangeField = z.string().check(z.maxLength(128));

export const serviceType = z.enum(['http', 'tcp']);
export const serviceField = z.object({ name: nameField, type: serviceType });
export const capabilityField = z.object({ protocol: protocolField, version: versionField });

/** Version and critical extensions, in every signed object. Only version 1 without extensions is known. */
export const signedFields = {
  v: z.int(),
  crit: z.array(z.string().check(z.maxLength(64))).check(z.maxLength(16)),
};
