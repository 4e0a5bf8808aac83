/**
 * What a device was told to be: a flag beats a variable beats `config.toml` beats the default. Everything is
 * checked here, so that a typing error ends the start and not the first use.
 */

import { readFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { parse } from 'smol-toml';
import type { IceServer } from '@cocoon-mesh/mesh';
import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import { limits } from '@cocoon-mesh/protocol/limits.ts';
import { splitPaths } from '@cocoon-mesh/plugins/path-list.node.ts';
import type { CommandPolicy } from '@cocoon-mesh/tasks/command-policy.ts';
import { parseCommandPolicy } from '@cocoon-mesh/tasks/command-policy.ts';
import { parseIceServers } from './ice-servers.ts';
import type { ModelSettings } from './models.ts';
import { isMissing } from './key-file.ts';
import { parseDuration } from './duration.ts';
import type { ServiceSpec } from './service-spec.ts';
import { assertName, parseServices } from './service-spec.ts';

export const defaultSignalingUrl = 'ws://127.0.0.1:7400/ws';
export const defaultGatewayPort = 7401;
const logLevels = ['debug', 'info', 'warn', 'error'] as const;
export type LogLevel = (typeof logLevels)[number];
/** Those who may run tasks here only when the device's user says so. */
const remoteTaskRunners = ['co-owner', 'guest', 'browser'] as const;
export type RemoteTaskRunner = (typeof remoteTaskRunners)[number];
/** As labels of tasks. */
const taskLabelPattern = /^[a-z0-9]([a-z0-9._/-]{0,62}[a-z0-9])?$/;

/** What the command line says; absent where it says nothing. */
export interface DeviceFlags {
  readonly name?: string;
  readonly signaling?: string;
  readonly service?: readonly string[];
  readonly gatewayPort?: string;
  readonly disableCapability?: readonly string[];
  readonly plugin?: readonly string[];
}

export interface DeviceSettings {
  readonly name: string;
  /** False when the name only comes from the host's: a remembered one is better. */
  readonly named: boolean;
  readonly location: string | null;
  /** Null: nobody said one, so the token's or the last one counts. */
  readonly signalingUrl: string | null;
  readonly services: readonly ServiceSpec[];
  /** Services by flag come back even when they were removed at run time. */
  readonly servicesByFlag: boolean;
  readonly gatewayPort: number;
  readonly disabledCapabilities: readonly string[];
  /** Folders of plugins: those by flag, and those of the variable or the file. */
  readonly pluginFlags: readonly string[];
  readonly pluginPaths: readonly string[];
  /** What embeds and chats here. */
  readonly models: ModelSettings;
  /** How long a device may take until the first word of a chat; null: the default. */
  readonly firstTokenMs: number | null;
  /** Who of them may. */
  readonly remoteTasks: readonly RemoteTaskRunner[];
  /** `sqlite:PATH` or `postgres://…`; null: `tasks.db` of the home. */
  readonly databaseUrl: string | null;
  /** What tasks may run here. */
  readonly taskCommands: CommandPolicy;
  readonly taskLabels: readonly string[];
  /** Null: as many as the machine has processors. */
  readonly taskConcurrency: number | null;
  readonly engine: string | undefined;
  readonly iceServers: readonly IceServer[];
  readonly logLevel: LogLevel;
}

/** Key of `config.toml` → variable. Those of later parts are known, so that one file serves every version. */
const fileKeys = {
  name: 'COCOON_NAME',
  location: 'COCOON_LOCATION',
  signaling_url: 'COCOON_SIGNALING_URL',
  services: 'COCOON_SERVICES',
  gateway_port: 'COCOON_GATEWAY_PORT',
  webrtc_engine: 'COCOON_WEBRTC_ENGINE',
  ice_servers: 'COCOON_ICE_SERVERS',
  log_level: 'COCOON_LOG_LEVEL',
  disable_capabilities: '',
  remote_tasks: '',
  plugins: 'COCOON_PLUGINS',
  database_url: 'COCOON_DATABASE_URL',
  task_commands: '',
  task_labels: '',
  task_concurrency: '',
  embedding_model: 'COCOON_EMBEDDING_MODEL',
  llm_provider: 'COCOON_LLM_PROVIDER',
  llm_model: 'COCOON_LLM_MODEL',
  llm_first_token: 'COCOON_LLM_FIRST_TOKEN',
} as const;
type FileKey = keyof typeof fileKeys;
type FileConfig = Partial<Record<FileKey, string | readonly string[]>>;

/** @throws MeshError bad_config */
export async function readConfigFile(path: string): Promise<FileConfig> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (cause) {
    if (isMissing(cause)) return {};
    throw new MeshError('bad_config', `${path} could not be read`, { cause });
  }
  let table;
  try {
    table = parse(text);
  } catch (cause) {
    const why = cause instanceof Error ? (cause.message.split('\n')[0] ?? '') : '';
    throw new MeshError('bad_config', `${path} is not TOML: ${why}`, { cause });
  }
  const config: FileConfig = {};
  for (const [key, value] of Object.entries(table))
    config[knownKey(key, path)] = plainValue(key, value, path);
  return config;
}

/** @throws MeshError bad_config | bad_name | bad_service | bad_signaling_url | bad_ice_servers | usage */
export function deviceSettings(
  flags: DeviceFlags,
  environment: Readonly<Record<string, string | undefined>>,
  file: FileConfig,
): DeviceSettings {
  const text = (flag: string | undefined, key: FileKey): string | undefined =>
    flag ?? (environment[fileKeys[key]] || undefined) ?? first(file[key]);
  const list = (flag: readonly string[] | undefined, key: FileKey): readonly string[] =>
    flag ??
    split(environment[fileKeys[key]]) ??
    (typeof file[key] === 'string' ? (split(file[key]) ?? []) : (file[key] ?? []));
  const name = text(flags.name, 'name');
  if (name !== undefined) assertName(name);
  const signaling = text(flags.signaling, 'signaling_url');
  return {
    name: name ?? nameFromHost(hostname()),
    named: name !== undefined,
    location: text(undefined, 'location') ?? null,
    signalingUrl: signaling === undefined ? null : parseSignalingUrl(signaling),
    services: parseServices(list(flags.service, 'services')),
    servicesByFlag: flags.service !== undefined,
    gatewayPort: parsePort(text(flags.gatewayPort, 'gateway_port'), defaultGatewayPort),
    disabledCapabilities: list(flags.disableCapability, 'disable_capabilities'),
    pluginFlags: flags.plugin ?? [],
    pluginPaths: list(undefined, 'plugins').flatMap(splitPaths),
    models: {
      embeddingModel: text(undefined, 'embedding_model') ?? null,
      llmProvider: text(undefined, 'llm_provider') ?? null,
      llmModel: text(undefined, 'llm_model') ?? null,
      // From the environment only: a file is read by too many.
      llmApiKey: environment['COCOON_LLM_API_KEY'] || null,
      ollamaHost: environment['OLLAMA_HOST'] || null,
    },
    firstTokenMs: parseFirstToken(text(undefined, 'llm_first_token')),
    remoteTasks: parseRunners(list(undefined, 'remote_tasks')),
    databaseUrl: parseDatabaseUrl(text(undefined, 'database_url')),
    taskCommands: parseCommandPolicy(file.task_commands),
    taskLabels: parseLabels(list(undefined, 'task_labels')),
    taskConcurrency: parseConcurrency(text(undefined, 'task_concurrency')),
    engine: text(undefined, 'webrtc_engine'),
    iceServers: parseIceServers(environment['COCOON_ICE_SERVERS'] || file.ice_servers),
    logLevel: parseLogLevel(text(undefined, 'log_level')),
  };
}

/** `ws://host:port/ws`; a URL without a path gets the usual one. @throws MeshError bad_signaling_url */
export function parseSignalingUrl(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (!url || !['ws:', 'wss:'].includes(url.protocol) || url.hostname === '' || url.hash !== '')
    throw new MeshError('bad_signaling_url', `${JSON.stringify(text)} is not a ws:// or wss:// URL`);
  if (url.username !== '' || url.password !== '')
    throw new MeshError('bad_signaling_url', 'A signaling address has no user and password');
  if (url.pathname === '/') url.pathname = '/ws';
  return url.href;
}

/** @throws MeshError usage */
export function parsePort(text: string | undefined, fallback: number): number {
  if (text === undefined) return fallback;
  const port = /^\d{1,5}$/.test(text) ? Number(text) : Number.NaN;
  if (!(port <= 65_535))
    throw new MeshError('usage', `${JSON.stringify(text)} is not a port`, {
      hint: 'A port is a number from 0 to 65535; 0 takes a free one.',
    });
  return port;
}

/** The host's name, made legal: `Anna's MacBook.local` → `anna-s-macbook`. */
export function nameFromHost(host: string): string {
  const name = (host.split('.')[0] ?? '')
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^(xn|-)+/, '')
    .slice(0, 31)
    .replace(/-$/, '');
  return name === '' ? 'cocoon' : name;
}

function parseLogLevel(text: string | undefined): LogLevel {
  const level = logLevels.find((known) => known === (text ?? 'info'));
  if (!level)
    throw new MeshError(
      'usage',
      `The log level ${JSON.stringify(text)} is not one of ${logLevels.join(', ')}`,
    );
  return level;
}

function parseRunners(words: readonly string[]): RemoteTaskRunner[] {
  return words.map((word) => {
    const runner = remoteTaskRunners.find((known) => known === word);
    if (runner) return runner;
    throw new MeshError('bad_config', `remote_tasks knows no ${JSON.stringify(word)}`, {
      hint: `It is a list of ${remoteTaskRunners.join(', ')}.`,
    });
  });
}

/** @throws MeshError bad_config */
function parseDatabaseUrl(text: string | undefined): string | null {
  if (text === undefined) return null;
  if (/^sqlite:./.test(text)) return text;
  if (/^postgres(ql)?:\/\//.test(text) && URL.canParse(text)) return text;
  // It may hold a password, so it is not repeated.
  throw new MeshError('bad_config', 'The database of the tasks is not understood', {
    hint: 'database_url and COCOON_DATABASE_URL are written sqlite:PATH or postgres://HOST/DATABASE.',
  });
}

function parseLabels(words: readonly string[]): readonly string[] {
  const wrong = words.find((word) => !taskLabelPattern.test(word));
  if (wrong === undefined) return words;
  throw new MeshError('bad_config', `task_labels has ${JSON.stringify(wrong)}, which is no label`, {
    hint: 'A label has up to 64 lower-case letters, digits, dots, dashes, underscores and slashes.',
  });
}

function parseConcurrency(text: string | undefined): number | null {
  if (text === undefined) return null;
  const count = /^\d{1,4}$/.test(text) ? Number(text) : 0;
  if (count > 0) return count;
  throw new MeshError('bad_config', 'task_concurrency is a number from 1 on');
}

function parseFirstToken(time: string | undefined): number | null {
  const ms = time === undefined ? null : parseDuration(time) * 1000;
  if (ms === null || ms <= limits.maxCapabilityTimeoutMs) return ms;
  throw new MeshError('bad_config', `llm_first_token is at most ${limits.maxCapabilityTimeoutMs / 60_000}m`);
}

function split(text: string | undefined): string[] | undefined {
  const parts = text
    ?.split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '');
  return parts && parts.length > 0 ? parts : undefined;
}

function first(value: string | readonly string[] | undefined): string | undefined {
  return typeof value === 'string' ? value : value?.[0];
}

function knownKey(key: string, path: string): FileKey {
  if (Object.hasOwn(fileKeys, key)) return key as FileKey;
  throw new MeshError('bad_config', `${path} has a key that is not known: ${key}`, {
    hint: `Known keys: ${Object.keys(fileKeys).join(', ')}.`,
  });
}

function plainValue(key: string, value: unknown, path: string): string | readonly string[] {
  if (typeof value === 'string') return value;
  if (typeof value === 'number' || typeof value === 'bigint') return String(value);
  if (Array.isArray(value) && value.every((item) => typeof item === 'string')) return value;
  throw new MeshError('bad_config', `${path}: ${key} is neither a text, a number nor a list of texts`);
}
