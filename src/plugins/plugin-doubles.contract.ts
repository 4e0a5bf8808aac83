/** What tests of plugins share: folders with plugins in them, hosts, and processes that do as the test says. */

import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { CapabilityAnswer, ProviderCall, RequestCapability } from '@cocoon-mesh/capabilities';
import type { Clock, Json } from '@cocoon-mesh/protocol';
import { MeshError } from '@cocoon-mesh/protocol';
import type { PluginHostOptions, PluginView } from './plugin-host.node.ts';
import { PluginHost } from './plugin-host.node.ts';
import type { StartOptions, StartPluginProcess } from './plugin-process.node.ts';
import type { PluginProcess } from './request-answer.ts';

/** A temporary folder; `await using` removes it. */
export async function makeFolder(): Promise<{ path: string; [Symbol.asyncDispose](): Promise<void> }> {
  const path = await mkdtemp(join(tmpdir(), 'cocoon-plugins-'));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

export async function writeFiles(folder: string, files: Readonly<Record<string, string>>): Promise<string> {
  for (const [name, text] of Object.entries(files)) {
    const path = join(folder, name);
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, text);
  }
  return folder;
}

/** @param cocoon of its package.json, beside one capability `demo.work` 1.0.0 */
export function packageJson(cocoon: object = {}, rest: object = {}): string {
  return JSON.stringify({
    name: 'demo',
    version: '1.0.0',
    type: 'module',
    main: 'plugin.ts',
    ...rest,
    cocoon: { capabilities: [{ protocol: 'demo.work', version: '1.0.0' }], ...cocoon },
  });
}

/** A plugin whose `demo.work` is this body of a function of `payload` and `context`. */
export function pluginSource(body: string, more = ''): string {
  return `import { PluginError, definePlugin, withParts } from 'cocoon/plugin';
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
export default definePlugin({
  capabilities: { 'demo.work': { async handle(payload, context) { ${body} } } },
  ${more}
});
`;
}

export const nobodyToAsk: RequestCapability = () => failing(new MeshError('capability_not_found'));

function failing(error: MeshError): CapabilityAnswer {
  const rejected = Promise.reject(error);
  rejected.catch(() => undefined);
  async function* chunks(): AsyncGenerator<never, void, undefined> {
    yield await rejected;
  }
  return { device: rejected, end: rejected, chunks: chunks() };
}

export function hostOptions(
  home: string,
  clock: Clock,
  more: Partial<PluginHostOptions> = {},
): PluginHostOptions {
  return {
    home,
    flags: [],
    variable: [],
    disabled: [],
    reserved: ['tasks'],
    environment: process.env,
    clock,
    log: () => undefined,
    requestCapability: nobodyToAsk,
    ...more,
  };
}

export function callOf(payload: Json, more: Partial<ProviderCall> = {}): ProviderCall {
  return {
    payload,
    parts: [],
    signal: new AbortController().signal,
    session: null,
    features: [],
    from: { id: 'asker-id', name: 'asker' },
    ...more,
  };
}

/** Resolves when the list of the host is as wanted. */
export async function untilList(
  host: PluginHost,
  wanted: (plugins: readonly PluginView[]) => boolean,
): Promise<readonly PluginView[]> {
  if (wanted(host.list())) return host.list();
  const { promise, resolve } = Promise.withResolvers<void>();
  const forget = host.onChange(() => {
    if (wanted(host.list())) resolve();
  });
  await promise;
  forget();
  return host.list();
}

export function isRunning([plugin]: readonly PluginView[]): boolean {
  return plugin?.state === 'running';
}

/** A process that is ready and ends when the test says so. */
export class ScriptedProcess implements PluginProcess {
  readonly pid: number;
  readonly options: StartOptions;
  readonly #ready = Promise.withResolvers<readonly string[]>();
  readonly #ended = Promise.withResolvers<string>();
  isStopped = false;

  constructor(options: StartOptions, pid: number) {
    this.options = options;
    this.pid = pid;
    this.#ready.promise.catch(() => undefined);
  }

  get ready(): Promise<readonly string[]> {
    return this.#ready.promise;
  }

  get ended(): Promise<string> {
    return this.#ended.promise;
  }

  beReady(queries: readonly string[] = []): void {
    this.#ready.resolve(queries);
  }

  end(reason: string): void {
    this.#ready.reject(new MeshError('plugin_failed', reason));
    this.#ended.resolve(reason);
  }

  request(): never {
    throw new MeshError('plugin_failed', 'scripted');
  }

  async stop(): Promise<void> {
    this.isStopped = true;
    this.end('It was stopped');
  }
}

export class ScriptedProcesses {
  readonly all: ScriptedProcess[] = [];

  readonly start: StartPluginProcess = (options) => {
    const process = new ScriptedProcess(options, this.all.length + 1);
    this.all.push(process);
    return process;
  };

  get last(): ScriptedProcess {
    const process = this.all.at(-1);
    if (!process) throw new Error('No process was started');
    return process;
  }
}
