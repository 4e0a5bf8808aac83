import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { OwnerKeys } from '@cocoon-mesh/protocol';
import {
  generateSigningKey,
  peekGrant,
  signRevocation,
  verifyRedemption,
  verifyShare,
} from '@cocoon-mesh/protocol';
import type { TestDevice, TestServer } from './test-client.ts';
import {
  TestPeer,
  newCoOwnRedemption,
  newDevice,
  newMembership,
  newOwner,
  newRecord,
  newRedemption,
  newRotatedOwner,
  newSignedShare,
  seconds,
  startTestServer,
} from './test-client.ts';

/** An owner with two devices that are online, before its rotation. */
async function before(run: TestServer) {
  const owner = await newRotatedOwner();
  const desk = await newDevice(owner.before, run.clock, { name: 'desk' });
  const phone = await newDevice(owner.before, run.clock, { name: 'phone' });
  const { peer: d } = await TestPeer.member(run.server.url, desk);
  const { peer: p } = await TestPeer.member(run.server.url, phone);
  await d.next('device');
  const renewed = async (device: TestDevice, by = owner.after, serial = 2) =>
    newMembership(by, device.key.peerId, run.clock, { serial });
  return { ...owner, desk, phone, d, p, renewed };
}

async function refusal(run: TestServer, device: TestDevice): Promise<string> {
  const peer = await TestPeer.open(run.server.url);
  await peer.prove(run.server.url, device.key, device);
  return peer.refusal();
}

describe('a membership that an owner signs for another of its devices', () => {
  test('reaches the device that is here, and the others see it', async () => {
    await using run = await startTestServer();
    const { before: owner, desk, phone, d, p } = await before(run);
    const { peer: third } = await TestPeer.member(run.server.url, await newDevice(owner, run.clock));
    for (const peer of [d, p]) await peer.next('device');
    const membership = await newMembership(owner, phone.key.peerId, run.clock, { serial: 2 });
    d.send({ type: 'issue', peer_id: phone.key.peerId, membership });
    assert.deepEqual((await p.next('membership')).membership, membership);
    for (const peer of [d, third]) {
      const { device } = await peer.next('device');
      assert.deepEqual([device.peer_id, device.membership], [phone.key.peerId, membership]);
    }
    assert.equal(desk.membership.kind, 'membership');
  });

  test('waits for a device that is away, which comes with its old one', async () => {
    await using run = await startTestServer();
    const { before: owner, phone, d, p } = await before(run);
    await p.close();
    await d.next('device');
    const membership = await newMembership(owner, phone.key.peerId, run.clock, { serial: 2 });
    d.send({ type: 'issue', peer_id: phone.key.peerId, membership });
    await d.quiet();
    const { welcome } = await TestPeer.member(run.server.url, phone);
    assert.deepEqual(welcome.membership, membership);
    assert.deepEqual((await d.next('device')).device.membership, membership);
    // Once it shows it, nothing is newer.
    const again = await TestPeer.member(run.server.url, { ...phone, membership });
    assert.equal(again.welcome.membership, undefined);
  });

  test('takes the place of the chain of a redeemed token', async () => {
    await using run = await startTestServer();
    const { before: owner, d } = await before(run);
    const key = await generateSigningKey();
    const record = await newRecord(key, run.clock);
    const redemption = await newRedemption(owner, run, key);
    const peer = await TestPeer.open(run.server.url);
    await peer.prove(run.server.url, key, { record, redemption });
    const { receipt = '' } = await peer.next('welcome');
    const { jti } = peekGrant(redemption.grant);
    const membership = await newMembership(owner, key.peerId, run.clock, { jti });
    d.send({ type: 'issue', peer_id: key.peerId, membership });
    assert.deepEqual((await peer.next('membership')).membership, membership);
    const chain = { kind: 'claim', redemption, receipt } as const;
    const { welcome } = await TestPeer.member(run.server.url, { key, record, membership: chain });
    assert.deepEqual(welcome.membership, membership);
  });

  test('is passed over when it is older, of somebody else, or of a device that was revoked', async () => {
    await using run = await startTestServer();
    const { before: owner, phone, d, p } = await before(run);
    const stranger = await newDevice(await newOwner(), run.clock);
    const { peer: s } = await TestPeer.member(run.server.url, stranger);
    const eve = await newOwner();
    const issue = async (by: OwnerKeys, peerId: string, serial: number): Promise<void> => {
      const membership = await newMembership(by, peerId, run.clock, { serial });
      d.send({ type: 'issue', peer_id: peerId, membership });
    };
    await issue(owner, phone.key.peerId, 0);
    await issue(eve, phone.key.peerId, 5);
    await issue({ ...owner, key: eve.key }, phone.key.peerId, 5);
    const lost = (await generateSigningKey()).peerId;
    const revocation = { kind: 'device', subject: lost, now: seconds(run.clock) } as const;
    d.send({ type: 'revocations', owner: owner.id, list: [await signRevocation(owner, [], revocation)] });
    await p.next('revocations');
    await issue(owner, lost, 5);
    for (const peer of [d, p, s]) await peer.quiet();
  });

  test('of somebody else’s device shows nothing of it and takes nothing from it', async () => {
    await using run = await startTestServer();
    const { before: owner, d } = await before(run);
    const theirs = await newOwner();
    const victim = await newDevice(theirs, run.clock, { name: 'victim' });
    const { peer: v } = await TestPeer.member(run.server.url, victim);
    const membership = await newMembership(owner, victim.key.peerId, run.clock, { serial: 9 });
    d.send({ type: 'issue', peer_id: victim.key.peerId, membership });
    await d.quiet();
    await v.quiet();
    d.send({ type: 'introduce', id: 1, peer_id: victim.key.peerId });
    assert.equal((await d.next('error')).code, 'not_found');
    const { welcome } = await TestPeer.member(run.server.url, await newDevice(owner, run.clock));
    assert.ok(!welcome.devices.some(({ peer_id }) => peer_id === victim.key.peerId));
    assert.equal((await TestPeer.member(run.server.url, victim)).welcome.devices.length, 1);
  });
});

describe('a new secret', () => {
  test('keeps the devices here whose memberships were signed anew, and ends the others', async () => {
    await using run = await startTestServer();
    const { before: old, after, desk, phone, d, p, renewed } = await before(run);
    const thief = await newDevice(old, run.clock, { name: 'thief' });
    const { peer: t } = await TestPeer.member(run.server.url, thief);
    for (const peer of [d, p]) await peer.next('device');

    const membership = await renewed(phone);
    d.send({ type: 'issue', peer_id: phone.key.peerId, membership });
    assert.deepEqual((await p.next('membership')).membership, membership);
    d.send({ type: 'membership', membership: await renewed(desk) });
    assert.equal(await t.refusal(), 'membership_invalid');
    const told = await p.next('revocations', ['device']);
    assert.deepEqual([told.owner, told.records, told.list], [after.id, after.records, []]);
    await d.next('device');
    await d.next('device');
    d.send({ type: 'introduce', id: 1, peer_id: phone.key.peerId });
    await d.next('introduction', ['device']);
    assert.equal(await refusal(run, thief), 'membership_invalid');
  });

  test('lets a device that was away in with what was signed for it meanwhile', async () => {
    await using run = await startTestServer();
    const { desk, phone, d, p, renewed, after } = await before(run);
    await p.close();
    d.send({ type: 'membership', membership: await renewed(desk) });
    await d.next('device');
    await d.quiet();
    assert.equal(await refusal(run, phone), 'membership_invalid');
    const membership = await renewed(phone);
    d.send({ type: 'issue', peer_id: phone.key.peerId, membership });
    await d.quiet();
    const { welcome } = await TestPeer.member(run.server.url, phone);
    assert.deepEqual(welcome.membership, membership);
    assert.deepEqual(welcome.revocations, [{ owner: after.id, records: after.records, list: [] }]);
  });

  test('is not undone by a device that brings the old one', async () => {
    await using run = await startTestServer();
    const { before: old, desk, phone, d, p, renewed } = await before(run);
    d.send({ type: 'issue', peer_id: phone.key.peerId, membership: await renewed(phone) });
    await p.next('membership');
    d.send({ type: 'membership', membership: await renewed(desk) });
    await d.next('device');
    // What was told may have been of the phone: what is here is asked for only when all of it is done.
    await d.quiet();
    const stale = await newMembership(old, desk.key.peerId, run.clock, { serial: 99 });
    p.send({ type: 'issue', peer_id: desk.key.peerId, membership: stale });
    const { welcome } = await TestPeer.member(run.server.url, { ...desk, membership: stale });
    assert.notDeepEqual(welcome.membership, stale);
    assert.ok(welcome.membership);
  });

  for (const kept of [true, false])
    test(`${kept ? 'that keeps a token lets it' : 'lets no token of the old one'} be redeemed`, async () => {
      await using run = await startTestServer();
      const { before: old, rotateKeeping } = await newRotatedOwner();
      const key = await generateSigningKey();
      const redemption = await newRedemption(old, run, key);
      const { grantHash } = await verifyRedemption(redemption);
      const after = await rotateKeeping(kept ? [grantHash] : []);
      const { peer: d } = await TestPeer.member(run.server.url, await newDevice(after, run.clock));
      const record = await newRecord(key, run.clock);
      const first = await TestPeer.open(run.server.url);
      await first.prove(run.server.url, key, { record, redemption });
      if (!kept) {
        assert.equal(await first.refusal(), 'token_invalid');
        return;
      }
      const { receipt = '' } = await first.next('welcome');
      const chain = { kind: 'claim', redemption, receipt } as const;
      const { peer } = await TestPeer.member(run.server.url, { key, record, membership: chain });
      // It stays, whoever else is swept.
      const revocation = { kind: 'device', subject: 'nobody', now: seconds(run.clock) } as const;
      d.send({ type: 'revocations', owner: after.id, list: [await signRevocation(after, [], revocation)] });
      await peer.next('revocations');
      await d.next('device');
      await d.next('device');
      await d.quiet();
      await peer.quiet();
    });

  test('makes shares void until they are signed anew, and their other side learns of it', async () => {
    await using run = await startTestServer();
    const { before: old, after, desk, phone, d, p, renewed } = await before(run);
    const tom = await newOwner();
    const { peer: t } = await TestPeer.member(run.server.url, await newDevice(tom, run.clock));
    const redemption = await newCoOwnRedemption(old, run, phone.key.peerId, tom);
    t.send({ type: 'claim', id: 1, redemption });
    const { receipt } = await t.next('claimed');
    const chain = { kind: 'claim', redemption, receipt } as const;
    const record = await newRecord(phone.key, run.clock, { audience: tom.id });
    p.send({ type: 'record', record });
    await t.next('device');

    d.send({ type: 'issue', peer_id: phone.key.peerId, membership: await renewed(phone) });
    await p.next('membership', ['share']);
    d.send({ type: 'membership', membership: await renewed(desk) });
    const told = await t.next('revocations', ['device']);
    assert.deepEqual([told.owner, told.records], [after.id, after.records]);
    assert.equal((await t.next('device')).device.online, false);
    t.send({ type: 'introduce', id: 1, peer_id: phone.key.peerId });
    assert.equal((await t.next('error')).code, 'not_found');

    const proven = await verifyShare(chain, seconds(run.clock));
    assert.equal(proven.epoch, 0);
    const signed = await newSignedShare(after, run.clock, chain);
    d.send({ type: 'share', share: signed });
    const { device } = await t.next('device');
    assert.deepEqual([device.online, device.share, device.record], [true, signed, record]);
    // What the old secret signs counts no more, whoever brings it.
    t.send({ type: 'share', share: await newSignedShare(old, run.clock, chain, 99) });
    await t.quiet();
    const late = await newCoOwnRedemption(old, run, phone.key.peerId, tom);
    t.send({ type: 'claim', id: 2, redemption: late });
    assert.equal((await t.next('error')).code, 'token_invalid');
  });
});
