import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Device } from '@cocoon-mesh/mesh';
import type { TaskStats } from '@cocoon-mesh/protocol';
import { MeshError } from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { meshTargets } from './mesh-targets.ts';
import type { MeshTargetsOptions } from './mesh-targets.ts';
import { runQuery } from './run-query.ts';
import { last, part, rowOf, saying, scripted } from './targets.contract.ts';

const clock = new SteppedClock();

function device(name: string, change: Partial<Device> = {}): Device {
  return {
    peerId: `peer-${name}`,
    kind: 'cocoon',
    name,
    owner: 'own_me',
    foreign: false,
    online: true,
    self: false,
    services: [],
    capabilities: [{ protocol: 'tasks', version: '1.0.0' }],
    location: null,
    load: 0,
    path: null,
    engine: null,
    rttMs: null,
    problem: null,
    ...change,
  };
}

const devices = [
  device('me', { self: true }),
  device('box'),
  device('off', { online: false }),
  device('tab', { kind: 'browser', capabilities: [] }),
  device('other@friend', { foreign: true }),
  device('fake', { problem: 'the name fake is pinned to another' }),
];

const asked: string[] = [];
const mesh: MeshTargetsOptions['mesh'] = {
  devices: () => devices,
  resolve: (name) => {
    const found = devices.find((each) => each.name === name || each.peerId === name);
    if (!found) throw new MeshError('device_not_found');
    return found;
  },
  openStream: async (peerId) => {
    asked.push(peerId);
    throw new MeshError('device_offline');
  },
};
const local = saying('me', part(0, [1], last)).ask;

function targets(change: Partial<MeshTargetsOptions> = {}) {
  return meshTargets({ mesh, clock, capability: 'tasks', local, ...change });
}

const namesOf = (found: ReturnType<typeof targets>): string[] => found.map(({ name }) => name);

describe('whom a query asks', () => {
  test('own devices that have the capability, those too that are offline', () => {
    assert.deepEqual(namesOf(targets()), ['me', 'box', 'off', 'fake']);
    assert.deepEqual(namesOf(targets({ capability: 'knowledgebase' })), []);
  });

  test('the named ones and no others, cocoons of other owners among them, each once', () => {
    assert.deepEqual(namesOf(targets({ named: ['other@friend', 'box', 'peer-box'] })), [
      'other@friend',
      'box',
    ]);
    assert.deepEqual(namesOf(targets({ named: [] })), []);
    assert.throws(() => targets({ named: ['nobody'] }), { code: 'device_not_found' });
  });

  test('this device without a stream, or not at all where it answers nothing', () => {
    assert.equal(targets()[0]?.ask, local);
    assert.deepEqual(namesOf(targets({ local: null })), ['box', 'off', 'fake']);
  });

  test('a device under a name that belongs to another is not asked, and one that is offline not waited for', async () => {
    asked.length = 0;
    const { devices: statuses, rows } = await runQuery({
      targets: targets(),
      type: 'custom',
      params: {},
      clock,
    });
    assert.deepEqual(
      statuses.map(({ name, status, error }) => [name, status, error?.code]),
      [
        ['me', 'ok', undefined],
        ['box', 'offline', 'device_offline'],
        ['off', 'offline', 'device_offline'],
        ['fake', 'error', 'name_changed'],
      ],
    );
    assert.deepEqual(asked, ['peer-box']);
    assert.deepEqual(rows, [{ device: 'me', device_id: 'peer-me', value: '1' }]);
  });
});

describe('an answer as a whole', () => {
  const stats = (pending: number): TaskStats => ({
    total: pending,
    by_status: { pending, running: 0, completed: 0, failed: 0, cancelled: 0 },
  });
  const one = (name: string, value: unknown) =>
    scripted(name, async function* () {
      const rows = [{ ...rowOf(0), value: value as null }];
      yield { kind: 'part', seq: 0, rows, is_final: true };
    });

  test('adds up statistics of those that answer with statistics', async () => {
    const answer = await runQuery({
      targets: [one('a', stats(2)), one('b', stats(3)), one('c', { total: 'many' })],
      type: 'get_task_stats',
      params: {},
      clock,
    });
    assert.deepEqual(answer.stats, stats(5));
    assert.deepEqual(
      answer.devices.map(({ status }) => status),
      ['ok', 'ok', 'error'],
    );
    assert.equal(answer.partial, true);
    const paged = runQuery({ targets: [], type: 'get_task_stats', params: {}, clock, cursor: 'x' });
    await assert.rejects(paged, { code: 'bad_cursor' });
  });

  test('has no rows of a list that are no tasks', async () => {
    const answer = await runQuery({
      targets: [one('a', { id: '; drop table tasks' })],
      type: 'list_tasks',
      params: {},
      clock,
    });
    assert.deepEqual(answer.rows, []);
    assert.deepEqual([answer.devices[0]?.status, answer.devices[0]?.count], ['error', 0]);
  });

  test('is asked for within limits', async () => {
    for (const change of [
      { limit: 0 },
      { limit: 1001 },
      { limit: 1.5 },
      { timeoutMs: 60_001 },
      { timeoutMs: 0 },
    ])
      await assert.rejects(runQuery({ targets: [], type: 'custom', params: {}, clock, ...change }), {
        code: 'bad_message',
      });
  });

  test('of nobody is empty and whole', async () => {
    assert.deepEqual(await runQuery({ targets: [], type: 'list_tasks', params: {}, clock }), {
      rows: [],
      stats: null,
      devices: [],
      partial: false,
      next_cursor: null,
    });
  });
});
