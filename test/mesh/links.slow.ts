import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Engine, Mesh } from '@cocoon-mesh/mesh';
import { libdatachannelEngine } from '@cocoon-mesh/mesh/engines/libdatachannel.node.ts';
import { weriftEngine } from '@cocoon-mesh/mesh/engines/werift.node.ts';
import type { OwnerKeys, SignalPayload } from '@cocoon-mesh/protocol';
import { ResetCode, httpProtocol, toMeshError } from '@cocoon-mesh/protocol';
import { HostileSignaling, jtiOf } from '../doubles/hostile-signaling.ts';
import type { Peer } from './two-peers.ts';
import { listed, newOwner, startPeer, when } from './two-peers.ts';

/** Its streams are taken and left open. */
const heldProtocol = '/cocoon/held/1';

const engines: readonly (readonly [string, () => Promise<Engine>, () => Promise<Engine>])[] = [
  ['libdatachannel', () => libdatachannelEngine(), () => libdatachannelEngine()],
  ['werift', () => weriftEngine(), () => weriftEngine()],
  ['libdatachannel and werift', () => libdatachannelEngine(), () => weriftEngine()],
];

for (const [name, first, second] of engines) {
  describe(`links (${name})`, () => {
    let signaling: HostileSignaling;
    let owner: OwnerKeys;
    let anna: Peer;
    let ben: Peer;

    before(async () => {
      signaling = await HostileSignaling.start();
      owner = await newOwner();
      anna = await startPeer({ owner, engine: await first(), signalingUrl: signaling.url, name: 'anna' });
      ben = await startPeer({ owner, engine: await second(), signalingUrl: signaling.url, name: 'ben' });
      for (const { mesh } of [anna, ben]) mesh.handle(heldProtocol, () => undefined);
      await Promise.all([listed(anna.mesh, ben.key.peerId), listed(ben.mesh, anna.key.peerId)]);
    });

    after(async () => {
      await anna.mesh.close();
      await ben.mesh.close();
      await signaling.close();
    });

    test('requests to one peer share one session, made on first use', async () => {
      assert.equal(anna.mesh.sessionCount, 0);
      await Promise.all(Array.from({ length: 10 }, () => anna.mesh.ping(ben.key.peerId)));
      assert.equal(anna.mesh.sessionCount, 1);
      assert.equal(signaling.tickets.length, 1);
      await ben.mesh.ping(anna.key.peerId);
      assert.equal(signaling.tickets.length, 1);
    });

    test('when both sides dial at once, both requests succeed and one session stays', async () => {
      for (let round = 0; round < 8; round++) {
        await parted(anna, ben);
        await Promise.all([anna.mesh.ping(ben.key.peerId), ben.mesh.ping(anna.key.peerId)]);
        assert.equal(anna.mesh.sessionCount, 1);
        assert.equal(ben.mesh.sessionCount, 1);
        await anna.mesh.ping(ben.key.peerId);
        await ben.mesh.ping(anna.key.peerId);
      }
    });

    test('when one side dials while it is being dialled, its request succeeds with that session', async () => {
      const [low, high] = anna.key.peerId < ben.key.peerId ? [anna, ben] : [ben, anna];
      await parted(anna, ben);
      const held = Promise.withResolvers<string>();
      const refused = Promise.withResolvers<void>();
      let answer: SignalPayload | null = null;
      signaling.hooks = {
        relay: (payload, from) => {
          if (payload.kind === 'failed') refused.resolve();
          if (payload.kind !== 'answer' || from !== high.key.peerId) return payload;
          answer = payload;
          held.resolve(jtiOf(signaling.tickets.at(-1) ?? ''));
          return null;
        },
      };
      const first = low.mesh.ping(high.key.peerId);
      const jti = await held.promise;
      const second = high.mesh.ping(low.key.peerId, AbortSignal.timeout(10_000));
      await refused.promise;
      signaling.hooks = {};
      assert.ok(answer);
      signaling.send(low.key.peerId, { type: 'signal', jti, payload: answer });
      await Promise.all([first, second]);
      assert.deepEqual([low.mesh.sessionCount, high.mesh.sessionCount], [1, 1]);
    });

    test('a request that comes while a session is ending gets another one', async () => {
      for (const asking of [anna, ben]) {
        const other = asking === anna ? ben : anna;
        await asking.mesh.ping(other.key.peerId);
        // An open stream keeps the session from ending at once.
        await asking.mesh.openStream(other.key.peerId, heldProtocol, new Uint8Array(0));
        asking.mesh.disconnect(other.key.peerId);
        const stream = await asking.mesh.openStream(other.key.peerId, heldProtocol, new Uint8Array(0));
        await asking.mesh.ping(other.key.peerId);
        stream.reset(ResetCode.cancel);
        await other.mesh.ping(asking.key.peerId);
        assert.equal(asking.mesh.sessionCount, 1);
      }
    });

    test('a session ends when the membership behind it does, and the device is refused from then on', async () => {
      const expires = Math.ceil(Date.now() / 1000) + 2;
      const guest = await startPeer({
        owner,
        engine: await second(),
        signalingUrl: signaling.url,
        name: 'guest',
        expires,
      });
      await listed(anna.mesh, guest.key.peerId);
      await guest.mesh.ping(anna.key.peerId);
      await when(anna.mesh, 'session', () => !hasSession(anna.mesh, guest.key.peerId));
      assert.ok(Date.now() >= expires * 1000);
      await assert.rejects(guest.mesh.ping(anna.key.peerId));
      assert.equal(hasSession(anna.mesh, guest.key.peerId), false);
      await guest.mesh.close();
    });

    test('a session and its streams outlive signaling', async () => {
      ben.mesh.handle(httpProtocol, (stream) => {
        void (async () => {
          for (let chunk; (chunk = await stream.read()) !== null;) stream.write(new Uint8Array(chunk));
          stream.end();
        })();
      });
      await anna.mesh.ping(ben.key.peerId);
      const stream = await anna.mesh.openStream(ben.key.peerId, httpProtocol, new Uint8Array(0));
      const lost = Promise.all(
        [anna, ben].map(({ mesh }) => when(mesh, 'signaling', () => mesh.signaling.state !== 'connected')),
      );
      signaling.dropAll();
      stream.write(Uint8Array.of(1, 2, 3));
      stream.end();
      assert.deepEqual([...((await stream.read()) ?? [])], [1, 2, 3]);
      assert.equal(await stream.read(), null);
      await lost;
      await Promise.all([connected(anna.mesh), connected(ben.mesh)]);
      await Promise.all([listed(anna.mesh, ben.key.peerId), listed(ben.mesh, anna.key.peerId)]);
    });

    test('a protocol that nobody handles is refused at once', async () => {
      const stream = await anna.mesh.openStream(ben.key.peerId, '/cocoon/unknown/1', new Uint8Array(0));
      await assert.rejects(stream.read(), { code: 'stream_reset' });
    });

    test('a peer that is offline is told of at once, and reached again when it is back', async () => {
      await ben.mesh.close();
      await gone(anna.mesh, ben.key.peerId);
      const began = performance.now();
      const failure = await anna.mesh
        .ping(ben.key.peerId)
        .catch((thrown: unknown) => toMeshError(thrown).code);
      assert.equal(failure, 'device_offline');
      assert.ok(performance.now() - began < 1_000);
      ben = await startPeer({
        owner,
        engine: await second(),
        signalingUrl: signaling.url,
        name: 'ben',
        key: ben.key,
      });
      await listed(anna.mesh, ben.key.peerId);
      await anna.mesh.ping(ben.key.peerId);
    });

    test('a peer cannot be asked to connect to itself', async () => {
      await assert.rejects(anna.mesh.ping(anna.key.peerId), { code: 'self_connect' });
    });
  });
}

function hasSession(mesh: Mesh, peerId: string): boolean {
  return mesh.devices().some((device) => device.peerId === peerId && device.engine !== null);
}

/** Ends the session between the two and waits until both know. */
async function parted(left: Peer, right: Peer): Promise<void> {
  left.mesh.disconnect(right.key.peerId);
  await Promise.all([left, right].map(({ mesh }) => when(mesh, 'session', () => mesh.sessionCount === 0)));
}

async function connected(mesh: Mesh): Promise<void> {
  await when(mesh, 'signaling', () => mesh.signaling.state === 'connected');
}

async function gone(mesh: Mesh, peerId: string): Promise<void> {
  await when(mesh, 'devices', () => !mesh.devices().some((each) => each.peerId === peerId && each.online));
}
