/**
 * The services of this device: those it was started with, those that were added and removed at run time (kept in
 * `services.json`), and how each of them does. Who may use one is decided where it is served.
 */

import { readFile } from 'node:fs/promises';
import type { Clock, Timer } from '@cocoon-mesh/protocol';
import { MeshError, every, limits } from '@cocoon-mesh/protocol';
import { writePrivateFile } from './atomic-file.ts';
import { isMissing } from './key-file.ts';
import { isHealthy } from './service-health.ts';
import type { ServiceSpec } from './service-spec.ts';
import { formatService, parseService } from './service-spec.ts';

export interface OwnService extends ServiceSpec {
  /** Null until it was asked for the first time. */
  readonly healthy: boolean | null;
}

/** What the user did at run time, on top of what the device was started with. */
interface Changes {
  readonly added: readonly string[];
  readonly removed: readonly string[];
}

export interface ServicesOptions {
  readonly path: string;
  readonly configured: readonly ServiceSpec[];
  /** They were asked for by this very start, so an earlier removal does not count. */
  readonly insisted: boolean;
  readonly clock: Clock;
  /** The list changed: others must be told. */
  readonly changed: () => Promise<void>;
  readonly health?: (service: ServiceSpec, clock: Clock) => Promise<boolean>;
}

export class Services {
  readonly #options: ServicesOptions;
  readonly #services = new Map<string, OwnService>();
  #changes: Changes;
  #checks: Timer | null = null;

  private constructor(options: ServicesOptions, changes: Changes) {
    this.#options = options;
    this.#changes = changes;
    const { configured, insisted } = options;
    const added = changes.added.map(parseService);
    for (const service of configured)
      if (insisted || !changes.removed.includes(service.name)) this.#put(service);
    for (const service of added) if (!insisted || !this.#services.has(service.name)) this.#put(service);
  }

  /** @throws MeshError database_corrupt; the file is left as it is */
  static async open(options: ServicesOptions): Promise<Services> {
    try {
      return new Services(options, parseChanges(await readFile(options.path, 'utf8')));
    } catch (cause) {
      if (isMissing(cause)) return new Services(options, { added: [], removed: [] });
      throw new MeshError('database_corrupt', `${options.path} is damaged`, { cause });
    }
  }

  /** By name. */
  list(): readonly OwnService[] {
    return [...this.#services.values()].toSorted((a, b) => (a.name < b.name ? -1 : 1));
  }

  get(name: string): OwnService | undefined {
    return this.#services.get(name);
  }

  /** Looks at every service now and then. */
  start(): void {
    const checkAll = () => {
      for (const { name } of this.list()) void this.#check(name);
    };
    this.#checks = every(this.#options.clock, limits.healthIntervalMs, checkAll);
    checkAll();
  }

  /** @throws MeshError service_exists | bad_service | storage_failed */
  async add(service: ServiceSpec): Promise<OwnService> {
    const { name } = service;
    if (this.#services.has(name))
      throw new MeshError('service_exists', `This device has a service called ${name} already`, {
        hint: `Remove it first: cocoon services remove ${name}`,
      });
    if (this.#services.size >= limits.maxServices)
      throw new MeshError('bad_service', `A device has at most ${limits.maxServices} services`);
    const { added, removed } = this.#changes;
    await this.#save({
      added: [...added.filter((text) => parseService(text).name !== name), formatService(service)],
      removed: removed.filter((other) => other !== name),
    });
    const put = this.#put(service);
    void this.#check(name);
    await this.#options.changed();
    return put;
  }

  /** @throws MeshError service_not_found | storage_failed */
  async remove(name: string): Promise<OwnService> {
    const service = this.#services.get(name);
    if (!service) throw new MeshError('service_not_found', `This device has no service called ${name}`);
    const { added, removed } = this.#changes;
    await this.#save({
      added: added.filter((text) => parseService(text).name !== name),
      removed: [...new Set([...removed, name])],
    });
    this.#services.delete(name);
    await this.#options.changed();
    return service;
  }

  /** Idempotent. */
  close(): void {
    this.#checks?.cancel();
    this.#checks = null;
  }

  #put(service: ServiceSpec): OwnService {
    const own = { ...service, healthy: null };
    this.#services.set(service.name, own);
    return own;
  }

  async #check(name: string): Promise<void> {
    const service = this.#services.get(name);
    if (!service) return;
    const healthy = await (this.#options.health ?? isHealthy)(service, this.#options.clock);
    // It may have been removed, or replaced by another one of its name, in the meantime.
    if (this.#services.get(name)?.port === service.port) this.#services.set(name, { ...service, healthy });
  }

  async #save(changes: Changes): Promise<void> {
    await writePrivateFile(this.#options.path, `${JSON.stringify(changes, null, 2)}\n`);
    this.#changes = changes;
  }
}

function parseChanges(text: string): Changes {
  const { added, removed } = JSON.parse(text) as Partial<Record<keyof Changes, unknown>>;
  return { added: texts(added), removed: texts(removed) };
}

function texts(value: unknown): string[] {
  if (Array.isArray(value) && value.every((item) => typeof item === 'string')) return value;
  throw new TypeError('not a list of texts');
}
