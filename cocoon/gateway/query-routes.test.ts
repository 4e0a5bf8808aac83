import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { DeviceAnswer, TaskStats } from '@cocoon-mesh/protocol';
import { memberRights } from '@cocoon-mesh/protocol';
import type { FeatureDevice } from '../feature-devices.contract.ts';
import { Devices } from '../feature-devices.contract.ts';

interface Listed {
  readonly tasks: readonly { readonly title: string; readonly device: string; readonly created_at: string }[];
  readonly devices: readonly DeviceAnswer[];
  readonly partial: boolean;
  readonly next_cursor: string | null;
}

interface Result {
  readonly rows: readonly { readonly device: string; readonly title?: string; readonly file?: string }[];
  readonly stats?: TaskStats;
  readonly devices: readonly DeviceAnswer[];
  readonly partial: boolean;
}

const devices = new Devices();
let laptop: FeatureDevice;
let server: FeatureDevice;

before(async () => {
  laptop = await devices.add('laptop');
  server = await devices.add('server');
  for (let i = 0; i < 6; i++)
    await (i % 2 === 0 ? laptop : server).ask('POST', '/tasks', {
      title: `task ${i}`,
      labels: i < 2 ? ['early'] : [],
    });
});

after(async () => devices[Symbol.asyncDispose]());

async function list(query = ''): Promise<Listed> {
  const { status, body } = await laptop.ask<Listed>('GET', `/aggregate/tasks${query}`);
  assert.equal(status, 200, JSON.stringify(body));
  return body;
}

async function result(body: object): Promise<Result> {
  const lines = await laptop.lines('/query', body);
  return (lines.at(-1) as { result: Result }).result;
}

describe('one list of all devices', () => {
  test('is in order, and says what became of each device', async () => {
    const { tasks, devices: asked, partial, next_cursor: cursor } = await list();
    assert.deepEqual(
      tasks.map(({ title, device }) => `${title} ${device}`),
      [5, 4, 3, 2, 1, 0].map((i) => `task ${i} ${i % 2 === 0 ? 'laptop' : 'server'}`),
    );
    assert.deepEqual(
      asked.map(({ id, name, status, count }) => [id, name, status, count]),
      [
        [laptop.peerId, 'laptop', 'ok', 3],
        [server.peerId, 'server', 'ok', 3],
      ],
    );
    assert.deepEqual([partial, cursor], [false, null]);
  });

  test('has pages, each row on one of them, while others are added', async () => {
    const seen: string[] = [];
    let cursor: string | null = null;
    do {
      const page: Listed = await list(`?limit=2${cursor === null ? '' : `&cursor=${cursor}`}`);
      seen.push(...page.tasks.map(({ title }) => title));
      cursor = page.next_cursor;
      if (seen.length === 2) await server.ask('POST', '/tasks', { title: 'late' });
    } while (cursor !== null);
    assert.deepEqual(
      seen,
      [5, 4, 3, 2, 1, 0].map((i) => `task ${i}`),
    );
  });

  test('is narrowed by status, label, time and device', async () => {
    assert.deepEqual((await list('?status=completed,failed')).tasks, []);
    assert.equal((await list('?label=early')).tasks.length, 2);
    assert.equal(
      (await list('?status=pending&status=running&device=server&limit=1')).tasks[0]?.device,
      'server',
    );
    const [, , third] = (await list('?device=laptop')).tasks;
    assert.ok((await list(`?device=laptop&created_before=${third?.created_at}`)).tasks.length < 3);
  });

  test('refuses what it does not understand', async () => {
    const other = (await list('?limit=1&status=pending')).next_cursor;
    for (const [query, expected] of [
      ['?status=done', '400 bad_filter'],
      ['?stauts=pending', '400 bad_filter'],
      ['?limit=0', '400 bad_filter'],
      ['?limit=1001', '400 bad_filter'],
      ['?limit=1&limit=2', '400 bad_filter'],
      ['?order=title', '400 bad_filter'],
      ['?created_after=yesterday', '400 bad_filter'],
      ['?timeout_ms=60001', '400 bad_filter'],
      ['?cursor=nonsense', '400 bad_cursor'],
      [`?cursor=${other}`, '400 bad_cursor'],
      ['?device=nobody', '404 device_not_found'],
    ] as const)
      assert.equal(await laptop.refusal('GET', `/aggregate/tasks${query}`), expected, query);
  });
});

describe('a query', () => {
  test('is answered by parts as they come, then by all of it', async () => {
    const lines = await laptop.lines('/query', {
      query_type: 'list_tasks',
      params: { status: 'pending', limit: 4 },
    });
    const parts = lines.slice(0, -1) as {
      part: { device: string; rows: unknown[]; is_final: boolean; seq: number };
    }[];
    assert.deepEqual(new Set(parts.map(({ part }) => part.device)), new Set(['laptop', 'server']));
    assert.ok(parts.every(({ part }) => part.seq === 0 && part.is_final && part.rows.length <= 4));
    const { rows, partial } = (lines.at(-1) as { result: Result }).result;
    assert.deepEqual([rows.length, partial], [4, false]);
  });

  test('adds counts up', async () => {
    const { stats } = await result({ query_type: 'get_task_stats' });
    assert.equal(stats?.total, 7);
    assert.equal(stats?.by_status.pending, 7);
  });

  test('searches tasks and documents of all devices', async () => {
    const found = await result({ query_type: 'search_tasks', params: { text: '"task 3"' } });
    assert.deepEqual(
      found.rows.map(({ title, device }) => `${title} ${device}`),
      ['task 3 server'],
    );
    const folder = join(server.folder, 'notes');
    await mkdir(folder);
    await writeFile(
      join(folder, 'a.md'),
      '# Restore\n\nThe zebra backup is restored with the blue button.\n',
    );
    await server.features.knowledge.add([folder], {});
    const passages = await result({ query_type: 'search_knowledgebase', params: { text: 'zebra backup' } });
    assert.deepEqual(
      passages.rows.map(({ device, file }) => [device, file]),
      [['server', join(folder, 'a.md')]],
    );
    const { sources } = await server.features.knowledge.list();
    assert.deepEqual(
      sources.map(({ path, files }) => [path, files]),
      [[folder, 1]],
    );
  });

  test('that nobody understands is refused before anybody is asked', async () => {
    for (const [body, expected] of [
      [{ query_type: 'nonsense' }, '400 bad_filter'],
      [{}, '400 bad_filter'],
      [{ query_type: 'list_tasks', params: { nonsense: 1 } }, '400 bad_filter'],
      [{ query_type: 'list_tasks', params: { status: [] } }, '400 bad_filter'],
      [{ query_type: 'list_tasks', nonsense: 1 }, '400 bad_filter'],
      [{ query_type: 'search_tasks', params: {} }, '400 bad_filter'],
      [{ query_type: 'get_task_stats', params: { status: 'pending' } }, '400 bad_filter'],
      [{ query_type: 'custom' }, '400 bad_filter'],
      [{ query_type: 'list_tasks', timeout_ms: 0 }, '400 bad_filter'],
      [{ query_type: 'list_tasks', cursor: 'x' }, '400 bad_cursor'],
      [{ query_type: 'list_tasks', devices: ['nobody'] }, '404 device_not_found'],
      ['nonsense', '400 bad_message'],
    ] as const)
      assert.equal(await laptop.refusal('POST', '/query', body), expected, JSON.stringify(body));
    assert.equal(await laptop.refusal('POST', '/query?x=1', { query_type: 'list_tasks' }), '400 usage');
  });

  test('that is out of its bounds is told them', async () => {
    for (const [body, said] of [
      [{ query_type: 'list_tasks', timeout_ms: 60_001 }, 'The field timeout_ms is at most 60000'],
      [{ query_type: 'list_tasks', limit: 0 }, 'The field limit is at least 1'],
      [{ query_type: 'search_tasks', params: { text: '' } }, 'The field text has at least 1 characters'],
      [{ query_type: 'list_tasks', devices: [] }, 'The field devices has at least 1 entries'],
    ] as const) {
      const { body: problem } = await laptop.ask<{ title: string }>('POST', '/query', body);
      assert.equal(problem.title, said);
    }
  });

  test('of a type that only plugins answer says of each device that it has none', async () => {
    const { devices: asked, partial } = await result({ query_type: 'custom', params: { name: 'mine' } });
    assert.equal(partial, true);
    assert.deepEqual(
      asked.map(({ error }) => error?.code),
      ['unsupported', 'unsupported'],
    );
  });

  test('reaches its end at the deadline, with a true status for each device', async () => {
    const silent = await devices.add('silent');
    const off = await devices.add('off');
    devices.unreachable.add(silent.peerId);
    devices.goOffline(off.peerId);
    const started = performance.now();
    const { rows, devices: asked, partial } = await result({ query_type: 'list_tasks', timeout_ms: 500 });
    assert.ok(performance.now() - started >= 500);
    assert.ok(partial && rows.length === 7);
    assert.deepEqual(
      asked.map(({ name, status }) => `${name} ${status}`),
      ['laptop ok', 'server ok', 'silent timeout', 'off offline'],
    );
    devices.unreachable.delete(silent.peerId);
  });

  test('about tasks needs the right to read them', async () => {
    devices.rights = memberRights.filter(({ protocol }) => protocol !== 'tasks');
    try {
      const tasks = await result({ query_type: 'list_tasks', devices: ['laptop', 'server'] });
      assert.deepEqual(
        tasks.devices.map(({ status }) => status),
        ['ok', 'denied'],
      );
      const texts = await result({
        query_type: 'search_knowledgebase',
        params: { text: 'zebra' },
        devices: ['server'],
      });
      assert.equal(texts.devices[0]?.status, 'ok');
    } finally {
      devices.rights = memberRights;
    }
    assert.ok(devices.denied.includes(`${laptop.peerId} tasks read`));
  });
});
