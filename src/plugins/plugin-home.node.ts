/** What lies in COCOON_HOME for plugins: the folder they are found in, and for each its data and its settings. */

import { chmod, lstat, mkdir, readFile, readlink, symlink, unlink } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { Json } from '@cocoon-mesh/protocol';
import { MeshError } from '@cocoon-mesh/protocol';
import { parse } from 'smol-toml';
import type { PluginManifest } from './manifest.node.ts';
import { compileSchema } from './schema-check.ts';

export class PluginHome {
  readonly #home: string;

  /** @param home COCOON_HOME */
  constructor(home: string) {
    this.#home = resolve(home);
  }

  /** Every folder in it is a plugin. */
  get plugins(): string {
    return join(this.#home, 'plugins');
  }

  settingsFile(name: string): string {
    return join(this.#home, 'plugin-settings', `${fileName(name)}.toml`);
  }

  dataFolder(name: string): string {
    return join(this.#home, 'plugin-data', fileName(name));
  }

  /** Made when it is missing; the user's alone (0700). @throws MeshError storage_failed */
  async makeDataFolder(name: string): Promise<string> {
    const folder = this.dataFolder(name);
    try {
      await mkdir(folder, { recursive: true, mode: 0o700 });
      await chmod(folder, 0o700);
    } catch (cause) {
      throw new MeshError('storage_failed', `The folder ${folder} cannot be made`, { cause });
    }
    return folder;
  }

  /** What the user set, and the defaults of the manifest. @throws MeshError bad_config */
  async readSettings({ name, settings: schema }: PluginManifest): Promise<Json> {
    const path = this.settingsFile(name);
    const text = await readFile(path, 'utf8').catch((cause: unknown) => {
      if (cause instanceof Error && 'code' in cause && cause.code === 'ENOENT') return '';
      throw new MeshError('bad_config', `${path} could not be read`, { cause });
    });
    let values: Json;
    try {
      // Dates and the like are none.
      values = JSON.parse(JSON.stringify(parse(text))) as Json;
    } catch (cause) {
      const why = cause instanceof Error ? (cause.message.split('\n')[0] ?? '') : '';
      throw new MeshError('bad_config', `${path} is not TOML: ${why}`, { cause });
    }
    if (schema === null) return values;
    const check = compileSchema(schema);
    const settings = check.withDefaults(values);
    const problem = check.problem(settings);
    if (problem !== null)
      throw new MeshError('bad_config', `${path}: ${problem}`, {
        hint: `The settings of ${name} stand in that file.`,
      });
    return settings;
  }

  /** So that it is found at the next start too. @throws MeshError storage_failed */
  async link({ name, folder }: PluginManifest): Promise<void> {
    const path = this.#linkOf(name);
    try {
      await mkdir(this.plugins, { recursive: true, mode: 0o700 });
      const before = await linkTarget(path);
      if (before === folder) return;
      if (before !== null) await unlink(path);
      await symlink(folder, path, 'dir');
    } catch (cause) {
      throw new MeshError('storage_failed', `${path} could not be made`, { cause });
    }
  }

  /** @returns false: it is no link of `link`, so the plugin is found again at the next start */
  async unlink(name: string): Promise<boolean> {
    const path = this.#linkOf(name);
    if ((await linkTarget(path)) === null) return false;
    await unlink(path);
    return true;
  }

  #linkOf(name: string): string {
    return join(this.plugins, fileName(name));
  }
}

/** Null: it is none. */
async function linkTarget(path: string): Promise<string | null> {
  try {
    return (await lstat(path)).isSymbolicLink() ? await readlink(path) : null;
  } catch {
    return null;
  }
}

/** `@anna/shout` → `anna+shout`; no name has a plus. */
function fileName(name: string): string {
  return name.replace(/^@/, '').replace('/', '+');
}
