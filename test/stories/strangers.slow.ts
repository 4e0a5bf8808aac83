import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { HostileSignaling, swapFingerprint } from '../doubles/hostile-signaling.ts';
import type { HostileHooks } from '../doubles/hostile-signaling.ts';
import { CocoonProcess, enginePairs, failure, meshOfTwo } from './cocoon-process.ts';

describe('a device of another owner', () => {
  test('sees nothing, gets no introduction, and cannot tell an existing device from none', async () => {
    await using signaling = await CocoonProcess.start({ command: 'signaling', args: ['--port', '0'] });
    const args = ['--gateway-port', '0', '--signaling', signaling.signaling];
    await using anna = await CocoonProcess.start({ command: 'run', args: ['--name', 'anna', ...args] });
    await using eve = await CocoonProcess.start({ command: 'run', args: ['--name', 'eve', ...args] });
    const seen = await eve.json<{ name: string }[]>('devices');
    assert.deepEqual(
      seen.map(({ name }) => name),
      ['eve'],
    );
    const byId = await failure(eve.home, ['ping', anna.peerId]);
    const nobody = await failure(eve.home, ['ping', '12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp']);
    assert.deepEqual(byId, { code: 'device_not_found', exit: 3 });
    assert.deepEqual(nobody, byId);
    assert.deepEqual(await failure(eve.home, ['ping', 'anna']), byId);
    assert.equal((await anna.json<unknown[]>('devices')).length, 1);
  });
});

for (const engines of enginePairs) {
  describe(`a hostile signaling server between two running devices (${engines.join(' and ')})`, () => {
    test('gets no session by swapping fingerprints or showing tickets again, and devices meet when it behaves', async () => {
      const { laptop, server } = await meshOfTwo({ engines });
      await using _laptop = laptop;
      await using _server = server;
      const hostile = await HostileSignaling.start();
      try {
        const onHostile = {
          command: 'run',
          args: ['--gateway-port', '0', '--signaling', hostile.url],
        } as const;
        await server.restart({ ...onHostile, args: [...onHostile.args, '--name', 'server'], input: '' });
        await laptop.restart({ ...onHostile, args: [...onHostile.args, '--name', 'laptop'] });
        await hostile.online(laptop.peerId, server.peerId);

        const pingWith = async (hooks: HostileHooks): Promise<number | null> => {
          hostile.hooks = hooks;
          const done = await laptop.command(['ping', 'server', '--count', '1', '--json']);
          hostile.hooks = {};
          return done.code;
        };
        const swapped = (kind: 'offer' | 'answer'): HostileHooks => ({
          relay: (payload) => (payload.kind === kind ? swapFingerprint(payload) : payload),
        });
        assert.notEqual(await pingWith(swapped('offer')), 0);
        assert.notEqual(await pingWith(swapped('answer')), 0);
        const used = hostile.tickets.at(-1) ?? '';
        assert.notEqual(await pingWith({ ticket: () => used }), 0);
        const other = await hostile.mint(server.peerId, laptop.peerId);
        assert.notEqual(await pingWith({ ticket: () => other }), 0);
        assert.equal(await pingWith({}), 0);
      } finally {
        await hostile.close();
      }
    });
  });
}
