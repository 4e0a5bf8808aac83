/*
 * Commands with bad habits, run as tasks of installed cocoons: each ends as it is asked to, its log stays small, and
 * no process of it is left. And what a device does not run at all.
 */

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync, readdirSync, statSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { Task } from '@cocoon-mesh/protocol';
import { CocoonProcess, bin, command, full, sees } from './cocoon-process.ts';
import { TaskClient } from './task-client.ts';

const interrupted = 'Interrupted: the device stopped while the task ran.';

const MiB = 1024 * 1024;
const limitMs = 60_000;
const engine = 'libdatachannel';
const manyBytes = full ? 1_000_000_000 : 128_000_000;

type Shown = Task & { readonly device: string };

const homes: string[] = [];
/** Of all runs. */
const marks: string[] = [];
const docker = createServer((connection) => connection.destroy());
/** Runs nothing itself. */
let laptop: CocoonProcess;
/** Runs anything, two at once, and is labelled `big`. */
let server: CocoonProcess;
/** Runs what its user has listed. */
let box: CocoonProcess;
let tasks: TaskClient;

before(async () => {
  laptop = await CocoonProcess.start({
    command: 'up',
    args: ['--port', '0', '--gateway-port', '0', '--name', 'laptop', '--no-web'],
    home: await homeWith('task_commands = "none"'),
    env: withoutDocker,
    engine,
  });
  server = await joined('server', 'task_concurrency = 2\ntask_labels = ["big"]', await makeDocker());
  box = await joined('box', 'task_commands = ["echo *", "cat"]', withoutDocker);
  for (const { name } of [server, box]) await sees(laptop, name);
  await sees(server, 'laptop');
  tasks = new TaskClient(server);
});

after(async () => {
  await Promise.all([laptop, server, box].map((cocoon) => cocoon?.[Symbol.asyncDispose]()));
  docker.close();
  // There is nobody, unless a story has failed.
  for (const pid of marks.flatMap(left).map((line) => Number.parseInt(line, 10)))
    process.kill(pid, 'SIGKILL');
  for (const home of homes) await rm(home, { recursive: true, force: true });
});

async function homeWith(config: string): Promise<string> {
  const home = await mkdtemp(join(tmpdir(), 'cocoon-runs-'));
  homes.push(home);
  await writeFile(join(home, 'config.toml'), `${config}\n`);
  return home;
}

const withoutDocker = { DOCKER_HOST: 'unix:///nowhere/at/all' };

/** As far as a device looks: a program, and a socket that answers. */
async function makeDocker(): Promise<Record<string, string>> {
  const folder = await homeWith('');
  const socket = join(folder, 'docker.sock');
  await writeFile(join(folder, 'docker'), '#!/bin/sh\n', { mode: 0o700 });
  docker.listen(socket);
  await once(docker, 'listening');
  return { DOCKER_HOST: `unix://${socket}`, PATH: `${process.env['PATH'] ?? ''}:${folder}` };
}

async function joined(name: string, config: string, env: Record<string, string>): Promise<CocoonProcess> {
  const { token } = await laptop.json<{ token: string }>('generate-token');
  const args = ['--name', name, '--gateway-port', '0', '--token', '-'];
  return CocoonProcess.start({
    command: 'run',
    args,
    input: token,
    home: await homeWith(config),
    env,
    engine,
  });
}

/** A run on the server, begun there or from the laptop. */
async function run(
  line: string,
  more: readonly string[] = [],
  from: CocoonProcess = server,
): Promise<{ readonly id: string; readonly mark: string }> {
  const mark = randomUUID();
  marks.push(mark);
  const place = from === server ? [] : ['--device=server'];
  const { id, status, device } = await from.json<Shown>(
    'tasks',
    'add',
    '--title=a run',
    '--run',
    `--command=export STORY=${mark}; ${line}`,
    ...place,
    ...more,
  );
  assert.equal(device, 'server');
  assert.ok(status === 'running' || status === 'pending', status);
  return { id, mark };
}

/** The task as it is when it is over. */
async function ended(id: string): Promise<Task> {
  await logOf(id, { follow: true });
  // Its end is written down after the last of its log.
  return until(`the end of ${id}`, async () => {
    const task = await shown(id);
    return task.status === 'pending' || task.status === 'running' ? null : task;
  });
}

async function shown(id: string, client = tasks): Promise<Task> {
  const { status, body } = await client.ask<Task>('GET', `/tasks/${id}`);
  assert.equal(status, 200);
  return body;
}

/** What the task has written, byte by byte. @param to not further than this text */
async function logOf(id: string, { follow = false, to = '' } = {}): Promise<Buffer> {
  const response = await fetch(`${server.gateway}/tasks/${id}/logs${follow ? '?follow=1' : ''}`, {
    headers: { authorization: `Bearer ${await server.gatewayToken()}`, connection: 'close' },
    signal: AbortSignal.timeout(limitMs),
  });
  assert.equal(response.status, 200);
  let all = Buffer.alloc(0);
  // Leaving the loop ends the request.
  for await (const piece of response.body ?? []) {
    all = Buffer.concat([all, piece]);
    if (to !== '' && all.includes(to)) break;
  }
  return all;
}

async function printed(id: string, text: string): Promise<void> {
  const log = await logOf(id, { follow: true, to: text });
  assert.ok(log.includes(text), `ended without ${text}: ${log.toString()}`);
}

/** What `look` finds as soon as it is not null. */
async function until<T>(what: string, look: () => Promise<T | null>): Promise<T> {
  for (const end = performance.now() + limitMs; performance.now() < end;) {
    const found = await look();
    if (found !== null) return found;
  }
  return assert.fail(`${what} did not come`);
}

/** Processes of this run, found by what only they have in their environment or among their arguments. */
function left(mark: string): string[] {
  const read = (pid: string, file: string): string => {
    try {
      return readFileSync(`/proc/${pid}/${file}`, 'latin1');
    } catch {
      return '';
    }
  };
  return readdirSync('/proc')
    .filter((pid) => /^\d+$/.test(pid))
    .filter((pid) => read(pid, 'environ').includes(mark) || read(pid, 'cmdline').includes(mark))
    .map((pid) => `${pid} ${read(pid, 'cmdline').replaceAll('\0', ' ')}`);
}

function bytesOf(folder: string): number {
  const entries = readdirSync(folder, { recursive: true, encoding: 'utf8' });
  return entries.reduce((sum, name) => sum + statSync(join(folder, name)).size, 0);
}

/** Everything of a failure as `--json` tells it. */
async function refusal(
  cocoon: CocoonProcess,
  args: readonly string[],
): Promise<{ exit: number | null; code: string; message: string; hint: string }> {
  const done = await command(cocoon.home, [...args, '--json']);
  const { error } = JSON.parse(done.stderr.trim().split('\n').at(-1) ?? '') as {
    error: { code: string; message: string; hint: string };
  };
  return { exit: done.code, ...error };
}

async function total(cocoon: CocoonProcess): Promise<number> {
  return (await cocoon.json<{ total: number }>('tasks', 'stats')).total;
}

// Two at once, which is what the device runs: one of them does nothing but wait for its ten seconds.
describe('a command that', { concurrency: 2 }, () => {
  test(`prints ${manyBytes / 1e6} MB ends, and takes little room and memory`, async () => {
    const before = await server.residentBytes();
    // From here on the highest is measured.
    await writeFile(`/proc/${server.pid}/clear_refs`, '5');
    const line = `yes 0123456789 | head -c ${manyBytes}; echo; echo the end`;
    const { id, mark } = await run(line, [], laptop);
    const task = await until('its end', async () => {
      const { status } = await laptop.json<Shown>('tasks', 'show', id, '--device=server');
      return status === 'running' || status === 'pending' ? null : status;
    });
    assert.equal(task, 'completed');
    const status = await readFile(`/proc/${server.pid}/status`, 'utf8');
    const most = Number(/VmHWM:\s+(\d+)/.exec(status)?.[1]) * 1024;
    const logs = await laptop.command(['tasks', 'logs', id, '--device', 'server']);
    assert.equal(logs.code, 0, logs.stderr);
    assert.ok(logs.stdout.endsWith('\nthe end\n'));
    assert.ok(logs.stdout.length >= 4 * MiB && logs.stdout.length <= 8 * MiB, `${logs.stdout.length}`);
    const onDisk = bytesOf(join(server.home, 'tasks', id));
    assert.ok(onDisk <= 9 * MiB, `${onDisk} bytes`);
    assert.ok(most - before < 100 * MiB, `${Math.round((most - before) / MiB)} MiB more memory`);
    assert.deepEqual(left(mark), []);
  });

  test('never ends is cancelled, from another device too', async () => {
    for (const from of [server, laptop]) {
      const { id, mark } = await run('echo begun; while :; do sleep 1; done', [], from);
      await printed(id, 'begun');
      assert.ok(left(mark).length > 0);
      const task = await from.json<Shown>('tasks', 'cancel', id, '--device', 'server');
      assert.deepEqual([task.status, task.error], ['cancelled', null]);
      assert.deepEqual(left(mark), []);
    }
  });

  test('takes longer than its time limit has failed, and says why', async () => {
    const { id, mark } = await run('sleep 1000', ['--time-limit', '1s']);
    const { status, error, exit_code: code } = await ended(id);
    assert.deepEqual([status, code, error], ['failed', null, 'The command took longer than its timeout.']);
    assert.deepEqual(left(mark), []);
  });

  test('ignores SIGTERM is killed ten seconds after it was asked, with all of its group', async () => {
    const deaf = `trap '' TERM; (trap '' TERM; while :; do sleep 1; done) & echo deaf; while :; do sleep 1; done`;
    const { id, mark } = await run(deaf);
    await printed(id, 'deaf');
    const asked = performance.now();
    const task = await server.json<Shown>('tasks', 'cancel', id);
    const seconds = (performance.now() - asked) / 1000;
    assert.equal(task.status, 'cancelled');
    assert.ok(seconds >= 10 && seconds < 30, `${seconds} s`);
    assert.deepEqual(left(mark), []);
  });

  test('leaves children behind, in its group or in sessions of their own, leaves nobody', async () => {
    const { id, mark } = await run(
      `nohup sleep 1000 & (trap '' TERM HUP; while :; do sleep 1; done) & ` +
        `setsid sleep 1000 & setsid sh -c "trap '' TERM HUP; echo away; while :; do sleep 1; done" & ` +
        `until grep -q away ../log/*; do sleep 0.1; done; echo done`,
    );
    const task = await ended(id);
    assert.deepEqual([task.status, task.exit_code], ['completed', 0]);
    assert.deepEqual(left(mark), []);
  });

  test('reads stdin for ever gets its input, then the end of it', async () => {
    const given = { words: ['a', 'ü', '\u2028'] };
    const fed = await run('cat', ['--input', JSON.stringify(given)], laptop);
    assert.deepEqual((await ended(fed.id)).output, given);
    const none = await run('while read -r line; do :; done; cat | wc -c');
    const { status, output } = await ended(none.id);
    assert.deepEqual([status, output], ['completed', 0]);
  });

  test('prints invalid UTF-8 keeps its bytes, and all JSON about it is JSON', async () => {
    const { id } = await run(String.raw`printf '{"a":"\377\376"}\000\033[31m\n'; printf '\303\n' >&2`);
    const task = await ended(id);
    assert.deepEqual(
      [task.status, task.output, task.error],
      ['completed', null, 'What it printed is no output: it is not JSON'],
    );
    const bytes = await logOf(id);
    for (const part of [
      [0x22, 0xff, 0xfe, 0x22, 0x7d, 0, 0x1b],
      [0xc3, 0x0a],
    ])
      assert.ok(bytes.includes(Buffer.from(part)), bytes.toString('hex'));
    for (const from of [server, laptop]) {
      const logs = await from.command(['tasks', 'logs', id, '--device', 'server', '--json']);
      assert.equal(logs.code, 0, logs.stderr);
      const lines = logs.stdout.trim().split('\n');
      const text = lines.map((line) => (JSON.parse(line) as { log: string }).log).join('');
      assert.match(text, /{"a":"\ufffd+"}/);
      const show = await from.json<Shown>('tasks', 'show', id, '--device', 'server');
      assert.equal(show.status, 'completed');
    }
  });

  test('is ended by a signal, or by itself with a code, has failed and says how', async () => {
    const rows = [
      ['kill -SEGV $$', null, 'The command was ended by SIGSEGV.'],
      ['kill -KILL $$', null, 'The command was ended by SIGKILL.'],
      ['exit 7', 7, 'The command ended with exit code 7.'],
      ['no-such-command', 127, 'The command ended with exit code 127: it was not found.'],
    ] as const;
    for (const [line, code, error] of rows) {
      const task = await ended((await run(line)).id);
      assert.deepEqual([task.status, task.exit_code, task.error], ['failed', code, error]);
    }
  });
});

describe('a command finds', () => {
  test('its input on stdin and in the environment, and gives JSON by stdout or by a file', async () => {
    const input = { n: [1, { deep: null }] };
    const more = ['--input', JSON.stringify(input)];
    const both = `{"stdin":%s,"variable":%s,"task":"%s","file":%s}`;
    const values = `"$(cat)" "$COCOON_TASK_INPUT" "$COCOON_TASK_ID" "$(cat "$COCOON_TASK_INPUT_FILE")"`;
    const printing = await run(`printf '${both}' ${values}`, more, laptop);
    const writing = await run(`echo talk; printf '${both}' ${values} > "$COCOON_TASK_RESULT"`, more);
    for (const { id } of [printing, writing]) {
      const task = await ended(id);
      assert.deepEqual(
        [task.status, task.exit_code, task.output],
        ['completed', 0, { stdin: input, variable: input, task: id, file: input }],
      );
    }
    assert.equal((await logOf(writing.id)).toString(), 'talk\n');
  });

  test('a folder of its own', async () => {
    const runs = [await run('pwd; ls -A; echo mine > file'), await run('pwd; ls -A; echo mine > file')];
    for (const { id } of runs) {
      await ended(id);
      assert.equal((await logOf(id)).toString(), `${join(server.home, 'tasks', id, 'work')}\n`);
      assert.equal(await readFile(join(server.home, 'tasks', id, 'work', 'file'), 'utf8'), 'mine\n');
    }
  });

  test('its turn: no more than the device was told run at once', async () => {
    const line = 'echo on; exec sleep 1000';
    const first = await run(line);
    const second = await run(line, [], laptop);
    const third = await run(line, [], laptop);
    await printed(first.id, 'on');
    await printed(second.id, 'on');
    assert.equal((await shown(third.id)).status, 'pending');
    assert.deepEqual(left(third.mark), []);
    assert.equal((await server.json<Shown>('tasks', 'cancel', first.id)).status, 'cancelled');
    await printed(third.id, 'on');
    assert.equal((await shown(third.id)).status, 'running');
    for (const { id, mark } of [second, third]) {
      await tasks.ask('POST', `/tasks/${id}/cancel`);
      assert.deepEqual(left(mark), []);
    }
  });
});

describe('a device that was told which commands it runs', () => {
  test('refuses all with none, whoever asks, and makes no task of it', async () => {
    const before = await total(laptop);
    const wanted = join(laptop.home, 'was-run');
    const add = ['tasks', 'add', '--title=x', `--command=touch ${wanted}`];
    for (const [cocoon, place] of [
      [laptop, []],
      [server, ['--device=laptop']],
    ] as const) {
      const { exit, code, hint } = await refusal(cocoon, [...add, '--run', ...place]);
      assert.deepEqual([exit, code], [4, 'command_refused']);
      assert.match(hint, /task_commands/);
    }
    assert.equal(await total(laptop), before);
    // One may be kept there; it is refused when it is to run.
    const { id } = await laptop.json<Shown>(...add);
    assert.equal((await refusal(laptop, ['tasks', 'run', id])).code, 'command_refused');
    assert.equal((await refusal(server, ['tasks', 'run', id, '--device=laptop'])).code, 'command_refused');
    assert.equal((await laptop.json<Shown>('tasks', 'show', id)).status, 'pending');
    assert.throws(() => statSync(wanted));
  });

  test('runs what is on its list, and nothing that a shell would make of it', async () => {
    const wanted = join(box.home, 'was-run');
    const before = await total(box);
    const add = ['tasks', 'add', '--title=x', '--run', '--device=box', `--command=touch ${wanted}`];
    const { exit, code, hint } = await refusal(laptop, add);
    assert.deepEqual([exit, code], [4, 'command_refused']);
    assert.match(hint, /task_commands/);
    const asker = new TaskClient(laptop);
    for (const line of [
      `echo a; touch ${wanted}`,
      `echo $(touch ${wanted})`,
      `echo a > ${wanted}`,
      `echo a\ntouch ${wanted}`,
      `cat ${wanted}`,
    ]) {
      const task = { title: 'x', command: line, run: true };
      const { status, body } = await asker.ask<{ code: string }>('POST', '/tasks?device=box', task);
      assert.deepEqual([status, body.code], [403, 'command_refused'], line);
    }
    assert.equal(await total(box), before);
    assert.throws(() => statSync(wanted));
    const allowed = ['tasks', 'add', '--title=x', '--run', '--device=box', '--command=echo 12 34'];
    const { id } = await laptop.json<Shown>(...allowed);
    const log = await laptop.command(['tasks', 'logs', id, '--device=box', '--follow']);
    assert.equal(log.stdout, '12 34\n');
  });
});

describe('a task that needs what this device has not', () => {
  const add = ['tasks', 'add', '--title=elsewhere', '--requires=label:big', '--command=echo here'];

  test('is refused with the devices that have it', async () => {
    const { exit, code, message, hint } = await refusal(laptop, add);
    assert.deepEqual([exit, code], [1, 'cannot_run']);
    assert.match(message, /big/);
    assert.equal(hint, 'It can run on server: add it with --device server.');
    const placed = await laptop.json<Shown>(...add, '--device=server', '--run');
    assert.equal(placed.device, 'server');
    assert.equal((await ended(placed.id)).status, 'completed');
    const nowhere = await refusal(laptop, [...add, '--requires=label:nowhere']);
    assert.equal(nowhere.hint, 'None of your devices that are online has all of it.');
    for (const cocoon of [laptop, box]) {
      const title = ['tasks', 'add', '--title=x', '--requires=docker'];
      const { code, hint: where } = await refusal(cocoon, title);
      assert.deepEqual([code, where], ['cannot_run', 'It can run on server: add it with --device server.']);
      const there = await cocoon.json<Shown>(...title, '--device=server');
      assert.equal(there.device, 'server');
    }
  });

  const withTerminal = spawnSync('script', ['--version']).status === 0;
  test(
    'is offered the device that has it on a terminal, and made there when the user agrees',
    { skip: withTerminal ? false : 'script (util-linux) is not there to make a terminal' },
    async () => {
      const before = await total(laptop);
      const agreed = await onTerminal('y\n');
      assert.match(agreed.text, /server can\. Add it there\? \[Y\/n\]/);
      const id = /([0-9a-f-]{36}) is pending on server/.exec(agreed.text)?.[1] ?? assert.fail(agreed.text);
      assert.equal((await shown(id)).title, 'elsewhere');
      const declined = await onTerminal('n\n');
      assert.match(declined.text, /cannot_run/);
      assert.equal(declined.code, 1);
      assert.equal(await total(laptop), before);
    },
  );

  async function onTerminal(answer: string): Promise<{ code: number | null; text: string }> {
    const line = `${bin} ${add.map((word) => `'${word}'`).join(' ')}`;
    const environment = Object.entries(process.env).filter(([name]) => !name.startsWith('COCOON'));
    const child = spawn('script', ['-qec', line, '/dev/null'], {
      env: { ...Object.fromEntries(environment), COCOON_HOME: laptop.home, SHELL: '/bin/sh' },
    });
    const limit = setTimeout(() => child.kill('SIGKILL'), limitMs);
    let text = '';
    let answered = false;
    child.stdout.setEncoding('utf8').on('data', (piece: string) => {
      text += piece;
      if (answered || !text.includes('[Y/n]')) return;
      answered = true;
      child.stdin.write(answer);
    });
    const [code] = (await once(child, 'close')) as [number | null];
    clearTimeout(limit);
    return { code, text };
  }
});

describe('a daemon that ends while a task runs', () => {
  const deaf = `trap '' TERM HUP PIPE; setsid sleep 1000 & sleep 1000 & echo x >> count; echo on; while :; do sleep 1; done`;
  const countOf = (id: string) => readFile(join(server.home, 'tasks', id, 'work', 'count'), 'utf8');

  test('by SIGTERM is gone within five seconds, with all processes of the task', async () => {
    const { id, mark } = await run(deaf);
    await printed(id, 'on');
    const asked = performance.now();
    assert.equal(await server.stop(), 0);
    const ms = performance.now() - asked;
    assert.deepEqual(left(mark), []);
    assert.ok(ms < 5_000, `${ms} ms`);
    await server.restart();
    tasks = new TaskClient(server);
    const { status, error } = await shown(id);
    assert.deepEqual([status, error], ['failed', interrupted]);
    assert.equal(await countOf(id), 'x\n');
  });

  test('by kill -9 ends it at its next start, says so, and never runs it twice; others wait on', async () => {
    const running = [await run(deaf), await run(deaf)];
    const queued = await run(deaf);
    const idle = await tasks.add('idle', { command: 'echo x >> count' });
    for (const { id } of running) await printed(id, 'on');
    await server.stop('SIGKILL');
    await server.restart();
    tasks = new TaskClient(server);
    for (const { id, mark } of running) {
      const { status, error, exit_code: code } = await shown(id);
      assert.deepEqual([status, error, code], ['failed', interrupted, null]);
      assert.deepEqual(left(mark), []);
      assert.equal(await countOf(id), 'x\n');
      const again = await refusal(server, ['tasks', 'run', id]);
      assert.equal(again.code, 'bad_status_change');
    }
    for (const id of [queued.id, idle]) {
      assert.equal((await shown(id)).status, 'pending');
      await assert.rejects(countOf(id));
    }
    assert.deepEqual(left(queued.mark), []);
    await tasks.ask('POST', `/tasks/${idle}/run`);
    assert.equal((await ended(idle)).status, 'completed');
    assert.equal(await countOf(idle), 'x\n');
  });
});
