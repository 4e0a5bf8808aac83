import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { DeviceEntry } from '@cocoon-mesh/protocol';
import {
  concat,
  fromBase64Url,
  generateSigningKey,
  importPublicKey,
  publicKeyOf,
  utf8,
} from '@cocoon-mesh/protocol';
import { HostileSignaling, swapFingerprint } from '../doubles/hostile-signaling.ts';
import type { HostileHooks } from '../doubles/hostile-signaling.ts';
import { CocoonProcess, fewPairs, failure, meshOfTwo } from './cocoon-process.ts';

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

for (const engines of fewPairs) {
  describe(`a hostile signaling server between two running devices (${engines.join(' and ')})`, () => {
    test('gets no session by swapping fingerprints, showing tickets again or bringing a peer of its own, and is believed no name', async () => {
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
        // A peer of its own, with the membership it saw of the other device.
        const stranger = await generateSigningKey();
        const stolen = { ...hostile.entry(server.peerId), peer_id: stranger.peerId };
        hostile.introduce(laptop.peerId, await hostile.mint(stranger.peerId, laptop.peerId), stolen);
        // Another name and another capability for that device.
        for (const change of [
          { name: 'bank' },
          { capabilities: [{ protocol: 'llm.chat', version: '9.0.0' }] },
        ])
          hostile.send(laptop.peerId, {
            type: 'device',
            device: forge(hostile.entry(server.peerId), change),
          });
        // A challenge of its choice: what it signs is for this server and for nothing else.
        const signIn = hostile.signIns.find(({ peerId }) => peerId === laptop.peerId);
        assert.ok(signIn);
        const noise = concat(utf8('noise-libp2p-static-key:'), new Uint8Array(32));
        const key = await importPublicKey(publicKeyOf(laptop.peerId));
        const signature = fromBase64Url(signIn.signature);
        assert.equal(await crypto.subtle.verify('Ed25519', key, signature, noise), false);

        assert.equal(await pingWith({}), 0);
        const seen =
          await laptop.json<{ name: string; peer_id: string; capabilities: unknown[] }[]>('devices');
        assert.deepEqual(
          seen.map(({ name, peer_id: peerId, capabilities }) => ({
            name,
            peerId,
            chat: JSON.stringify(capabilities).includes('llm'),
          })),
          [
            { name: 'laptop', peerId: laptop.peerId, chat: false },
            { name: 'server', peerId: server.peerId, chat: false },
          ],
        );
        const status = await laptop.json<{ sessions: number }>('status');
        assert.equal(status.sessions, 1);
        const { stdout: log } = await laptop.command(['logs']);
        assert.match(log, /An introduction was refused/);
        assert.match(log, /proves nothing/);
      } finally {
        await hostile.close();
      }
    });
  });
}

/** The device's own record with something changed in it, under the signature of what it was. */
function forge(entry: DeviceEntry, change: Record<string, unknown>): DeviceEntry {
  const [head = '', payload = '', signature = ''] = entry.record.split('.');
  const record = JSON.parse(Buffer.from(payload, 'base64url').toString()) as Record<string, unknown>;
  const changed = { ...record, seq: Number(record['seq']) + 1, ...change };
  return {
    ...entry,
    record: `${head}.${Buffer.from(JSON.stringify(changed)).toString('base64url')}.${signature}`,
  };
}
