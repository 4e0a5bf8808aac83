/**
 * All plugins of a device: those that run, and those that cannot, with the reason. What they offer comes and goes
 * with them.
 */

import type { Provider, RequestCapability } from '@cocoon-mesh/capabilities';
import type { Clock, ErrorCode } from '@cocoon-mesh/protocol';
import { MeshError, toMeshError } from '@cocoon-mesh/protocol';
import type { FoundPlugin, PluginOrigin } from './discovery.node.ts';
import { findPlugins, lookAt } from './discovery.node.ts';
import type { PluginManifest } from './manifest.node.ts';
import { PluginHome } from './plugin-home.node.ts';
import type { PluginLogger, StartPluginProcess } from './plugin-process.node.ts';
import { startPluginProcess } from './plugin-process.node.ts';
import { Plugin } from './plugin.node.ts';
import type { PluginStateName } from './plugin.node.ts';
import type { CustomAnswerer } from './query-answerer.ts';
import { customAnswerer } from './query-answerer.ts';

export interface PluginHostOptions {
  /** COCOON_HOME. */
  readonly home: string;
  /** `--plugin`. */
  readonly flags: readonly string[];
  /** COCOON_PLUGINS, as a list. */
  readonly variable: readonly string[];
  /** `--disable-capability`. */
  readonly disabled: readonly string[];
  /** What only the device itself offers: a plugin with one of these is refused. */
  readonly reserved: readonly string[];
  /** Of which plugins get a little (`processEnvironment`). */
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly clock: Clock;
  readonly log: PluginLogger;
  readonly requestCapability: RequestCapability;
  readonly startProcess?: StartPluginProcess;
}

/** As in `cocoon plugins list --json`. */
export interface PluginView {
  /** Null: its manifest could not be read. */
  readonly name: string | null;
  readonly version: string | null;
  readonly state: PluginStateName | 'refused';
  /** Why it does not run; null: it does. */
  readonly why: string | null;
  /** Of `docs/errors.md`, with `why`. */
  readonly code: ErrorCode | null;
  readonly path: string;
  readonly origin: PluginOrigin;
  readonly capabilities: readonly {
    readonly protocol: string;
    readonly version: string;
    /** By --disable-capability. */
    readonly disabled: boolean;
  }[];
  readonly queries: readonly string[];
  readonly pid: number | null;
  readonly restarts: number;
}

type Entry = { readonly path: string; readonly origin: PluginOrigin } & (
  | { readonly plugin: Plugin }
  | { readonly plugin: null; readonly manifest: PluginManifest | null; readonly problem: MeshError }
);

export class PluginHost {
  readonly #options: PluginHostOptions;
  readonly #home: PluginHome;
  readonly #disabled: ReadonlySet<string>;
  readonly #listeners = new Set<() => void>();
  #entries: readonly Entry[] = [];
  /** One change at a time, so that no two plugins of one name get in. */
  #turn: Promise<unknown> = Promise.resolve();
  #isClosed = false;

  constructor(options: PluginHostOptions) {
    this.#options = options;
    this.#home = new PluginHome(options.home);
    this.#disabled = new Set(options.disabled);
  }

  /** Looks for plugins and starts them; nothing waits for them. Never rejects. */
  async start(): Promise<void> {
    const { flags, variable } = this.#options;
    await this.#inTurn(async () => {
      for (const found of await findPlugins({ flags, variable, home: this.#home.plugins }))
        await this.#load(found);
    });
  }

  /** Of all plugins, those that do not run now too: their state says so. */
  providers(): Provider[] {
    return this.#plugins().flatMap(({ providers }) => [...providers]);
  }

  /** Told when a plugin came, went or changed its state; providers tell changes of their own. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Null: no plugin that runs answers it. */
  customQuery(name: string): CustomAnswerer | null {
    const plugin = this.#plugins().find(({ queries }) => queries.includes(name));
    return plugin ? customAnswerer(name, plugin) : null;
  }

  list(): PluginView[] {
    return this.#entries.map((entry) => this.#view(entry));
  }

  /**
   * Starts a plugin now and at every start.
   * @throws MeshError bad_manifest | bad_config | storage_failed | shutting_down
   */
  async add(path: string): Promise<PluginView> {
    return this.#inTurn(async () => {
      const found = await lookAt(path, 'added');
      if (found.problem) throw found.problem;
      // One that was refused may have been corrected.
      this.#entries = this.#entries.filter(
        (entry) => entry.plugin !== null || entry.manifest?.folder !== found.manifest.folder,
      );
      const entry = await this.#load(found);
      if (entry.plugin === null) {
        this.#drop(entry);
        throw entry.problem;
      }
      await this.#home.link(found.manifest);
      return this.#view(entry);
    });
  }

  /**
   * Stops a plugin, and forgets it where that is ours to do.
   * @returns `stays`: the folder from which it comes back at the next start; null: it does not
   * @throws MeshError not_found
   */
  async remove(name: string): Promise<{ readonly name: string; readonly stays: string | null }> {
    return this.#inTurn(async () => {
      const entry = this.#entries.find((one) => nameOf(one) === name);
      if (!entry)
        throw new MeshError('not_found', `There is no plugin ${name}`, {
          hint: 'See `cocoon plugins list`.',
        });
      this.#drop(entry);
      if (entry.plugin) await closePlugin(entry.plugin);
      const isForgotten = await this.#home.unlink(name);
      return {
        name,
        stays: isForgotten && entry.origin !== 'flag' && entry.origin !== 'variable' ? null : entry.path,
      };
    });
  }

  /** Every plugin is stopped. Idempotent. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.all(this.#plugins().map(closePlugin));
    // What was being loaded has seen that it is too late.
    await this.#turn;
  }

  #plugins(): Plugin[] {
    return this.#entries.flatMap(({ plugin }) => (plugin ? [plugin] : []));
  }

  async #load(found: FoundPlugin): Promise<Entry> {
    const entry = await this.#entryOf(found);
    this.#entries = [...this.#entries, entry];
    if (entry.plugin === null) {
      const { code, message } = entry.problem;
      this.#options.log('warn', 'A plugin is not used', { path: found.path, code, reason: message });
    } else {
      entry.plugin.onChange(() => this.#tell());
      entry.plugin.start();
    }
    this.#tell();
    return entry;
  }

  async #entryOf(found: FoundPlugin): Promise<Entry> {
    const { path, origin, manifest } = found;
    if (manifest === null) return { path, origin, plugin: null, manifest, problem: found.problem };
    try {
      this.#assertNew(manifest);
      const settings = await this.#home.readSettings(manifest);
      const dataDir = await this.#home.makeDataFolder(manifest.name);
      if (this.#isClosed) throw new MeshError('shutting_down');
      const { startProcess = startPluginProcess } = this.#options;
      const plugin = new Plugin({
        ...this.#options,
        manifest,
        settings,
        dataDir,
        disabled: this.#disabled,
        startProcess,
      });
      return { path, origin, plugin };
    } catch (thrown) {
      return { path, origin, plugin: null, manifest, problem: toMeshError(thrown) };
    }
  }

  /** @throws MeshError bad_manifest */
  #assertNew({ name, capabilities }: PluginManifest): void {
    const { reserved } = this.#options;
    const taken = capabilities.find(({ protocol }) => reserved.includes(protocol));
    if (taken) throw new MeshError('bad_manifest', `${taken.protocol} is offered by the device itself`);
    for (const { manifest: other } of this.#plugins()) {
      if (other.name === name)
        throw new MeshError('bad_manifest', `A plugin of the name ${name} is there already: ${other.folder}`);
      const twice = capabilities.find((own) =>
        other.capabilities.some(
          ({ protocol, version }) => protocol === own.protocol && version === own.version,
        ),
      );
      if (twice)
        throw new MeshError(
          'bad_manifest',
          `The plugin ${other.name} offers ${twice.protocol} ${twice.version} already`,
        );
    }
  }

  #drop(entry: Entry): void {
    this.#entries = this.#entries.filter((one) => one !== entry);
    this.#tell();
  }

  #view(entry: Entry): PluginView {
    const { path, origin, plugin } = entry;
    const manifest = plugin === null ? entry.manifest : plugin.manifest;
    return {
      name: manifest?.name ?? null,
      version: manifest?.version ?? null,
      state: plugin === null ? 'refused' : plugin.state,
      why: plugin === null ? entry.problem.message : plugin.reason,
      code: plugin === null ? entry.problem.code : plugin.reason === null ? null : 'plugin_failed',
      path,
      origin,
      capabilities: (manifest?.capabilities ?? []).map(({ protocol, version }) => ({
        protocol,
        version,
        disabled: this.#disabled.has(protocol),
      })),
      queries: plugin?.queries ?? [],
      pid: plugin?.pid ?? null,
      restarts: plugin?.restarts ?? 0,
    };
  }

  #tell(): void {
    for (const listener of this.#listeners) listener();
  }

  async #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(work);
    this.#turn = turn.catch(() => undefined);
    return turn;
  }
}

async function closePlugin(plugin: Plugin): Promise<void> {
  await Promise.all(plugin.providers.map((provider) => provider.close()));
  await plugin.stop();
}

function nameOf(entry: Entry): string | null {
  return entry.plugin === null ? (entry.manifest?.name ?? null) : entry.plugin.manifest.name;
}
