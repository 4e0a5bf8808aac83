/**
 * `cocoon/plugin/testing`: runs a plugin as the daemon would, for tests of its author. `testPlugin` is the part that
 * every plugin should pass; `startPlugin` is for tests of one's own.
 */

import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, it } from 'node:test';
import type { CapabilityAnswer, CapabilityRequest, Content, Provider } from '@cocoon-mesh/capabilities';
import type { Json } from '@cocoon-mesh/protocol';
import { MeshError, deadline, limits, systemClock } from '@cocoon-mesh/protocol';
import { stringify } from 'smol-toml';
import type { PluginManifest } from './manifest.node.ts';
import { readManifest } from './manifest.node.ts';
import { PluginHome } from './plugin-home.node.ts';
import { PluginHost } from './plugin-host.node.ts';
import { compileSchema } from './schema-check.ts';

export interface StartPluginOptions {
  /** With the manifest. */
  readonly folder: string;
  /** As a user would set them. */
  readonly settings?: { readonly [key: string]: Json };
  /** What the plugin gets when it asks for capabilities. Key: the protocol. */
  readonly answers?: { readonly [protocol: string]: (payload: Json) => Json | Promise<Json> };
  /** What it logs and prints. */
  readonly onLog?: (level: string, message: string) => void;
}

export interface CallOptions {
  /** Needed when the plugin has several of this protocol. */
  readonly version?: string;
  readonly parts?: readonly Uint8Array[];
  readonly signal?: AbortSignal;
  readonly session?: string;
}

export interface TestedPlugin {
  readonly manifest: PluginManifest;
  readonly pid: number;
  /** An answer in one piece. @throws MeshError bad_payload | bad_answer | plugin_failed | cancelled | … */
  request(protocol: string, payload: Json, options?: CallOptions): Promise<Content>;
  /** What follows the last chunk is the generator's return value. @throws as `request` */
  stream(
    protocol: string,
    payload: Json,
    options?: CallOptions,
  ): AsyncGenerator<Content, Content | null, undefined>;
  /** The rows of a `custom` query. */
  query(name: string, params?: { readonly [key: string]: Json }): Promise<Json[]>;
  stop(): Promise<void>;
}

/** Starting may load large packages. */
const startMs = 30_000;
/** As long as the daemon waits before it makes it. */
const stopMs = 3_000;
/** A cancelled request that goes on this long keeps its place in the daemon. */
const cancelMs = 5_000;
const mostAtOnce = 8;
const asker = { id: 'the-tests', name: 'tests' };

/** @throws MeshError bad_manifest | bad_config | plugin_failed */
export async function startPlugin(options: StartPluginOptions): Promise<TestedPlugin> {
  const manifest = await readManifest(options.folder);
  const home = await mkdtemp(join(tmpdir(), 'cocoon-plugin-'));
  const host = new PluginHost({
    home,
    flags: [options.folder],
    variable: [],
    disabled: [],
    reserved: [],
    environment: process.env,
    clock: systemClock,
    log: (level, message) => options.onLog?.(level, message),
    requestCapability: (request) => answerWith(options.answers ?? {}, request),
  });
  const stop = async (): Promise<void> => {
    await host.close();
    await rm(home, { recursive: true, force: true });
  };
  try {
    if (options.settings) {
      const path = new PluginHome(home).settingsFile(manifest.name);
      await mkdir(dirname(path), { recursive: true });
      await writeFile(path, stringify(options.settings));
    }
    await host.start();
    await untilRunning(host);
  } catch (thrown) {
    await stop();
    throw thrown;
  }
  const providerOf = (protocol: string, version?: string): Provider => {
    const provider = host
      .providers()
      .find((one) => one.protocol === protocol && (version === undefined || one.version === version));
    if (!provider)
      throw new MeshError('capability_not_found', `The manifest has no ${protocol} ${version ?? ''}`);
    return provider;
  };
  async function* stream(
    protocol: string,
    payload: Json,
    { version, ...callOptions }: CallOptions = {},
  ): AsyncGenerator<Content, Content | null, undefined> {
    const answer = providerOf(protocol, version).handle(callOf(payload, callOptions));
    if (!(Symbol.asyncIterator in answer)) return await answer;
    const iterator = answer[Symbol.asyncIterator]() as AsyncIterator<Content, Content | undefined>;
    try {
      for (;;) {
        const step = await iterator.next();
        if (step.done === true) return step.value ?? null;
        yield step.value;
      }
    } finally {
      await iterator.return?.();
    }
  }
  return {
    manifest,
    get pid() {
      return host.list()[0]?.pid ?? 0;
    },
    stream,
    async request(protocol, payload, callOptions) {
      const answer = stream(protocol, payload, callOptions);
      const step = await answer.next();
      if (step.done === true) return step.value ?? { payload: null, parts: [] };
      await answer.return(null);
      throw new MeshError('unsupported', `${protocol} answers with a stream: use \`stream\``);
    },
    async query(name, params = {}) {
      const answerer = host.customQuery(name);
      if (!answerer) throw new MeshError('unsupported', `The plugin answers no query ${name}`);
      const rows: Json[] = [];
      const request = {
        type: 'custom' as const,
        params: { ...params, name },
        limit: limits.maxQueryRows,
        after: null,
        timeout_ms: limits.queryTimeoutMs,
        max_bytes: limits.maxQueryAnswerBytes,
      };
      for await (const { value } of answerer(request, new AbortController().signal, asker)) rows.push(value);
      return rows;
    },
    stop,
  };
}

/** One request that the plugin has to answer. */
export interface Sample {
  readonly protocol: string;
  readonly version?: string;
  readonly payload: Json;
  readonly parts?: readonly Uint8Array[];
  /** Exactly, where there is only one right one. Of a stream: of what follows the last chunk. */
  readonly answer?: Json;
  /** Of a stream, exactly. */
  readonly chunks?: readonly Json[];
}

export interface ConformanceOptions extends StartPluginOptions {
  /** At least one for each capability of the manifest. */
  readonly samples: readonly Sample[];
  readonly queries?: readonly {
    readonly name: string;
    readonly params?: { readonly [key: string]: Json };
    readonly rows?: readonly Json[];
  }[];
}

/** What a daemon expects of any plugin, as tests of node:test. */
export function testPlugin(options: ConformanceOptions): void {
  const { folder, samples, queries = [] } = options;
  const limited = { timeout: startMs + 30_000 };
  const withPlugin = async (work: (plugin: TestedPlugin) => Promise<void>): Promise<void> => {
    const plugin = await startPlugin(options);
    try {
      await work(plugin);
    } finally {
      await plugin.stop();
    }
  };

  describe(`the plugin in ${folder}`, () => {
    it('has a manifest, and a sample for each capability in it', async () => {
      const { capabilities } = await readManifest(folder);
      const missing = capabilities.filter(
        (capability) => !samples.some((sample) => isOf(sample, capability)),
      );
      assert.deepEqual(
        missing.map(({ protocol, version }) => `${protocol} ${version}`),
        [],
      );
    });

    it('starts, and stops by itself when it is told to', limited, async () => {
      const plugin = await startPlugin(options);
      const began = systemClock.monotonic();
      await plugin.stop();
      assert.ok(systemClock.monotonic() - began < stopMs, 'it had to be killed');
    });

    for (const sample of samples) {
      const { protocol, version, payload, parts, answer, chunks } = sample;
      const callOptions = { ...(version === undefined ? {} : { version }), ...(parts ? { parts } : {}) };
      const name = version === undefined ? protocol : `${protocol} ${version}`;
      const all = async (plugin: TestedPlugin, signal?: AbortSignal) =>
        readAll(plugin.stream(protocol, payload, { ...callOptions, ...(signal ? { signal } : {}) }));

      it(`${name} answers ${JSON.stringify(payload)?.slice(0, 60)} as its schemas say`, limited, async () => {
        await withPlugin(async (plugin) => {
          const got = await all(plugin);
          if (answer !== undefined) assert.deepEqual(got.end, answer);
          if (chunks !== undefined) assert.deepEqual(got.chunks, chunks);
        });
      });

      it(`${name} answers as many requests at once as its manifest says`, limited, async () => {
        await withPlugin(async (plugin) => {
          const places = plugin.manifest.capabilities.find((one) => isOf(sample, one))?.limit ?? 1;
          const count = Math.min(places, mostAtOnce);
          const answers = await Promise.all(Array.from({ length: count }, () => all(plugin)));
          if (answer !== undefined) for (const got of answers) assert.deepEqual(got.end, answer);
        });
      });

      it(`${name} ends soon after it was cancelled, and answers the next request`, limited, async () => {
        await withPlugin(async (plugin) => {
          const controller = new AbortController();
          const cancelled = all(plugin, controller.signal).then(
            () => 'answered',
            (thrown: unknown) => (thrown instanceof MeshError ? thrown.code : String(thrown)),
          );
          controller.abort(new MeshError('cancelled'));
          const limit = deadline(systemClock, cancelMs);
          const late = Promise.withResolvers<string>();
          limit.signal.addEventListener('abort', () => late.resolve('still busy'));
          const outcome = await Promise.race([cancelled, late.promise]);
          limit.cancel();
          assert.ok(['answered', 'cancelled'].includes(outcome), `it is ${outcome} after ${cancelMs} ms`);
          await all(plugin);
        });
      });
    }

    it('refuses what its schemas do not let through, and goes on', limited, async () => {
      await withPlugin(async (plugin) => {
        for (const { protocol, version, payload } of plugin.manifest.capabilities) {
          const bad = payload === null ? undefined : badPayload(payload);
          if (bad === undefined) continue;
          await assert.rejects(readAll(plugin.stream(protocol, bad, { version })), { code: 'bad_payload' });
        }
        const [sample] = samples;
        if (sample) await readAll(plugin.stream(sample.protocol, sample.payload, sample));
      });
    });

    for (const { name, params, rows } of queries)
      it(`answers the query ${name}`, limited, async () => {
        await withPlugin(async (plugin) => {
          const found = await plugin.query(name, params);
          if (rows) assert.deepEqual(found, rows);
        });
      });
  });
}

function isOf(sample: Sample, { protocol, version }: { protocol: string; version: string }): boolean {
  return sample.protocol === protocol && (sample.version === undefined || sample.version === version);
}

async function readAll(answer: AsyncGenerator<Content, Content | null, undefined>) {
  const chunks: Json[] = [];
  for (;;) {
    const step = await answer.next();
    if (step.done === true) return { chunks, end: step.value?.payload ?? null };
    chunks.push(step.value.payload);
  }
}

/** Undefined: the schema takes all of these. */
function badPayload(schema: Parameters<typeof compileSchema>[0]): Json | undefined {
  const check = compileSchema(schema);
  const candidates: Json[] = [null, 0, '', [], {}, true];
  return candidates.find((candidate) => check.problem(candidate) !== null);
}

function callOf(payload: Json, { parts, signal, session }: CallOptions) {
  return {
    payload,
    parts: parts ?? [],
    signal: signal ?? new AbortController().signal,
    session: session ?? null,
    features: [],
    from: asker,
  };
}

async function untilRunning(host: PluginHost): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const look = (): void => {
    const [plugin] = host.list();
    if (plugin?.state === 'running') resolve();
    else if (plugin?.why != null) reject(new MeshError('plugin_failed', plugin.why));
  };
  const limit = systemClock.after(startMs, () =>
    reject(new MeshError('timeout', 'The plugin did not start')),
  );
  const forget = host.onChange(look);
  look();
  try {
    await promise;
  } finally {
    forget();
    limit.cancel();
  }
}

function answerWith(
  answers: NonNullable<StartPluginOptions['answers']>,
  { protocol, version, payload }: CapabilityRequest,
): CapabilityAnswer {
  const work = async (): Promise<Json> => {
    const answer = Object.hasOwn(answers, protocol) ? answers[protocol] : undefined;
    if (!answer) throw new MeshError('capability_not_found', `The tests have no answer for ${protocol}`);
    return answer(payload);
  };
  const result = work();
  const source = {
    device: asker.name,
    deviceId: asker.id,
    version,
    attempts: 1,
    queueMs: 0,
    totalMs: 0,
  };
  const end = result.then((answer) => ({
    payload: answer,
    parts: [],
    source: { ...source, insteadOf: null },
  }));
  end.catch(() => undefined);
  const device = result.then(() => source);
  device.catch(() => undefined);
  async function* chunks(): AsyncGenerator<Content, void, undefined> {
    await result;
    yield* [];
  }
  return { device, end, chunks: chunks() };
}
