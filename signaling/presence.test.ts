import assert from 'node:assert/strict';
import { once } from 'node:events';
import { describe, test } from 'node:test';
import { limits } from '@cocoon-mesh/protocol';
import {
  TestPeer,
  newDevice,
  newOwner,
  newRecord,
  newMembership,
  seconds,
  startTestServer,
} from './test-client.ts';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { Metrics } from './metrics.ts';
import { Presence } from './presence.ts';
import { defaultLimits } from './server-limits.ts';

describe('presence', () => {
  test('tells the devices of an owner about each other and nobody else', async () => {
    await using run = await startTestServer();
    const { url } = run.server;
    const owner = await newOwner();
    const stranger = await TestPeer.member(url, await newDevice(await newOwner(), run.clock));
    const anna = await TestPeer.member(url, await newDevice(owner, run.clock));
    const bert = await newDevice(owner, run.clock);
    const { peer } = await TestPeer.member(url, bert);
    assert.equal((await anna.peer.next('device')).device.peer_id, bert.key.peerId);
    await peer.close();
    assert.equal((await anna.peer.next('device')).device.online, false);
    await stranger.peer.quiet();
  });

  test('keeps a device that went, with the time it was last seen', async () => {
    await using run = await startTestServer();
    const owner = await newOwner();
    const anna = await newDevice(owner, run.clock);
    const { peer } = await TestPeer.member(run.server.url, anna);
    const bert = await TestPeer.member(run.server.url, await newDevice(owner, run.clock));
    run.clock.step(9_000);
    await peer.close();
    await bert.peer.next('device');
    const leftAt = seconds(run.clock);
    run.clock.step(9_000);
    const carl = await TestPeer.member(run.server.url, await newDevice(owner, run.clock));
    const entry = carl.welcome.devices.find(({ peer_id }) => peer_id === anna.key.peerId);
    assert.deepEqual([entry?.online, entry?.last_seen, entry?.load], [false, leftAt, 0]);
  });

  test('tells a new record at once, and no older one', async () => {
    await using run = await startTestServer();
    const owner = await newOwner();
    const anna = await newDevice(owner, run.clock, { name: 'anna', seq: 5 });
    const { peer } = await TestPeer.member(run.server.url, anna);
    const bert = await TestPeer.member(run.server.url, await newDevice(owner, run.clock));
    await peer.next('device');
    const newer = await newRecord(anna.key, run.clock, { name: 'anna-2', seq: 6 });
    peer.send({ type: 'record', record: await newRecord(anna.key, run.clock, { seq: 4 }) });
    peer.send({ type: 'record', record: newer });
    assert.equal((await bert.peer.next('device')).device.record, newer);
    await bert.peer.quiet();
    await peer.close();
    // Signing in with the older record does not bring it back.
    const again = await TestPeer.member(run.server.url, anna);
    const own = again.welcome.devices.find(({ peer_id }) => peer_id === anna.key.peerId);
    assert.equal(own?.record, newer);
  });

  test('refuses the record of another device', async () => {
    await using run = await startTestServer();
    const owner = await newOwner();
    const { peer } = await TestPeer.member(run.server.url, await newDevice(owner, run.clock));
    peer.send({ type: 'record', record: (await newDevice(owner, run.clock)).record });
    assert.equal(await peer.refusal(), 'bad_signature');
  });

  test('tells many changes of load as a few, the last one included', async () => {
    await using run = await startTestServer();
    const owner = await newOwner();
    const { peer } = await TestPeer.member(run.server.url, await newDevice(owner, run.clock));
    const bert = await TestPeer.member(run.server.url, await newDevice(owner, run.clock));
    await peer.next('device');
    for (let load = 1; load <= 100; load++) peer.send({ type: 'load', load: load / 100 });
    await peer.quiet();
    run.clock.step(defaultLimits.devicePushMs);
    assert.equal((await bert.peer.next('device')).device.load, 0.01);
    assert.equal((await bert.peer.next('device')).device.load, 1);
    run.clock.step(defaultLimits.devicePushMs);
    await bert.peer.quiet();
  });

  test('lets the newer of two connections of a device win, and tells no going', async () => {
    await using run = await startTestServer();
    const owner = await newOwner();
    const anna = await newDevice(owner, run.clock);
    const first = await TestPeer.member(run.server.url, anna);
    const bert = await TestPeer.member(run.server.url, await newDevice(owner, run.clock));
    await first.peer.next('device');
    const second = await TestPeer.member(run.server.url, anna);
    assert.equal(await first.peer.refusal(), 'replaced');
    assert.equal((await bert.peer.next('device')).device.online, true);
    await bert.peer.quiet();
    await second.peer.quiet();
    assert.equal(run.server.counters.peers, 2);
  });

  test('of a device that joins another owner ends for the first', async () => {
    await using run = await startTestServer();
    const [mine, theirs] = [await newOwner(), await newOwner()];
    const device = await newDevice(mine, run.clock);
    await TestPeer.member(run.server.url, device);
    const bert = await TestPeer.member(run.server.url, await newDevice(mine, run.clock));
    const membership = await newMembership(theirs, device.key.peerId, run.clock);
    const moved = await TestPeer.member(run.server.url, { ...device, membership });
    assert.equal((await bert.peer.next('device')).device.online, false);
    assert.equal(moved.welcome.devices.length, 1);
    const later = await TestPeer.member(run.server.url, await newDevice(mine, run.clock));
    assert.ok(!later.welcome.devices.some(({ peer_id }) => peer_id === device.key.peerId));
  });

  test('ends for a device that answers no ping', async () => {
    await using run = await startTestServer();
    const owner = await newOwner();
    const anna = await newDevice(owner, run.clock);
    const mute = await TestPeer.open(run.server.url, { autoPong: false });
    await mute.prove(run.server.url, anna.key, anna);
    await mute.next('welcome');
    const bert = await TestPeer.member(run.server.url, await newDevice(owner, run.clock));
    await mute.next('device');
    for (let passed = 0; passed <= limits.signalingDeadMs; passed += limits.signalingPingMs) {
      const pinged = once(mute.socket, 'ping');
      await bert.peer.quiet();
      run.clock.step(limits.signalingPingMs);
      if (passed + limits.signalingPingMs <= limits.signalingDeadMs) await pinged;
    }
    assert.equal((await mute.closed).code, 1006);
    assert.equal((await bert.peer.next('device')).device.online, false);
    await bert.peer.quiet();
  });
});

test('whoever is on its way in learns that what it is about to be told has changed', async () => {
  const presence = new Presence(new SteppedClock(), new Metrics(), 500);
  const [first, other] = [presence.expect('own'), presence.expect('another')];
  presence.broadcast('own', { type: 'pong', id: 1 });
  assert.deepEqual([first.missed, other.missed], [true, false]);
  presence.arrived('own', first);
  first.missed = false;
  presence.broadcast('own', { type: 'pong', id: 1 });
  assert.equal(first.missed, false);
});
