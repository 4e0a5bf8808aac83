import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Device, Mesh } from '@cocoon-mesh/mesh';
import type { Json, QueryType } from '@cocoon-mesh/protocol';
import { systemClock } from '@cocoon-mesh/protocol';
import { QueryServer } from '@cocoon-mesh/query';
import type { QueryAsk } from './query-service.ts';
import { sampleTaskRow } from '@cocoon-mesh/protocol/sample-messages.ts';
import { QueryService } from './query-service.ts';

const { signal } = new AbortController();
const capabilities = [{ protocol: 'tasks', version: '1.0.0' }];

function device(name: string, change: Partial<Device> = {}): Device {
  const usual = { kind: 'cocoon', online: true, foreign: false, self: false, problem: null, capabilities };
  return { peerId: `peer-of-${name}`, name, ...usual, ...change } as unknown as Device;
}

/** This device answers `type` with one row of that value; nobody else is reached. */
function service(devices: readonly Device[], type: QueryType, value: Json): QueryService {
  const server = new QueryServer({ clock: systemClock, log: () => undefined });
  server.answer(type, async function* () {
    yield { key: [1], at: 'a', value };
  });
  const mesh = {
    devices: () => [...devices],
    resolve: (named: string) => devices.find(({ name, peerId }) => named === name || named === peerId),
  } as unknown as Mesh;
  return new QueryService(mesh, server, systemClock);
}

function ask(type: QueryType, params: QueryAsk['params'], change: Partial<QueryAsk> = {}): QueryAsk {
  return { type, params, limit: null, cursor: null, timeoutMs: 1_000, devices: null, ...change };
}

const foundTask = { ...sampleTaskRow, snippet: 'x' };

describe('a query of this device’s user', () => {
  test('of a plugin’s type asks this owner’s cocoons, and nobody else', () => {
    const queries = service(
      [
        device('laptop', { self: true }),
        device('server', { capabilities: [] }),
        device('page', { kind: 'browser' }),
        device('theirs', { foreign: true }),
        device('doubtful', { problem: 'Its name was another device’s' }),
      ],
      'custom',
      null,
    );
    const { devices } = queries.prepare(ask('custom', { name: 'mine' }));
    assert.deepEqual(
      devices.map((each) => each.device),
      ['laptop', 'server'],
    );
  });

  test('says of each row whose it is, whatever the row says', async () => {
    const value = { ...foundTask, device: 'another', device_id: 'peer-of-another' };
    const queries = service([device('laptop', { self: true })], 'search_tasks', value);
    const result = await queries.prepare(ask('search_tasks', { text: 'x' })).run(signal);
    assert.ok('rows' in result);
    assert.deepEqual(result.rows, [{ ...foundTask, device: 'laptop', device_id: 'peer-of-laptop' }]);
  });

  test('takes what a plugin answers as it is, beside whose it is', async () => {
    const value = { device: 'another' };
    const queries = service([device('laptop', { self: true })], 'custom', value);
    const result = await queries.prepare(ask('custom', { name: 'mine' })).run(signal);
    assert.ok('rows' in result);
    assert.deepEqual(result.rows, [{ device: 'laptop', device_id: 'peer-of-laptop', value }]);
  });
});
