import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Device } from '@cocoon-mesh/mesh';
import { MeshError } from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { Delegation } from './delegation.ts';

const { signal } = new AbortController();
const capabilities = [{ protocol: 'tasks', version: '1.0.0' }];

function device(name: string, change: Partial<Device> = {}): Device {
  const usual = { kind: 'cocoon', online: true, foreign: false, problem: null, capabilities };
  return { peerId: `peer-of-${name}`, name, ...usual, ...change } as unknown as Device;
}

type Missing = (device: Device, requires: readonly string[], signal: AbortSignal) => Promise<string[]>;

function delegation(devices: readonly Device[], missing: Missing, clock = new SteppedClock()): Delegation {
  return new Delegation({ devices: () => [...devices] }, { missing }, clock);
}

describe('where a task could run', () => {
  test('is asked of this owner’s devices that are there and have tasks, and of no other', async () => {
    const asked: string[] = [];
    const able = delegation(
      [
        device('server'),
        device('page', { kind: 'browser' }),
        device('theirs', { foreign: true }),
        device('gone', { online: false }),
        device('doubtful', { problem: 'Its name was another device’s' }),
        device('bare', { capabilities: [] }),
        device('second'),
      ],
      async ({ name }) => {
        asked.push(name);
        return [];
      },
    );
    const hosts = await able.hosts(['gpu'], signal);
    assert.deepEqual(
      hosts.map(({ name }) => name),
      ['server', 'second'],
    );
    assert.deepEqual(asked, ['server', 'second']);
  });

  test('is what they answer: who lacks something or fails is left out', async () => {
    const able = delegation([device('weak'), device('broken'), device('server')], async ({ name }) => {
      if (name === 'broken') throw new MeshError('carrier_lost');
      return name === 'weak' ? ['It has no GPU.'] : [];
    });
    assert.deepEqual(
      (await able.hosts(['gpu'], signal)).map(({ name }) => name),
      ['server'],
    );
  });

  test('is known after three seconds, whoever does not answer', async () => {
    const clock = new SteppedClock();
    const able = delegation(
      [device('server'), device('silent')],
      ({ name }, _requires, patience) =>
        name === 'server'
          ? Promise.resolve([])
          : new Promise((_resolve, reject) => {
              patience.addEventListener('abort', () => reject(patience.reason as Error));
            }),
      clock,
    );
    const hosts = able.hosts(['gpu'], signal);
    clock.step(3_000);
    assert.deepEqual(
      (await hosts).map(({ name }) => name),
      ['server'],
    );
    assert.equal(clock.pendingTimers, 0);
  });

  test('is never the device that has just refused', async () => {
    const refused = device('server');
    const able = delegation([refused, device('second')], async () => []);
    const refusal = new MeshError('cannot_run', 'It has no GPU.');
    const { message, hint } = await able.elsewhere(refusal, refused, ['gpu'], signal);
    assert.equal(message, 'It has no GPU.');
    assert.equal(hint, 'It can run on second: add it with --device second.');
    const alone = delegation([refused], async () => []);
    assert.match((await alone.elsewhere(refusal, refused, ['gpu'], signal)).hint, /None of your devices/);
  });
});
