/**
 * Where a paged answer goes on: base64url of JSON, with a place in the list of every device that has answered so
 * far. It belongs to one query, whose hash it carries, and is no secret and no right: each device judges its own
 * position.
 *
 * A device is in one of three places, or in none while it has not answered yet, so that it starts at its start
 * whenever it comes.
 */

import type { Json, QueryType } from '@cocoon-mesh/protocol';
import {
  MeshError,
  decodeJson,
  encodeJson,
  fromBase64Url,
  limits,
  queryRowSchema,
  sha256,
  toBase64Url,
  utf8,
} from '@cocoon-mesh/protocol';
import * as z from 'zod/mini';

const { key, at } = queryRowSchema.shape;

const placeSchema = z.union([
  /** Behind the row with this position; so many rows were given out. */
  z.strictObject({ at, taken: z.int().check(z.nonnegative()) }),
  /**
   * It has answered and no row of it was given out. What sorts before `first` came later and is left out; some of
   * that was, up to position `at`.
   */
  z.strictObject({ first: key, at: z.optional(at) }),
  /** It has no more rows. */
  z.literal('finished'),
]);
export type Place = z.infer<typeof placeSchema>;

/** Behind which the device's next rows are. */
export function positionOf(place: Place | undefined): string | null {
  return typeof place === 'object' ? (place.at ?? null) : null;
}

/** By PeerId. */
export type Places = ReadonlyMap<string, Place>;

const cursorSchema = z.strictObject({
  v: z.literal(1),
  /** Of the query. */
  q: z.string(),
  places: z.record(z.string().check(z.maxLength(64)), placeSchema),
});

/** @throws MeshError bad_cursor when the places do not fit into a cursor */
export async function writeCursor(type: QueryType, params: Json, places: Places): Promise<string> {
  const cursor = { v: 1 as const, q: await queryHash(type, params), places: Object.fromEntries(places) };
  const text = toBase64Url(utf8(encodeJson(cursorSchema, cursor)));
  if (text.length > limits.maxCursorBytes)
    throw new MeshError('bad_cursor', 'Too many devices have answered for a cursor to hold their positions');
  return text;
}

/** @throws MeshError bad_cursor */
export async function readCursor(type: QueryType, params: Json, cursor: string): Promise<Places> {
  const { q, places } = parse(cursor);
  if (q !== (await queryHash(type, params)))
    throw new MeshError('bad_cursor', 'The cursor is of another query');
  return new Map(Object.entries(places));
}

function parse(cursor: string): z.infer<typeof cursorSchema> {
  if (cursor.length > limits.maxCursorBytes) throw new MeshError('bad_cursor', 'The cursor is too long');
  try {
    return decodeJson(cursorSchema, fromBase64Url(cursor), limits.maxCursorBytes);
  } catch (cause) {
    throw new MeshError('bad_cursor', 'The cursor is damaged, or of another version', { cause });
  }
}

/** Half of a SHA-256: nobody gains anything by a query that takes another one's cursor. */
async function queryHash(type: QueryType, params: Json): Promise<string> {
  const hash = await sha256(utf8(JSON.stringify([type, inOrder(params)])));
  return toBase64Url(hash.subarray(0, 16));
}

/** The same params give the same text, in whatever order their fields were written. */
function inOrder(value: Json): unknown {
  if (Array.isArray(value)) return value.map(inOrder);
  if (typeof value !== 'object' || value === null) return value;
  const fields = Object.entries(value).toSorted(([one], [other]) => (one < other ? -1 : 1));
  return { fields: fields.map(([name, field]) => [name, inOrder(field)]) };
}
