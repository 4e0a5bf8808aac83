/**
 * Runs the tasks of this device: so many at once, the rest in turn. A task is claimed in the store before anything is
 * started, so nobody runs it twice; how it ended is on the disk before the store is told, so an end that the store
 * could not take is told again, by the next daemon if need be.
 */

import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import type { Clock, Task } from '@cocoon-mesh/protocol';
import { MeshError } from '@cocoon-mesh/protocol';
import type { CommandPolicy } from './command-policy.ts';
import { checkCommand } from './command-policy.ts';
import { FairQueue } from './fair-queue.ts';
import type { Waiting } from './fair-queue.ts';
import { endLeftovers } from './leftovers.node.ts';
import type { DeviceFacts } from './requirements.ts';
import { missingRequirements } from './requirements.ts';
import { retrying } from './retrying.ts';
import { TaskFiles } from './task-files.node.ts';
import type { LogPiece, ReadOptions } from './task-log.node.ts';
import { readTaskLog } from './task-log.node.ts';
import type { StartProcess } from './task-process.node.ts';
import { startProcess } from './task-process.node.ts';
import type { RunEnd } from './task-store.node.ts';
import { endGraceMs, interrupted, TaskRun } from './task-run.node.ts';

/** What the runner needs of the store. */
export interface RunnableTasks {
  /** From pending to running, for one caller only. @throws MeshError task_not_found | bad_status_change */
  claimForRun(id: string): Promise<Task>;
  /** @throws MeshError task_not_found | bad_status_change */
  finishRun(id: string, end: RunEnd): Promise<Task>;
  /** Of a task that never ran. @throws MeshError task_not_found | bad_status_change */
  update(id: string, change: { status: 'cancelled' }): Promise<Task>;
  /** Those of this device that are marked so. */
  running(): Promise<Task[]>;
}

export interface RunnerOptions {
  readonly tasks: RunnableTasks;
  /** COCOON_HOME. */
  readonly home: string;
  readonly clock: Clock;
  /** What commands inherit, without secrets. */
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly facts: DeviceFacts;
  readonly policy: CommandPolicy;
  /** Tasks at once; absent: one for each core. */
  readonly concurrency?: number;
  readonly start?: StartProcess;
  /** For the log of the device. */
  readonly warn?: (message: string) => void;
}

interface ActiveRun {
  readonly run: TaskRun;
  /** With the task as it is in the store then. */
  readonly over: Promise<Task>;
}

/** Much more than anybody waits for; it bounds what one caller can make us hold. */
const maxQueued = 10_000;
/**
 * At a shutdown: between asking and ending, and for all of it. The device promises to be gone after five seconds on
 * a busy machine too, and everything that it closes after its tasks takes its time there.
 */
const shutdownGraceMs = 1_500;
const shutdownMs = 3_000;
/** A store that does not answer is asked again after that. */
const queuePauseMs = 1_000;

export class TaskRunner {
  readonly #options: RunnerOptions;
  readonly #root: string;
  readonly #concurrency: number;
  readonly #queue = new FairQueue();
  /** Followers of queued tasks wait for these. */
  readonly #turns = new Map<string, PromiseWithResolvers<void>>();
  readonly #runs = new Map<string, ActiveRun>();
  readonly #closing = new AbortController();
  #busy = 0;
  #pumping = false;
  #settling: Promise<void> | null = null;
  #closed: Promise<void> | null = null;

  private constructor(options: RunnerOptions) {
    this.#options = options;
    this.#root = join(options.home, 'tasks');
    this.#concurrency = Math.max(1, options.concurrency ?? availableParallelism());
  }

  /**
   * What an earlier daemon left running is ended first, and marked in the store as soon as that answers. There is
   * only one runner for a home.
   */
  static async start(options: RunnerOptions): Promise<TaskRunner> {
    const runner = new TaskRunner(options);
    await endLeftovers(runner.#root, options.clock);
    await runner.#within(queuePauseMs, runner.#settle());
    return runner;
  }

  get running(): number {
    return this.#runs.size;
  }

  get queued(): number {
    return this.#queue.size;
  }

  /** Sentences; none: a task with these requirements could run here. @throws MeshError bad_filter */
  missing(requires: readonly string[]): Promise<string[]> {
    return missingRequirements(requires, this.#options.facts);
  }

  /** Would the device run it, whoever asks? @throws MeshError command_refused */
  checkCommand(command: string): void {
    checkCommand(this.#options.policy, command);
  }

  /**
   * Starts a pending task, or queues it: it stays pending until its turn. Callers with different `by` take turns.
   * @throws MeshError cannot_run | command_refused | bad_filter | bad_status_change | overloaded | shutting_down,
   * and what the store throws
   */
  async run(task: Task, by = ''): Promise<Task> {
    await this.#admit(task);
    this.#assertOpen();
    const { id } = task;
    if (this.#runs.has(id)) throw new MeshError('bad_status_change', 'The task runs already');
    if (this.#queue.has(id)) return task;
    if (this.#busy < this.#concurrency && this.#queue.size === 0) return this.#begin(id);
    if (this.#queue.size >= maxQueued)
      throw new MeshError('overloaded', 'Too many tasks wait on this device');
    this.#queue.add({ id, by });
    this.#turns.set(id, Promise.withResolvers());
    return task;
  }

  /**
   * Ends a task that runs (SIGTERM, ten seconds, SIGKILL, the whole group), drops one that waits. The answer comes
   * when it is over. @throws what the store throws: `bad_status_change` when it has ended before
   */
  cancel(id: string): Promise<Task> {
    const active = this.#runs.get(id);
    if (active) {
      active.run.end('cancelled', endGraceMs);
      return active.over;
    }
    this.#dequeue(id);
    return this.#options.tasks.update(id, { status: 'cancelled' });
  }

  /** When the run is over and stored; null when the task does not run. */
  ended(id: string): Promise<Task> | null {
    return this.#runs.get(id)?.over ?? null;
  }

  /** What the task printed, from `offset`; with `follow` until it has ended, also when it has yet to start. */
  async *logs(id: string, offset: number, options: ReadOptions = {}): AsyncIterable<LogPiece> {
    if (options.follow) await this.#turn(id, options.signal);
    const active = this.#runs.get(id);
    yield* active ? active.run.log.read(offset, options) : readTaskLog(this.#files(id).log, offset);
    // The log ends a moment before the store knows; whoever followed it may ask at once how the task ended.
    if (active && options.follow) await settled(active.over, options.signal);
  }

  /** Of a task that was deleted: ends it, and removes its files. */
  async forget(id: string): Promise<void> {
    this.#dequeue(id);
    const active = this.#runs.get(id);
    active?.run.end('cancelled', endGraceMs);
    await active?.over.catch(() => undefined);
    await this.#files(id).remove();
  }

  /** Within five seconds nobody is left; what ran is marked as interrupted. Idempotent. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    for (const id of this.#queue.clear()) this.#turnOver(id);
    this.#closing.abort();
    const runs = [...this.#runs.values()];
    for (const { run } of runs) run.end('interrupted', shutdownGraceMs);
    const over = Promise.allSettled([...runs.map((active) => active.over), this.#settling]);
    await this.#within(shutdownMs, over);
  }

  async #admit(task: Task): Promise<void> {
    this.#assertOpen();
    if (!task.command) throw new MeshError('cannot_run', 'The task has no command');
    this.checkCommand(task.command);
    const missing = await this.missing(task.requires);
    if (missing.length > 0) throw new MeshError('cannot_run', missing.join(' '));
  }

  #assertOpen(): void {
    if (this.#closed) throw new MeshError('shutting_down', 'The device is shutting down');
  }

  /** Known as a run before it is claimed, so that whoever cancels it meanwhile finds it. */
  async #begin(id: string): Promise<Task> {
    const { clock, environment, start = startProcess, tasks } = this.#options;
    const run = new TaskRun(this.#files(id), { clock, environment, start });
    const over = Promise.withResolvers<Task>();
    over.promise.catch(() => undefined);
    this.#runs.set(id, { run, over: over.promise });
    this.#busy++;
    this.#turnOver(id);
    let task;
    try {
      task = await tasks.claimForRun(id);
    } catch (thrown) {
      this.#runs.delete(id);
      this.#busy--;
      over.reject(thrown);
      // It may have been claimed all the same, by an attempt whose answer was lost, and nobody else would end it.
      void Promise.resolve(this.#settling).then(() => this.#settle());
      void this.#pump();
      throw thrown;
    }
    this.#carryOut(task, run).then(over.resolve, over.reject);
    return task;
  }

  async #carryOut(task: Task, run: TaskRun): Promise<Task> {
    try {
      const end = await run.carryOut(task);
      this.#busy--;
      if (run.log.failure) this.#warn(`The log of task ${task.id} has gaps: ${run.log.failure.message}`);
      void this.#pump();
      return await this.#store(task.id, end);
    } finally {
      this.#runs.delete(task.id);
    }
  }

  /** Tells the store, again and again while it does not answer. */
  async #store(id: string, end: RunEnd): Promise<Task> {
    const files = this.#files(id);
    await files.writeEnd(end).catch((thrown: unknown) => this.#warn(`${files.folder}: ${String(thrown)}`));
    try {
      const task = await this.#retrying(() => this.#options.tasks.finishRun(id, end));
      await files.settle();
      return task;
    } catch (thrown) {
      // The store knows better: somebody has deleted the task, or has said how it ended.
      if (isFinal(thrown)) await files.settle();
      throw thrown;
    }
  }

  /** Marks what the store believes to be running and is not. */
  #settle(): Promise<void> {
    this.#settling ??= this.#settleAll().finally(() => (this.#settling = null));
    return this.#settling;
  }

  async #settleAll(): Promise<void> {
    try {
      const running = await this.#retrying(() => this.#options.tasks.running());
      for (const { id } of running) {
        if (this.#runs.has(id)) continue;
        const end = (await this.#files(id).readEnd()) ?? interruptedEnd;
        await this.#store(id, end).catch((thrown: unknown) => {
          if (!isFinal(thrown)) throw thrown;
        });
      }
    } catch (thrown) {
      if (!this.#closed) this.#warn(`Tasks that were interrupted could not be marked: ${String(thrown)}`);
    }
  }

  async #pump(): Promise<void> {
    if (this.#pumping) return;
    this.#pumping = true;
    while (!this.#closed && this.#busy < this.#concurrency) {
      const next = this.#queue.take();
      if (!next) break;
      if (!(await this.#beginNext(next))) await this.#after(queuePauseMs);
    }
    this.#pumping = false;
  }

  /** False: the store does not answer, and the task waits on. */
  async #beginNext(next: Waiting): Promise<boolean> {
    try {
      await this.#begin(next.id);
      return true;
    } catch (thrown) {
      if (isFinal(thrown) || this.#closed) return true;
      this.#queue.putBack(next);
      return false;
    }
  }

  async #turn(id: string, signal: AbortSignal | undefined): Promise<void> {
    const turn = this.#turns.get(id);
    if (turn) await settled(turn.promise, signal);
  }

  #dequeue(id: string): void {
    if (this.#queue.delete(id)) this.#turnOver(id);
  }

  #turnOver(id: string): void {
    this.#turns.get(id)?.resolve();
    this.#turns.delete(id);
  }

  #retrying<T>(ask: () => Promise<T>): Promise<T> {
    return retrying(ask, isFinal, this.#options.clock, this.#closing.signal);
  }

  #files(id: string): TaskFiles {
    return new TaskFiles(this.#root, id);
  }

  #warn(message: string): void {
    this.#options.warn?.(message);
  }

  async #within(ms: number, work: Promise<unknown>): Promise<void> {
    const tooLong = Promise.withResolvers<void>();
    const timer = this.#options.clock.after(ms, tooLong.resolve);
    await Promise.race([work, tooLong.promise]);
    timer.cancel();
  }

  #after(ms: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#options.clock.after(ms, resolve);
    return promise;
  }
}

/** However it ends, or as soon as nobody waits for it. */
async function settled(work: Promise<unknown>, signal: AbortSignal | undefined): Promise<void> {
  const over = Promise.withResolvers<void>();
  const end = (): void => over.resolve();
  work.then(end, end);
  signal?.addEventListener('abort', end, { once: true });
  if (signal?.aborted) end();
  await over.promise;
  signal?.removeEventListener('abort', end);
}

const interruptedEnd: RunEnd = { status: 'failed', exitCode: null, error: interrupted, output: null };

/** The store has judged: asking again would change nothing. */
function isFinal(thrown: unknown): boolean {
  return thrown instanceof MeshError && thrown.status < 500 && thrown.code !== 'task_conflict';
}
