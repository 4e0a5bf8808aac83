/** Real processes, each with a bad habit: it ends as asked, its log stays small, and nobody of its group is left. */

import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, readdir, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { systemClock } from '@cocoon-mesh/protocol';
import type { Task } from '@cocoon-mesh/protocol';
import { endLeftovers } from './leftovers.node.ts';
import { groupMembers, startTimeOf } from './process-group.node.ts';
import { newTask, noFacts, TasksInMemory } from './runner-doubles.contract.ts';
import { TaskRunner } from './runner.node.ts';
import { signalStrays, taskMark } from './strays.node.ts';
import type { RunnableTasks } from './runner.node.ts';
import { TaskFiles } from './task-files.node.ts';
import { openTaskStore } from './task-store.node.ts';
import { interrupted } from './task-run.node.ts';

let home = '';
let tasks = new TasksInMemory();
let runner: TaskRunner;

before(async () => {
  home = await mkdtemp(join(tmpdir(), 'cocoon-runner-'));
  await restart();
});
afterEach(async () => {
  await runner.close();
  await restart();
});
after(async () => {
  await runner.close();
  await rm(home, { recursive: true, force: true });
});

async function restart(): Promise<void> {
  tasks = new TasksInMemory();
  runner = await start();
}

function start(store: RunnableTasks = tasks): Promise<TaskRunner> {
  const environment = { ...process.env, COCOON_TASK_MARK: 'ours' };
  return TaskRunner.start({
    tasks: store,
    home,
    clock: systemClock,
    environment,
    facts: noFacts,
    policy: 'any',
    concurrency: 4,
  });
}

/** Begins a run. */
async function begin(
  command: string,
  more: Partial<Task> = {},
): Promise<{ id: string; over: Promise<Task> }> {
  const task = tasks.add(newTask({ command, ...more }));
  await runner.run(task);
  const over = runner.ended(task.id);
  assert.ok(over);
  return { id: task.id, over };
}

/** Runs to the end, and looks whether anybody is left. */
async function run(command: string, more: Partial<Task> = {}): Promise<Task> {
  const { id, over } = await begin(command, more);
  const group = await groupOf(id);
  const task = await over;
  assert.deepEqual(await groupMembers(group), [], 'somebody of the group is left');
  return task;
}

function file(id: string, name: string): string {
  return join(home, 'tasks', id, name);
}

/** As soon as the process is written down. */
async function groupOf(id: string): Promise<number> {
  return (
    await until(async () => JSON.parse(await readFile(file(id, 'process.json'), 'utf8')) as { pid: number })
  ).pid;
}

/** What `look` finds as soon as it does not throw. */
async function until<T>(look: () => Promise<T>): Promise<T> {
  const end = performance.now() + 60_000;
  for (;;) {
    try {
      return await look();
    } catch (thrown) {
      if (performance.now() > end) throw thrown;
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
}

interface KeptLog {
  readonly bytes: Buffer;
  /** Offset behind the last byte. */
  readonly end: number;
  /** So many of the newest follow each other: what a slow disk could not take in time is missing before them. */
  readonly unbroken: number;
}

async function logOf(id: string): Promise<KeptLog> {
  const pieces: Uint8Array[] = [];
  let end = 0;
  let unbroken = 0;
  for await (const { bytes, offset } of runner.logs(id, 0)) {
    unbroken = bytes.length + (offset === end ? unbroken : 0);
    end = offset + bytes.length;
    pieces.push(bytes);
  }
  return { bytes: Buffer.concat(pieces), end, unbroken };
}

/** As soon as the task has printed this. */
async function printed(id: string, text: string): Promise<void> {
  let seen = '';
  for await (const { bytes } of runner.logs(id, 0, { follow: true })) {
    seen += Buffer.from(bytes).toString('latin1');
    if (seen.includes(text)) return;
  }
  assert.fail(`ended without ${text}: ${seen}`);
}

async function logBytesOnDisk(id: string): Promise<number> {
  const names = await readdir(file(id, 'log'));
  const sizes = await Promise.all(names.map(async (name) => (await stat(file(id, join('log', name)))).size));
  return sizes.reduce((sum, size) => sum + size, 0);
}

const MiB = 1024 * 1024;

test(
  'a gigabyte of output passes in small memory and disk, and the newest is kept',
  { timeout: 120_000 },
  async () => {
    const before = process.memoryUsage.rss();
    let most = 0;
    const timer = setInterval(() => (most = Math.max(most, process.memoryUsage.rss())), 20);
    const started = performance.now();
    const { id, over } = await begin('head -c 1000000000 /dev/zero; echo the end; exit 3');
    const group = await groupOf(id);
    const task = await over;
    clearInterval(timer);
    const seconds = (performance.now() - started) / 1000;
    assert.deepEqual(await groupMembers(group), []);
    assert.equal(task.exit_code, 3);
    const { bytes, end, unbroken } = await logOf(id);
    assert.ok(bytes.toString('latin1', bytes.length - 9) === '\0the end\n');
    assert.equal(end, 1_000_000_008, 'offsets stay true');
    assert.ok(unbroken >= 4 * MiB && bytes.length <= 8 * MiB, `kept ${unbroken} of ${bytes.length}`);
    assert.ok((await logBytesOnDisk(id)) <= 8 * MiB);
    console.log(`1 GB in ${seconds.toFixed(1)} s, ${Math.round((most - before) / MiB)} MiB more memory`);
    assert.ok(most - before < 200 * MiB, `took ${most - before} bytes of memory`);
  },
);

test('one that never ends is ended when it is cancelled', async () => {
  const { id, over } = await begin('echo begun; while :; do sleep 1; done');
  const group = await groupOf(id);
  await printed(id, 'begun');
  const task = await runner.cancel(id);
  assert.equal(task.status, 'cancelled');
  assert.equal(task, await over);
  assert.deepEqual(await groupMembers(group), []);
});

test('one that takes longer than its timeout is ended, and failed', async () => {
  const task = await run('sleep 1000', { timeout_ms: 200 });
  assert.deepEqual([task.status, task.error], ['failed', 'The command took longer than its timeout.']);
});

test('one that ignores SIGTERM is killed after ten seconds', { timeout: 120_000 }, async () => {
  const { id } = await begin(`trap '' TERM; echo deaf; while :; do sleep 1; done`);
  const group = await groupOf(id);
  await printed(id, 'deaf');
  const asked = performance.now();
  const task = await runner.cancel(id);
  const seconds = (performance.now() - asked) / 1000;
  // Not later is for the stepped clock to hold: this machine may be busy.
  assert.ok(seconds > 9.5, `${seconds} s`);
  assert.equal(task.status, 'cancelled');
  assert.deepEqual(await groupMembers(group), []);
});

test('one that was stopped is ended too', async () => {
  const { id } = await begin('echo stopping; kill -STOP $$; sleep 1000');
  await printed(id, 'stopping');
  assert.equal((await runner.cancel(id)).status, 'cancelled');
});

test('children that outlive it are ended, those too that ignore SIGTERM and hold the pipe', async () => {
  const task = await run(
    `(trap '' TERM HUP; while :; do sleep 1; done) & nohup sleep 1000 & sleep 1000 & echo '{"ok":true}'`,
  );
  assert.deepEqual([task.status, task.exit_code, task.output], ['completed', 0, { ok: true }]);
});

test('children that left the group are ended too, by its end and by a cancel', async () => {
  const leave = `setsid sh -c "trap '' TERM; echo away; while :; do sleep 1; done" & `;
  const { id, over } = await begin(`${leave} until grep -q away ../log/*; do sleep 0.1; done`);
  assert.equal((await over).status, 'completed');
  assert.equal(await signalStrays(taskMark(id), 0, 0), 0);
  const endless = await begin(`setsid sh -c 'echo away; exec sleep 1000' & exec sleep 1000`);
  await printed(endless.id, 'away');
  assert.ok((await signalStrays(taskMark(endless.id), 0, 0)) >= 2);
  assert.equal((await runner.cancel(endless.id)).status, 'cancelled');
  assert.equal(await signalStrays(taskMark(endless.id), 0, 0), 0);
});

test('nobody is overlooked who is just becoming another program', async () => {
  // Each `exec` shows no environment for a moment, and this one is always in one.
  const leave = `setsid sh -c 'echo away; exec env sh -c "$0" "$0"' 'exec env sh -c "$0" "$0"' &`;
  const { id, over } = await begin(`${leave} exec sleep 1000`);
  await printed(id, 'away');
  const looks: number[] = [];
  for (let i = 0; i < 200; i++) looks.push(await signalStrays(taskMark(id), 0, 0));
  assert.deepEqual(
    looks.filter((found) => found < 2),
    [],
  );
  assert.equal((await runner.cancel(id)).status, 'cancelled');
  await over;
  assert.equal(await signalStrays(taskMark(id), 0, 0), 0);
});

test('a child that left for good, without the mark, holds the pipe and nobody up', async () => {
  const started = performance.now();
  const task = await run('env -u COCOON_TASK_ID setsid sleep 20 & echo done');
  assert.equal(task.status, 'completed');
  assert.ok(performance.now() - started < 10_000);
});

test('one that reads stdin for ever comes to its end', async () => {
  const given = { words: ['a', 'ü', '\u2028'] };
  const task = await run('cat', { input: given });
  assert.deepEqual([task.status, task.output], ['completed', given]);
  const none = await run('wc -c; while read -r line; do :; done; cat /dev/stdin');
  assert.deepEqual([none.status, none.output], ['completed', 0]);
});

test('invalid UTF-8, and output without a newline, are kept byte by byte', async () => {
  const { id, over } = await begin(String.raw`printf '\377\376\000ok'`);
  assert.deepEqual([(await over).status, (await over).output], ['completed', null]);
  assert.deepEqual((await logOf(id)).bytes, Buffer.from([0xff, 0xfe, 0, 0x6f, 0x6b]));
});

test('ends by a signal and by an exit code are told apart', async () => {
  const killed = await run('kill -SEGV $$');
  assert.deepEqual([killed.status, killed.exit_code], ['failed', null]);
  assert.equal(killed.error, 'The command was ended by SIGSEGV.');
  const left = await run('exit 7');
  assert.deepEqual(
    [left.status, left.exit_code, left.error],
    ['failed', 7, 'The command ended with exit code 7.'],
  );
  const unknown = await run('no-such-command-anywhere');
  assert.equal(unknown.error, 'The command ended with exit code 127: it was not found.');
});

test('a command that cannot be started fails with the reason', async () => {
  const task = tasks.add(newTask({ command: 'echo \0' }));
  await runner.run(task);
  const ended = await runner.ended(task.id);
  assert.equal(ended?.status, 'failed');
  assert.match(ended?.error ?? '', /^could not start: /);
});

test('a task finds its folder, its input and its name, and may write to /dev/stderr', async () => {
  const input = { x: 'y'.repeat(100_000) };
  const { id, over } = await begin(
    `pwd > /dev/stderr; echo "$COCOON_TASK_ID $COCOON_TASK_MARK" > /dev/stderr; ` +
      `echo "[$COCOON_TASK_INPUT]"; cp "$COCOON_TASK_INPUT_FILE" "$COCOON_TASK_RESULT"`,
    { input },
  );
  assert.deepEqual((await over).output, input);
  assert.equal((await logOf(id)).bytes.toString(), `${file(id, 'work')}\n${id} ours\n[]\n`);
  const small = await run('printf %s "$COCOON_TASK_INPUT"', { input: [1, 2] });
  assert.deepEqual(small.output, [1, 2]);
});

test('a result file that is a pipe, endless or no JSON holds nobody up', async () => {
  const cases = [
    ['mkfifo "$COCOON_TASK_RESULT"', 'it is not a file'],
    ['ln -s /dev/zero "$COCOON_TASK_RESULT"', 'it is not a file'],
    ['head -c 2000000 /dev/zero > "$COCOON_TASK_RESULT"', 'it is larger than 1048576 bytes'],
    ['echo nonsense > "$COCOON_TASK_RESULT"', 'it is not JSON'],
  ];
  for (const [command = '', why] of cases) {
    const task = await run(command);
    assert.equal(task.status, 'completed');
    assert.equal(task.error, `Its result file is no output: ${why}`);
  }
});

test('who follows sees every byte, though it is slow and comes late', async () => {
  const { id, over } = await begin('i=0; while [ $i -lt 2000 ]; do echo "line $i"; i=$((i+1)); done');
  let seen = '';
  for await (const { bytes, offset } of runner.logs(id, 0, { follow: true })) {
    assert.equal(offset, seen.length);
    seen += Buffer.from(bytes).toString();
    await new Promise((resolve) => setImmediate(resolve));
  }
  await over;
  assert.equal(seen, Array.from({ length: 2000 }, (_, n) => `line ${n}\n`).join(''));
});

test(
  'a shutdown takes less than five seconds, whatever runs, and marks it',
  { timeout: 120_000 },
  async () => {
    const { id, over } = await begin(`trap '' TERM; echo deaf; while :; do sleep 1; done`);
    const group = await groupOf(id);
    await printed(id, 'deaf');
    const asked = performance.now();
    await runner.close();
    assert.ok(performance.now() - asked < 5000);
    assert.deepEqual(await groupMembers(group), []);
    assert.deepEqual([(await over).status, (await over).error], ['failed', interrupted]);
  },
);

test(
  'what a killed daemon left is ended at the next start, marked, and not run again',
  { timeout: 120_000 },
  async () => {
    const task = tasks.add(
      newTask({
        command: `trap '' TERM HUP PIPE; sleep 1000 & setsid sleep 1000 & echo x >> began; sleep 1000; sleep 1000`,
      }),
    );
    const daemon = fork(fileURLToPath(import.meta.resolve('./runner-daemon.contract.ts')), [
      home,
      JSON.stringify(task),
    ]);
    await once(daemon, 'message');
    const group = await groupOf(task.id);
    const began = () => readFile(file(task.id, join('work', 'began')), 'utf8');
    // The file is there before the word is in it.
    await until(async () => assert.equal(await began(), 'x\n'));
    daemon.kill('SIGKILL');
    await once(daemon, 'exit');
    assert.ok((await groupMembers(group)).length > 0);
    await tasks.claimForRun(task.id);
    await runner.close();
    runner = await start();
    assert.deepEqual(await groupMembers(group), []);
    assert.equal(await signalStrays(taskMark(task.id), 0, 0), 0);
    assert.deepEqual([tasks.get(task.id).status, tasks.get(task.id).error], ['failed', interrupted]);
    assert.equal(await began(), 'x\n');
  },
);

test('a group that only has the number of an earlier one is left alone', async () => {
  const { id } = await begin('sleep 1000');
  const group = await groupOf(id);
  const other = new TaskFiles(join(home, 'other'), newTask().id);
  await other.prepare('');
  const startTime = await startTimeOf(group);
  await other.writeProcess({ pid: group, start_time: `${startTime}1` });
  await endLeftovers(join(home, 'other'), systemClock);
  assert.ok((await groupMembers(group)).length > 0);
  await other.writeProcess({ pid: group, start_time: startTime });
  await endLeftovers(join(home, 'other'), systemClock);
  assert.deepEqual(await groupMembers(group), []);
});

test('what a daemon had not yet written down when it died is never run', async () => {
  const task = newTask({ command: 'echo x > began' });
  const daemon = fork(fileURLToPath(import.meta.resolve('./runner-daemon.contract.ts')), [
    home,
    JSON.stringify(task),
    'hold',
  ]);
  await once(daemon, 'message');
  const group = await groupOf(task.id);
  await until(async () => assert.equal((await groupMembers(group)).length, 1));
  daemon.kill('SIGKILL');
  await once(daemon, 'exit');
  await until(async () => assert.deepEqual(await groupMembers(group), []));
  await assert.rejects(readFile(file(task.id, join('work', 'began'))), { code: 'ENOENT' });
});

test('runs stand in the store of the device as they ended', async () => {
  const device = { peerId: '12D3KooWHome', name: 'home' };
  await using store = await openTaskStore({ url: 'sqlite::memory:', device, clock: systemClock });
  await runner.close();
  runner = await start(store);
  const good = await store.create({ title: 'good', command: 'echo "$COCOON_TASK_INPUT"', input: { n: 1 } });
  assert.equal((await runner.run(good)).status, 'running');
  await runner.ended(good.id);
  const { status, output, exit_code } = await store.get(good.id);
  assert.deepEqual([status, output, exit_code], ['completed', { n: 1 }, 0]);
  const endless = await store.create({ title: 'endless', command: 'sleep 1000' });
  await runner.run(endless);
  assert.equal((await runner.cancel(endless.id)).status, 'cancelled');
  assert.equal((await runner.cancel((await store.create({ title: 'idle' })).id)).status, 'cancelled');
  const last = await store.create({ title: 'last', command: 'sleep 1000' });
  await runner.run(last);
  await runner.close();
  assert.equal((await store.get(last.id)).error, interrupted);
});
