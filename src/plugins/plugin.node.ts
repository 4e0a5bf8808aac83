/**
 * One plugin that is kept running: started, started again with growing delays when it ends, stopped. Its capabilities
 * are there while it is.
 */

import type { Provider } from '@cocoon-mesh/capabilities';
import type { Clock, Timer } from '@cocoon-mesh/protocol';
import { MeshError } from '@cocoon-mesh/protocol';
import type { PluginManifest } from './manifest.node.ts';
import type { PluginLogger, StartOptions, StartPluginProcess } from './plugin-process.node.ts';
import { PluginProvider } from './plugin-provider.ts';
import type { PluginAnswer, PluginProcess, PluginRequest } from './request-answer.ts';
import { RestartDelay } from './restart-delay.ts';

export type PluginStateName = 'starting' | 'running' | 'waiting' | 'stopped';

type State =
  | { readonly state: 'starting'; readonly process: PluginProcess }
  | {
      readonly state: 'running';
      readonly process: PluginProcess;
      readonly queries: readonly string[];
      readonly sinceMs: number;
    }
  /** For the next start. */
  | { readonly state: 'waiting'; readonly reason: string; readonly timer: Timer }
  | { readonly state: 'stopped' };

export interface PluginOptions extends Omit<StartOptions, 'environment'> {
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Protocols that this device does not offer. */
  readonly disabled: ReadonlySet<string>;
  readonly startProcess: StartPluginProcess;
}

export class Plugin {
  readonly manifest: PluginManifest;
  readonly providers: readonly Provider[];
  readonly #options: PluginOptions;
  readonly #clock: Clock;
  readonly #log: PluginLogger;
  readonly #delay = new RestartDelay();
  readonly #listeners = new Set<() => void>();
  #state: State = { state: 'stopped' };
  #restarts = 0;

  constructor(options: PluginOptions) {
    const { manifest, clock, log, disabled } = options;
    this.manifest = manifest;
    this.#options = options;
    this.#clock = clock;
    this.#log = log;
    this.providers = manifest.capabilities
      .filter(({ protocol }) => !disabled.has(protocol))
      .map((capability) => new PluginProvider(capability, this));
  }

  get state(): PluginStateName {
    return this.#state.state;
  }

  /** Why it does not serve, in a sentence. Null: it does. */
  get problem(): string | null {
    const state = this.#state;
    const { name } = this.manifest;
    if (state.state === 'running') return null;
    if (state.state === 'waiting')
      return `The plugin ${name} ended and will be started again: ${state.reason}`;
    return state.state === 'starting' ? `The plugin ${name} is starting` : `The plugin ${name} is stopped`;
  }

  /** Of its last end; null: it has not ended, or runs again. */
  get reason(): string | null {
    return this.#state.state === 'waiting' ? this.#state.reason : null;
  }

  get pid(): number | null {
    return 'process' in this.#state ? this.#state.process.pid : null;
  }

  get queries(): readonly string[] {
    return this.#state.state === 'running' ? this.#state.queries : [];
  }

  /** Times that it was started again. */
  get restarts(): number {
    return this.#restarts;
  }

  /** Told when the state changed. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  start(): void {
    if (this.#state.state === 'stopped') this.#start();
  }

  /** @throws MeshError plugin_failed when it does not run */
  request(request: PluginRequest): PluginAnswer {
    if (this.#state.state !== 'running')
      throw new MeshError('plugin_failed', this.problem ?? 'The plugin does not run');
    return this.#state.process.request(request);
  }

  /** Idempotent. */
  async stop(): Promise<void> {
    const state = this.#state;
    this.#enter({ state: 'stopped' });
    if (state.state === 'waiting') state.timer.cancel();
    if ('process' in state) await state.process.stop();
  }

  #start(): void {
    let process: PluginProcess;
    try {
      process = this.#options.startProcess(this.#options);
    } catch (thrown) {
      return this.#ended(
        `It could not be started: ${thrown instanceof Error ? thrown.message : String(thrown)}`,
      );
    }
    this.#enter({ state: 'starting', process });
    process.ready.then(
      (queries) => {
        if (!this.#isOf(process)) return;
        this.#log('info', 'A plugin runs', { plugin: this.manifest.name, pid: process.pid });
        this.#enter({ state: 'running', process, queries, sinceMs: this.#clock.monotonic() });
      },
      // `ended` says the same.
      () => undefined,
    );
    void process.ended.then((reason) => {
      if (this.#isOf(process)) this.#ended(reason);
    });
  }

  #ended(reason: string): void {
    const ranMs = this.#state.state === 'running' ? this.#clock.monotonic() - this.#state.sinceMs : 0;
    const delayMs = this.#delay.next(ranMs);
    const timer = this.#clock.after(delayMs, () => {
      this.#restarts++;
      this.#start();
    });
    this.#log('warn', 'A plugin ended', { plugin: this.manifest.name, reason, delayMs });
    this.#enter({ state: 'waiting', reason, timer });
  }

  #isOf(process: PluginProcess): boolean {
    return 'process' in this.#state && this.#state.process === process;
  }

  #enter(state: State): void {
    this.#state = state;
    for (const listener of this.#listeners) listener();
  }
}
