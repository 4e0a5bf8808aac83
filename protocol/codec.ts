/**
 * The only door for bytes and text from outside: limit first, then shape, then schema. What comes out has the
 * schema's type; unknown fields are dropped where the schema lets them. What goes out passes the same schema,
 * so both sides agree.
 */

import { Packr, Unpackr } from 'msgpackr';
import * as z from 'zod/mini';
import type { Bytes } from './bytes.ts';
import { fromUtf8 } from './bytes.ts';
import { MeshError } from './errors.ts';
import { assertPlainMsgpack } from './msgpack-shape.ts';

export type Schema<T> = z.ZodMiniType<T>;

const options = { useRecords: false, mapsAsObjects: true, int64AsType: 'number' } as const;
const packr = new Packr(options);
const unpackr = new Unpackr(options);

/** MessagePack of a value of the schema. @throws MeshError bad_message */
export function encode<T>(schema: Schema<T>, value: T): Bytes {
  const checked = check(schema, value);
  return new Uint8Array(packr.pack(hasUndefined(checked) ? withoutUndefined(checked) : checked));
}

/**
 * @param maxItems for messages so large that making what their bytes say would take seconds
 * @throws MeshError message_too_large | bad_message | unsupported
 */
export function decode<T>(schema: Schema<T>, bytes: Uint8Array, maxBytes: number, maxItems?: number): T {
  assertSize(bytes.length, maxBytes);
  assertPlainMsgpack(bytes, maxItems);
  let value: unknown;
  try {
    value = unpackr.unpack(bytes);
  } catch (cause) {
    throw new MeshError('bad_message', 'A message is not MessagePack', { cause });
  }
  return check(schema, value);
}

/** JSON text of a value of the schema. @throws MeshError bad_message */
export function encodeJson<T>(schema: Schema<T>, value: T): string {
  return JSON.stringify(check(schema, value));
}

/** @throws MeshError message_too_large | bad_message | unsupported */
export function decodeJson<T>(schema: Schema<T>, text: string | Uint8Array, maxBytes: number): T {
  assertSize(text.length, maxBytes);
  let value: unknown;
  try {
    value = JSON.parse(typeof text === 'string' ? text : fromUtf8(text));
  } catch (cause) {
    throw new MeshError('bad_message', 'A message is not JSON', { cause });
  }
  return check(schema, value);
}

/**
 * The value, typed, without fields the schema does not know.
 * @throws MeshError unsupported when the message is of a kind the schema does not have, bad_message naming the
 * path for everything else; the cause is the schema's error
 */
export function check<T>(schema: Schema<T>, value: unknown): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const cause = result.error;
  if (issue && isUnknownKind(issue, value))
    throw new MeshError('unsupported', 'A message is of a kind this version does not know', { cause });
  const path = issue?.path.map(String).join('.') ?? '';
  const where = path === '' ? 'A message' : `The field ${path}`;
  throw new MeshError('bad_message', `${where} does not follow its schema`, { cause });
}

/** Only the message's own kind counts: what stands deeper belongs to a kind that we do know. */
function isUnknownKind(issue: z.core.$ZodIssue, value: unknown): boolean {
  if (issue.code !== 'invalid_union' || issue.path.length !== 1) return false;
  const [key] = issue.path;
  const kinds = typeof value === 'object' && value !== null ? (value as Record<PropertyKey, unknown>) : {};
  return key !== undefined && typeof kinds[key] === 'string';
}

/** JSON leaves absent fields out by itself; MessagePack would write them as an extension nobody accepts. */
function withoutUndefined(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutUndefined);
  if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value)) return value;
  const entries = Object.entries(value).filter(([, field]) => field !== undefined);
  return Object.fromEntries(entries.map(([key, field]) => [key, withoutUndefined(field)]));
}

/** Hardly ever, and looking is far cheaper than a copy. */
function hasUndefined(value: unknown): boolean {
  if (value === undefined) return true;
  if (Array.isArray(value)) return value.some(hasUndefined);
  if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value)) return false;
  return Object.values(value).some(hasUndefined);
}

function assertSize(size: number, maxBytes: number): void {
  if (size > maxBytes)
    throw new MeshError('message_too_large', `A message of ${size} bytes is over its limit of ${maxBytes}`);
}
