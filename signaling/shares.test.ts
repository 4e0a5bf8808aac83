import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { DeviceEntry, OwnerKeys, Redemption, ShareProof } from '@cocoon-mesh/protocol';
import {
  generateSigningKey,
  limits,
  peekGrant,
  peekTicket,
  readSetupToken,
  redeem,
  signReceipt,
  signRevocation,
  verifyReceipt,
  verifyShare,
} from '@cocoon-mesh/protocol';
import type { RevocationKind } from '@cocoon-mesh/protocol';
import type { TestDevice, TestServer } from './test-client.ts';
import {
  TestPeer,
  newCoOwnRedemption,
  newDevice,
  newMembership,
  newOwner,
  newRecord,
  newSignedShare,
  newToken,
  seconds,
  startTestServer,
} from './test-client.ts';

/** Rita has a cocoon `gpu` and a device of her own; Tom has a laptop. All are online, and nothing is shared. */
async function two(run: TestServer) {
  const [rita, tom] = [await newOwner(), await newOwner()];
  const gpu = await newDevice(rita, run.clock, { name: 'gpu', services: [{ name: 'api', type: 'http' }] });
  const own = await newDevice(rita, run.clock, { name: 'own' });
  const laptop = await newDevice(tom, run.clock, { name: 'laptop' });
  const { peer: g } = await TestPeer.member(run.server.url, gpu);
  const { peer: o } = await TestPeer.member(run.server.url, own);
  const { peer: t } = await TestPeer.member(run.server.url, laptop);
  await g.next('device');
  return { rita, tom, gpu, own, laptop, g, o, t };
}

async function claimed(
  run: TestServer,
  { rita, tom, gpu, t }: Pick<Awaited<ReturnType<typeof two>>, 'rita' | 'tom' | 'gpu' | 't'>,
  until?: number,
): Promise<ShareProof> {
  const terms = until === undefined ? {} : { until };
  const redemption = await newCoOwnRedemption(rita, run, gpu.key.peerId, tom, terms);
  t.send({ type: 'claim', id: 3, redemption });
  const { receipt, id } = await t.next('claimed', ['device']);
  assert.equal(id, 3);
  return { kind: 'claim', redemption, receipt };
}

/** What `gpu` says of itself to Tom. */
async function forTom(run: TestServer, gpu: TestDevice, tom: OwnerKeys, seq = 1): Promise<string> {
  return newRecord(gpu.key, run.clock, { name: 'gpu', audience: tom.id, seq });
}

/** As `two`, and Tom was given the cocoon and has seen it. */
async function shared(run: TestServer, until?: number) {
  const all = await two(run);
  const proof = await claimed(run, all, until);
  await all.g.next('share');
  await all.o.next('share');
  const record = await forTom(run, all.gpu, all.tom);
  all.g.send({ type: 'record', record });
  const { device } = await all.t.next('device');
  assert.deepEqual(seen(device), { peer_id: all.gpu.key.peerId, online: true, record });
  assert.deepEqual(device.share, proof);
  return { ...all, proof, record };
}

function seen({ peer_id, online, record }: DeviceEntry) {
  return { peer_id, online, record };
}

async function revoke(
  run: TestServer,
  owner: OwnerKeys,
  by: TestPeer,
  ...subjects: (readonly [kind: RevocationKind, subject: string])[]
): Promise<string[]> {
  const list: string[] = [];
  for (const [kind, subject] of subjects)
    list.push(await signRevocation(owner, list, { kind, subject, now: seconds(run.clock) }));
  by.send({ type: 'revocations', owner: owner.id, list });
  return list;
}

async function introduced(asker: TestPeer, peerId: string): Promise<string> {
  asker.send({ type: 'introduce', id: 9, peer_id: peerId });
  const { code, ...rest } = await asker.next('error', ['device']);
  return `${code} ${JSON.stringify(rest)}`;
}

describe('a cocoon that is given to another owner', () => {
  test('is told to it and to its owner’s devices, and seen by the other owner once it has said what', async () => {
    await using run = await startTestServer();
    const all = await two(run);
    const { rita, tom, gpu, g, o, t } = all;
    const proof = await claimed(run, all);
    assert.ok(proof.kind === 'claim');
    await verifyReceipt(proof.receipt, peekGrant(proof.redemption.grant), tom.id);
    for (const peer of [g, o]) {
      const { share } = await peer.next('share');
      const proven = await verifyShare(share, seconds(run.clock));
      assert.deepEqual([proven.owner, proven.cocoon, proven.coOwner], [rita.id, gpu.key.peerId, tom.id]);
    }
    await t.quiet();
    const record = await forTom(run, gpu, tom);
    g.send({ type: 'record', record });
    const { device } = await t.next('device');
    assert.deepEqual(seen(device), { peer_id: gpu.key.peerId, online: true, record });
    assert.deepEqual(device.share, proof);
    // Only to the other owner.
    await o.quiet();
  });

  test('is the only one of its owner that the other sees, and sees nobody of the other', async () => {
    await using run = await startTestServer();
    const { tom, gpu, record } = await shared(run);
    const { welcome } = await TestPeer.member(run.server.url, await newDevice(tom, run.clock));
    const foreign = welcome.devices.filter(({ share }) => share !== undefined);
    assert.deepEqual(foreign.map(seen), [{ peer_id: gpu.key.peerId, online: true, record }]);
    assert.equal(welcome.devices.length, 3);
    assert.deepEqual(welcome.shares, []);
    const again = await TestPeer.member(run.server.url, gpu);
    assert.equal(again.welcome.devices.length, 2);
  });

  test('while it was offline learns it when it comes', async () => {
    await using run = await startTestServer();
    const all = await two(run);
    const { tom, gpu, g, o, t } = all;
    await g.close();
    await o.next('device');
    const proof = await claimed(run, all);
    await o.next('share');
    const { peer, welcome } = await TestPeer.member(run.server.url, gpu);
    assert.deepEqual(welcome.shares, [proof]);
    const record = await forTom(run, gpu, tom);
    peer.send({ type: 'record', record });
    const { device } = await t.next('device');
    assert.deepEqual(seen(device), { peer_id: gpu.key.peerId, online: true, record });
  });

  test('is shown as it comes, changes and goes', async () => {
    await using run = await startTestServer();
    const { gpu, tom, g, t, record } = await shared(run);
    run.clock.step(1000);
    g.send({ type: 'load', load: 0.5 });
    assert.equal((await t.next('device')).device.load, 0.5);
    run.clock.step(1000);
    const newer = await forTom(run, gpu, tom, 2);
    g.send({ type: 'record', record });
    g.send({ type: 'record', record: newer });
    assert.equal((await t.next('device')).device.record, newer);
    await g.close();
    assert.equal((await t.next('device')).device.online, false);
    const late = await TestPeer.member(run.server.url, await newDevice(tom, run.clock));
    const entry = late.welcome.devices.find(({ peer_id }) => peer_id === gpu.key.peerId);
    assert.deepEqual(entry && seen(entry), { peer_id: gpu.key.peerId, online: false, record: newer });
    await t.next('device');
    await TestPeer.member(run.server.url, gpu);
    assert.deepEqual(seen((await t.next('device')).device), {
      peer_id: gpu.key.peerId,
      online: true,
      record: newer,
    });
  });

  test('never shows the other owner what it says to its own, nor its own what it says to the other', async () => {
    await using run = await startTestServer();
    const { gpu, g, o, t, rita, record } = await shared(run);
    run.clock.step(1000);
    const ownRecord = await newRecord(gpu.key, run.clock, { name: 'secret', seq: 9 });
    g.send({ type: 'record', record: ownRecord });
    assert.equal((await o.next('device')).device.record, ownRecord);
    assert.equal((await t.next('device')).device.record, record);
    const late = await TestPeer.member(run.server.url, await newDevice(rita, run.clock));
    const entry = late.welcome.devices.find(({ peer_id }) => peer_id === gpu.key.peerId);
    assert.equal(entry?.record, ownRecord);
    // One that is written for Tom is not its own, at sign-in either.
    const peer = await TestPeer.open(run.server.url);
    await peer.prove(run.server.url, gpu.key, { ...gpu, record });
    assert.equal(await peer.refusal(), 'bad_message');
  });

  test('says in vain what it says to owners it is not shared with', async () => {
    await using run = await startTestServer();
    const { gpu, g, o, t, tom } = await two(run);
    g.send({ type: 'record', record: await forTom(run, gpu, tom) });
    for (const peer of [g, o, t]) await peer.quiet();
  });

  test('until a date is gone after it', async () => {
    await using run = await startTestServer();
    const { gpu, t, g } = await shared(run, seconds(run.clock) + 5);
    run.clock.step(limits.signalingPingMs);
    assert.equal((await t.next('device')).device.online, false);
    assert.match(await introduced(t, gpu.key.peerId), /^not_found/);
    await g.close();
    const { welcome } = await TestPeer.member(run.server.url, gpu);
    assert.deepEqual(welcome.shares, []);
  });

  test('is not given any more when that date is over, also not again to who had it', async () => {
    await using run = await startTestServer();
    const { rita, tom, gpu, t, proof } = await shared(run, seconds(run.clock) + 5);
    const code = async (redemption: Redemption): Promise<string> => {
      t.send({ type: 'claim', id: 4, redemption });
      return (await t.next('error', ['device'])).code;
    };
    run.clock.step(5_000);
    assert.equal(await code(proof.redemption), 'token_expired');
    const terms = { until: seconds(run.clock) };
    const late = await newCoOwnRedemption(rita, run, gpu.key.peerId, tom, terms);
    assert.equal(await code(late), 'token_expired');
  });

  test('stays given through a restart', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'cocoon-signaling-'));
    try {
      const databaseUrl = `sqlite:${join(folder, 'signaling.db')}`;
      const first = await startTestServer({ databaseUrl });
      const { gpu, laptop, proof, record } = await shared(first);
      await first.server.close();
      await using second = await startTestServer({ databaseUrl, clock: first.clock });
      const { peer: t, welcome } = await TestPeer.member(second.server.url, laptop);
      const entry = welcome.devices.find(({ peer_id }) => peer_id === gpu.key.peerId);
      assert.deepEqual(entry && seen(entry), { peer_id: gpu.key.peerId, online: false, record });
      assert.deepEqual(entry?.share, proof);
      const g = await TestPeer.member(second.server.url, gpu);
      assert.deepEqual(g.welcome.shares, [proof]);
      assert.deepEqual(seen((await t.next('device')).device), {
        peer_id: gpu.key.peerId,
        online: true,
        record,
      });
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test('and leaves its owner is seen no more', async () => {
    await using run = await startTestServer();
    const { gpu, t } = await shared(run);
    const membership = await newMembership(await newOwner(), gpu.key.peerId, run.clock);
    const { welcome } = await TestPeer.member(run.server.url, { ...gpu, membership });
    assert.deepEqual(welcome.shares, []);
    assert.equal((await t.next('device')).device.online, false);
    assert.match(await introduced(t, gpu.key.peerId), /^not_found/);
  });
});

describe('a token that gives a cocoon', () => {
  test('works once; its redeemer may repeat itself', async () => {
    await using run = await startTestServer();
    const { rita, tom, gpu, t } = await two(run);
    const eve = await newOwner();
    const { peer: e } = await TestPeer.member(run.server.url, await newDevice(eve, run.clock));
    const redemption = await newCoOwnRedemption(rita, run, gpu.key.peerId, tom);
    t.send({ type: 'claim', id: 1, redemption });
    t.send({ type: 'claim', id: 2, redemption });
    const { receipt } = await t.next('claimed');
    assert.equal((await t.next('claimed')).receipt, receipt);
    e.send({ type: 'claim', id: 1, redemption });
    assert.equal((await e.next('error')).code, 'token_invalid');
  });

  test('that two owners claim at once goes to one of them', async () => {
    await using run = await startTestServer();
    const { rita, gpu, g } = await two(run);
    const token = await newToken(rita, run, { scope: 'co-own', cocoon: gpu.key.peerId });
    const read = await readSetupToken(token);
    const outcomes = await Promise.all(
      Array.from({ length: 8 }, async () => {
        const owner = await newOwner();
        const { peer } = await TestPeer.member(run.server.url, await newDevice(owner, run.clock));
        const redemption = await redeem(read, owner.key, owner.id, owner.records);
        peer.send({ type: 'claim', id: 1, redemption });
        return peer.next('claimed').then(
          () => 'claimed',
          (error: Error) => (error.message.includes('token_used') ? 'used' : error.message),
        );
      }),
    );
    assert.deepEqual(outcomes.toSorted(), ['claimed', ...Array<string>(7).fill('used')]);
    await g.next('share');
    await g.quiet();
  });

  test('is of no use to its own owner', async () => {
    await using run = await startTestServer();
    const { rita, gpu, o, g } = await two(run);
    const redemption = await newCoOwnRedemption(rita, run, gpu.key.peerId, rita);
    o.send({ type: 'claim', id: 1, redemption });
    const { code, message } = await o.next('error');
    assert.equal(code, 'token_invalid');
    assert.match(message, /your own/);
    await g.quiet();
  });

  test('attaches nobody who has not accepted it', async () => {
    await using run = await startTestServer();
    const { rita, tom, gpu, t, o } = await two(run);
    const eve = await newOwner();
    const redemption = await newCoOwnRedemption(rita, run, gpu.key.peerId, eve);
    for (const wrong of [
      { ...redemption, redeemer: tom.id, redeemer_records: tom.records },
      { ...redemption, redeemer: tom.id },
    ]) {
      o.send({ type: 'claim', id: 1, redemption: wrong });
      assert.equal((await o.next('error')).code, 'token_invalid');
    }
    // Tom's signature is in a share that his own device did not bring, and it is of another token.
    const accepted = await newCoOwnRedemption(rita, run, gpu.key.peerId, tom);
    const share = { kind: 'claim', redemption: accepted, receipt: 'a.b.c' } as const;
    o.send({ type: 'share', share });
    await o.quiet();
    await t.quiet();
  });

  test('of somebody else’s cocoon is taken as any other, and has no effect', async () => {
    await using run = await startTestServer();
    const { tom, gpu, g, o, t } = await two(run);
    const eve = await newOwner();
    const { peer: e } = await TestPeer.member(run.server.url, await newDevice(eve, run.clock));
    for (const cocoon of [gpu.key.peerId, (await generateSigningKey()).peerId]) {
      const redemption = await newCoOwnRedemption(eve, run, cocoon, tom);
      t.send({ type: 'claim', id: 1, redemption });
      await t.next('claimed');
      // Its bearers are told: it is their owner's own word.
      await e.next('share');
      g.send({ type: 'record', record: await forTom(run, gpu, tom) });
      assert.match(await introduced(t, cocoon), /^not_found/);
    }
    for (const peer of [g, o, t]) await peer.quiet();
    const { welcome } = await TestPeer.member(run.server.url, gpu);
    assert.deepEqual(welcome.shares, []);
  });

  test('that was revoked gives nothing', async () => {
    await using run = await startTestServer();
    const { rita, tom, gpu, o, t } = await two(run);
    const redemption = await newCoOwnRedemption(rita, run, gpu.key.peerId, tom);
    await revoke(run, rita, o, ['token', peekGrant(redemption.grant).jti]);
    await o.quiet();
    t.send({ type: 'claim', id: 1, redemption });
    assert.equal((await t.next('error')).code, 'revoked');
  });
});

describe('an introduction to a shared cocoon', () => {
  test('shows each side why they may meet', async () => {
    await using run = await startTestServer();
    const { tom, gpu, laptop, g, t, proof, record } = await shared(run);
    t.send({ type: 'introduce', id: 7, peer_id: gpu.key.peerId });
    const asked = await t.next('introduction');
    const told = await g.next('introduction');
    assert.deepEqual([asked.device.record, asked.device.share], [record, proof]);
    assert.deepEqual([told.device.record, told.device.share], [laptop.record, proof]);
    assert.equal(asked.ticket, told.ticket);
    const ticket = peekTicket(asked.ticket);
    assert.deepEqual(
      [ticket.owner, ticket.offerer, ticket.answerer],
      [tom.id, laptop.key.peerId, gpu.key.peerId],
    );
    t.send({ type: 'signal', jti: ticket.jti, payload: { kind: 'offer', sdp: 'v=0' } });
    assert.deepEqual((await g.next('signal')).payload, { kind: 'offer', sdp: 'v=0' });
    g.send({ type: 'signal', jti: ticket.jti, payload: { kind: 'answer', sdp: 'v=0' } });
    assert.deepEqual((await t.next('signal')).payload, { kind: 'answer', sdp: 'v=0' });
  });

  test('is none before the cocoon has said what the other owner may see', async () => {
    await using run = await startTestServer();
    const all = await two(run);
    await claimed(run, all);
    assert.match(await introduced(all.t, all.gpu.key.peerId), /^not_found/);
  });

  test('says when it is offline', async () => {
    await using run = await startTestServer();
    const { gpu, g, t } = await shared(run);
    await g.close();
    await t.next('device');
    assert.match(await introduced(t, gpu.key.peerId), /^device_offline/);
  });

  test('is all there is: other devices of its owner, and the way back, look like nobody', async () => {
    await using run = await startTestServer();
    const { gpu, own, laptop, g, o, t } = await shared(run);
    const nobody = await introduced(t, (await generateSigningKey()).peerId);
    assert.match(nobody, /^not_found/);
    assert.equal(await introduced(t, own.key.peerId), nobody);
    assert.equal(await introduced(g, laptop.key.peerId), nobody);
    assert.equal(await introduced(o, laptop.key.peerId), nobody);
    const eve = await TestPeer.member(run.server.url, await newDevice(await newOwner(), run.clock));
    assert.equal(await introduced(eve.peer, gpu.key.peerId), nobody);
    for (const peer of [g, o, t]) await peer.quiet();
  });
});

describe('a share ends', () => {
  test('when its owner removes the other: both hear it, and nothing goes between them any more', async () => {
    await using run = await startTestServer();
    const { rita, tom, gpu, g, o, t } = await shared(run);
    t.send({ type: 'introduce', id: 7, peer_id: gpu.key.peerId });
    const { jti } = peekTicket((await t.next('introduction')).ticket);
    await g.next('introduction');
    const list = await revoke(run, rita, o, ['owner', tom.id]);
    for (const peer of [g, t]) {
      const news = await peer.next('revocations');
      assert.deepEqual(
        { owner: news.owner, records: news.records, list: news.list },
        { owner: rita.id, records: rita.records, list },
      );
    }
    assert.equal((await t.next('device')).device.online, false);
    t.send({ type: 'signal', jti, payload: { kind: 'candidate', candidate: null } });
    assert.match(await introduced(t, gpu.key.peerId), /^not_found/);
    await g.quiet();
    const { welcome } = await TestPeer.member(run.server.url, await newDevice(tom, run.clock));
    assert.ok(!welcome.devices.some(({ peer_id }) => peer_id === gpu.key.peerId));
    // Whoever was away learns why.
    assert.deepEqual(welcome.revocations, [{ owner: rita.id, records: rita.records, list }]);
  });

  test('and does not come back with its old proof, but with a new grant', async () => {
    await using run = await startTestServer();
    const all = await shared(run);
    const { rita, tom, gpu, g, o, t, proof } = all;
    await revoke(run, rita, o, ['owner', tom.id]);
    await t.next('revocations');
    await t.next('device');
    await g.next('revocations');
    const signed = await newSignedShare(rita, run.clock, proof);
    for (const share of [proof, signed])
      for (const peer of [g, o, t]) {
        peer.send({ type: 'share', share });
        await peer.quiet();
      }
    run.clock.step(1000);
    const again = await claimed(run, all);
    assert.deepEqual((await g.next('share')).share, again);
    // What it said to Tom went with the grant that it said it for.
    await t.quiet();
    const record = await forTom(run, gpu, tom);
    g.send({ type: 'record', record });
    assert.deepEqual((await t.next('device')).device.share, again);
  });

  for (const [what, revocation] of [
    ['its token', (proof: ShareProof) => ['token', peekGrant(proof.redemption.grant).jti] as const],
    ['the cocoon', (_: ShareProof, gpu: TestDevice) => ['device', gpu.key.peerId] as const],
  ] as const)
    test(`when its owner revokes ${what}`, async () => {
      await using run = await startTestServer();
      const { rita, gpu, o, t, proof } = await shared(run);
      await revoke(run, rita, o, revocation(proof, gpu));
      await t.next('revocations');
      assert.equal((await t.next('device')).device.online, false);
      assert.match(await introduced(t, gpu.key.peerId), /^not_found/);
    });

  test('when the other owner gives it back, of which the cocoon hears', async () => {
    await using run = await startTestServer();
    const { tom, gpu, g, o, t } = await shared(run);
    const list = await revoke(run, tom, t, ['share', gpu.key.peerId]);
    const news = await g.next('revocations');
    assert.deepEqual([news.owner, news.records, news.list], [tom.id, tom.records, list]);
    assert.equal((await t.next('device')).device.online, false);
    assert.match(await introduced(t, gpu.key.peerId), /^not_found/);
    await o.quiet();
    const { welcome } = await TestPeer.member(run.server.url, gpu);
    assert.deepEqual(welcome.shares, []);
  });

  test('not by what the other owner says of anything but its own, and by nobody else', async () => {
    await using run = await startTestServer();
    const { rita, tom, gpu, g, t } = await shared(run);
    const eve = await newOwner();
    const { peer: e } = await TestPeer.member(run.server.url, await newDevice(eve, run.clock));
    await revoke(run, eve, e, ['share', gpu.key.peerId], ['device', gpu.key.peerId], ['owner', tom.id]);
    await e.quiet();
    // Tom's own device must not end Rita's device, which is hers.
    await revoke(run, tom, t, ['device', gpu.key.peerId], ['owner', rita.id]);
    await g.next('revocations');
    t.send({ type: 'introduce', id: 1, peer_id: gpu.key.peerId });
    await t.next('introduction');
  });
});

describe('a share that is brought', () => {
  test('signed by its owner takes the place of the chain, and the chain does not come back', async () => {
    await using run = await startTestServer();
    const { rita, g, o, t, proof, record } = await shared(run);
    run.clock.step(1000);
    const signed = await newSignedShare(rita, run.clock, proof, 2);
    o.send({ type: 'share', share: signed });
    assert.deepEqual((await g.next('share')).share, signed);
    const { device } = await t.next('device');
    assert.deepEqual([device.share, device.record], [signed, record]);
    run.clock.step(1000);
    for (const older of [proof, await newSignedShare(rita, run.clock, proof, 1), signed])
      t.send({ type: 'share', share: older });
    for (const peer of [t, g, o]) await peer.quiet();
    const { welcome } = await TestPeer.member(run.server.url, await newDevice(rita, run.clock));
    assert.deepEqual(welcome.shares, [signed]);
  });

  for (const bearer of ['cocoon', 'owner', 'co-owner'] as const)
    test(`by a peer of the ${bearer} is known again to a server that has forgotten it`, async () => {
      await using before = await startTestServer();
      const { rita, tom, proof, gpu, laptop, own } = await shared(before);
      const signed = await newSignedShare(rita, before.clock, proof);
      await using run = await startTestServer({ clock: before.clock });
      const { peer: g } = await TestPeer.member(run.server.url, gpu);
      const { peer: o } = await TestPeer.member(run.server.url, own);
      const { peer: t } = await TestPeer.member(run.server.url, laptop);
      const peer = { cocoon: g, owner: o, 'co-owner': t }[bearer];
      peer.send({ type: 'share', share: signed });
      const other = bearer === 'owner' ? g : o;
      assert.deepEqual((await other.next('share', ['device'])).share, signed);
      const record = await forTom(run, gpu, tom);
      g.send({ type: 'record', record });
      assert.deepEqual((await t.next('device')).device.share, signed);
    });

  test('by anybody else, or forged, or of another redeemer, is passed over', async () => {
    await using run = await startTestServer();
    const { rita, tom, gpu, g, o, t, proof } = await shared(run);
    const eve = await newOwner();
    const { peer: e } = await TestPeer.member(run.server.url, await newDevice(eve, run.clock));
    e.send({ type: 'share', share: proof });
    await e.quiet();
    const forger = { ...rita, key: eve.key };
    const forged = await newSignedShare(forger, run.clock, proof, 9);
    t.send({ type: 'share', share: forged });
    assert.ok(proof.kind === 'claim');
    const other = await newCoOwnRedemption(rita, run, gpu.key.peerId, tom);
    t.send({ type: 'share', share: { ...proof, redemption: other } });
    for (const peer of [t, g, o]) await peer.quiet();
    assert.equal(run.logged.filter((line) => line.includes('A share was passed over')).length, 3);
  });

  test('of a second redeemer is passed over, whoever has signed its receipt', async () => {
    await using run = await startTestServer();
    const { rita, tom, gpu, g, o, t } = await two(run);
    const eve = await newOwner();
    const { peer: e } = await TestPeer.member(run.server.url, await newDevice(eve, run.clock));
    // Another server, which lets a token be used twice.
    const hostile = await generateSigningKey();
    const terms = { scope: 'co-own', cocoon: gpu.key.peerId, receiptKey: hostile.publicKey } as const;
    const token = await readSetupToken(await newToken(rita, run, terms));
    const chainOf = async ({ key, id, records }: OwnerKeys): Promise<ShareProof> => {
      const redemption = await redeem(token, key, id, records);
      const { jti } = peekGrant(redemption.grant);
      const receipt = await signReceipt(hostile, { jti, redeemer: id, now: seconds(run.clock) });
      return { kind: 'claim', redemption, receipt };
    };
    const first = await chainOf(tom);
    t.send({ type: 'share', share: first });
    for (const peer of [g, o]) assert.deepEqual((await peer.next('share')).share, first);
    e.send({ type: 'share', share: await chainOf(eve) });
    for (const peer of [e, g, o]) await peer.quiet();
  });
});
