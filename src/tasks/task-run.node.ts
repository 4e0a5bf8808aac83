/**
 * One run of one task, from its first process to the last of its group: started, perhaps told to end, ended. Whatever
 * happens it comes to a `RunEnd`, and nobody of the group is left then.
 */

import type { Clock, Task, Timer } from '@cocoon-mesh/protocol';
import { taskMark } from './strays.node.ts';
import { TaskFiles } from './task-files.node.ts';
import { TaskLog } from './task-log.node.ts';
import type { TaskOutput } from './task-output.node.ts';
import { PrintedOutput, readOutput } from './task-output.node.ts';
import type { RunEnd } from './task-store.node.ts';
import type { ProcessExit, ProcessSpec, StartProcess, TaskProcess } from './task-process.node.ts';

export interface RunOptions {
  readonly clock: Clock;
  readonly start: StartProcess;
  /** Without secrets. */
  readonly environment: Readonly<Record<string, string | undefined>>;
}

export type EndReason = 'cancelled' | 'timeout' | 'interrupted';

/** Between asking a group to end and ending it. */
export const endGraceMs = 10_000;
/** The same for what a command leaves behind: it has had its time. */
const leftoverGraceMs = 2_000;
/** Nobody survives SIGKILL but who hangs in the kernel, and for those nobody can wait. */
const afterKillMs = 2_000;
const pollMs = 20;
/** Once the group is gone, all there is to read lies in the pipes; only who left the group could write more. */
const drainMs = 500;
/** The system takes no longer text in a variable than 128 KiB, and all of them together are limited too. */
const maxVariableBytes = 32 * 1024;

export class TaskRun {
  readonly log: TaskLog;
  readonly #files: TaskFiles;
  readonly #options: RunOptions;
  readonly #printed = new PrintedOutput();
  #process: TaskProcess | null = null;
  #reason: EndReason | null = null;
  #kill: { readonly timer: Timer; readonly at: number } | null = null;
  #exited = false;
  #killed = false;

  constructor(files: TaskFiles, options: RunOptions) {
    this.#files = files;
    this.#options = options;
    this.log = new TaskLog(files.log);
  }

  /** Never rejects. To be called once. */
  async carryOut(task: Task): Promise<RunEnd> {
    try {
      return await this.#carryOut(task);
    } catch (thrown) {
      const why = thrown instanceof Error ? thrown.message : String(thrown);
      return { ...this.#endWithout(`could not start: ${why}`), output: null };
    } finally {
      this.#kill?.timer.cancel();
      await this.log.close();
    }
  }

  /**
   * Asks the whole group to end, and ends it after `graceMs`. The first reason counts, the shortest time too.
   * A command that has ended already ended as it did.
   */
  end(reason: EndReason, graceMs: number): void {
    if (!this.#exited) this.#reason ??= reason;
    if (this.#process) this.#endGroup(this.#process, graceMs);
  }

  async #carryOut(task: Task): Promise<RunEnd> {
    if (this.#reason) return { ...this.#endWithout('not started'), output: null };
    const spec = await this.#prepare(task);
    const process = await this.#options.start(spec, (piece, source) => {
      this.log.append(piece);
      if (source === 'stdout') this.#printed.add(piece);
    });
    this.#process = process;
    const timeout = await this.#letGo(process, task.timeout_ms);
    const exit = await process.exited;
    this.#exited = true;
    timeout?.cancel();
    await this.#clearGroup(process);
    await this.#drain(process);
    const end = this.#endWith(exit, await readOutput(this.#files.result, this.#printed));
    await this.log.close();
    return this.log.failure ? { ...end, error: withGaps(end.error, this.log.failure) } : end;
  }

  async #prepare(task: Task): Promise<ProcessSpec> {
    const files = this.#files;
    const input = JSON.stringify(task.input);
    // A program that reads what nobody gave must not read the word null.
    await files.prepare(task.input === null ? '' : `${input}\n`);
    return {
      mark: taskMark(task.id),
      command: task.command ?? '',
      work: files.work,
      inputPath: files.input,
      folder: files.folder,
      environment: {
        ...this.#options.environment,
        COCOON_TASK_ID: task.id,
        COCOON_TASK_INPUT:
          task.input !== null && Buffer.byteLength(input) <= maxVariableBytes ? input : undefined,
        COCOON_TASK_INPUT_FILE: files.input,
        COCOON_TASK_RESULT: files.result,
      },
    };
  }

  /** Only what can be found again may begin, and only what nobody has called off meanwhile. */
  async #letGo(process: TaskProcess, timeoutMs: number | null): Promise<Timer | null> {
    try {
      await this.#files.writeProcess({ pid: process.pid, start_time: process.startTime });
    } catch (thrown) {
      process.signal('SIGKILL');
      throw thrown;
    }
    if (this.#reason) {
      process.signal('SIGKILL');
      return null;
    }
    process.go();
    if (timeoutMs === null) return null;
    return this.#options.clock.after(timeoutMs, () => this.end('timeout', endGraceMs));
  }

  #endGroup(process: TaskProcess, graceMs: number): void {
    const at = this.#options.clock.monotonic() + graceMs;
    const first = this.#kill === null;
    if (this.#kill && this.#kill.at <= at) return;
    this.#kill?.timer.cancel();
    const timer = this.#options.clock.after(graceMs, () => {
      this.#killed = true;
      process.signal('SIGKILL');
    });
    this.#kill = { timer, at };
    if (!first) return;
    process.signal('SIGTERM');
    // Who was stopped would not hear it.
    process.signal('SIGCONT');
  }

  /** The command has ended; whom it started ends too. */
  async #clearGroup(process: TaskProcess): Promise<void> {
    if (!(await process.groupLives())) return;
    this.#endGroup(process, leftoverGraceMs);
    let leftMs = afterKillMs;
    while (leftMs > 0 && (await process.groupLives())) {
      await this.#wait(pollMs);
      if (!this.#killed) continue;
      // Again: one could have been born while the signal went round.
      process.signal('SIGKILL');
      leftMs -= pollMs;
    }
  }

  async #drain(process: TaskProcess): Promise<void> {
    const { clock } = this.#options;
    const timer = clock.after(drainMs, () => process.abandonOutput());
    await process.drained;
    timer.cancel();
  }

  #endWith({ code, signal }: ProcessExit, { output, note }: TaskOutput): RunEnd {
    if (this.#reason === null && code === 0) return { status: 'completed', exitCode: 0, error: note, output };
    const how = code === null ? `was ended by ${signal ?? 'a signal'}` : `ended with exit code ${code}`;
    const { status, error } = this.#endWithout(`The command ${how}${hints[code ?? 0] ?? ''}.`);
    return { status, exitCode: code, error, output };
  }

  /** @param error when nobody asked for the end */
  #endWithout(error: string): Omit<RunEnd, 'output'> {
    const exitCode = null;
    if (this.#reason === 'cancelled') return { status: 'cancelled', exitCode, error: null };
    if (this.#reason === 'interrupted') return { status: 'failed', exitCode, error: interrupted };
    if (this.#reason === 'timeout')
      return { status: 'failed', exitCode, error: 'The command took longer than its timeout.' };
    return { status: 'failed', exitCode, error };
  }

  #wait(ms: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#options.clock.after(ms, resolve);
    return promise;
  }
}

/** The error of a task whose device stopped while it ran. */
export const interrupted = 'Interrupted: the device stopped while the task ran.';

/** Whoever looks for a line that is not there should know why. */
function withGaps(error: string | null, { message }: Error): string {
  const gaps = `Its log has gaps: ${message}`;
  return error === null ? gaps : `${error.replace(/\.$/, '')}. ${gaps}`;
}

/** What a shell means by them. */
const hints: Readonly<Record<number, string>> = {
  126: ': it cannot be executed',
  127: ': it was not found',
};
