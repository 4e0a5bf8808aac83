/**
 * Where plugins are found: named by flag, by variable, or in a folder of the home. Nothing that is found breaks the
 * start of the daemon: what cannot be used is found with the reason.
 */

import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { MeshError } from '@cocoon-mesh/protocol';
import { toMeshError } from '@cocoon-mesh/protocol';
import type { PluginManifest } from './manifest.node.ts';
import { readManifest } from './manifest.node.ts';

export type PluginOrigin = 'flag' | 'variable' | 'home' | 'added';

export type FoundPlugin = { readonly path: string; readonly origin: PluginOrigin } & (
  | { readonly manifest: PluginManifest; readonly problem: null }
  | { readonly manifest: null; readonly problem: MeshError }
);

export interface PluginPlaces {
  /** `--plugin`, each a folder. */
  readonly flags: readonly string[];
  /** COCOON_PLUGINS, see `splitPaths`. */
  readonly variable: readonly string[];
  /** `plugins` of COCOON_HOME: every folder in it, also by symbolic link. */
  readonly home: string;
}

/** In the order in which they count: flags, variable, home. One folder that is named twice is there once. Never throws. */
export async function findPlugins({ flags, variable, home }: PluginPlaces): Promise<FoundPlugin[]> {
  const places = [
    ...flags.map((path) => ({ path, origin: 'flag' as const })),
    ...variable.map((path) => ({ path, origin: 'variable' as const })),
    ...(await foldersIn(home)).map((path) => ({ path, origin: 'home' as const })),
  ];
  const found: FoundPlugin[] = [];
  const folders = new Set<string>();
  for (const { path, origin } of places) {
    const plugin = await lookAt(path, origin);
    if (plugin.manifest && folders.has(plugin.manifest.folder)) continue;
    if (plugin.manifest) folders.add(plugin.manifest.folder);
    found.push(plugin);
  }
  return found;
}

/** Never throws. */
export async function lookAt(path: string, origin: PluginOrigin): Promise<FoundPlugin> {
  try {
    return { path, origin, manifest: await readManifest(path), problem: null };
  } catch (thrown) {
    return { path, origin, manifest: null, problem: toMeshError(thrown) };
  }
}

async function foldersIn(home: string): Promise<string[]> {
  const entries = await readdir(home, { withFileTypes: true }).catch(() => []);
  return entries
    .filter((entry) => !entry.name.startsWith('.') && (entry.isDirectory() || entry.isSymbolicLink()))
    .map(({ name }) => join(home, name))
    .toSorted();
}
