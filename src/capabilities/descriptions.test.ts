import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MeshError } from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { Descriptions } from './descriptions.ts';

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
