/**
 * A command as a process group of its own. It waits at a gate until its number is written down, so that a daemon
 * that dies in between leaves nobody behind it does not know of.
 *
 * Output comes through named pipes that are unlinked at once: what Node makes are sockets, and a script that says
 * `> /dev/stderr` fails on those. Input is a file, so it ends, however much or little of it is read.
 */

import { execFile, spawn } from 'node:child_process';
import type { ChildProcess, StdioOptions } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, constants, openSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { Socket } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { groupLives, signalGroup, startTimeOf } from './process-group.node.ts';
import { signalStrays } from './strays.node.ts';

export interface ProcessSpec {
  /** Stands in its environment, and in nobody else's. */
  readonly mark: string;
  /** For `sh -c`. */
  readonly command: string;
  /** Where it works. */
  readonly work: string;
  /** Of what stands on stdin. */
  readonly inputPath: string;
  /** Where pipes can be made. */
  readonly folder: string;
  readonly environment: Readonly<Record<string, string | undefined>>;
}

export interface ProcessExit {
  /** Null when a signal ended it. */
  readonly code: number | null;
  readonly signal: string | null;
}

export interface TaskProcess {
  /** Also the number of its group. */
  readonly pid: number;
  /** See `startTimeOf`. */
  readonly startTime: string | null;
  /** Of the first process; others of the group may go on. */
  readonly exited: Promise<ProcessExit>;
  /** Nobody writes any more, or `abandonOutput` was called. */
  readonly drained: Promise<void>;
  /** Opens the gate. */
  go(): void;
  /** To the whole group, and to those who left it. */
  signal(signal: NodeJS.Signals): void;
  /** Is anybody left, of the group or of those who left it? */
  groupLives(): Promise<boolean>;
  /** Who still writes gets SIGPIPE. */
  abandonOutput(): void;
}

export type OutputSource = 'stdout' | 'stderr';

/** Rejects when the process cannot be started. @param onOutput must copy what it keeps of a piece */
export type StartProcess = (
  spec: ProcessSpec,
  onOutput: (piece: Buffer, source: OutputSource) => void,
) => Promise<TaskProcess>;

/** What a pipe holds. */
const readBytes = 64 * 1024;

/** Without the word, because the daemon is gone, nothing is run. */
const gate = 'read -r word <&3 && [ "$word" = go ] || exit 125; exec 3<&-; exec /bin/sh -c "$1"';

export const startProcess: StartProcess = async (spec, onOutput) => {
  const output = await Pipes.make(spec.folder);
  let child;
  try {
    child = await spawnGated(spec, output);
  } catch (thrown) {
    output.closeReaders();
    throw thrown;
  } finally {
    output.closeWriters();
  }
  const pid = child.pid ?? Number.NaN;
  const sockets = (['stdout', 'stderr'] as const).map((source) =>
    readPipe(output.reader(source), (piece) => onOutput(piece, source)),
  );
  const opener = child.stdio[3] as Socket;
  // It may be gone before it could be told.
  opener.on('error', () => undefined);
  return {
    pid,
    startTime: await startTimeOf(pid),
    exited: exitOf(child),
    drained: Promise.all(sockets.map((socket) => socket.over)).then(() => undefined),
    go: () => void opener.end('go\n'),
    signal: (signal) => {
      signalGroup(pid, signal);
      void signalStrays(spec.mark, pid, signal);
    },
    groupLives: async () => (await groupLives(pid)) || (await signalStrays(spec.mark, pid, 0)) > 0,
    abandonOutput: () => sockets.forEach((socket) => socket.close()),
  };
};

async function spawnGated(spec: ProcessSpec, output: Pipes): Promise<ChildProcess> {
  const input = openSync(spec.inputPath, 'r');
  try {
    const stdio: StdioOptions = [input, output.writer('stdout'), output.writer('stderr'), 'pipe'];
    const child = spawn('/bin/sh', ['-c', gate, 'sh', spec.command], {
      cwd: spec.work,
      env: spec.environment,
      stdio,
      // A session and a group of its own.
      detached: true,
    });
    await once(child, 'spawn');
    return child;
  } finally {
    closeSync(input);
  }
}

async function exitOf(child: ChildProcess): Promise<ProcessExit> {
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  return { code: child.exitCode, signal: child.signalCode };
}

function readPipe(fd: number, onPiece: (piece: Buffer) => void): { over: Promise<unknown>; close(): void } {
  const over = Promise.withResolvers<void>();
  // One buffer for all of it: a new one for each piece costs most of the time, and it is collected late.
  const buffer = Buffer.alloc(readBytes);
  const socket = new Socket({
    fd,
    readable: true,
    writable: false,
    onread: {
      buffer,
      callback: (length) => {
        onPiece(buffer.subarray(0, length));
        return true;
      },
    },
  });
  socket.resume();
  socket.on('error', () => undefined);
  socket.on('close', () => over.resolve());
  return { over: over.promise, close: () => void socket.destroy() };
}

/** One for each kind of output, both ends open. */
class Pipes {
  readonly #readers: Record<OutputSource, number>;
  readonly #writers: Record<OutputSource, number>;

  private constructor(readers: Record<OutputSource, number>, writers: Record<OutputSource, number>) {
    this.#readers = readers;
    this.#writers = writers;
  }

  static async make(folder: string): Promise<Pipes> {
    const stdout = join(folder, 'stdout.pipe');
    const stderr = join(folder, 'stderr.pipe');
    const opened: number[] = [];
    const open = (path: string, flags: number): number => {
      const fd = openSync(path, flags);
      opened.push(fd);
      return fd;
    };
    try {
      await rm(stdout, { force: true });
      await rm(stderr, { force: true });
      await promisify(execFile)('mkfifo', ['-m', '600', stdout, stderr]);
      // Readers first and without waiting: the writers' ends open at once then.
      const reading = constants.O_RDONLY | constants.O_NONBLOCK;
      const readers = { stdout: open(stdout, reading), stderr: open(stderr, reading) };
      const writers = { stdout: open(stdout, constants.O_WRONLY), stderr: open(stderr, constants.O_WRONLY) };
      return new Pipes(readers, writers);
    } catch (thrown) {
      for (const fd of opened) closeSync(fd);
      throw thrown;
    } finally {
      await Promise.all([rm(stdout, { force: true }), rm(stderr, { force: true })]);
    }
  }

  reader(source: OutputSource): number {
    return this.#readers[source];
  }

  writer(source: OutputSource): number {
    return this.#writers[source];
  }

  /** Ours; the child has its own by then. */
  closeWriters(): void {
    for (const fd of Object.values(this.#writers)) closeSync(fd);
  }

  closeReaders(): void {
    for (const fd of Object.values(this.#readers)) closeSync(fd);
  }
}
