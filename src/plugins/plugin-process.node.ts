/**
 * The process of one plugin, from the daemon's side: started, spoken to, watched, ended. Its group dies with it, and
 * it with the daemon (`child/watchdog.node.ts`).
 */

import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import type { ChildProcess } from 'node:child_process';
import { getCompileCacheDir } from 'node:module';
import type { Duplex, Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import type { RequestCapability } from '@cocoon-mesh/capabilities';
import type { Clock, Json } from '@cocoon-mesh/protocol';
import { MeshError } from '@cocoon-mesh/protocol';
import { AskServer } from './ask-server.ts';
import { endStrays, runVariable } from './child/strays.node.ts';
import type { PluginManifest } from './manifest.node.ts';
import { MessagePipe } from './message-pipe.node.ts';
import { OutputLines } from './output-lines.ts';
import type { FromPlugin, ToPlugin } from './plugin-messages.ts';
import { fromPluginSchema, maxPluginMessageBytes, toPluginSchema } from './plugin-messages.ts';
import { processEnvironment } from './process-environment.ts';
import { ProcessHealth } from './process-health.ts';
import type { PluginAnswer, PluginProcess, PluginRequest } from './request-answer.ts';
import { RunningRequests } from './running-requests.ts';

export type PluginLogger = (
  level: 'debug' | 'info' | 'warn' | 'error',
  message: string,
  fields?: Record<string, unknown>,
) => void;

export interface StartOptions {
  readonly manifest: PluginManifest;
  readonly settings: Json;
  /** Is there, and private. */
  readonly dataDir: string;
  readonly clock: Clock;
  readonly log: PluginLogger;
  readonly requestCapability: RequestCapability;
  readonly environment: Readonly<Record<string, string | undefined>>;
}

export type StartPluginProcess = (options: StartOptions) => PluginProcess;

const entry = new URL('./child/main.node.ts', import.meta.url);
/** A manifest needs no `type`: which kind of module a file is shows. */
const quiet = ['--disable-warning=MODULE_TYPELESS_PACKAGE_JSON'];
const moduleHook = new URL('./child/module-hook.node.ts', import.meta.url);

/** Loading its packages, and its own `start`. */
const readyMs = 30_000;
/** Its own `stop`; then it is told by signals. The daemon itself has five seconds. */
const stopMs = 3_000;
const termMs = 500;
/** One that left its group may hold the pipe for ever. */
const lastWordsMs = 500;
/** Beside V8's heap: buffers, code, native libraries. */
const otherMemoryMb = 512;
/** Of messages that a plugin logs itself. */
const maxLogMessages = 1_000;
const logSpanMs = 10_000;

export const startPluginProcess: StartPluginProcess = (options) => new RunningProcess(options);

class RunningProcess implements PluginProcess {
  readonly #options: StartOptions;
  readonly #child: ChildProcess;
  /** Everybody of it carries this. */
  readonly #run = randomUUID();
  readonly #pipe: MessagePipe<FromPlugin, ToPlugin>;
  readonly #requests: RunningRequests;
  readonly #asks: AskServer;
  readonly #health: ProcessHealth;
  readonly #ready = Promise.withResolvers<readonly string[]>();
  readonly #ended = Promise.withResolvers<string>();
  /** Why it is ending, when that is known before it has. */
  #reason: string | null = null;
  #stopping: Promise<void> | null = null;
  #isOver = false;
  #strays: Promise<void> | null = null;
  #logged = 0;
  #logSpanStart = 0;

  constructor(options: StartOptions) {
    const { manifest, clock, requestCapability } = options;
    this.#options = options;
    this.#ready.promise.catch(() => undefined);
    this.#child = spawnChild(options, this.#run);
    this.#child.once('error', (error) => this.#over(`It could not be started: ${error.message}`));
    this.#child.once('exit', (code, signal) => this.#exited(exitText(code, signal)));
    this.#pipe = new MessagePipe(this.#child.stdio[3] as Duplex, {
      clock,
      incoming: fromPluginSchema,
      outgoing: toPluginSchema,
      maxBytes: maxPluginMessageBytes,
      onMessage: (message, bytes) => this.#take(message, bytes),
      onEnd: (problem) => this.#pipeEnded(problem),
      waitsForReader: true,
    });
    this.#child.stdio[4]?.on('error', () => undefined);
    this.#requests = new RunningRequests({
      name: manifest.name,
      clock,
      send: (message) => this.#pipe.send(message),
      stuck: (count) => this.#kill(`${count} requests did not end after they were cancelled`),
    });
    this.#asks = new AskServer(requestCapability, (message) => this.#pipe.send(message));
    this.#health = new ProcessHealth({
      clock,
      maxRssBytes: (manifest.memoryMb + otherMemoryMb) * 1024 * 1024,
      ping: (id) => void this.#pipe.send({ kind: 'ping', id }),
      onProblem: (problem) => this.#kill(problem),
    });
    this.#listen();
    this.#start();
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  get ready(): Promise<readonly string[]> {
    return this.#ready.promise;
  }

  get ended(): Promise<string> {
    return this.#ended.promise;
  }

  request(request: PluginRequest): PluginAnswer {
    return this.#requests.start(request);
  }

  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  #start(): void {
    const { manifest, settings, dataDir, clock } = this.#options;
    const limit = clock.after(readyMs, () => this.#kill(`It was not ready after ${readyMs / 1000} s`));
    void Promise.race([this.ready.catch(() => undefined), this.ended]).then(() => limit.cancel());
    try {
      this.#pipe.send({
        kind: 'start',
        main: manifest.mainUrl,
        name: manifest.name,
        version: manifest.version,
        capabilities: manifest.capabilities.map(({ protocol, version, payload, answer, chunk, streams }) => ({
          protocol,
          version,
          payload,
          answer,
          // `true` is a schema that lets everything through.
          chunk,
          streams,
        })),
        settings,
        data_dir: dataDir,
      });
    } catch (thrown) {
      this.#kill(
        `It could not be told to start: ${thrown instanceof Error ? thrown.message : String(thrown)}`,
      );
    }
  }

  #listen(): void {
    const { clock, log, manifest } = this.#options;
    const plugin = manifest.name;
    const { stdout, stderr } = this.#child;
    for (const [stream, level] of [
      [stdout, 'info'],
      [stderr, 'warn'],
    ] as const) {
      const lines = new OutputLines(clock, (line) => {
        if (line.includes('heap out of memory'))
          this.#reason ??= `It needed more than its ${manifest.memoryMb} MiB of memory`;
        log(level, line, { plugin });
      });
      listen(stream, lines);
    }
  }

  #take(message: FromPlugin, bytes: number): void {
    switch (message.kind) {
      case 'ready':
        this.#ready.resolve(message.queries);
        break;
      case 'failed':
        this.#reason ??= message.message;
        break;
      case 'pong':
        this.#health.pong(message.id, message.rss_bytes);
        break;
      case 'log':
        this.#log(message);
        break;
      case 'ask':
        this.#asks.ask(message);
        break;
      case 'ask_cancel':
        this.#asks.cancel(message.id);
        break;
      case 'ask_grant':
        this.#asks.grant(message.id, message.bytes);
        break;
      case 'stopped':
        break;
      default:
        this.#requests.take(message, bytes);
    }
  }

  /** A plugin that logs without end must not fill the disk. */
  #log({ level, message, fields }: FromPlugin & { kind: 'log' }): void {
    const { clock, log, manifest } = this.#options;
    const now = clock.monotonic();
    if (now - this.#logSpanStart >= logSpanMs) {
      this.#logSpanStart = now;
      this.#logged = 0;
    }
    this.#logged++;
    if (this.#logged <= maxLogMessages) log(level, message, { plugin: manifest.name, fields });
    else if (this.#logged === maxLogMessages + 1)
      log('warn', 'The plugin logs too much; the rest is left out', { plugin: manifest.name });
  }

  /** The other side of the pipe is gone or sent what is no message: the process is of no use any more. */
  #pipeEnded(problem: MeshError | null): void {
    if (problem) this.#kill(`It sent what is no message: ${problem.message}`);
    // It mostly has ended; one that closed its pipe and goes on has to.
    else this.#options.clock.after(termMs, () => this.#kill('It closed its pipe to the daemon'));
  }

  #kill(reason: string): void {
    this.#reason ??= reason;
    this.#signal('SIGKILL');
  }

  async #stop(): Promise<void> {
    this.#reason ??= 'It was stopped';
    const { clock } = this.#options;
    this.#pipe.send({ kind: 'stop' });
    const timers = [
      clock.after(stopMs, () => this.#signal('SIGTERM')),
      clock.after(stopMs + termMs, () => this.#signal('SIGKILL')),
    ];
    await this.ended;
    for (const timer of timers) timer.cancel();
    await this.#strays;
  }

  /** To the whole group, as long as its number cannot be somebody else's. */
  #signal(signal: NodeJS.Signals): void {
    const { pid, exitCode, signalCode } = this.#child;
    if (pid !== undefined && exitCode === null && signalCode === null) signalGroup(pid, signal);
  }

  /** What it printed last may say why, and comes after the news that it is gone. */
  #exited(how: string): void {
    const { pid, stderr } = this.#child;
    // Whatever it started is still in its group, and may hold what it prints to.
    if (pid !== undefined) signalGroup(pid, 'SIGKILL');
    if (!stderr || stderr.closed) return this.#over(how);
    const limit = this.#options.clock.after(lastWordsMs, () => this.#over(how));
    stderr.once('close', () => {
      limit.cancel();
      this.#over(how);
    });
  }

  #over(how: string): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#health.close();
    this.#pipe.close();
    this.#child.stdio[4]?.destroy();
    const reason = this.#reason ?? how;
    const error = new MeshError(
      'plugin_failed',
      `The plugin ${this.#options.manifest.name} failed: ${reason}`,
    );
    this.#ready.reject(error);
    this.#requests.endAll(error);
    this.#asks.close();
    this.#strays = this.#endStrays();
    this.#ended.resolve(reason);
  }

  async #endStrays(): Promise<void> {
    for (const _ of endStrays(this.#run)) await new Promise((resolve) => setImmediate(resolve));
  }
}

function spawnChild({ manifest, dataDir, environment }: StartOptions, run: string): ChildProcess {
  const options = [`--max-old-space-size=${manifest.memoryMb}`, ...quiet, '--import', moduleHook.href];
  return spawn(process.execPath, [...options, fileURLToPath(entry)], {
    cwd: dataDir,
    env: { ...processEnvironment(environment), ...compileCache(), [runVariable]: run },
    // A group of its own.
    detached: true,
    // The third is for messages; the fourth only tells, by its end, that the daemon is gone.
    stdio: ['ignore', 'pipe', 'pipe', 'pipe', 'pipe'],
  });
}

/** Our own files are most of what a plugin's process loads; it takes the variable out of what it passes on. */
function compileCache(): Record<string, string> {
  const folder = getCompileCacheDir();
  return folder === undefined ? {} : { NODE_COMPILE_CACHE: folder };
}

function listen(stream: Readable | null, lines: OutputLines): void {
  stream?.on('data', (bytes: Uint8Array) => lines.add(bytes));
  stream?.on('error', () => undefined);
  stream?.on('close', () => lines.end());
}

function signalGroup(group: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-group, signal);
  } catch {
    // Nobody is left of it.
  }
}

function exitText(code: number | null, signal: NodeJS.Signals | null): string {
  return signal === null ? `It ended with exit code ${code}` : `It was ended by ${signal}`;
}
