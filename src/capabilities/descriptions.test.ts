import assert from 'node:assert/strict';
import { test } from 'node:test';
import { turn } from '@cocoon-mesh/mesh/session-pair.contract.ts';
import { MeshError } from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { Descriptions } from './descriptions.ts';
import { MeshOfProviders } from './mesh-of-providers.contract.ts';
import { scriptedProvider } from './scripted-provider.contract.ts';

test('a device is asked again after ten seconds, and at once when it offers something else', async () => {
  const clock = new SteppedClock();
  const peerId = 'peer-gpu';
  const asked: string[] = [];
  const descriptions = new Descriptions({
    mesh: {
      devices: () => [{ peerId } as never],
      handle: () => undefined,
      openStream: async (device) => {
        asked.push(device);
        throw new MeshError('device_offline');
      },
    },
    clock,
    own: () => ({ services: [], capabilities: [] }),
  });
  const offers = [{ protocol: 'tasks', version: '1.0.0' }];
  descriptions.listed([{ peerId, capabilities: offers }]);
  const refreshed = async (): Promise<number> => {
    await descriptions.refresh([peerId], 1_000);
    return asked.length;
  };
  assert.equal(await refreshed(), 1);
  descriptions.listed([{ peerId, capabilities: offers }]);
  assert.equal(await refreshed(), 1);
  descriptions.listed([{ peerId, capabilities: [...offers, { protocol: 'llm.chat', version: '1.0.0' }] }]);
  assert.equal(descriptions.isFresh(peerId), false);
  assert.equal(await refreshed(), 2);
  assert.equal(await refreshed(), 2);
  clock.step(10_000);
  assert.equal(await refreshed(), 3);
});

test('a device that never answers is given up, and asked again', async () => {
  const mesh = new MeshOfProviders();
  const silent = mesh.add('silent', scriptedProvider());
  mesh.silent = 'silent';
  const { descriptions, clock } = mesh;
  const first = descriptions.refresh([silent.peerId], 500);
  await turn();
  clock.step(500);
  await first;
  clock.step(2_000);
  for (let turns = 0; turns < 4; turns++) await turn();
  mesh.silent = null;
  clock.step(10_000);
  await descriptions.refresh([silent.peerId], 500);
  assert.equal(silent.described, 2);
  assert.equal(descriptions.of(silent.peerId)?.capabilities.length, 1);
});
