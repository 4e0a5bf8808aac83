import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { OwnerKeys, RevocationKind } from '@cocoon-mesh/protocol';
import { generateSigningKey, peekGrant, peekTicket, signRevocation } from '@cocoon-mesh/protocol';
import type { TestServer } from './test-client.ts';
import {
  TestPeer,
  newDevice,
  newOwner,
  newRecord,
  newRedemption,
  newRotatedOwner,
  seconds,
  startTestServer,
} from './test-client.ts';

async function listOf(
  owner: OwnerKeys,
  run: TestServer,
  ...subjects: (readonly [kind: RevocationKind, subject: string])[]
): Promise<string[]> {
  const list: string[] = [];
  for (const [kind, subject] of subjects)
    list.push(await signRevocation(owner, list, { kind, subject, now: seconds(run.clock) }));
  return list;
}

async function signInCode(run: TestServer, device: Awaited<ReturnType<typeof newDevice>>): Promise<string> {
  const peer = await TestPeer.open(run.server.url);
  await peer.prove(run.server.url, device.key, device);
  return peer.refusal();
}

describe('a revocation', () => {
  test('of a device ends its connection at once and lets it in no more; the others hear of it', async () => {
    await using run = await startTestServer();
    const owner = await newOwner();
    const lost = await newDevice(owner, run.clock);
    const { peer: thief } = await TestPeer.member(run.server.url, lost);
    const { peer: a } = await TestPeer.member(run.server.url, await newDevice(owner, run.clock));
    const { peer: b } = await TestPeer.member(run.server.url, await newDevice(owner, run.clock));
    await thief.next('device');
    await thief.next('device');
    await a.next('device');
    a.send({ type: 'introduce', id: 1, peer_id: lost.key.peerId });
    const { jti } = peekTicket((await a.next('introduction')).ticket);
    await thief.next('introduction');

    const list = await listOf(owner, run, ['device', lost.key.peerId]);
    a.send({ type: 'revocations', owner: owner.id, list });
    assert.deepEqual((await b.next('revocations')).list, list);
    assert.equal(await thief.refusal(), 'revoked');
    assert.equal((await b.next('device')).device.online, false);
    assert.equal(await signInCode(run, lost), 'revoked');

    await a.next('device');
    a.send({ type: 'introduce', id: 2, peer_id: lost.key.peerId });
    assert.equal((await a.next('error')).code, 'not_found');
    a.send({ type: 'signal', jti, payload: { kind: 'candidate', candidate: null } });
    await a.quiet();
    const later = await TestPeer.member(run.server.url, await newDevice(owner, run.clock));
    assert.deepEqual(later.welcome.revocations, [{ owner: owner.id, records: owner.records, list }]);
    assert.ok(!later.welcome.devices.some(({ peer_id }) => peer_id === lost.key.peerId));
  });

  test('of a token ends what came from it, and keeps it from being redeemed', async () => {
    await using run = await startTestServer();
    const owner = await newOwner();
    const { peer } = await TestPeer.member(run.server.url, await newDevice(owner, run.clock));
    const key = await generateSigningKey();
    const [used, unused] = [await newRedemption(owner, run, key), await newRedemption(owner, run, key)];
    const guest = await TestPeer.open(run.server.url);
    const record = await newRecord(key, run.clock);
    await guest.prove(run.server.url, key, { record, redemption: used });
    const { receipt = '' } = await guest.next('welcome');
    const list = await listOf(
      owner,
      run,
      ['token', peekGrant(used.grant).jti],
      ['token', peekGrant(unused.grant).jti],
    );
    peer.send({ type: 'revocations', owner: owner.id, list });
    assert.equal(await guest.refusal(), 'revoked');
    const membership = { kind: 'claim', redemption: used, receipt } as const;
    assert.equal(await signInCode(run, { key, record, membership }), 'revoked');
    for (const redemption of [used, unused]) {
      const again = await TestPeer.open(run.server.url);
      await again.prove(run.server.url, key, { record, redemption });
      assert.equal(await again.refusal(), 'revoked');
    }
  });

  test('that its owner did not sign ends the connection that brought it, and nothing else', async () => {
    await using run = await startTestServer();
    const owner = await newOwner();
    const victim = await newDevice(owner, run.clock);
    const { peer: v } = await TestPeer.member(run.server.url, victim);
    const { peer } = await TestPeer.member(run.server.url, await newDevice(owner, run.clock));
    const forger = { ...(await newOwner()), id: owner.id };
    const list = await listOf(forger, run, ['device', victim.key.peerId]);
    peer.send({ type: 'revocations', owner: owner.id, list });
    assert.equal(await peer.refusal(), 'bad_signature');
    await v.next('device');
    await v.next('device');
    await v.quiet();
  });

  test('of another owner is passed over without a word', async () => {
    await using run = await startTestServer();
    const [mine, theirs] = [await newOwner(), await newOwner()];
    const { peer } = await TestPeer.member(run.server.url, await newDevice(mine, run.clock));
    const victim = await newDevice(theirs, run.clock);
    const { peer: v } = await TestPeer.member(run.server.url, victim);
    const list = await listOf(theirs, run, ['device', victim.key.peerId]);
    peer.send({ type: 'revocations', owner: theirs.id, list });
    await peer.quiet();
    await v.quiet();
  });

  test('is not taken back by a shorter list: whoever brings one gets the longer', async () => {
    await using run = await startTestServer();
    const owner = await newOwner();
    const { peer } = await TestPeer.member(run.server.url, await newDevice(owner, run.clock));
    const lost = (await generateSigningKey()).peerId;
    const list = await listOf(owner, run, ['device', lost], ['device', lost]);
    peer.send({ type: 'revocations', owner: owner.id, list });
    await peer.quiet();
    peer.send({ type: 'revocations', owner: owner.id, list: list.slice(0, 1) });
    assert.deepEqual((await peer.next('revocations')).list, list);
  });

  test('list may come in pieces, as it must when it is longer than a message', async () => {
    await using run = await startTestServer();
    const owner = await newOwner();
    const { peer } = await TestPeer.member(run.server.url, await newDevice(owner, run.clock));
    const lost = (await generateSigningKey()).peerId;
    const list = await listOf(owner, run, ['device', lost], ['device', lost], ['device', lost]);
    peer.send({ type: 'revocations', owner: owner.id, list: list.slice(0, 1) });
    peer.send({ type: 'revocations', owner: owner.id, list: list.slice(1) });
    await peer.quiet();
    const { welcome } = await TestPeer.member(run.server.url, await newDevice(owner, run.clock));
    assert.deepEqual(welcome.revocations[0]?.list, list);
  });

  test('list begins anew with a new secret', async () => {
    await using run = await startTestServer();
    const { before, after } = await newRotatedOwner();
    const { peer: old } = await TestPeer.member(run.server.url, await newDevice(before, run.clock));
    const lost = (await generateSigningKey()).peerId;
    const first = await listOf(before, run, ['device', lost], ['device', lost]);
    old.send({ type: 'revocations', owner: before.id, list: first });
    await old.quiet();
    const { peer } = await TestPeer.member(run.server.url, await newDevice(after, run.clock));
    assert.equal((await peer.next('device')).device.online, false);
    const second = await listOf(after, run, ['device', lost]);
    peer.send({ type: 'revocations', owner: after.id, list: second });
    await peer.quiet();
    const { welcome } = await TestPeer.member(run.server.url, await newDevice(after, run.clock));
    assert.deepEqual(welcome.revocations[0]?.list, second);
  });
});
