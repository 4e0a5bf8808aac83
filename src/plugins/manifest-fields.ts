/** What a manifest says, whichever file it stands in. */

import type { Json } from '@cocoon-mesh/protocol';
import { MeshError, check, jsonField, limits, protocolField, versionField } from '@cocoon-mesh/protocol';
import { valid } from 'semver';
import * as z from 'zod/mini';
import type { JsonSchema } from './schema-check.ts';
import { compileSchema } from './schema-check.ts';

export interface PluginCapability {
  readonly protocol: string;
  /** Semver. */
  readonly version: string;
  /** Of the payload of a request, of an answer in one piece, of each chunk. Null: whatever it is. */
  readonly payload: JsonSchema | null;
  readonly answer: JsonSchema | null;
  readonly chunk: JsonSchema | null;
  /** It may answer with a stream. */
  readonly streams: boolean;
  /** Requests at once. */
  readonly limit: number;
  readonly features: readonly string[];
}

export interface PluginFields {
  readonly name: string;
  readonly version: string;
  /** Null: the first of the usual names that is there. */
  readonly main: string | null;
  readonly capabilities: readonly PluginCapability[];
  readonly settings: JsonSchema | null;
  readonly memoryMb: number;
}

const maxSchemaBytes = 64 * 1024;
const defaultLimit = 8;
const defaultMemoryMb = 512;

/** As npm has them. */
const pluginName = z
  .string()
  .check(z.maxLength(64), z.regex(/^(@[a-z0-9][a-z0-9._-]*\/)?[a-z0-9][a-z0-9._-]*$/));
const schemaField = z.union([z.boolean(), z.record(z.string(), jsonField(maxSchemaBytes, 24))]);

const capabilitySchema = z.strictObject({
  protocol: protocolField,
  version: versionField,
  description: z.optional(z.string()),
  payload: z.optional(schemaField),
  answer: z.optional(schemaField),
  chunk: z.optional(schemaField),
  limit: z.optional(z.int().check(z.gte(1), z.lte(1024))),
  features: z.optional(
    z
      .array(z.string().check(z.minLength(1), z.maxLength(256)))
      .check(z.maxLength(limits.maxCapabilityFeatures)),
  ),
});

const fieldsSchema = z.strictObject({
  name: z.optional(pluginName),
  version: z.optional(versionField),
  description: z.optional(z.string()),
  main: z.optional(z.string().check(z.minLength(1), z.maxLength(1024))),
  capabilities: z.optional(z.array(capabilitySchema).check(z.maxLength(limits.maxCapabilities))),
  settings: z.optional(schemaField),
  memory_mb: z.optional(z.int().check(z.gte(16), z.lte(65_536))),
});

/** What users are told of a field that is wrong. */
const advice: Readonly<Record<string, string>> = {
  name: 'lower-case letters, digits, dots and dashes',
  version: 'a full version, such as 1.4.0',
  main: 'the file that exports the plugin',
  protocol: 'a name such as text.shout',
  payload: 'a JSON Schema',
  answer: 'a JSON Schema',
  chunk: 'a JSON Schema, or true',
  settings: 'a JSON Schema',
  capabilities: 'a list of { protocol, version }',
  limit: 'a number from 1 to 1024',
  memory_mb: 'a number from 16 to 65536',
};

/**
 * @param path of the file, for whoever has to correct it
 * @param folder its name, for a plugin that has none
 * @throws MeshError bad_manifest
 */
export function checkFields(value: unknown, path: string, folder: string): PluginFields {
  const fields = readFields(value, path);
  const { name = nameOfFolder(folder), version = '0.0.0', main = null } = fields;
  const { memory_mb: memoryMb, capabilities = [], settings } = fields;
  const seen = new Set<string>();
  return {
    name,
    version,
    main,
    settings: settings ?? null,
    memoryMb: memoryMb ?? defaultMemoryMb,
    capabilities: capabilities.map((capability, index) => {
      const { protocol, version, payload, answer, chunk, limit, features } = capability;
      const key = `${protocol}@${version}`;
      if (valid(version) === null)
        throw bad(path, `capabilities.${index}.version is ${JSON.stringify(version)}, which is no version`);
      if (seen.has(key)) throw bad(path, `${protocol} ${version} stands in it twice`);
      seen.add(key);
      for (const [name, schema] of Object.entries({ payload, answer, chunk }))
        if (schema !== undefined) assertSchema(schema, `capabilities.${index}.${name}`, path);
      return {
        protocol,
        version,
        payload: payload ?? null,
        answer: answer ?? null,
        chunk: chunk ?? null,
        // Without any schema of the answer nothing is said against it.
        streams: chunk === undefined ? answer === undefined : chunk !== false,
        limit: limit ?? defaultLimit,
        features: features ?? [],
      };
    }),
  };
}

/** Of a folder `Mein Gerät`: `mein-gerat`. Whoever wants another one says so. */
function nameOfFolder(folder: string): string {
  const plain = folder
    .normalize('NFKD')
    .replaceAll(/\p{Mark}/gu, '')
    .toLowerCase();
  const name = plain.replaceAll(/[^a-z0-9._-]+/g, '-').replace(/^[._-]+/, '');
  return name.slice(0, 64).replace(/[._-]+$/, '') || 'plugin';
}

function readFields(value: unknown, path: string): z.infer<typeof fieldsSchema> {
  let fields;
  try {
    fields = check(fieldsSchema, value);
  } catch (thrown) {
    const cause = thrown instanceof MeshError ? thrown.cause : thrown;
    if (!(cause instanceof z.core.$ZodError)) throw thrown;
    const [issue] = cause.issues;
    const place = issue?.path.map(String).join('.') ?? '';
    if (issue?.code === 'unrecognized_keys')
      throw bad(path, `${place === '' ? 'It' : place} has ${issue.keys.join(', ')}, which is not known`);
    const last = issue?.path.findLast((part) => typeof part === 'string') ?? '';
    const given = valueAt(value, issue?.path ?? []);
    const wanted = advice[last] === undefined ? '' : `: it is ${advice[last]}`;
    if (given === undefined) throw bad(path, `${place} is missing${wanted}`);
    throw bad(path, `${place} is not ${JSON.stringify(given)?.slice(0, 100)}${wanted}`);
  }
  if (fields.settings !== undefined) assertSchema(fields.settings, 'settings', path);
  return fields;
}

function assertSchema(schema: JsonSchema, place: string, path: string): void {
  try {
    compileSchema(schema);
  } catch (thrown) {
    throw bad(path, `${place}: ${thrown instanceof Error ? thrown.message : String(thrown)}`);
  }
}

function valueAt(value: unknown, path: readonly PropertyKey[]): unknown {
  let found = value;
  for (const part of path)
    found =
      typeof found === 'object' && found !== null ? (found as Record<PropertyKey, unknown>)[part] : undefined;
  return found;
}

export function bad(path: string, what: string): MeshError {
  return new MeshError('bad_manifest', `${path}: ${what}`);
}

export type Settings = { readonly [key: string]: Json };
