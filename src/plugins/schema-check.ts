/**
 * JSON Schemas of a manifest as checks. A rule that is not held must not look as if it were: a schema with one of
 * the standard's that is not held here, or with one that makes no sense, is refused.
 */

import type { Json } from '@cocoon-mesh/protocol';
import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import { fromJSONSchema } from 'zod';
import type { CheckInner, JsonSchema, Problem, SchemaObject } from './schema-rules.ts';
import { isRecord, rules, wantedKinds } from './schema-rules.ts';

export type { JsonSchema } from './schema-rules.ts';

export interface SchemaCheck {
  /** What is wrong, naming the place (`items.2.name: …`); null: nothing. */
  problem(value: unknown): string | null;
  /** The value with the defaults of the schema, wherever properties have them. */
  withDefaults(value: Json): Json;
}

/** A schema that is deeper hurts whoever walks it. */
const maxDepth = 32;
/** Of schemas and references on the way to one value. */
const maxWay = 256;
/** A schema can be written so that a small value takes for ever. */
const maxSteps = 5_000_000;
/** Defaults can stand in defaults. */
const maxFilled = 1_000;

/** Rules of the standard that are not held. What else is not known says something to others. */
const unheld = new Set(
  (
    'uniqueItems contains minContains maxContains if then else nullable dependencies dependentSchemas ' +
    'unevaluatedItems unevaluatedProperties $dynamicRef $recursiveRef'
  ).split(' '),
);
/** Keys whose value is a schema, a list of them, or a schema for each name. */
const innerSchema = new Set(['additionalProperties', 'propertyNames', 'items', 'additionalItems', 'not']);
const innerList = new Set(['allOf', 'anyOf', 'oneOf', 'prefixItems']);
const innerRecord = new Set(['properties', 'patternProperties', '$defs', 'definitions']);

/** @throws MeshError bad_manifest for a schema that is none, or has rules that are not held here */
export function compileSchema(schema: JsonSchema): SchemaCheck {
  const formats = new Map<string, Format>();
  assertSchema(schema, schema, formats, maxDepth);
  return {
    problem(value) {
      const problem = new Checking(schema, formats).check(schema, value);
      if (!problem) return null;
      return `${problem.path.length === 0 ? 'the value' : problem.path.join('.')}: ${problem.message}`;
    },
    withDefaults: (value) => new Filling(schema).fill(schema, value),
  };
}

type Format = (text: string) => boolean;

/** One value, against all of a schema. */
class Checking {
  readonly #root: JsonSchema;
  readonly #formats: ReadonlyMap<string, Format>;
  #way = 0;
  #steps = 0;

  constructor(root: JsonSchema, formats: ReadonlyMap<string, Format>) {
    this.#root = root;
    this.#formats = formats;
  }

  readonly check: CheckInner = (schema, value, at) => {
    if (++this.#steps > maxSteps || this.#way >= maxWay)
      return { path: [], message: 'it takes too long to check' };
    this.#way++;
    try {
      const problem = this.#problem(schema, value);
      return problem && at !== undefined ? { ...problem, path: [at, ...problem.path] } : problem;
    } finally {
      this.#way--;
    }
  };

  #problem(schema: Json, value: unknown): Problem | null {
    if (schema === false) return { path: [], message: 'nothing may stand here' };
    if (!isRecord(schema)) return null;
    for (const key in schema) {
      const wanted = schema[key] ?? null;
      const problem =
        (Object.hasOwn(rules, key) ? rules[key] : null)?.(value, wanted, this.check, schema) ?? null;
      if (problem) return problem;
    }
    const { $ref: ref, format } = schema;
    if (
      typeof format === 'string' &&
      typeof value === 'string' &&
      this.#formats.get(format)?.(value) === false
    )
      return { path: [], message: `is no ${format}` };
    return typeof ref === 'string' ? this.check(referred(this.#root, ref) ?? true, value) : null;
  }
}

/** @throws MeshError bad_manifest */
function assertSchema(schema: Json, root: JsonSchema, formats: Map<string, Format>, depth: number): void {
  if (typeof schema === 'boolean') return;
  if (!isRecord(schema)) throw bad(`has ${JSON.stringify(schema).slice(0, 100)} where a schema belongs`);
  if (depth === 0) throw bad(`has more than ${maxDepth} levels`);
  for (const [key, wanted] of Object.entries(schema)) {
    if (key === '$ref') assertReference(wanted, root);
    else if (key === 'format' && typeof wanted === 'string') formats.set(wanted, formatOf(wanted));
    else if (unheld.has(key)) throw bad(`has ${key}, which is not held`);
    if (Object.hasOwn(wantedKinds, key) && wantedKinds[key]?.(wanted) === false)
      throw bad(`was not understood: ${key} is ${JSON.stringify(wanted).slice(0, 100)}`);
    const isList = innerList.has(key) || (key === 'items' && Array.isArray(wanted));
    const inner =
      isList || innerRecord.has(key) ? Object.values(wanted ?? {}) : innerSchema.has(key) ? [wanted] : [];
    for (const one of inner) assertSchema(one as Json, root, formats, depth - 1);
  }
}

function bad(what: string): MeshError {
  return new MeshError('bad_manifest', `A JSON Schema ${what}`);
}

function assertReference(ref: Json, root: JsonSchema): void {
  if (typeof ref !== 'string' || referred(root, ref) === null)
    throw bad(`was not understood: $ref names ${JSON.stringify(ref)}, which is not in it`);
}

/** Null: it is not there, or elsewhere. */
function referred(root: JsonSchema, ref: string): Json {
  if (ref === '#') return root;
  if (!ref.startsWith('#/')) return null;
  let found: Json = root;
  for (const part of ref.slice(2).split('/')) {
    const name = decodeURIComponent(part).replaceAll('~1', '/').replaceAll('~0', '~');
    if (typeof found !== 'object' || found === null || !Object.hasOwn(found, name)) return null;
    found = (found as { readonly [key: string]: Json })[name] ?? null;
  }
  return found;
}

/** As the library has them; one that is not known says nothing, as the standard wants it. */
function formatOf(format: string): Format {
  const type = 'string';
  try {
    const schema = fromJSONSchema({ type, format });
    return (text) => schema.safeParse(text).success;
  } catch {
    return () => true;
  }
}

/** The defaults of one value. */
class Filling {
  readonly #root: JsonSchema;
  #steps = 0;

  constructor(root: JsonSchema) {
    this.#root = root;
  }

  fill(schema: Json, value: Json): Json {
    if (!isRecord(schema) || ++this.#steps > maxFilled) return value;
    const { $ref: ref, allOf, properties, items } = schema;
    let result = value;
    if (typeof ref === 'string') result = this.fill(referred(this.#root, ref), result);
    if (Array.isArray(allOf)) for (const one of allOf) result = this.fill(one, result);
    if (Array.isArray(result)) return isRecord(items) ? result.map((item) => this.fill(items, item)) : result;
    return isRecord(result) && isRecord(properties) ? this.#fields(properties, result) : result;
  }

  #fields(properties: SchemaObject, value: SchemaObject): Json {
    const fields = new Map(Object.entries(value));
    for (const [name, schema] of Object.entries(properties)) {
      const given = fields.has(name) ? fields.get(name) : isRecord(schema) ? schema['default'] : undefined;
      if (given !== undefined) fields.set(name, this.fill(schema, given));
    }
    return Object.fromEntries(fields);
  }
}
