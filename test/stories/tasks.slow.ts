/*
 * Tasks at home, answers from everywhere: installed cocoons whose tasks lie in SQLite, in PostgreSQL, and in a
 * database of a newer minor version of the schema.
 */

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import Database from 'better-sqlite3';
import { streamProtocols } from '@cocoon-mesh/protocol';
import { Postgres } from '../doubles/postgres.ts';
import { CocoonProcess, enroll, failure, full, sees } from './cocoon-process.ts';
import { TaskClient } from './task-client.ts';
import { WirePeer } from './wire-peer.ts';

const engine = 'libdatachannel';
const taskCount = full ? 30_000 : 3_000;

let postgres: Postgres;
let laptop: CocoonProcess;
let server: CocoonProcess;
let box: CocoonProcess;
/** By device. */
let clients: { readonly laptop: TaskClient; readonly server: TaskClient; readonly box: TaskClient };

before(async () => {
  postgres = await Postgres.start();
  laptop = await CocoonProcess.start({
    command: 'up',
    args: ['--port', '0', '--gateway-port', '0', '--name', 'laptop', '--no-web'],
    engine,
  });
  server = await enroll(laptop, {
    name: 'server',
    engine,
    env: { COCOON_DATABASE_URL: await postgres.newUrl() },
  });
  box = await enroll(laptop, { name: 'box', engine });
  await box.stop();
  makeNewer(join(box.home, 'tasks.db'));
  await box.restart();
  for (const cocoon of [server, box]) await sees(laptop, cocoon.name);
  clients = { laptop: new TaskClient(laptop), server: new TaskClient(server), box: new TaskClient(box) };
});

after(async () => {
  await Promise.all([laptop, server, box].map((cocoon) => cocoon?.[Symbol.asyncDispose]()));
  await postgres?.[Symbol.asyncDispose]();
});

/** As a later version would leave it: another migration, another column, another minor number. */
function makeNewer(path: string): void {
  const database = new Database(path);
  database.exec(`
    alter table task add column colour text default 'blue';
    create table task_of_tomorrow (id text primary key);
    update schema_version set minor = minor + 1;
    insert into kysely_migration (name, timestamp) values ('9999-tomorrow', '2030-01-01T00:00:00.000Z');
  `);
  database.close();
}

describe('tasks of three cocoons with three kinds of stores', () => {
  test('are one list, newest first, with a status for each', async () => {
    const order = ['laptop', 'server', 'box', 'box', 'laptop', 'server'] as const;
    for (const [i, name] of order.entries()) await clients[name].add(`in order ${i}`);
    const { tasks, devices, partial } = await clients.laptop.list('?timeout_ms=20000');
    assert.deepEqual(
      tasks.map(({ title, device }) => `${title} ${device}`),
      order.map((name, i) => `in order ${i} ${name}`).toReversed(),
    );
    assert.deepEqual(devices.map(({ name, status, count }) => `${name} ${status} ${count}`).toSorted(), [
      'box ok 2',
      'laptop ok 2',
      'server ok 2',
    ]);
    assert.equal(partial, false);
    const stats = await laptop.json<{ total: number }>('tasks', 'stats', '--all', '--timeout', '20s');
    assert.equal(stats.total, 6);
    const listed = await laptop.json<{ tasks: unknown[] }>(
      'tasks',
      'list',
      '--all',
      '--limit',
      '4',
      '--timeout',
      '20s',
    );
    assert.equal(listed.tasks.length, 4);
  });

  test('run where they are at home, and their logs come from there', async () => {
    const task = await laptop.json<{ id: string; device: string; status: string }>(
      'tasks',
      'add',
      '--title=far',
      '--command=cat; pwd >&2',
      '--input={"a":1}',
      '--run',
      '--device=server',
    );
    assert.deepEqual([task.device, task.status], ['server', 'running']);
    const logs = await laptop.command(['tasks', 'logs', task.id, '--device', 'server', '--follow']);
    assert.match(logs.stdout, new RegExp(`^{"a":1}\n${server.home}/tasks/${task.id}/work\n$`));
    const done = await laptop.json<{ status: string; output: unknown }>(
      'tasks',
      'show',
      task.id,
      '--device',
      'server',
    );
    assert.deepEqual([done.status, done.output], ['completed', { a: 1 }]);
  });

  test(`are each on one page of ${taskCount}, while others are added and changed`, async () => {
    const names = ['laptop', 'server', 'box'] as const;
    const ids = (
      await Promise.all(names.map((name) => clients[name].addMany(taskCount / 3, (i) => `${name} ${i}`)))
    ).flat();
    let turn = 0;
    const pages = await clients.laptop.pages('limit=500&timeout_ms=20000', async () => {
      const client = clients[names[turn % 3] ?? 'laptop'];
      await client.add(`late ${turn}`);
      const id = ids[(turn * 997) % ids.length];
      for (const name of names)
        await clients[name].ask('PATCH', `/tasks/${id}`, { description: `turn ${turn}` });
      turn++;
    });
    const seen = new Map<string, number>();
    for (const id of pages) seen.set(id, (seen.get(id) ?? 0) + 1);
    assert.deepEqual(
      ids.filter((id) => seen.get(id) !== 1),
      [],
    );
    assert.ok([...seen.values()].every((count) => count === 1));
    assert.ok(turn >= taskCount / 500);
  });
});

describe('an answer from devices in trouble', () => {
  test('comes at the deadline with the tasks of the others and a true status for each', async () => {
    const liar = await WirePeer.of(laptop, 'liar');
    const dead = await enroll(laptop, { name: 'dead', engine });
    try {
      liar.mesh.handle(streamProtocols.query, (stream) => {
        stream.write(new TextEncoder().encode('this is no answer at all, whatever you asked'));
        stream.end();
      });
      await liar.mesh.describe({
        kind: 'cocoon',
        name: 'liar',
        services: [],
        capabilities: [{ protocol: 'tasks', version: '1.0.0' }],
      });
      await sees(laptop, 'dead');
      await listedWith(laptop, 'liar', 'tasks');
      // Sessions are there before the trouble begins.
      const well = await clients.laptop.list('?limit=1&timeout_ms=20000');
      assert.deepEqual(statuses(well.devices), ['box ok', 'dead ok', 'laptop ok', 'liar error', 'server ok']);
      await dead.stop('SIGKILL');
      await offline(laptop, 'dead');
      process.kill(server.pid, 'SIGSTOP');
      const started = performance.now();
      const answer = await clients.laptop.list('?limit=100&timeout_ms=2500');
      const took = performance.now() - started;
      assert.deepEqual(statuses(answer.devices), [
        'box ok',
        'dead offline',
        'laptop ok',
        'liar error',
        'server timeout',
      ]);
      assert.equal(answer.tasks.length > 0 && answer.partial, true);
      assert.deepEqual(new Set(answer.tasks.map(({ device }) => device)), new Set(['laptop', 'box']));
      assert.ok(took >= 2_400 && took < 6_000, `${took} ms`);
    } finally {
      process.kill(server.pid, 'SIGCONT');
      await liar[Symbol.asyncDispose]();
      await dead[Symbol.asyncDispose]();
    }
    await sees(laptop, 'server');
    const again = await clients.laptop.list('?limit=1&timeout_ms=20000&device=laptop,server,box');
    assert.deepEqual(statuses(again.devices), ['box ok', 'laptop ok', 'server ok']);
  });
});

describe('a task that was acknowledged', () => {
  for (const name of ['box', 'server'] as const)
    test(`is there after kill -9 during 1,000 creations (${name === 'box' ? 'SQLite' : 'PostgreSQL'})`, async () => {
      const cocoon = name === 'box' ? box : server;
      const acknowledged: string[] = [];
      let killed: Promise<unknown> = Promise.resolve();
      const worker = async (first: number): Promise<void> => {
        for (let i = first; i < 1_000; i += 8) {
          acknowledged.push(await clients[name].add(`kill ${i}`));
          if (acknowledged.length === 300) killed = cocoon.stop('SIGKILL');
        }
      };
      const ended = await Promise.allSettled(Array.from({ length: 8 }, (_, i) => worker(i)));
      assert.ok(ended.every(({ status }) => status === 'rejected'));
      await killed;
      await cocoon.restart();
      const there = new Set(await clients[name].pages(`limit=1000&device=${name}&timeout_ms=20000`));
      assert.deepEqual(
        acknowledged.filter((id) => !there.has(id)),
        [],
      );
      assert.ok(acknowledged.length >= 300 && acknowledged.length < 1_000);
    });
});

describe('a database that is away', () => {
  test('is said in words, and is used again without a restart, whenever it went', async () => {
    const before = (await clients.server.list('?limit=1&device=server')).tasks[0]?.id;
    await postgres.pause();
    const refused = await clients.server.ask<{ code: string }>('POST', '/tasks', { title: 'x' });
    assert.deepEqual([refused.status, refused.body.code], [500, 'storage_failed']);
    const listed = await clients.laptop.list('?device=server,laptop&limit=1&timeout_ms=20000');
    assert.deepEqual(statuses(listed.devices), ['laptop ok', 'server error']);
    assert.equal(listed.devices.find(({ name }) => name === 'server')?.error?.code, 'storage_failed');
    // Also at its start: everything else works without it.
    await server.restart();
    assert.deepEqual(await failure(server.home, ['tasks', 'list']), { code: 'storage_failed', exit: 1 });
    assert.match((await server.command(['doctor'])).stdout, /tasks.*cannot be kept/);
    await postgres.resume();
    const id = await recovered(() => clients.server.add('there again'));
    const shown = await server.json<{ id: string }>('tasks', 'show', id);
    assert.equal(shown.id, id);
    assert.equal((await clients.server.ask('GET', `/tasks/${before}`)).status, 200);
  });
});

describe('a database that has the tasks of another device', () => {
  test('is left alone: what runs goes on there, and the second device does without tasks and says why', async () => {
    const { id } = await laptop.json<{ id: string }>(
      'tasks',
      'add',
      '--title=long',
      '--command=sleep 600',
      '--run',
    );
    const second = await enroll(laptop, {
      name: 'second',
      engine,
      env: { COCOON_DATABASE_URL: `sqlite:${join(laptop.home, 'tasks.db')}` },
    });
    try {
      assert.deepEqual(await failure(second.home, ['tasks', 'list']), { code: 'database_in_use', exit: 1 });
      const { stdout } = await second.command(['doctor']);
      assert.match(
        stdout,
        /tasks: they cannot be kept: .*another device: laptop \(12D3\w+\) \(database_in_use\)/,
      );
      assert.match(stdout, /→ .*COCOON_DATABASE_URL/);
      // Everything else works, and it answers for no task of the other.
      await sees(laptop, 'second');
      assert.equal((await second.command(['ping', 'laptop', '--count', '1'])).code, 0);
      const { devices } = await clients.laptop.list('?device=second,laptop&limit=1&timeout_ms=20000');
      assert.deepEqual(statuses(devices), ['laptop ok', 'second error']);
      assert.equal((await laptop.json<{ status: string }>('tasks', 'show', id)).status, 'running');
    } finally {
      await second[Symbol.asyncDispose]();
      await laptop.json('tasks', 'cancel', id);
    }
  });
});

describe('bad input on the command line', () => {
  test('is refused with a code and what to do, and writes nothing', async () => {
    const unknown = '0193b5a0-7c1e-7a33-9c55-0f3c1de1a001';
    const count = async () => (await laptop.json<{ total: number }>('tasks', 'stats')).total;
    const before = await count();
    const rows: readonly (readonly [readonly string[], string, number])[] = [
      [['tasks', 'add'], 'usage', 2],
      [['tasks', 'add', '--title', ''], 'bad_task', 2],
      [['tasks', 'add', '--title', 'a\u0007b'], 'bad_task', 2],
      [['tasks', 'add', '--title', 'x'.repeat(100_000)], 'bad_task', 2],
      [['tasks', 'add', '--title', 'x', '--input', '{'], 'usage', 2],
      [['tasks', 'add', '--title', 'x', '--input', '['.repeat(50) + ']'.repeat(50)], 'bad_task', 2],
      [['tasks', 'add', '--title', 'x', '--requires', 'cheese'], 'bad_filter', 2],
      [['tasks', 'add', '--title', 'x', '--requires', 'label:nowhere'], 'cannot_run', 1],
      [['tasks', 'add', '--title', 'x', '--device', 'nobody'], 'device_not_found', 3],
      [['tasks', 'show', 'nonsense'], 'usage', 2],
      [['tasks', 'show', unknown], 'task_not_found', 3],
      [['tasks', 'run', unknown], 'task_not_found', 3],
      [['tasks', 'list', '--status', 'done'], 'bad_filter', 2],
      [['tasks', 'list', '--cursor', 'nonsense'], 'bad_cursor', 2],
      [['tasks', 'list', '--all', '--device', 'box'], 'usage', 2],
      [['tasks', 'list', '--limit', '0'], 'usage', 2],
      [['query', 'nonsense'], 'bad_filter', 2],
      [['query', 'list_tasks', '--params', '{"nonsense":1}'], 'bad_filter', 2],
      [['kb', 'add', '/nowhere/at/all'], 'not_found', 3],
    ];
    for (const [args, code, exit] of rows)
      assert.deepEqual(await failure(laptop.home, args), { code, exit }, args.join(' ').slice(0, 80));
    assert.equal(await count(), before);
  });
});

function statuses(devices: readonly { readonly name: string; readonly status: string }[]): string[] {
  return devices.map(({ name, status }) => `${name} ${status}`).toSorted();
}

interface DeviceRow {
  readonly name: string;
  readonly online: boolean;
  readonly capabilities: readonly { readonly protocol: string }[];
}

async function until(what: string, holds: () => Promise<boolean>): Promise<void> {
  for (const end = Date.now() + 20_000; Date.now() < end;) if (await holds()) return;
  throw new Error(`${what} did not come about`);
}

async function offline(cocoon: CocoonProcess, name: string): Promise<void> {
  await until(`${name} offline`, async () =>
    (await cocoon.json<DeviceRow[]>('devices')).some((device) => device.name === name && !device.online),
  );
}

async function listedWith(cocoon: CocoonProcess, name: string, protocol: string): Promise<void> {
  await until(`${name} with ${protocol}`, async () =>
    (await cocoon.json<DeviceRow[]>('devices')).some(
      (device) => device.name === name && device.capabilities.some((own) => own.protocol === protocol),
    ),
  );
}

async function recovered<T>(work: () => Promise<T>): Promise<T> {
  let last: unknown;
  for (const end = Date.now() + 20_000; Date.now() < end;)
    try {
      return await work();
    } catch (thrown) {
      last = thrown;
    }
  throw last;
}
