/** What this device finds about itself: memory, cores, a GPU, and whether containers can be started. */

import { access, constants, readdir } from 'node:fs/promises';
import { createConnection } from 'node:net';
import { availableParallelism, homedir, totalmem } from 'node:os';
import { delimiter, join } from 'node:path';
import type { Clock } from '@cocoon-mesh/protocol';
import type { DeviceFacts } from './requirements.ts';

export interface DeviceFactsOptions {
  readonly clock: Clock;
  /** As its user configured them. */
  readonly labels: readonly string[];
  readonly hasCapability: DeviceFacts['hasCapability'];
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Other than the real ones in tests. */
  readonly platform?: string;
  readonly arch?: string;
  /** Where devices are: `/dev`. */
  readonly devices?: string;
  /** Where the usual sockets of container engines are; null: at their usual places. */
  readonly sockets?: readonly string[];
}

/** A local socket answers at once or not at all. */
const connectTimeoutMs = 1000;

export function deviceFacts(options: DeviceFactsOptions): DeviceFacts {
  return {
    missingDocker: () => missingDocker(options),
    hasGpu: () => hasGpu(options),
    memoryBytes: memoryBytes(),
    cpus: availableParallelism(),
    labels: options.labels,
    hasCapability: options.hasCapability,
  };
}

/** All of the machine, or what the container that this runs in may have. */
function memoryBytes(): number {
  const allowed = process.constrainedMemory();
  return allowed > 0 ? Math.min(allowed, totalmem()) : totalmem();
}

async function hasGpu({ platform, arch, devices = '/dev' }: DeviceFactsOptions): Promise<boolean> {
  // Metal is in each of them.
  if ((platform ?? process.platform) === 'darwin' && (arch ?? process.arch) === 'arm64') return true;
  const names = await list(devices);
  if (names.some((name) => /^nvidia\d+$/.test(name) || name === 'kfd')) return true;
  return (await list(join(devices, 'dri'))).some((name) => /^renderD\d+$/.test(name));
}

async function missingDocker(options: DeviceFactsOptions): Promise<string | null> {
  const folders = (options.environment['PATH'] ?? '').split(delimiter).filter((folder) => folder !== '');
  const candidates = folders.flatMap((folder) => [join(folder, 'docker'), join(folder, 'podman')]);
  if (!(await someOf(candidates, isProgram))) return 'It has neither docker nor podman.';
  const targets = options.sockets ?? containerSockets(options.environment);
  if (await someOf(targets, (target) => answers(target, options.clock))) return null;
  return 'Its docker does not run, or may not be used.';
}

/** `DOCKER_HOST` alone when it is set, as docker itself does. */
function containerSockets(environment: DeviceFactsOptions['environment']): string[] {
  const host = environment['DOCKER_HOST'];
  if (host) return [host];
  const sockets = ['/var/run/docker.sock', join(homedir(), '.docker/run/docker.sock')];
  const runtime = environment['XDG_RUNTIME_DIR'];
  if (runtime) sockets.push(join(runtime, 'docker.sock'), join(runtime, 'podman/podman.sock'));
  return [...sockets, '/run/podman/podman.sock'];
}

async function someOf<T>(items: readonly T[], holds: (item: T) => Promise<boolean>): Promise<boolean> {
  for (const item of items) if (await holds(item)) return true;
  return false;
}

async function isProgram(path: string): Promise<boolean> {
  return access(path, constants.X_OK).then(
    () => true,
    () => false,
  );
}

/** Can it be connected to? @param target a path, `unix://PATH` or `tcp://HOST:PORT`; others are not tried */
async function answers(target: string, clock: Clock): Promise<boolean> {
  const where = addressOf(target);
  if (where === null) return false;
  const outcome = Promise.withResolvers<boolean>();
  const socket = createConnection(where);
  const timer = clock.after(connectTimeoutMs, () => outcome.resolve(false));
  socket.on('connect', () => outcome.resolve(true));
  socket.on('error', () => outcome.resolve(false));
  try {
    return await outcome.promise;
  } finally {
    timer.cancel();
    socket.destroy();
  }
}

function addressOf(target: string): { path: string } | { host: string; port: number } | null {
  if (target.startsWith('/')) return { path: target };
  if (target.startsWith('unix://')) return { path: target.slice('unix://'.length) };
  const url = URL.canParse(target) ? new URL(target) : null;
  if (url?.protocol !== 'tcp:' || url.port === '') return null;
  return { host: url.hostname, port: Number(url.port) };
}

async function list(folder: string): Promise<string[]> {
  return readdir(folder).catch(() => []);
}
