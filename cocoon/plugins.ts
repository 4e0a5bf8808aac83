/** The plugins of this device: what they offer goes to its capabilities, what they answer to its queries. */

import type { LocalCapabilities, Provider, RequestCapability } from '@cocoon-mesh/capabilities';
import type { PluginView } from '@cocoon-mesh/plugins';
import { PluginHost } from '@cocoon-mesh/plugins';
import type { Clock } from '@cocoon-mesh/protocol';
import { MeshError } from '@cocoon-mesh/protocol';
import type { Answerer } from '@cocoon-mesh/query';
import type { DeviceSettings } from './config.ts';
import type { Home } from './home.ts';
import type { Log } from './logs.ts';

export interface PluginsOptions {
  readonly home: Home;
  readonly settings: Pick<DeviceSettings, 'pluginFlags' | 'pluginPaths' | 'disabledCapabilities'>;
  readonly local: LocalCapabilities;
  readonly clock: Clock;
  readonly log: Log;
  readonly requestCapability: RequestCapability;
  /** This device. */
  readonly self: () => { readonly peerId: string; readonly name: string };
}

/** What these mean is the device's own matter: tasks have a home, services an owner. */
const reserved = ['tasks', 'knowledgebase', 'proxy.http'];

export class Plugins {
  readonly #host: PluginHost;
  readonly #options: PluginsOptions;
  /** What takes each of them away again. */
  readonly #offered = new Map<Provider, () => void>();

  constructor(options: PluginsOptions) {
    const { home, settings, clock, log, requestCapability } = options;
    this.#options = options;
    this.#host = new PluginHost({
      home: home.path,
      flags: settings.pluginFlags,
      variable: settings.pluginPaths,
      disabled: settings.disabledCapabilities,
      reserved,
      environment: process.env,
      clock,
      log,
      requestCapability,
    });
    this.#host.onChange(() => this.#sync());
  }

  /** For `QueryServer.answer('custom', …)`. */
  readonly answerer = ((request, signal, from) => {
    const name = nameOf(request.params);
    const answerer = this.#host.customQuery(name);
    if (!answerer) throw new MeshError('unsupported', `No plugin of this device answers ${name}`);
    const { peerId: id, name: deviceName } = this.#options.self();
    return answerer(request, signal, from ?? { id, name: deviceName });
  }) satisfies Answerer;

  /** Nothing waits for plugins. */
  start(): void {
    void this.#host.start();
  }

  list(): { readonly plugins: readonly PluginView[] } {
    return { plugins: this.#host.list() };
  }

  /** @throws MeshError bad_manifest | bad_config | storage_failed */
  async add(path: string): Promise<PluginView> {
    return this.#host.add(path);
  }

  /** @throws MeshError not_found */
  async remove(name: string): Promise<{ readonly name: string; readonly stays: string | null }> {
    return this.#host.remove(name);
  }

  /** Idempotent. */
  async close(): Promise<void> {
    await this.#host.close();
  }

  #sync(): void {
    const { local, log } = this.#options;
    const providers = new Set(this.#host.providers());
    for (const [provider, takeAway] of this.#offered) {
      if (providers.has(provider)) continue;
      this.#offered.delete(provider);
      takeAway();
    }
    for (const provider of providers) {
      if (this.#offered.has(provider)) continue;
      try {
        this.#offered.set(provider, local.add(provider));
      } catch (thrown) {
        // Too many: said once, since it is not tried again.
        this.#offered.set(provider, () => undefined);
        const { protocol, version } = provider;
        log('warn', 'A capability of a plugin is not offered', { protocol, version, reason: String(thrown) });
      }
    }
  }
}

function nameOf(params: unknown): string {
  return typeof params === 'object' && params !== null && 'name' in params ? String(params.name) : '';
}
