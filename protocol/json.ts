/** JSON values from outside: any shape, but bounded in size and depth, so that nothing that walks them can be hurt. */

import * as z from 'zod/mini';
import { limits } from './limits.ts';

export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

/**
 * @param maxBytes of its JSON text
 * @param maxDepth objects and lists inside each other; a plain value has none
 */
export function jsonField(maxBytes: number, maxDepth: number): z.ZodMiniType<Json> {
  return z.custom<Json>(
    (value) => isJson(value, maxDepth, { left: Infinity }) && jsonBytes(value) <= maxBytes,
    {
      error: `not JSON of at most ${maxBytes} bytes and ${maxDepth} levels`,
    },
  );
}

/**
 * As `jsonField`, where something else bounds the bytes.
 * @param maxValues each number, text, list, …; a megabyte can be a million of them
 */
export function jsonOfDepth(
  maxDepth: number,
  maxValues: number = limits.maxCapabilityJsonValues,
): z.ZodMiniType<Json> {
  return z.custom<Json>((value) => isJson(value, maxDepth, { left: maxValues }), {
    error: ({ input }) =>
      faultIn(input, maxDepth) ?? `not JSON of at most ${maxDepth} levels and ${maxValues} values`,
  });
}

/** What can be wrong in what was JSON once, and where; null: something else. */
function faultIn(value: unknown, depth: number, path = 'it'): string | null {
  if (typeof value === 'string') return value.isWellFormed() ? null : `${path} has half a character`;
  if (typeof value !== 'object' || value === null || depth === 0) return null;
  for (const [key, item] of Object.entries(value)) {
    if (key === '__proto__') return `${path} has a field that is called ${key}`;
    if (!key.isWellFormed()) return `${path} has a field whose name has half a character`;
    const own = path === 'it' ? key : `${path}.${key}`;
    const fault = faultIn(item, depth - 1, own);
    if (fault !== null) return fault;
  }
  return null;
}

/** Of its text in UTF-8. */
export function jsonBytes(value: Json): number {
  return new TextEncoder().encode(JSON.stringify(value)).length;
}

function isJson(value: unknown, depth: number, values: { left: number }): value is Json {
  if (values.left-- <= 0) return false;
  if (value === null || typeof value === 'boolean') return true;
  // Half a character does not survive being sent.
  if (typeof value === 'string') return value.isWellFormed();
  if (typeof value === 'number') return Number.isFinite(value);
  if (typeof value !== 'object' || depth === 0) return false;
  if (Array.isArray(value)) return value.every((item) => isJson(item, depth - 1, values));
  return (
    isPlain(value) &&
    Object.entries(value).every(([key, item]) => isKey(key) && isJson(item, depth - 1, values))
  );
}

/** `{}`, whoever made it; nothing that has a class. */
function isPlain(value: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}

/** MessagePack readers give `__proto__` another name, since it is no ordinary field of an object. */
function isKey(key: string): boolean {
  return key !== '__proto__' && key.isWellFormed();
}
