/**
 * The process of one plugin: loads it, answers its daemon, and is gone when the daemon is. Whatever the plugin does
 * to this process, the daemon only ever sees a pipe that ends.
 */

import { Socket } from 'node:net';
import { Worker } from 'node:worker_threads';
import { systemClock } from '@cocoon-mesh/protocol/clock.ts';
import { MeshError, isErrorCode } from '@cocoon-mesh/protocol/errors.ts';
import type { Json } from '@cocoon-mesh/protocol';
import { asking } from '../asking.ts';
import { MessagePipe } from '../message-pipe.node.ts';
import type { Plugin, PluginContext, PluginLog } from '../plugin-api.ts';
import type { FromPlugin, ToPlugin } from '../plugin-messages.ts';
import { fromPluginSchema, maxPluginMessageBytes, toPluginSchema } from '../plugin-messages.ts';
import type { JsonSchema } from '../schema-check.ts';
import { AskClient } from './ask-client.ts';
import { loadPlugin } from './load-plugin.ts';
import { PluginRuntime } from './plugin-runtime.ts';
import { endGroup } from './watchdog.node.ts';

const pipeFd = 3;

type Start = ToPlugin & { kind: 'start' };

// For this process alone.
delete process.env['NODE_COMPILE_CACHE'];

const stopping = new AbortController();
let runtime: PluginRuntime | null = null;
let plugin: Plugin | null = null;

/** Also ends a plugin that keeps this thread busy for ever. */
const watchdog = new Worker(new URL('./watchdog.node.ts', import.meta.url), {
  execArgv: [],
  resourceLimits: { maxOldGenerationSizeMb: 8, maxYoungGenerationSizeMb: 1, stackSizeMb: 1 },
  stdin: false,
});
watchdog.on('error', endGroup);
watchdog.unref();

const pipe = new MessagePipe<ToPlugin, FromPlugin>(
  new Socket({ fd: pipeFd, readable: true, writable: true }),
  {
    clock: systemClock,
    incoming: toPluginSchema,
    outgoing: fromPluginSchema,
    maxBytes: maxPluginMessageBytes,
    onMessage: receive,
    onEnd: endGroup,
  },
);
const asks = new AskClient((message) => pipe.send(message));

process.on('uncaughtException', (thrown) => void fail(thrown, 'It threw outside of a request'));

function receive(message: ToPlugin, bytes: number): void {
  switch (message.kind) {
    case 'start':
      void start(message).catch((thrown: unknown) => fail(thrown, 'It could not be started'));
      break;
    case 'request':
      runtime?.request(message);
      break;
    case 'cancel':
      runtime?.cancel(message.id, new MeshError(isErrorCode(message.code) ? message.code : 'cancelled'));
      break;
    case 'grant':
      runtime?.grant(message.id, message.bytes);
      break;
    case 'ping':
      pipe.send({ kind: 'pong', id: message.id, rss_bytes: process.memoryUsage.rss() });
      break;
    case 'stop':
      void stop();
      break;
    default:
      asks.take(message, bytes);
  }
}

async function start(message: Start): Promise<void> {
  const schemas = await compileAll(message);
  const context: PluginContext = {
    signal: stopping.signal,
    log,
    settings: message.settings as PluginContext['settings'],
    dataDir: message.data_dir,
    ...asking(asks.ask, loadCompiler),
  };
  plugin = loadPlugin(exportedBy(await import(message.main)), message.capabilities);
  runtime = new PluginRuntime({ plugin, served: schemas, context, send: (out) => pipe.send(out) });
  await plugin.start?.(context);
  pipe.send({ kind: 'ready', queries: Object.keys(plugin.queries ?? {}) });
}

/** What TypeScript makes of `export default` for CommonJS is `exports.default`, so one level deeper. */
function exportedBy(module: { readonly default?: unknown }): unknown {
  const { default: exported } = module;
  const isModule = typeof exported === 'object' && exported !== null && !('capabilities' in exported);
  return isModule && 'default' in exported ? exported.default : exported;
}

async function compileAll({ capabilities }: Start) {
  const needed = capabilities.some(({ payload, answer, chunk }) => payload ?? answer ?? chunk);
  const compile = needed ? await loadCompiler() : null;
  const checkOf = (schema: unknown) =>
    compile === null || schema === null ? null : compile(schema as JsonSchema);
  return capabilities.map((one) => ({
    ...one,
    checks: { payload: checkOf(one.payload), answer: checkOf(one.answer), chunk: checkOf(one.chunk) },
  }));
}

async function loadCompiler() {
  return (await import('../schema-check.ts')).compileSchema;
}

async function stop(): Promise<void> {
  stopping.abort(new MeshError('shutting_down'));
  runtime?.cancelAll();
  try {
    await plugin?.stop?.();
  } catch (thrown) {
    log.warn('The plugin threw while it was stopped', { error: textOf(thrown) });
  }
  pipe.send({ kind: 'stopped' });
  await pipe.flushed();
  process.exit(0);
}

async function fail(thrown: unknown, what: string): Promise<void> {
  // The whole of it is for the daemon's log.
  console.error(thrown);
  pipe.send({ kind: 'failed', message: `${what}: ${textOf(thrown)}`.slice(0, 1024).toWellFormed() });
  await pipe.flushed();
  process.exit(1);
}

function textOf(thrown: unknown): string {
  if (thrown instanceof MeshError) return thrown.message;
  return thrown instanceof Error ? `${thrown.name}: ${thrown.message}` : String(thrown);
}

const logAt =
  (level: 'debug' | 'info' | 'warn' | 'error') =>
  (message: string, fields?: Readonly<Record<string, unknown>>): void =>
    tell(level, message, fields);
const log: PluginLog = Object.assign(logAt('info'), {
  debug: logAt('debug'),
  info: logAt('info'),
  warn: logAt('warn'),
  error: logAt('error'),
});

/** Errors as their text, since there is nothing in them otherwise. */
function plainFields(fields: unknown): Json {
  const text = JSON.stringify(fields, (_, value: unknown) =>
    value instanceof Error ? textOf(value) : value,
  );
  return JSON.parse(text.toWellFormed()) as Json;
}

/** Whatever a plugin without types gives it. */
function tell(level: 'debug' | 'info' | 'warn' | 'error', message: unknown, fields: unknown = {}): void {
  const text = String(message).slice(0, 1024).toWellFormed();
  try {
    pipe.send({ kind: 'log', level, message: text, fields: plainFields(fields) });
  } catch {
    pipe.send({ kind: 'log', level, message: text, fields: { fields: 'could not be logged' } });
  }
}
