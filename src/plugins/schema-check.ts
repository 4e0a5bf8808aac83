/**
 * JSON Schemas of a manifest as checks. Whoever checks knows this interface alone; which library stands behind it is
 * the matter of this file.
 */

import type { Json } from '@cocoon-mesh/protocol';
import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import { fromJSONSchema } from 'zod';

export type JsonSchema = boolean | { readonly [key: string]: Json };

export interface SchemaCheck {
  /** What is wrong, naming the place (`items.2.name: …`); null: nothing. */
  problem(value: unknown): string | null;
  /** The value with the defaults of the schema. Only for values without a problem. */
  withDefaults(value: Json): Json;
}

/** Read over in silence by the library; a rule that is not held must not look as if it were. */
const unheld = ['uniqueItems', 'contains', 'minProperties', 'maxProperties', 'dependentRequired'];
/** A schema that is deeper hurts whoever walks it. */
const maxDepth = 32;

/** @throws MeshError bad_manifest for a schema that is none, or has rules that are not known here */
export function compileSchema(schema: JsonSchema): SchemaCheck {
  const missed = unheldRule(schema, maxDepth);
  if (missed !== null) throw new MeshError('bad_manifest', `A JSON Schema has ${missed}, which is not held`);
  let compiled: ReturnType<typeof fromJSONSchema>;
  try {
    compiled = fromJSONSchema(schema);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new MeshError('bad_manifest', `A JSON Schema was not understood: ${why}`, { cause });
  }
  return {
    problem(value) {
      const [issue] = compiled.safeParse(value).error?.issues ?? [];
      if (!issue) return null;
      const path = issue.path.map(String).join('.');
      return `${path === '' ? 'the value' : path}: ${issue.message}`;
    },
    withDefaults: (value) => compiled.parse(value) as Json,
  };
}

/** Names of properties are no rules, even when they are called like one. */
function unheldRule(schema: Json, depth: number): string | null {
  if (typeof schema !== 'object' || schema === null) return null;
  if (depth === 0) return `more than ${maxDepth} levels`;
  if (Array.isArray(schema)) return firstOf(schema, depth);
  for (const [key, value] of Object.entries(schema)) {
    if (unheld.includes(key)) return key;
    const named = key === 'properties' || key === '$defs' || key === 'definitions';
    const plain = key === 'default' || key === 'const' || key === 'enum' || key === 'examples';
    const inner = named && isRecord(value) ? Object.values(value) : plain ? [] : [value];
    const found = firstOf(inner, depth);
    if (found !== null) return found;
  }
  return null;
}

function firstOf(schemas: readonly Json[], depth: number): string | null {
  for (const schema of schemas) {
    const found = unheldRule(schema, depth - 1);
    if (found !== null) return found;
  }
  return null;
}

function isRecord(value: Json): value is { readonly [key: string]: Json } {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
