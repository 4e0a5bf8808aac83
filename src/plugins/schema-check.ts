/**
 * JSON Schemas of a manifest as checks. A rule that is not held must not look as if it were: a schema with a key that
 * the standard does not know, or with one that makes no sense, is refused.
 */

import type { Json } from '@cocoon-mesh/protocol';
import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import type { ErrorObject, ValidateFunction } from 'ajv';
import { Ajv2020 } from 'ajv/dist/2020.js';
import formats from 'ajv-formats';

export type JsonSchema = boolean | { readonly [key: string]: Json };

export interface SchemaCheck {
  /** What is wrong, naming the place (`items.2.name: …`); null: nothing. */
  problem(value: unknown): string | null;
  /** The value with the defaults of the schema, wherever properties have them. */
  withDefaults(value: Json): Json;
}

const options = {
  strict: false,
  strictSchema: true,
  // Its own properties alone, whatever they are called.
  ownProperties: true,
  // 0.3 is three times 0.1, though not for a computer.
  multipleOfPrecision: 9,
  logger: false,
} as const;
const checking = formats.default(new Ajv2020(options));
const filling = formats.default(new Ajv2020({ ...options, strictSchema: false, useDefaults: true }));

/** Who asks with one schema again and again waits for it once. */
const compiled = new WeakMap<object, SchemaCheck>();

/** @throws MeshError bad_manifest for a schema that is none */
export function compileSchema(schema: JsonSchema): SchemaCheck {
  const known = typeof schema === 'object' ? compiled.get(schema) : undefined;
  if (known) return known;
  const validate = compile(checking, schema);
  const check: SchemaCheck = {
    problem: (value) => problemOf(validate, value),
    withDefaults(value) {
      const filled = structuredClone(value);
      void problemOf(compile(filling, schema), filled);
      return filled;
    },
  };
  if (typeof schema === 'object') compiled.set(schema, check);
  return check;
}

/** @throws MeshError bad_manifest */
function compile(ajv: Ajv2020, schema: JsonSchema): ValidateFunction {
  try {
    return ajv.compile(schema);
  } catch (thrown) {
    const why = thrown instanceof Error ? thrown.message : String(thrown);
    throw new MeshError('bad_manifest', `A JSON Schema was not understood: ${why.slice(0, 500)}`);
  } finally {
    // Else it is kept as long as the process lives, and no other one may have its name.
    if (typeof schema === 'object') ajv.removeSchema(schema);
  }
}

function problemOf(validate: ValidateFunction, value: unknown): string | null {
  try {
    if (validate(value)) return null;
  } catch (thrown) {
    // A schema can refer to itself without end.
    if (thrown instanceof RangeError) return 'the value: it takes too long to check';
    throw thrown;
  }
  const [error] = validate.errors ?? [];
  if (!error) return 'the value: it does not fit';
  const path = placeOf(error);
  return `${path.length === 0 ? 'the value' : path.join('.')}: ${wordsOf(error)}`;
}

/** With the field that is missing or too many. */
function placeOf({ instancePath, params }: ErrorObject): readonly string[] {
  const path = instancePath
    .split('/')
    .slice(1)
    .map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'));
  const fields = params as { readonly missingProperty?: string; readonly additionalProperty?: string };
  const field = fields.missingProperty ?? fields.additionalProperty;
  return field === undefined ? path : [...path, field];
}

function wordsOf({ keyword, message, params }: ErrorObject): string {
  if (keyword === 'required') return 'it is missing';
  if (keyword === 'additionalProperties') return 'it is not known';
  const { allowedValues, allowedValue } = params as { allowedValues?: unknown; allowedValue?: unknown };
  const allowed = allowedValues ?? allowedValue;
  return `${message ?? keyword}${allowed === undefined ? '' : ` ${JSON.stringify(allowed).slice(0, 200)}`}`;
}
