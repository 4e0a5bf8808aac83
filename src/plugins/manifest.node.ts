/**
 * A plugin's folder and what its manifest says: `"cocoon"` in its package.json, or `cocoon-plugin.toml`. Code of ours
 * runs what `main` names, so it must be inside, and nobody but the user may have put it there.
 */

import { readFile, realpath, stat } from 'node:fs/promises';
import { basename, isAbsolute, join, relative, resolve, sep } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { MeshError } from '@cocoon-mesh/protocol';
import { parse } from 'smol-toml';
import type { PluginFields } from './manifest-fields.ts';
import { bad, checkFields } from './manifest-fields.ts';

export interface PluginManifest extends Omit<PluginFields, 'main'> {
  /** Without symbolic links. */
  readonly folder: string;
  /** The manifest itself. */
  readonly path: string;
  /** `file:` of `main`. */
  readonly mainUrl: string;
}

const maxManifestBytes = 1024 * 1024;
/** Anybody of the machine may write. */
const worldWritable = 0o002;

/** @throws MeshError bad_manifest */
export async function readManifest(folder: string): Promise<PluginManifest> {
  const real = await realpath(folder).catch(() => {
    throw bad(folder, 'there is no such folder');
  });
  if (!(await stat(real)).isDirectory()) throw bad(folder, 'a plugin is a folder with a manifest');
  const { path, value } = await findManifest(real);
  const { main: named, ...fields } = checkFields(value, path, basename(real));
  const main = named === null ? await usualMain(real, path) : await mainFile(real, named, path);
  for (const each of [real, path, main]) await assertOwn(each);
  return { ...fields, folder: real, path, mainUrl: pathToFileURL(main).href };
}

interface FoundManifest {
  readonly path: string;
  readonly value: unknown;
}

async function findManifest(folder: string): Promise<FoundManifest> {
  const tomlPath = join(folder, 'cocoon-plugin.toml');
  const jsonPath = join(folder, 'package.json');
  const toml = await readText(tomlPath);
  const json = await readText(jsonPath);
  const inPackage = json === null ? null : fieldsOfPackage(json, jsonPath);
  if (toml !== null && inPackage !== null)
    throw bad(folder, 'it has two manifests, cocoon-plugin.toml and "cocoon" in its package.json');
  if (toml !== null) return { path: tomlPath, value: parseText(tomlPath, () => parse(toml)) };
  if (inPackage !== null) return { path: jsonPath, value: inPackage };
  throw bad(folder, 'it has neither a cocoon-plugin.toml nor "cocoon" in a package.json');
}

/** Null: it is the package of something else. */
function fieldsOfPackage(text: string, path: string): unknown {
  const value: unknown = parseText(path, () => JSON.parse(text));
  if (!isRecord(value) || value['cocoon'] === undefined) return null;
  const { name, version, main, cocoon } = value;
  if (!isRecord(cocoon)) throw bad(path, '"cocoon" is an object');
  const known = Object.entries({ name, version, main }).filter(([, field]) => field !== undefined);
  return { ...Object.fromEntries(known), ...cocoon };
}

function parseText(path: string, read: () => unknown): unknown {
  try {
    return read();
  } catch (cause) {
    const why = cause instanceof Error ? (cause.message.split('\n')[0] ?? '') : '';
    throw bad(path, `it could not be read: ${why}`);
  }
}

/** Null: there is none. */
async function readText(path: string): Promise<string | null> {
  let size: number;
  try {
    size = (await stat(path)).size;
  } catch (thrown) {
    if (codeOf(thrown) === 'ENOENT') return null;
    throw bad(path, `it could not be read (${codeOf(thrown)})`);
  }
  if (size > maxManifestBytes) throw bad(path, `it has more than ${maxManifestBytes} bytes`);
  return readFile(path, 'utf8').catch((thrown: unknown) => {
    throw bad(path, `it could not be read (${codeOf(thrown)})`);
  });
}

/** Of a manifest without `main`. @throws MeshError bad_manifest */
async function usualMain(folder: string, path: string): Promise<string> {
  for (const name of usualMains) {
    const found = await stat(join(folder, name)).catch(() => null);
    if (found?.isFile() === true) return mainFile(folder, name, path);
  }
  throw bad(
    path,
    `main is missing: it is the file that exports the plugin; there is no ${usualMains.join(', ')}`,
  );
}

const usualMains = ['plugin.ts', 'index.ts', 'plugin.js', 'index.js'];

async function mainFile(folder: string, main: string, path: string): Promise<string> {
  const wanted = resolve(folder, main);
  if (isAbsolute(main) || !isInside(folder, wanted)) throw outside(path, main);
  const real = await realpath(wanted).catch(() => {
    throw bad(path, `main names ${main}, which is not there`);
  });
  if (!isInside(folder, real)) throw outside(path, main);
  if (!(await stat(real)).isFile()) throw bad(path, `main names ${main}, which is no file`);
  return real;
}

function outside(path: string, main: string): MeshError {
  return bad(path, `main names ${main}, which is outside of the plugin's folder`);
}

function isInside(folder: string, path: string): boolean {
  const way = relative(folder, path);
  return way !== '' && way !== '..' && !way.startsWith(`..${sep}`) && !isAbsolute(way);
}

async function assertOwn(path: string): Promise<void> {
  const { mode, uid } = await stat(path);
  const own = process.getuid?.();
  if (own === undefined) return;
  if ((mode & worldWritable) !== 0) throw bad(path, 'everybody on this machine can change it');
  // Root's are as trusted as the programs of the machine.
  if (uid !== own && uid !== 0) throw bad(path, 'it belongs to another user');
}

function codeOf(thrown: unknown): string {
  return thrown instanceof Error && 'code' in thrown ? String(thrown.code) : '';
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
