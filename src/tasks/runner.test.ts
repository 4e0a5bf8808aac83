/** The runner with a clock that is stepped and processes that only pretend: turns, limits, ends, and a store that fails. */

import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { access, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import type { Task } from '@cocoon-mesh/protocol';
import { MeshError } from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { newTask, noFacts, TasksInMemory } from './runner-doubles.contract.ts';
import type { RunnerOptions } from './runner.node.ts';
import { TaskRunner } from './runner.node.ts';
import { TaskFiles } from './task-files.node.ts';
import type { ProcessExit, ProcessSpec, StartProcess } from './task-process.node.ts';
import { interrupted } from './task-run.node.ts';

/** Ends when it is told to, and notes what is done to it. */
class PretendedProcess {
  readonly spec: ProcessSpec;
  readonly print: (text: string) => void;
  readonly signals: string[] = [];
  readonly exited = Promise.withResolvers<ProcessExit>();
  readonly drained = Promise.withResolvers<void>();
  abandoned = false;
  gone = false;
  /** Others of the group are left when it ends. */
  leftovers = false;
  /** Signals that it takes for its end. */
  heeds: readonly string[] = ['SIGTERM', 'SIGKILL'];

  constructor(spec: ProcessSpec, print: (text: string) => void) {
    this.spec = spec;
    this.print = print;
  }

  signal(signal: string): void {
    this.signals.push(signal);
    if (signal === 'SIGKILL') this.leftovers = false;
    if (this.heeds.includes(signal)) this.exit({ code: null, signal });
  }

  exit(exit: ProcessExit): void {
    this.exited.resolve(exit);
    this.drained.resolve();
  }
}

let home = '';
let clock = new SteppedClock();
let tasks = new TasksInMemory();
let runner: TaskRunner;
let processes: PretendedProcess[] = [];
let warnings: string[] = [];
let prepare: (process: PretendedProcess) => void = () => undefined;

before(async () => {
  home = await mkdtemp(join(tmpdir(), 'cocoon-runner-'));
});
after(() => rm(home, { recursive: true }));
beforeEach(async () => {
  clock = new SteppedClock();
  tasks = new TasksInMemory();
  processes = [];
  warnings = [];
  prepare = () => undefined;
  runner = await start();
});
afterEach(async () => {
  tasks.outage = null;
  const closed = runner.close();
  while (runner.running > 0) {
    for (const process of processes) process.exit({ code: 0, signal: null });
    await turn(20);
  }
  clock.step(5000);
  await closed;
});

const start: (more?: Partial<RunnerOptions>) => Promise<TaskRunner> = (more = {}) =>
  TaskRunner.start({
    tasks,
    home,
    clock,
    environment: { PATH: '/bin' },
    facts: noFacts,
    policy: 'any',
    concurrency: 2,
    start: pretend,
    warn: (message) => warnings.push(message),
    ...more,
  });

const pretend: StartProcess = async (spec, onOutput) => {
  if (spec.command === 'cannot') throw new Error('no such thing');
  const process = new PretendedProcess(spec, (text) => onOutput(Buffer.from(text), 'stdout'));
  prepare(process);
  processes.push(process);
  await Promise.resolve();
  return {
    pid: 4_000_000 + processes.length,
    startTime: null,
    exited: process.exited.promise,
    drained: process.drained.promise,
    go: () => (process.gone = true),
    signal: (signal) => process.signal(signal),
    groupLives: () => Promise.resolve(process.leftovers),
    abandonOutput: () => {
      process.abandoned = true;
      process.drained.resolve();
    },
  };
};

/** Lets what is ready happen. */
async function turn(ms = 0): Promise<void> {
  if (ms > 0) clock.step(ms);
  await new Promise((resolve) => setImmediate(resolve));
}

/** Waits for files and promises, while time stands still. */
async function until(holds: () => boolean): Promise<void> {
  const end = performance.now() + 30_000;
  while (!holds()) {
    if (performance.now() > end) assert.fail(`never: ${holds.toString()}`);
    await turn();
  }
}

async function begun(command = 'true', more: Partial<Task> = {}): Promise<[PretendedProcess, Task]> {
  const task = tasks.add(newTask({ command, ...more }));
  await runner.run(task);
  await until(() => processes.some(({ gone, spec }) => gone && spec.folder.endsWith(task.id)));
  const process = processes.find(({ spec }) => spec.folder.endsWith(task.id));
  assert.ok(process);
  return [process, task];
}

async function over(id: string): Promise<Task> {
  await until(() => tasks.get(id).status !== 'running');
  return tasks.get(id);
}

async function isThere(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

describe('a run', () => {
  test('is claimed, told what it needs to know, and stored as it ended', async () => {
    const [process, { id }] = await begun('work', { input: { a: 1 } });
    assert.equal(tasks.get(id).status, 'running');
    const { folder, environment } = process.spec;
    assert.deepEqual(environment, {
      PATH: '/bin',
      COCOON_TASK_ID: id,
      COCOON_TASK_INPUT: '{"a":1}',
      COCOON_TASK_INPUT_FILE: join(folder, 'input.json'),
      COCOON_TASK_RESULT: join(folder, 'result.json'),
    });
    const [without] = await begun('work');
    assert.equal(without.spec.environment['COCOON_TASK_INPUT'], undefined);
    without.exit({ code: 0, signal: null });
    assert.equal(await isThere(join(folder, 'process.json')), true);
    process.print('{"sum":');
    process.print('3}');
    const ended = runner.ended(id);
    process.exit({ code: 0, signal: null });
    assert.deepEqual((await ended)?.output, { sum: 3 });
    assert.equal(tasks.get(id).status, 'completed');
    assert.equal(await isThere(join(folder, 'process.json')), false);
    assert.equal(await isThere(join(folder, 'end.json')), false);
    assert.equal(clock.pendingTimers, 0);
  });

  test('is refused where it cannot be, and nothing is claimed', async () => {
    const refused = (more: Partial<Task>, code: string) =>
      assert.rejects(runner.run(tasks.add(newTask(more))), { code });
    await refused({ command: null }, 'cannot_run');
    await refused({ requires: ['gpu'] }, 'cannot_run');
    await refused({ requires: ['unicorn'] }, 'bad_filter');
    await refused({ status: 'completed' }, 'bad_status_change');
    await assert.rejects(runner.run(newTask()), { code: 'task_not_found' });
    const strict = await start({ policy: ['git log *'] });
    await assert.rejects(strict.run(tasks.add(newTask({ command: 'git log; id' }))), {
      code: 'command_refused',
    });
    await strict.close();
    await assert.rejects(strict.run(tasks.add(newTask())), { code: 'shutting_down' });
    assert.deepEqual(tasks.claims, []);
    assert.equal(runner.running, 0);
  });

  test('that cannot start fails', async () => {
    const task = tasks.add(newTask({ command: 'cannot' }));
    await runner.run(task);
    const followed = Array.fromAsync(runner.logs(task.id, 0, { follow: true }));
    assert.equal((await over(task.id)).error, 'could not start: no such thing');
    assert.deepEqual(await followed, []);
  });

  test('that ended in time leaves no timeout behind, which could meet another group of its number', async () => {
    const [process, { id }] = await begun('work', { timeout_ms: 3000 });
    process.exit({ code: 0, signal: null });
    await over(id);
    assert.equal(clock.pendingTimers, 0);
  });

  test('that nobody could find again does not begin', async () => {
    prepare = ({ spec }) => mkdirSync(join(spec.folder, 'process.json.new'));
    const task = tasks.add(newTask());
    await runner.run(task);
    assert.equal((await over(task.id)).status, 'failed');
    assert.deepEqual([processes[0]?.gone, processes[0]?.signals], [false, ['SIGKILL']]);
  });

  test('that was to end has not completed, although its command says so', async () => {
    prepare = (process) => (process.heeds = []);
    const [late, { id: lateId }] = await begun('work', { timeout_ms: 3000 });
    clock.step(3000);
    late.exit({ code: 0, signal: null });
    assert.equal((await over(lateId)).status, 'failed');
    const [process, { id }] = await begun();
    const cancelled = runner.cancel(id);
    process.exit({ code: 0, signal: null });
    assert.equal((await cancelled).status, 'cancelled');
  });

  test('kills again whom the signal missed, and waits two seconds for who hangs in the kernel', async () => {
    prepare = (process) => (process.heeds = []);
    const [process, { id }] = await begun();
    Object.defineProperty(process, 'leftovers', { get: () => true, set: () => undefined });
    process.exit({ code: 0, signal: null });
    await until(() => process.signals.length > 0);
    clock.step(2000);
    for (let n = 0; n < 150; n++) await turn(20);
    assert.equal((await over(id)).status, 'completed');
    assert.ok(process.signals.filter((signal) => signal === 'SIGKILL').length > 2);
  });

  test('is ended at its timeout: SIGTERM, ten seconds, SIGKILL', async () => {
    prepare = (process) => (process.heeds = ['SIGKILL']);
    const [process, { id }] = await begun('work', { timeout_ms: 3000 });
    clock.step(2999);
    assert.deepEqual(process.signals, []);
    clock.step(1);
    assert.deepEqual(process.signals, ['SIGTERM', 'SIGCONT']);
    clock.step(9999);
    assert.deepEqual(process.signals, ['SIGTERM', 'SIGCONT']);
    clock.step(1);
    assert.deepEqual(process.signals, ['SIGTERM', 'SIGCONT', 'SIGKILL']);
    const task = await over(id);
    assert.deepEqual([task.status, task.error], ['failed', 'The command took longer than its timeout.']);
  });

  test('that has ended is neither cancelled nor timed out any more', async () => {
    const [process, { id }] = await begun('work', { timeout_ms: 3000 });
    process.leftovers = true;
    process.exit({ code: 0, signal: null });
    await until(() => process.signals.length > 0);
    const cancelled = runner.cancel(id);
    clock.step(1000);
    process.leftovers = false;
    await turn(1000);
    assert.equal((await cancelled).status, 'completed');
  });

  test('has two seconds for those it leaves behind, and none for those who left', async () => {
    prepare = (process) => (process.heeds = []);
    const [process, { id }] = await begun();
    process.leftovers = true;
    process.exited.resolve({ code: 0, signal: null });
    await until(() => process.signals.length > 0);
    clock.step(1999);
    assert.deepEqual(process.signals, ['SIGTERM', 'SIGCONT']);
    clock.step(1);
    assert.equal(process.signals[2], 'SIGKILL');
    // Somebody outside the group still holds the pipe.
    await until(() => clock.pendingTimers > 0);
    for (let n = 0; n < 50 && !process.abandoned; n++) await turn(20);
    assert.equal(process.abandoned, true);
    assert.equal((await over(id)).status, 'completed');
  });
});

describe('cancelling', () => {
  test('ends what runs and drops what waits', async () => {
    const [first, { id }] = await begun();
    await begun();
    const waiting = tasks.add(newTask());
    assert.equal((await runner.run(waiting)).status, 'pending');
    assert.equal((await runner.cancel(waiting.id)).status, 'cancelled');
    assert.equal(runner.queued, 0);
    assert.equal((await runner.cancel(id)).status, 'cancelled');
    assert.deepEqual(first.signals.slice(0, 2), ['SIGTERM', 'SIGCONT']);
    await assert.rejects(runner.cancel(id), { code: 'bad_status_change' });
    assert.ok(!tasks.claims.includes(waiting.id));
  });

  test('finds a task that is just being claimed, and its command never runs', async () => {
    const claimed = Promise.withResolvers<void>();
    const told = Promise.withResolvers<void>();
    const claim = tasks.claimForRun.bind(tasks);
    tasks.claimForRun = async (id) => {
      const task = await claim(id);
      claimed.resolve();
      await told.promise;
      return task;
    };
    const task = tasks.add(newTask());
    const running = runner.run(task);
    await claimed.promise;
    const cancelled = runner.cancel(task.id);
    told.resolve();
    await running;
    assert.equal((await cancelled).status, 'cancelled');
    await until(() => runner.running === 0);
    assert.ok(processes.every(({ gone }) => !gone));
    assert.equal(tasks.get(task.id).error, null);
  });

  test('finds a task that is about to start, and its command never runs', async () => {
    const task = tasks.add(newTask());
    const running = runner.run(task);
    await turn();
    const cancelled = runner.cancel(task.id);
    await running;
    assert.equal((await cancelled).status, 'cancelled');
    assert.ok(processes.every(({ gone }) => !gone));
  });
});

describe('turns', () => {
  test('are given when somebody ends, to those who ask in turn', async () => {
    const [first] = await begun();
    await begun();
    const ids = new Map<string, string>();
    for (const name of ['a1', 'a2', 'a3', 'b1']) {
      const task = tasks.add(newTask({ title: name }));
      ids.set(task.id, name);
      await runner.run(task, name[0]);
    }
    assert.deepEqual([runner.running, runner.queued], [2, 4]);
    first.exit({ code: 0, signal: null });
    for (let n = 3; n <= 6; n++) {
      await until(() => processes.length === n && processes[n - 1]?.gone === true);
      processes[n - 1]?.exit({ code: 0, signal: null });
    }
    assert.deepEqual(
      tasks.claims.slice(2).map((id) => ids.get(id)),
      ['a1', 'b1', 'a2', 'a3'],
    );
  });

  test('are waited for by whoever follows the log', async () => {
    const [first] = await begun();
    await begun();
    const task = tasks.add(newTask());
    await runner.run(task);
    const read = async () => {
      let text = '';
      for await (const { bytes } of runner.logs(task.id, 0, { follow: true }))
        text += Buffer.from(bytes).toString();
      return text;
    };
    const followed = read();
    first.exit({ code: 0, signal: null });
    await until(() => processes[2]?.gone === true);
    processes[2]?.print('hello');
    processes[2]?.exit({ code: 0, signal: null });
    assert.equal(await followed, 'hello');
    assert.equal(tasks.get(task.id).status, 'completed', 'whoever followed knows how it ended');
  });

  test('are waited for no longer than somebody wants', async () => {
    await begun();
    await begun();
    const task = tasks.add(newTask());
    await runner.run(task);
    const given = new AbortController();
    const followed = Array.fromAsync(runner.logs(task.id, 0, { follow: true, signal: given.signal }));
    await turn();
    given.abort();
    assert.deepEqual(await followed, []);
  });

  test('come to nobody twice', async () => {
    await begun();
    const [, task] = await begun();
    await assert.rejects(runner.run(task), { code: 'bad_status_change' });
    const waiting = tasks.add(newTask());
    await runner.run(waiting);
    const followed = Array.fromAsync(runner.logs(waiting.id, 0, { follow: true }));
    await turn();
    await runner.run(waiting);
    assert.equal(runner.queued, 1);
    await runner.cancel(waiting.id);
    assert.deepEqual(await followed, [], 'whoever followed before is not forgotten');
  });

  test('are not taken before those who wait already', async () => {
    const [first] = await begun();
    await begun();
    const waiting = tasks.add(newTask());
    await runner.run(waiting);
    let tried = 0;
    tasks.claimForRun = async () => {
      tried++;
      throw new MeshError('storage_failed');
    };
    first.exit({ code: 0, signal: null });
    await until(() => tried === 1 && runner.queued === 1);
    tasks.claimForRun = TasksInMemory.prototype.claimForRun.bind(tasks);
    const newcomer = tasks.add(newTask());
    assert.equal((await runner.run(newcomer)).status, 'pending');
    await turn(2_000);
    await until(() => tasks.claims.length === 3);
    assert.equal(tasks.claims[2], waiting.id);
  });

  test('are waited for by ten thousand, and not by one more', async () => {
    await begun();
    await begun();
    for (let n = 0; n < 10_000; n++) await runner.run(tasks.add(newTask()));
    await assert.rejects(runner.run(tasks.add(newTask())), { code: 'overloaded' });
    assert.equal(runner.queued, 10_000);
  });
});

describe('a store that does not answer', () => {
  test('is told the end again until it has it', async () => {
    const [process, { id }] = await begun();
    tasks.outage = new MeshError('storage_failed');
    process.exit({ code: 4, signal: null });
    const files = new TaskFiles(join(home, 'tasks'), id);
    await until(() => clock.pendingTimers > 0);
    assert.equal((await files.readEnd())?.exitCode, 4);
    for (let n = 0; n < 5; n++) await turn(20_000);
    assert.equal(tasks.get(id).status, 'running');
    tasks.outage = null;
    await turn(20_000);
    assert.equal((await over(id)).exit_code, 4);
  });

  test('leaves the end to the next start', async () => {
    const [process, { id }] = await begun();
    tasks.outage = new MeshError('storage_failed');
    process.print('{"done":true}');
    process.exit({ code: 0, signal: null });
    await until(() => clock.pendingTimers > 0);
    const closed = runner.close();
    await until(() => runner.running === 0);
    await closed;
    tasks.outage = null;
    runner = await start();
    assert.deepEqual([tasks.get(id).status, tasks.get(id).output], ['completed', { done: true }]);
    assert.equal(await isThere(join(home, 'tasks', id, 'end.json')), false);
  });

  test('keeps tasks waiting until it answers again', async () => {
    const [first] = await begun();
    const [second] = await begun();
    const task = tasks.add(newTask());
    await runner.run(task);
    tasks.outage = new Error('gone');
    first.exit({ code: 0, signal: null });
    second.exit({ code: 0, signal: null });
    await until(() => clock.pendingTimers > 0);
    for (let n = 0; n < 5; n++) await turn(1000);
    assert.equal(runner.queued, 1);
    tasks.outage = null;
    for (let n = 0; n < 50 && processes.length < 3; n++) await turn(1000);
    assert.deepEqual(tasks.claims.slice(2), [task.id]);
  });

  test('is told the end again after a conflict, and never again once it knows better', async () => {
    const finish = tasks.finishRun.bind(tasks);
    const refusals = [new MeshError('task_conflict'), new MeshError('task_not_found')];
    const [first, { id }] = await begun();
    tasks.finishRun = async (...end) => {
      const refusal = refusals.shift();
      if (refusal) throw refusal;
      return finish(...end);
    };
    const ended = runner.ended(id);
    first.exit({ code: 0, signal: null });
    await until(() => refusals.length === 1);
    assert.equal(await isThere(join(first.spec.folder, 'end.json')), true);
    const over = assert.rejects(Promise.resolve(ended), { code: 'task_not_found' });
    await until(() => clock.pendingTimers > 0);
    await turn(500);
    await over;
    assert.equal(await isThere(join(first.spec.folder, 'end.json')), false);
    assert.equal(clock.pendingTimers, 0);
  });

  test('holds up no start for longer than a second', async () => {
    tasks.add(newTask({ status: 'running' }));
    tasks.outage = new MeshError('storage_failed');
    const starting = start();
    await until(() => clock.pendingTimers >= 2);
    clock.step(1_000);
    const next = await starting;
    tasks.outage = null;
    await next.close();
  });

  test('that claimed and could not say so has the task marked, not run', async () => {
    const [other, { id: otherId }] = await begun();
    const task = tasks.add(newTask());
    const claim = tasks.claimForRun.bind(tasks);
    tasks.claimForRun = async (id) => {
      await claim(id);
      throw new Error('the answer was lost');
    };
    await assert.rejects(runner.run(task), /the answer was lost/);
    assert.equal((await over(task.id)).error, interrupted);
    assert.deepEqual(processes, [other]);
    await turn();
    assert.equal(tasks.get(otherId).status, 'running', 'what runs is no leftover');
  });
});

test('a run whose log cannot be written ends as it did, and says that the log has gaps', async () => {
  prepare = ({ spec }) => writeFileSync(join(spec.folder, 'log'), 'a file where a folder should be');
  const ends = [
    [0, /^Its log has gaps: E/],
    [7, /^The command ended with exit code 7\. Its log has gaps: E/],
  ] as const;
  for (const [code, error] of ends) {
    const [process, { id }] = await begun();
    const over = runner.ended(id);
    process.print('lost');
    process.exit({ code, signal: null });
    const task = await over;
    assert.deepEqual([task?.status, task?.exit_code], [code === 0 ? 'completed' : 'failed', code]);
    assert.match(task?.error ?? '', error);
  }
});

describe('a shutdown', () => {
  test('asks at once, kills after one and a half seconds, and marks what ran', async () => {
    prepare = (process) => (process.heeds = ['SIGKILL']);
    const [process, { id }] = await begun();
    const [, cancelled] = await begun();
    void runner.cancel(cancelled.id);
    const waiting = tasks.add(newTask());
    await runner.run(waiting);
    const followed = Array.fromAsync(runner.logs(waiting.id, 0, { follow: true }));
    await turn();
    const closed = runner.close();
    assert.deepEqual(process.signals, ['SIGTERM', 'SIGCONT']);
    // Somebody who cancels it now gives it no longer time.
    void runner.cancel(id).catch(() => undefined);
    clock.step(1500);
    assert.deepEqual(process.signals, ['SIGTERM', 'SIGCONT', 'SIGKILL']);
    await closed;
    assert.deepEqual(await followed, []);
    assert.deepEqual([tasks.get(id).status, tasks.get(id).error], ['failed', interrupted]);
    assert.equal(tasks.get(cancelled.id).status, 'cancelled');
    assert.equal(tasks.get(waiting.id).status, 'pending');
    assert.equal(processes.length, 2);
  });

  test('waits for nobody longer than three seconds', async () => {
    prepare = (process) => (process.heeds = []);
    const [process] = await begun();
    const closed = runner.close();
    clock.step(3000);
    await closed;
    process.exit({ code: null, signal: 'SIGKILL' });
  });
});

test('what was running by the table at the start was interrupted, and never runs again', async () => {
  const running = tasks.add(newTask({ status: 'running' }));
  const pending = tasks.add(newTask());
  const next = await start();
  assert.equal(tasks.get(running.id).error, interrupted);
  assert.equal(tasks.get(pending.id).status, 'pending');
  assert.deepEqual(processes, []);
  await next.close();
});

test('a task that is forgotten is ended, and its files are gone', async () => {
  const [process, { id }] = await begun();
  await runner.forget(id);
  assert.ok(process.signals.includes('SIGTERM'));
  assert.equal(await isThere(process.spec.folder), false);
  await assert.rejects(runner.forget('../../etc'));
});
