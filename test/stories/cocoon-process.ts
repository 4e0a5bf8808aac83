/**
 * Runs the installed command as users do: its own process, its own home, nothing but the surface. A story starts
 * a few of these, does what a user would, and ends them.
 */

import { spawn } from 'node:child_process';
import type { ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';

const root = resolve(import.meta.dirname, '../..');
export const bin = join(root, 'node_modules/.bin/cocoon');

export type EngineName = 'libdatachannel' | 'werift';

/** Pairs that every story about a link runs with. */
export const enginePairs: readonly (readonly [EngineName, EngineName])[] = [
  ['libdatachannel', 'libdatachannel'],
  ['werift', 'werift'],
  ['libdatachannel', 'werift'],
];

export const full = process.env['COCOON_TEST_FULL'] === '1';

/** For stories that take long: two of werift are one another's neighbours in `test:full` only. */
export const fewPairs = full ? enginePairs : enginePairs.filter(([near]) => near !== 'werift');

export interface Finished {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

type Child = ChildProcessByStdio<Writable, Readable, Readable>;
type Event = { readonly event: string } & Record<string, unknown>;

const startLimitMs = 20_000;

/** One command to its end. `input` goes to stdin. */
export async function command(
  home: string,
  args: readonly string[],
  options: { input?: string; env?: Record<string, string>; limitMs?: number; program?: string } = {},
): Promise<Finished> {
  const child = begin(home, args, options.env, options.program);
  const stdout = text(child.stdout);
  const stderr = text(child.stderr);
  child.stdin.end(options.input ?? '');
  const limit = setTimeout(() => child.kill('SIGKILL'), options.limitMs ?? 60_000);
  const [code] = (await once(child, 'close')) as [number | null];
  clearTimeout(limit);
  return { code, stdout: await stdout, stderr: await stderr };
}

/** The JSON document a command prints; throws with what it said instead. */
export async function json<T = unknown>(
  home: string,
  args: readonly string[],
  program: string = bin,
): Promise<T> {
  const done = await command(home, [...args, '--json'], { program });
  if (done.code !== 0) throw new Error(`cocoon ${args.join(' ')} ended with ${done.code}: ${done.stderr}`);
  return JSON.parse(done.stdout) as T;
}

/** The code of the error a command fails with, from `--json`. */
export async function failure(
  home: string,
  args: readonly string[],
): Promise<{ code: string; exit: number | null }> {
  const done = await command(home, [...args, '--json']);
  const line = done.stderr.trim().split('\n').at(-1) ?? '';
  const { error } = JSON.parse(line) as { error: { code: string } };
  return { code: error.code, exit: done.code };
}

export interface CocoonOptions {
  readonly command: 'up' | 'run' | 'signaling';
  readonly args?: readonly string[];
  readonly env?: Record<string, string>;
  readonly engine?: EngineName;
  /** Default: a fresh one that `dispose` deletes. */
  readonly home?: string;
  readonly input?: string;
  /** Another installation than this one. */
  readonly program?: string;
}

/** A running daemon or server. */
export class CocoonProcess implements AsyncDisposable {
  readonly home: string;
  readonly #ownsHome: boolean;
  readonly #options: CocoonOptions;
  #child: Child;
  #ready: Event;
  readonly events: Event[];

  private constructor(home: string, options: CocoonOptions, child: Child, ready: Event, events: Event[]) {
    this.home = home;
    this.#ownsHome = options.home === undefined;
    this.#options = options;
    this.#child = child;
    this.#ready = ready;
    this.events = events;
  }

  static async start(options: CocoonOptions): Promise<CocoonProcess> {
    const home = options.home ?? (await mkdtemp(join(tmpdir(), 'cocoon-')));
    const events: Event[] = [];
    const { child, ready } = await launch(home, options, events);
    return new CocoonProcess(home, options, child, ready, events);
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  get name(): string {
    return String(this.#ready['name']);
  }

  get peerId(): string {
    return String(this.#ready['peer_id']);
  }

  /** `http://127.0.0.1:port`. */
  get gateway(): string {
    return String(this.#ready['gateway']);
  }

  get signaling(): string {
    return String(this.#ready['signaling']);
  }

  get ready(): Event {
    return this.#ready;
  }

  async gatewayToken(): Promise<string> {
    return (await readFile(String(this.#ready['gateway_token_file']), 'utf8')).trim();
  }

  async command(
    args: readonly string[],
    options: { input?: string; limitMs?: number } = {},
  ): Promise<Finished> {
    return command(this.home, args, { ...options, program: this.#options.program ?? bin });
  }

  async json<T = unknown>(...args: readonly string[]): Promise<T> {
    return json<T>(this.home, args, this.#options.program);
  }

  /** Resident memory of the daemon in bytes. */
  async residentBytes(): Promise<number> {
    const status = await readFile(`/proc/${this.pid}/status`, 'utf8');
    return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0) * 1024;
  }

  /** Ends the process; resolves when it is gone. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | null> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return this.#child.exitCode;
    const closed = once(this.#child, 'close') as Promise<[number | null]>;
    this.#child.kill(signal);
    return (await closed)[0];
  }

  /** Starts it again with the same home, without the token it joined with. */
  async restart(change: Partial<CocoonOptions> = {}): Promise<void> {
    await this.stop();
    const options = { ...this.#options, ...change };
    const { child, ready } = await launch(this.home, options, this.events);
    this.#child = child;
    this.#ready = ready;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    if (this.#ownsHome) await rm(this.home, { recursive: true, force: true });
  }
}

/** A mesh of `up` and `run`, enrolled: what most stories start from. */
export async function meshOfTwo(options: {
  readonly engines: readonly [EngineName, EngineName];
  readonly upArgs?: readonly string[];
  readonly runArgs?: readonly string[];
  readonly runEnv?: Record<string, string>;
}): Promise<{ laptop: CocoonProcess; server: CocoonProcess }> {
  const laptop = await CocoonProcess.start({
    command: 'up',
    args: ['--port', '0', '--gateway-port', '0', '--name', 'laptop', '--no-web', ...(options.upArgs ?? [])],
    engine: options.engines[0],
  });
  try {
    const server = await enroll(laptop, {
      name: 'server',
      engine: options.engines[1],
      args: options.runArgs ?? [],
      ...(options.runEnv ? { env: options.runEnv } : {}),
    });
    await sees(laptop, 'server');
    await sees(server, 'laptop');
    return { laptop, server };
  } catch (error) {
    await laptop[Symbol.asyncDispose]();
    throw error;
  }
}

/** Another device of the same owner. */
export async function enroll(
  laptop: CocoonProcess,
  device: { name: string; engine: EngineName; args?: readonly string[]; env?: Record<string, string> },
): Promise<CocoonProcess> {
  const { token } = await laptop.json<{ token: string }>('generate-token');
  return CocoonProcess.start({
    command: 'run',
    args: ['--name', device.name, '--gateway-port', '0', '--token', '-', ...(device.args ?? [])],
    input: token,
    engine: device.engine,
    ...(device.env ? { env: device.env } : {}),
  });
}

interface DeviceRow {
  readonly name: string;
  readonly online: boolean;
  readonly services: readonly { readonly name: string; readonly healthy: boolean | null }[];
}

/** Resolves when `cocoon devices` shows the device online (with this service, if one is named). */
export async function sees(cocoon: CocoonProcess, name: string, service?: string): Promise<void> {
  for (const end = Date.now() + startLimitMs; Date.now() < end;) {
    const row = (await cocoon.json<DeviceRow[]>('devices')).find((device) => device.name === name);
    if (row?.online && (service === undefined || row.services.some((offered) => offered.name === service)))
      return;
  }
  throw new Error(`${cocoon.name} does not see ${name}`);
}

async function launch(
  home: string,
  options: CocoonOptions,
  events: Event[],
): Promise<{ child: Child; ready: Event }> {
  const env = { ...options.env, ...(options.engine ? { COCOON_WEBRTC_ENGINE: options.engine } : {}) };
  const child = begin(home, [options.command, ...(options.args ?? []), '--json'], env, options.program);
  child.stdin.end(options.input ?? '');
  const stderr = text(child.stderr);
  const ready = Promise.withResolvers<Event>();
  const lines = createInterface({ input: child.stdout });
  lines.on('line', (line) => {
    const event = JSON.parse(line) as Event;
    events.push(event);
    if (event.event === 'ready') ready.resolve(event);
  });
  child.on('close', (code) => {
    void stderr.then((said) =>
      ready.reject(new StartError(`cocoon ${options.command} ended with ${code}: ${said}`, code, said)),
    );
  });
  const limit = setTimeout(() => child.kill('SIGKILL'), startLimitMs);
  try {
    return { child, ready: await ready.promise };
  } finally {
    clearTimeout(limit);
  }
}

/** A daemon that ended before it was ready. */
export class StartError extends Error {
  readonly exit: number | null;
  readonly stderr: string;

  constructor(message: string, exit: number | null, stderr: string) {
    super(message);
    this.exit = exit;
    this.stderr = stderr;
  }

  /** The code of its JSON error. */
  get code(): string {
    const line =
      this.stderr
        .trim()
        .split('\n')
        .findLast((candidate) => candidate.startsWith('{')) ?? '{}';
    return (JSON.parse(line) as { error?: { code: string } }).error?.code ?? '';
  }
}

/** A command that the story ends itself. */
export function begin(
  home: string,
  args: readonly string[],
  env: Record<string, string> = {},
  program: string = bin,
): Child {
  const inherited = Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !/^(COCOON|SIGNALING|NODE_TEST|NODE_OPTIONS)/.test(name)),
  );
  return spawn(program, args, {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: { ...inherited, COCOON_HOME: home, ...env },
  });
}

async function text(stream: Readable): Promise<string> {
  let all = '';
  stream.setEncoding('utf8');
  for await (const chunk of stream) all += String(chunk);
  return all;
}
