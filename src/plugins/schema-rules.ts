/**
 * The rules of JSON Schema (2020-12, and `items` as a list as before it), each as a check of one value. A rule stands
 * for values of its kind alone: `minLength` says nothing of numbers, `required` nothing of lists.
 */

import type { Json } from '@cocoon-mesh/protocol';

export type JsonSchema = boolean | SchemaObject;
export interface SchemaObject {
  readonly [key: string]: Json;
}

export interface Problem {
  readonly path: readonly (string | number)[];
  readonly message: string;
}

/** Checks a value that stands inside of the one that is checked, or is it. */
export type CheckInner = (schema: Json, value: unknown, at?: string | number) => Problem | null;
/** @returns null: the value holds it */
type Rule = (value: unknown, wanted: Json, inner: CheckInner, schema: SchemaObject) => Problem | null;

const kinds: Readonly<Record<string, (value: unknown) => boolean>> = {
  string: (value) => typeof value === 'string',
  number: (value) => typeof value === 'number',
  integer: (value) => Number.isInteger(value),
  boolean: (value) => typeof value === 'boolean',
  null: (value) => value === null,
  array: Array.isArray,
  object: isRecord,
};

export const rules: Readonly<Record<string, Rule>> = {
  type: (value, wanted) => {
    const names = textsOf(Array.isArray(wanted) ? wanted : [wanted]);
    if (names.some((name) => kinds[name]?.(value))) return null;
    return wrong(`expected ${names.join(' or ')}, received ${kindOf(value)}`);
  },
  enum: (value, wanted) =>
    listOf(wanted).some((one) => isEqual(one, value)) ? null : wrong(`expected one of ${shown(wanted)}`),
  const: (value, wanted) => (isEqual(value, wanted) ? null : wrong(`expected ${shown(wanted)}`)),

  minLength: ofString((text, wanted) =>
    lengthOf(text) >= Number(wanted) ? null : `shorter than ${shown(wanted)} characters`,
  ),
  maxLength: ofString((text, wanted) =>
    lengthOf(text) <= Number(wanted) ? null : `longer than ${shown(wanted)} characters`,
  ),
  pattern: ofString((text, wanted) =>
    patternOf(wanted).test(text) ? null : `does not match ${shown(wanted)}`,
  ),

  minimum: ofNumber((given, wanted) => given >= wanted, 'less than'),
  maximum: ofNumber((given, wanted) => given <= wanted, 'more than'),
  exclusiveMinimum: ofNumber((given, wanted) => given > wanted, 'not more than'),
  exclusiveMaximum: ofNumber((given, wanted) => given < wanted, 'not less than'),
  multipleOf: ofNumber((given, wanted) => {
    const times = given / wanted;
    // 0.3 is three times 0.1, though not for a computer.
    return Math.abs(times - Math.round(times)) <= Number.EPSILON * Math.max(1, Math.abs(times));
  }, 'no multiple of'),

  required: ofObject((value, wanted) => {
    const missing = textsOf(wanted).find((name) => !Object.hasOwn(value, name));
    return missing === undefined ? null : wrong('it is missing', [missing]);
  }),
  properties: ofObject((value, wanted, inner) => {
    for (const [name, schema] of Object.entries(recordOf(wanted))) {
      const problem = Object.hasOwn(value, name) ? inner(schema, value[name], name) : null;
      if (problem) return problem;
    }
    return null;
  }),
  patternProperties: ofObject((value, wanted, inner) => {
    for (const [pattern, schema] of Object.entries(recordOf(wanted)))
      for (const [name, field] of Object.entries(value)) {
        const problem = patternOf(pattern).test(name) ? inner(schema, field, name) : null;
        if (problem) return problem;
      }
    return null;
  }),
  additionalProperties: ofObject((value, wanted, inner, { properties = {}, patternProperties = {} }) => {
    const known = recordOf(properties);
    const patterns = Object.keys(recordOf(patternProperties)).map(patternOf);
    for (const [name, field] of Object.entries(value)) {
      if (Object.hasOwn(known, name) || patterns.some((pattern) => pattern.test(name))) continue;
      if (wanted === false) return wrong(`${name} is not known`);
      const problem = inner(wanted, field, name);
      if (problem) return problem;
    }
    return null;
  }),
  propertyNames: ofObject((value, wanted, inner) => {
    const name = Object.keys(value).find((one) => inner(wanted, one) !== null);
    return name === undefined ? null : wrong(`${name} is no name of a property`);
  }),
  minProperties: ofObject((value, wanted) =>
    Object.keys(value).length >= Number(wanted) ? null : wrong(`fewer than ${shown(wanted)} properties`),
  ),
  maxProperties: ofObject((value, wanted) =>
    Object.keys(value).length <= Number(wanted) ? null : wrong(`more than ${shown(wanted)} properties`),
  ),
  dependentRequired: ofObject((value, wanted) => {
    for (const [name, needed] of Object.entries(recordOf(wanted))) {
      if (!Object.hasOwn(value, name)) continue;
      const missing = textsOf(needed).find((other) => !Object.hasOwn(value, other));
      if (missing !== undefined) return wrong(`it is missing beside ${name}`, [missing]);
    }
    return null;
  }),

  minItems: ofArray((list, wanted) =>
    list.length >= Number(wanted) ? null : wrong(`fewer than ${shown(wanted)} items`),
  ),
  maxItems: ofArray((list, wanted) =>
    list.length <= Number(wanted) ? null : wrong(`more than ${shown(wanted)} items`),
  ),
  prefixItems: ofArray((list, wanted, inner) => eachOf(list, 0, (index) => listOf(wanted)[index], inner)),
  items: ofArray((list, wanted, inner, { prefixItems = [] }) =>
    Array.isArray(wanted)
      ? eachOf(list, 0, (index) => wanted[index], inner)
      : eachOf(list, listOf(prefixItems).length, () => wanted, inner),
  ),
  additionalItems: ofArray((list, wanted, inner, { items }) =>
    Array.isArray(items) ? eachOf(list, items.length, () => wanted, inner) : null,
  ),

  not: (value, wanted, inner) => (inner(wanted, value) ? null : wrong('follows what it must not')),
  allOf: (value, wanted, inner) => {
    for (const schema of listOf(wanted)) {
      const problem = inner(schema, value);
      if (problem) return problem;
    }
    return null;
  },
  anyOf: (value, wanted, inner) => {
    const problems = listOf(wanted).map((schema) => inner(schema, value));
    return problems.includes(null) ? null : closest(problems);
  },
  oneOf: (value, wanted, inner) => {
    const problems = listOf(wanted).map((schema) => inner(schema, value));
    const held = problems.filter((problem) => problem === null).length;
    if (held === 1) return null;
    return held === 0 ? closest(problems) : wrong('follows more than one of its schemas');
  },
};

/** What they need to be, for a schema to be one. */
export const wantedKinds: Readonly<Record<string, (wanted: Json) => boolean>> = {
  type: (wanted) => {
    const names = Array.isArray(wanted) ? wanted : [wanted];
    return names.length > 0 && names.every((name) => typeof name === 'string' && Object.hasOwn(kinds, name));
  },
  enum: Array.isArray,
  const: () => true,
  pattern: isPattern,
  required: isNames,
  dependentRequired: (wanted) => isRecord(wanted) && Object.values(wanted).every(isNames),
  patternProperties: (wanted) => isRecord(wanted) && Object.keys(wanted).every(isPattern),
  properties: isRecord,
  prefixItems: Array.isArray,
  allOf: isFull,
  anyOf: isFull,
  oneOf: isFull,
  multipleOf: (wanted) => typeof wanted === 'number' && wanted > 0,
  ...Object.fromEntries(
    ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum'].map((name) => [name, isNumber]),
  ),
  ...Object.fromEntries(
    ['Length', 'Items', 'Properties']
      .flatMap((of) => [`min${of}`, `max${of}`])
      .map((name) => [name, isCount]),
  ),
};

export function isRecord(value: unknown): value is { readonly [key: string]: Json } {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function wrong(message: string, path: readonly string[] = []): Problem {
  return { path, message };
}

function ofString(rule: (text: string, wanted: Json) => string | null): Rule {
  return (value, wanted) => {
    const message = typeof value === 'string' ? rule(value, wanted) : null;
    return message === null ? null : wrong(message);
  };
}

function ofNumber(holds: (given: number, wanted: number) => boolean, otherwise: string): Rule {
  return (value, wanted) =>
    typeof value !== 'number' || holds(value, Number(wanted)) ? null : wrong(`${otherwise} ${shown(wanted)}`);
}

type RuleOf<Kind> = (value: Kind, wanted: Json, inner: CheckInner, schema: SchemaObject) => Problem | null;

function ofObject(rule: RuleOf<{ readonly [key: string]: Json }>): Rule {
  return (value, ...rest) => (isRecord(value) ? rule(value, ...rest) : null);
}

function ofArray(rule: RuleOf<readonly unknown[]>): Rule {
  return (value, ...rest) => (Array.isArray(value) ? rule(value, ...rest) : null);
}

function eachOf(
  list: readonly unknown[],
  from: number,
  schemaOf: (index: number) => Json | undefined,
  inner: CheckInner,
): Problem | null {
  for (let index = from; index < list.length; index++) {
    const schema = schemaOf(index);
    const problem = schema === undefined ? null : inner(schema, list[index], index);
    if (problem) return problem;
  }
  return null;
}

/** What went furthest before it failed was most likely meant. */
function closest(problems: readonly (Problem | null)[]): Problem {
  const found = problems.filter((problem) => problem !== null);
  const deepest = found.toSorted((a, b) => b.path.length - a.path.length)[0];
  if (!deepest || deepest.path.length > 0) return deepest ?? wrong('follows no schema');
  return wrong(found.map(({ message }) => message).join(', or '));
}

/** In characters, not in halves of them. */
function lengthOf(text: string): number {
  let length = 0;
  for (const _ of text) length++;
  return length;
}

const patterns = new Map<string, RegExp>();

function patternOf(source: Json): RegExp {
  const text = typeof source === 'string' ? source : '';
  let pattern = patterns.get(text);
  if (!pattern) patterns.set(text, (pattern = new RegExp(text, 'u')));
  return pattern;
}

function isPattern(source: Json): boolean {
  try {
    return typeof source === 'string' && patternOf(source) instanceof RegExp;
  } catch {
    return false;
  }
}

function isNames(wanted: Json): boolean {
  return Array.isArray(wanted) && wanted.every((name) => typeof name === 'string');
}

function isFull(wanted: Json): boolean {
  return Array.isArray(wanted) && wanted.length > 0;
}

function isNumber(wanted: Json): boolean {
  return typeof wanted === 'number';
}

function isCount(wanted: Json): boolean {
  return typeof wanted === 'number' && Number.isInteger(wanted) && wanted >= 0;
}

function listOf(wanted: Json): readonly Json[] {
  return Array.isArray(wanted) ? wanted : [];
}

function textsOf(wanted: Json): readonly string[] {
  return listOf(wanted).filter((one) => typeof one === 'string');
}

function recordOf(wanted: Json): { readonly [key: string]: Json } {
  return isRecord(wanted) ? wanted : {};
}

function kindOf(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (value === null) return 'null';
  return Array.isArray(value) ? 'array' : typeof value;
}

function shown(value: Json): string {
  return JSON.stringify(value).slice(0, 200);
}

function isEqual(one: unknown, other: unknown): boolean {
  if (one === other) return true;
  if (Array.isArray(one))
    return (
      Array.isArray(other) && one.length === other.length && one.every((item, at) => isEqual(item, other[at]))
    );
  if (!isRecord(one) || !isRecord(other)) return false;
  const names = Object.keys(one);
  return (
    names.length === Object.keys(other).length &&
    names.every((name) => Object.hasOwn(other, name) && isEqual(one[name], other[name]))
  );
}
