/**
 * The only door for bytes and text from outside: limit first, then shape, then schema. What comes out has the
 * schema's type; unknown fields are dropped. What goes out passes the same schema, so both sides agree.
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
  return new Uint8Array(packr.pack(check(schema, value)));
}

/** @throws MeshError message_too_large | bad_message */
export function decode<T>(schema: Schema<T>, bytes: Uint8Array, maxBytes: number): T {
  assertSize(bytes.length, maxBytes);
  assertPlainMsgpack(bytes);
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

/** @throws MeshError message_too_large | bad_message */
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

/** The value, typed, without fields the schema does not know. @throws MeshError bad_message naming the path */
export function check<T>(schema: Schema<T>, value: unknown): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const path = issue?.path.map(String).join('.') ?? '';
  const where = path === '' ? 'A message' : `The field ${path}`;
  throw new MeshError('bad_message', `${where} does not follow its schema: ${issue?.message ?? 'invalid'}`);
}

function assertSize(size: number, maxBytes: number): void {
  if (size > maxBytes)
    throw new MeshError('message_too_large', `A message of ${size} bytes is over its limit of ${maxBytes}`);
}
