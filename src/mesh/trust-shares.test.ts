import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { ProvenShare, ShareProof } from '@cocoon-mesh/protocol';
import {
  adminRights,
  coOwnerRights,
  generateSigningKey,
  limits,
  memberRights,
  narrowRights,
  signRevocation,
  verifyShare,
} from '@cocoon-mesh/protocol';
import { KnownShares } from './known-shares.ts';
import type { Party } from './trust-parties.contract.ts';
import {
  claim,
  confirmed,
  day,
  member,
  newOwner,
  newToken,
  now,
  provisionalSeconds,
  rotated,
  share,
  TrustOfPeer,
} from './trust-parties.contract.ts';

/** The owner of the cocoon, and two others; the device is of the first of them. */
const [root, friend, third] = [await newOwner(), await newOwner(), await newOwner()];
const [cocoon, otherCocoon, device] = [
  await generateSigningKey(),
  await generateSigningKey(),
  await generateSigningKey(),
];
const friendsDevice = await member(friend, device);
const invalid = { code: 'membership_invalid' };
const denied = { code: 'denied' };
const revoked = { code: 'revoked' };

async function atCocoon(): Promise<TrustOfPeer> {
  return TrustOfPeer.create(cocoon, await member(root, cocoon));
}

async function revocation(owner: Party, kind: 'device' | 'owner' | 'token' | 'share', subject: string) {
  return signRevocation(owner.keys, [], { kind, subject, now });
}

describe('at a cocoon that is shared', () => {
  it('a peer of the co-owner has all that its owner was given and it may do itself', async () => {
    const { trust } = await atCocoon();
    const proof = await share(root, cocoon, friend, { rights: memberRights, until: now + day });
    const standing = await trust.judge(device.peerId, friendsDevice, proof);
    assert.equal(standing.relation, 'co-owner');
    assert.deepEqual(standing.rights, coOwnerRights);
    assert.equal(standing.expires, now + day);
    assert.equal(trust.objection(standing), null);
    const narrow = await member(friend, device, {
      serial: 2,
      rights: [...narrowRights(['grafana'], []), ...adminRights],
      expires: now + 60,
    });
    const less = await trust.judge(device.peerId, narrow, proof);
    assert.deepEqual(less.rights, narrowRights(['grafana'], []));
    assert.equal(less.expires, now + 60);
    const longer = await member(friend, device, { serial: 3, expires: now + 2 * day });
    assert.equal((await trust.judge(device.peerId, longer, proof)).expires, now + day);
  });

  it('a peer of a guest has what the guest was given', async () => {
    const { trust } = await atCocoon();
    const rights = narrowRights([], ['llm.chat']);
    const standing = await trust.judge(
      device.peerId,
      friendsDevice,
      await share(root, cocoon, friend, { rights }),
    );
    assert.equal(standing.relation, 'guest');
    assert.deepEqual(standing.rights, rights);
  });

  it('a share is remembered, so that it need not be shown again, and told of once', async () => {
    const me = await atCocoon();
    const proof = await share(root, cocoon, friend);
    await me.trust.share(proof);
    await me.trust.share(proof);
    await me.trust.judge(device.peerId, friendsDevice, proof);
    await me.restart(await member(root, cocoon));
    assert.equal((await me.trust.judge(device.peerId, friendsDevice)).relation, 'co-owner');
    assert.equal(me.told('share').length, 1);
    assert.deepEqual(
      me.told('claim').map((event) => [event.scope, event.redeemer, event.cocoon]),
      [['co-own', friend.keys.id, cocoon.peerId]],
    );
    assert.deepEqual(me.trust.shareProof(cocoon.peerId, friend.keys.id), proof);
  });

  it('a share of another cocoon, for another owner or of another owner lets nobody in', async () => {
    const { trust } = await atCocoon();
    const wrong = [
      await share(root, otherCocoon, friend),
      await share(root, cocoon, third),
      await share(third, cocoon, friend),
      await share(friend, cocoon, root),
    ];
    for (const proof of wrong) await assert.rejects(trust.judge(device.peerId, friendsDevice, proof), denied);
    await assert.rejects(trust.judge(device.peerId, friendsDevice), denied);
  });

  it('a bad share does not matter beside a good one that is known', async () => {
    const { trust } = await atCocoon();
    const good = await share(root, cocoon, friend);
    await trust.share(good);
    const tampered = { ...good, receipt: `${String(Reflect.get(good, 'receipt'))}A` } as ShareProof;
    assert.equal((await trust.judge(device.peerId, friendsDevice, tampered)).relation, 'co-owner');
    const ended = await share(root, cocoon, friend, { until: now });
    assert.equal((await trust.judge(device.peerId, friendsDevice, ended)).relation, 'co-owner');
  });

  it('a token lets in its first redeemer only, and the owner’s signature says who that is', async () => {
    const me = await atCocoon();
    const { token } = await newToken(root, { cocoon });
    await me.trust.share(await claim(token, third));
    const second = await claim(token, friend);
    await assert.rejects(me.trust.judge(device.peerId, friendsDevice, second), denied);
    await assert.rejects(me.trust.share(second), invalid);
    assert.equal(me.told('second_redeemer').length, 1);
    await me.trust.judge(device.peerId, friendsDevice, await confirmed(root, second));
    assert.deepEqual(
      me.trust.shares.map(({ coOwner }) => coOwner),
      [friend.keys.id],
    );
  });

  it('what the owner signed replaces the claim, and is not replaced by it or by an older one', async () => {
    const me = await atCocoon();
    const chain = await share(root, cocoon, friend);
    const narrow = narrowRights(['grafana'], []);
    const second = await confirmed(root, chain, 2, { rights: narrow });
    await me.trust.share(chain);
    await me.trust.share(second);
    await assert.rejects(me.trust.share(await confirmed(root, chain, 1)), invalid);
    await assert.rejects(me.trust.share(chain), invalid);
    await me.restart(await member(root, cocoon));
    assert.deepEqual((await me.trust.judge(device.peerId, friendsDevice, chain)).rights, narrow);
  });

  it('the claim of a later token counts until it ends, and then what was signed before', async () => {
    const me = await atCocoon();
    const narrow = narrowRights(['grafana'], []);
    await me.trust.share(await confirmed(root, await share(root, cocoon, friend, { rights: narrow })));
    await me.trust.share(await share(root, cocoon, friend, { granted: now + 60 }));
    await me.restart(await member(root, cocoon));
    assert.equal((await me.trust.judge(device.peerId, friendsDevice)).relation, 'co-owner');
    me.clock.step((provisionalSeconds + 60) * 1000);
    assert.equal((await me.trust.judge(device.peerId, friendsDevice)).relation, 'guest');
  });

  it('the claim of an earlier token counts again when the later one is revoked', async () => {
    const { trust } = await atCocoon();
    const narrow = narrowRights(['grafana'], []);
    const { token } = await newToken(root, { rights: narrow, cocoon });
    const earlier = await claim(token, friend, now + 3600);
    const later = await share(root, cocoon, friend, { granted: now + 60 });
    await trust.share(later);
    await assert.rejects(trust.share(earlier), invalid);
    const { jti } = await verifyShare(later, now);
    await trust.learn(root.keys.id, undefined, [await revocation(root, 'token', jti)]);
    assert.equal((await trust.judge(device.peerId, friendsDevice, earlier)).relation, 'guest');
  });

  it('an owner that was removed is out, and in again by a later token only', async () => {
    const me = await atCocoon();
    const proof = await share(root, cocoon, friend);
    const standing = await me.trust.judge(device.peerId, friendsDevice, proof);
    await me.trust.learn(root.keys.id, undefined, [await revocation(root, 'owner', friend.keys.id)]);
    assert.equal(me.trust.objection(standing)?.code, 'revoked');
    await assert.rejects(me.trust.judge(device.peerId, friendsDevice, proof), revoked);
    assert.deepEqual(me.trust.shares, []);
    assert.equal(me.trust.shareProof(cocoon.peerId, friend.keys.id), null);
    await me.restart(await member(root, cocoon));
    await assert.rejects(me.trust.judge(device.peerId, friendsDevice, proof), revoked);
    await me.trust.judge(
      device.peerId,
      friendsDevice,
      await share(root, cocoon, friend, { granted: now + 1 }),
    );
  });

  it('a revoked token, cocoon, or device of the co-owner ends what stands on it', async () => {
    const proof = await share(root, cocoon, friend);
    const { jti } = await verifyShare(proof, now);
    const cases = [
      [root, 'token', jti],
      [root, 'device', cocoon.peerId],
      [friend, 'device', device.peerId],
    ] as const;
    for (const [owner, kind, subject] of cases) {
      const { trust } = await atCocoon();
      const standing = await trust.judge(device.peerId, friendsDevice, proof);
      await trust.learn(owner.keys.id, undefined, [await revocation(owner, kind, subject)]);
      assert.equal(trust.objection(standing)?.code, 'revoked', kind);
      await assert.rejects(trust.judge(device.peerId, friendsDevice, proof), revoked);
    }
  });

  it('a share that the co-owner gave back is over', async () => {
    const me = await atCocoon();
    const proof = await share(root, cocoon, friend);
    const standing = await me.trust.judge(device.peerId, friendsDevice, proof);
    await me.trust.learn(friend.keys.id, undefined, [await revocation(friend, 'share', cocoon.peerId)]);
    assert.equal(me.trust.objection(standing)?.code, 'revoked');
    await assert.rejects(me.trust.share(await confirmed(root, proof)), revoked);
    await assert.rejects(me.trust.judge(device.peerId, friendsDevice), revoked);
  });

  it('another owner’s list ends nothing but its own', async () => {
    const me = await atCocoon();
    const ours = await generateSigningKey();
    const standing = await me.trust.judge(ours.peerId, await member(root, ours));
    await me.trust.judge(device.peerId, friendsDevice, await share(root, cocoon, friend));
    const list = [await revocation(friend, 'device', ours.peerId)];
    assert.equal(await me.trust.learn(friend.keys.id, undefined, list), true);
    assert.equal(me.trust.objection(standing), null);
    await me.trust.judge(ours.peerId, await member(root, ours));
  });

  it('a rotation of either owner ends what its lost secret signed', async () => {
    const proof = await share(root, cocoon, friend);
    for (const owner of [root, friend]) {
      const { trust } = await atCocoon();
      const standing = await trust.judge(device.peerId, friendsDevice, proof);
      await trust.learn(owner.keys.id, (await rotated(owner)).keys.records, []);
      assert.equal(trust.objection(standing)?.code, 'membership_invalid');
      await assert.rejects(trust.judge(device.peerId, friendsDevice, proof), invalid);
    }
  });

  it('a share of another record than the one that is known of either owner is refused', async () => {
    for (const owner of [root, friend]) {
      const { trust } = await atCocoon();
      await trust.share(await share(root, cocoon, friend));
      await trust.learn(owner.keys.id, (await rotated(owner)).keys.records, []);
      const other = await rotated(owner);
      const forged =
        owner === root
          ? await share(other, cocoon, third)
          : await share(root, cocoon, other, { granted: now + 1 });
      await assert.rejects(trust.share(forged), invalid);
    }
  });
});

describe('at a peer of the co-owner', () => {
  it('the cocoon may be met and may do nothing', async () => {
    const me = await TrustOfPeer.create(device, friendsDevice);
    const proof = await share(root, cocoon, friend);
    const standing = await me.trust.judge(cocoon.peerId, await member(root, cocoon), proof);
    assert.equal(standing.relation, 'shared');
    assert.deepEqual(standing.rights, []);
    const others = await member(root, otherCocoon);
    await assert.rejects(me.trust.judge(otherCocoon.peerId, others, proof), denied);
    await assert.rejects(me.trust.judge(cocoon.peerId, await member(third, cocoon), proof), denied);
    assert.deepEqual(me.trust.recordsOf(root.keys.id), root.keys.records);
    await me.trust.learn(root.keys.id, undefined, [await revocation(root, 'owner', friend.keys.id)]);
    assert.equal(me.trust.objection(standing)?.code, 'revoked');
  });

  it('a cocoon that my owner never accepted has no effect', async () => {
    const me = await TrustOfPeer.create(device, friendsDevice);
    const toThird = await confirmed(root, await share(root, cocoon, third));
    const proven = await verifyShare(toThird, now);
    const unwanted = await confirmed(root, await share(root, cocoon, friend));
    const attached = { ...unwanted, redemption: proven.redemption };
    await assert.rejects(me.trust.share(attached), invalid);
    await assert.rejects(me.trust.judge(cocoon.peerId, await member(root, cocoon), attached), denied);
    assert.equal(me.trust.recordsOf(root.keys.id), null);
  });

  it('shows the share of the right owner, though another one claims the same cocoon', async () => {
    const { trust } = await TrustOfPeer.create(device, friendsDevice);
    const [pretended, right] = [await share(third, cocoon, friend), await share(root, cocoon, friend)];
    await trust.share(pretended);
    await trust.share(right);
    assert.deepEqual(trust.shareProof(cocoon.peerId, friend.keys.id, root.keys.id), right);
    assert.deepEqual(trust.shareProof(cocoon.peerId, friend.keys.id, third.keys.id), pretended);
    assert.equal((await trust.judge(cocoon.peerId, await member(root, cocoon))).share?.owner, root.keys.id);
  });
});

describe('shares that are known', () => {
  it('are so many at most, and those that ended make room', async () => {
    const proof = await share(root, cocoon, friend);
    const proven = await verifyShare(proof, now);
    const known = new KnownShares();
    const numbered = (n: number): ProvenShare => ({ ...proven, cocoon: `cocoon ${n}` });
    for (let n = 0; n < limits.maxShares; n++) known.add({ proof, proven: numbered(n) }, () => true);
    const one = { proof, proven: numbered(limits.maxShares) };
    assert.throws(() => known.add(one, () => true), { code: 'overloaded' });
    assert.equal(
      known.add(one, ({ cocoon: peerId }) => peerId !== 'cocoon 7'),
      true,
    );
    assert.equal(known.all().length, limits.maxShares);
    assert.deepEqual(known.between(proven.owner, 'cocoon 7', proven.coOwner), []);
  });
});
