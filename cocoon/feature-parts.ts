/**
 * What this device does for others beyond its services, put together: its tasks and their runs, its knowledge base,
 * the queries that ask both, the same questions to all devices, and capabilities.
 */

import type { LocalCapabilities, Provider, RequestCapability } from '@cocoon-mesh/capabilities';
import type { Device, Mesh } from '@cocoon-mesh/mesh';
import type { Clock } from '@cocoon-mesh/protocol';
import { MeshError, streamProtocols } from '@cocoon-mesh/protocol';
import { QueryServer } from '@cocoon-mesh/query';
import { openTaskStore } from '@cocoon-mesh/tasks';
import { deviceFacts } from '@cocoon-mesh/tasks/device-facts.node.ts';
import { TaskRunner } from '@cocoon-mesh/tasks/runner.node.ts';
import { satisfies, validRange } from 'semver';
import { Capabilities } from './capabilities.ts';
import type { DeviceSettings } from './config.ts';
import type { TaskEvent, WatchTasks } from './gateway/events.ts';
import type { FeatureRoutes } from './gateway/feature-routes.ts';
import { defaultFirstTokenMs } from './gateway/openai-routes.ts';
import type { Home } from './home.ts';
import { Knowledge } from './knowledge.ts';
import { LatePart } from './late-part.ts';
import type { Log } from './logs.ts';
import { Models } from './models.ts';
import { Plugins } from './plugins.ts';
import { QueryService } from './queries/query-service.ts';
import { switchedOff, taskAnswerers } from './queries/query-sources.ts';
import type { Denied } from './reach.ts';
import type { Services } from './services.ts';
import { Delegation } from './tasks/delegation.ts';
import type { OpenTasks, TaskSource } from './tasks/task-home.ts';
import { TaskHome } from './tasks/task-home.ts';
import { serveTasks } from './tasks/task-server.ts';
import { TaskService } from './tasks/task-service.ts';
import { taskView } from './tasks/task-view.ts';

export interface FeaturePartsOptions {
  readonly mesh: Mesh;
  readonly services: Pick<Services, 'list'>;
  /** What is served here; providers come and go. */
  readonly local: LocalCapabilities;
  readonly settings: DeviceSettings;
  readonly home: Home;
  readonly clock: Clock;
  readonly log: Log;
  readonly denied: Denied;
}

type Watcher = Parameters<WatchTasks>[0];

export class FeatureParts implements FeatureRoutes {
  readonly service: TaskService;
  readonly delegation: Delegation;
  readonly queries: QueryService;
  readonly knowledge: Knowledge;
  readonly capabilities: Capabilities;
  readonly plugins: Plugins;
  readonly requestCapability: RequestCapability;
  readonly clock: Clock;
  readonly firstTokenMs: number;
  readonly #options: FeaturePartsOptions;
  readonly #queryServer: QueryServer;
  readonly #models: Models;
  readonly #tasks: LatePart<OpenTasks>;
  readonly #watchers = new Set<Watcher>();

  constructor(options: FeaturePartsOptions) {
    const { mesh, clock, log, denied } = options;
    this.#options = options;
    this.clock = clock;
    this.firstTokenMs = options.settings.firstTokenMs ?? defaultFirstTokenMs;
    this.#tasks = new LatePart({
      what: 'The store of the tasks',
      open: () => this.#openTasks(),
      close: closeTasks,
      clock,
      log,
    });
    const source: TaskSource = this.#has('tasks') ? this.#tasks : { use: async () => switchedOff() };
    const tasks = new TaskHome(source);
    serveTasks({ mesh, home: tasks, clock, log, denied });
    this.service = new TaskService(mesh, tasks);
    this.delegation = new Delegation(mesh, this.service, clock);
    this.#models = this.#makeModels();
    this.knowledge = new Knowledge(
      { ...options, embeddings: this.#models.embeddings },
      this.#has('knowledgebase'),
    );

    this.#queryServer = new QueryServer({ clock, denied, log });
    const answerers = taskAnswerers(source);
    this.#queryServer.answer('list_tasks', answerers.list_tasks);
    this.#queryServer.answer('get_task_stats', answerers.get_task_stats);
    this.#queryServer.answer('search_tasks', answerers.search_tasks);
    this.#queryServer.answer('search_knowledgebase', this.knowledge.answerer);
    mesh.handle(streamProtocols.query, this.#queryServer.handle);
    this.queries = new QueryService(mesh, this.#queryServer, clock);
    this.capabilities = new Capabilities(options);
    this.requestCapability = this.capabilities.request;
    const { local, settings, home } = options;
    this.plugins = new Plugins({
      home,
      settings,
      local,
      clock,
      log,
      requestCapability: this.requestCapability,
      self: () => this.#self(),
    });
    this.#queryServer.answer('custom', this.plugins.answerer);
  }

  /** Null: switched off. */
  get embeddings(): Provider | null {
    return this.#models.embeddings;
  }

  /** Resolves when it is known what embeds here, or why nothing does; a slow disk or server is not waited for. */
  async modelsKnown(): Promise<void> {
    await this.#models.known();
  }

  /** Databases are opened; one that is away is tried again. */
  start(): void {
    if (this.#has('tasks')) void this.#tasks.start();
    this.knowledge.start();
    this.plugins.start();
  }

  readonly modelDevices = () => this.capabilities.modelDevices();

  readonly watchTasks: WatchTasks = (changed) => {
    this.#watchers.add(changed);
    return () => void this.#watchers.delete(changed);
  };

  /** @throws MeshError what keeps tasks from being stored; null: they were switched off */
  async taskTotal(): Promise<number | null> {
    if (!this.#has('tasks')) return null;
    const { store } = await this.#tasks.use();
    return (await store.stats()).total;
  }

  /** Commands that run are ended first. Idempotent. */
  async close(): Promise<void> {
    this.#queryServer.close();
    this.capabilities.close();
    await Promise.all([
      this.#tasks.close(),
      this.knowledge.close(),
      this.plugins.close(),
      this.#models.close(),
    ]);
  }

  #has(protocol: string): boolean {
    return !this.#options.settings.disabledCapabilities.includes(protocol);
  }

  #makeModels(): Models {
    const { local, settings, mesh, clock } = this.#options;
    return new Models({
      local,
      settings: { ...settings.models, disabledCapabilities: settings.disabledCapabilities },
      device: mesh.peerId,
      clock,
    });
  }

  async #openTasks(): Promise<OpenTasks> {
    const { settings, home, clock, log } = this.#options;
    const { peerId, name } = this.#self();
    const store = await openTaskStore({
      url: settings.databaseUrl ?? `sqlite:${home.tasks}`,
      device: { peerId, name },
      clock,
      onChange: ({ id, task }) => this.#tell(id, task),
    });
    try {
      const runner = await TaskRunner.start({
        tasks: store,
        home: home.path,
        clock,
        environment: process.env,
        facts: deviceFacts({
          clock,
          labels: settings.taskLabels,
          hasCapability: (protocol, range) => offers(this.#self(), protocol, range),
          environment: process.env,
        }),
        policy: settings.taskCommands,
        ...(settings.taskConcurrency === null ? {} : { concurrency: settings.taskConcurrency }),
        warn: (message) => log('warn', message),
      });
      return { store, runner };
    } catch (thrown) {
      await store.close();
      throw thrown;
    }
  }

  #tell(id: string, task: Parameters<typeof taskView>[0]['task'] | null): void {
    const device = this.#self();
    const event: TaskEvent = task
      ? taskView({ device, task })
      : { id, device: device.name, device_id: device.peerId, deleted: true };
    for (const watcher of this.#watchers) watcher(event);
  }

  #self(): Device {
    return this.#options.mesh.resolve(this.#options.mesh.peerId);
  }
}

async function closeTasks({ store, runner }: OpenTasks): Promise<void> {
  await runner.close();
  await store.close();
}

/** @throws for a range that is none */
function offers({ capabilities }: Device, protocol: string, range: string): boolean {
  if (validRange(range) === null) throw new MeshError('bad_filter');
  return capabilities.some((own) => own.protocol === protocol && satisfies(own.version, range));
}
