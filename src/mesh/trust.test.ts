import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  adminRights,
  generateSigningKey,
  memberRights,
  narrowRights,
  signRevocation,
} from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import {
  day,
  enroll,
  member,
  newOwner,
  newToken,
  now,
  provisionalSeconds,
  rotated,
  share,
  TrustOfPeer,
} from './trust-parties.contract.ts';

const mine = await newOwner();
const theirs = await newOwner();
const [self, laptop, phone] = [
  await generateSigningKey(),
  await generateSigningKey(),
  await generateSigningKey(),
];
const ownMembership = await member(mine, self);
const invalid = { code: 'membership_invalid' };

async function peer(): Promise<TrustOfPeer> {
  return TrustOfPeer.create(self, ownMembership);
}

describe('who may come', () => {
  it('is a peer of my owner, with the rights of its membership', async () => {
    const { trust } = await peer();
    const rights = [...memberRights, ...adminRights];
    const proof = await member(mine, laptop, { rights, expires: now + day });
    const standing = await trust.judge(laptop.peerId, proof);
    assert.equal(standing.relation, 'own');
    assert.equal(standing.share, null);
    assert.deepEqual(standing.rights, rights);
    assert.equal(standing.expires, now + day);
    assert.equal(trust.objection(standing), null);
  });

  it('is nobody of another owner, with a stolen membership, or after its end', async () => {
    const { trust } = await peer();
    await assert.rejects(trust.judge(laptop.peerId, await member(theirs, laptop)), { code: 'denied' });
    await assert.rejects(trust.judge(laptop.peerId, await member(mine, phone)), invalid);
    await assert.rejects(trust.judge(laptop.peerId, await member(mine, laptop, { expires: now })), {
      code: 'membership_expired',
    });
  });

  it('is nobody before I have an owner', async () => {
    const { trust } = await TrustOfPeer.create(self);
    await assert.rejects(trust.judge(laptop.peerId, await member(mine, laptop)), { code: 'denied' });
    assert.equal(trust.owner, null);
  });

  it('and whoever has nothing to do with me leaves no trace', async () => {
    const stranger = await peer();
    const { saves } = stranger;
    const { trust } = stranger;
    await trust.member(laptop.peerId, await member(theirs, laptop));
    await trust.member(phone.peerId, await enroll((await newToken(theirs)).token, phone));
    await assert.rejects(trust.judge(laptop.peerId, await member(theirs, laptop)), { code: 'denied' });
    const others = await newOwner();
    await trust.share(await share(theirs, laptop, others));
    assert.equal(await trust.learn(theirs.keys.id, theirs.keys.records, []), false);
    assert.equal(stranger.saves, saves);
    assert.equal(trust.recordsOf(theirs.keys.id), null);
    assert.deepEqual(trust.shares, []);
    assert.deepEqual(Object.keys(stranger.saved?.owners ?? {}), [mine.keys.id]);
  });
});

describe('my own membership', () => {
  it('is the newest of my owner', async () => {
    const me = await peer();
    const next = await member(mine, self, { serial: 3 });
    assert.equal(await me.trust.adopt(next), true);
    assert.equal(await me.trust.adopt(await member(mine, self, { serial: 2, rights: adminRights })), false);
    assert.equal(await me.trust.adopt(next), false);
    assert.equal(me.trust.membership, next);
    assert.equal(me.trust.owner, mine.keys.id);
    assert.deepEqual(
      me.told('membership').map(({ membership }) => membership.serial),
      [1, 3],
    );
  });

  it('takes the place of the chain it came from, and no chain takes its own', async () => {
    const { token, jti } = await newToken(mine);
    const chain = await enroll(token, self);
    const { trust } = await TrustOfPeer.create(self, chain);
    assert.equal(trust.proven?.provisional, true);
    assert.equal(await trust.adopt(await member(mine, self, { jti })), true);
    assert.equal(await trust.adopt(chain), false);
    assert.equal(trust.proven?.provisional, false);
  });

  it('is never of another owner or for another device', async () => {
    const { trust } = await peer();
    await assert.rejects(trust.adopt(await member(theirs, self, { serial: 9 })), { code: 'already_owned' });
    await assert.rejects(trust.adopt(await member(mine, laptop, { serial: 9 })), invalid);
    assert.equal(trust.owner, mine.keys.id);
  });

  it('does not go back to an older one that was left in a file', async () => {
    const me = await peer();
    await me.trust.adopt(await member(mine, self, { serial: 3 }));
    await me.restart(ownMembership);
    assert.equal(me.trust.proven?.serial, 3);
  });

  it('tells a revoked device that it is revoked, also after a restart', async () => {
    const me = await peer();
    const entry = await signRevocation(mine.keys, [], { kind: 'device', subject: self.peerId, now });
    await me.trust.learn(mine.keys.id, undefined, [entry]);
    assert.equal(me.trust.problem?.code, 'revoked');
    await assert.rejects(me.trust.adopt(await member(mine, self, { serial: 2 })), { code: 'revoked' });
    assert.equal(me.trust.proven?.serial, 1);
    await assert.rejects(me.restart(ownMembership), { code: 'revoked' });
    assert.equal(me.trust.membership, null);
  });

  it('of another owner than before drops what concerned that one', async () => {
    const me = await peer();
    await me.trust.share(await share(mine, self, theirs));
    const newcomer = await newOwner();
    await me.restart(await member(newcomer, self));
    assert.deepEqual(Object.keys(me.saved?.owners ?? {}), [newcomer.keys.id]);
    assert.deepEqual(me.saved?.shares, []);
  });
});

describe('a token', () => {
  it('is its first redeemer’s: a second is refused and told of once', async () => {
    const me = await peer();
    const { token, jti } = await newToken(mine);
    await me.trust.judge(laptop.peerId, await enroll(token, laptop));
    const second = await enroll(token, phone);
    for (const trust of [me.trust, me.trust])
      await assert.rejects(trust.judge(phone.peerId, second), {
        ...invalid,
        message: 'The setup token was redeemed by another device first',
      });
    assert.deepEqual(me.told('second_redeemer'), [
      {
        kind: 'second_redeemer',
        owner: mine.keys.id,
        jti,
        first: laptop.peerId,
        second: phone.peerId,
      },
    ]);
    assert.deepEqual(
      me.told('claim').map(({ redeemer, scope }) => [redeemer, scope]),
      [[laptop.peerId, 'enroll']],
    );
    await (await me.restart(ownMembership)).judge(laptop.peerId, await enroll(token, laptop));
    await assert.rejects(me.trust.judge(phone.peerId, second), invalid);
  });

  it('of which the owner signed a membership is that device’s, though I never saw its claim', async () => {
    const me = await peer();
    const { token, jti } = await newToken(mine);
    await me.trust.judge(laptop.peerId, await member(mine, laptop, { jti }));
    await assert.rejects(me.trust.judge(phone.peerId, await enroll(token, phone)), invalid);
  });

  it('is whose the owner says, even when I saw another redeemer first', async () => {
    const me = await peer();
    const { token, jti } = await newToken(mine);
    const thief = await me.trust.judge(phone.peerId, await enroll(token, phone));
    const owner = await me.trust.judge(laptop.peerId, await member(mine, laptop, { jti }));
    assert.equal(me.trust.objection(owner), null);
    assert.equal(me.trust.objection(thief)?.code, 'membership_invalid');
    assert.deepEqual(
      me.told('second_redeemer').map(({ first, second }) => [first, second]),
      [[laptop.peerId, phone.peerId]],
    );
    await assert.rejects(me.trust.judge(phone.peerId, await enroll(token, phone)), invalid);
    assert.equal(me.told('second_redeemer').length, 1);
  });

  it('for which the owner signed two devices in lets both in', async () => {
    const { trust } = await peer();
    const { token, jti } = await newToken(mine);
    await trust.judge(laptop.peerId, await member(mine, laptop, { jti }));
    await trust.judge(phone.peerId, await member(mine, phone, { jti }));
    assert.equal((await trust.judge(laptop.peerId, await enroll(token, laptop))).relation, 'own');
  });

  it('that two show at the same time lets one in', async () => {
    const { trust } = await peer();
    const { token } = await newToken(mine);
    const outcomes = await Promise.allSettled([
      trust.judge(laptop.peerId, await enroll(token, laptop)),
      trust.judge(phone.peerId, await enroll(token, phone)),
    ]);
    assert.deepEqual(outcomes.map(({ status }) => status).toSorted(), ['fulfilled', 'rejected']);
  });
});

describe('an older proof', () => {
  it('with a lower serial is refused, also after a restart', async () => {
    const me = await peer();
    const older = await member(mine, laptop, { rights: adminRights });
    await me.trust.judge(laptop.peerId, await member(mine, laptop, { serial: 2 }));
    await assert.rejects(me.trust.judge(laptop.peerId, older), invalid);
    await me.restart(ownMembership);
    await assert.rejects(me.trust.judge(laptop.peerId, older), invalid);
    await me.trust.judge(laptop.peerId, await member(mine, laptop, { serial: 2 }));
  });

  it('that ended does not make room for one before it', async () => {
    const me = await peer();
    await me.trust.judge(laptop.peerId, await member(mine, laptop, { serial: 2, expires: now + 60 }));
    me.clock.step(61_000);
    await assert.rejects(me.trust.judge(laptop.peerId, await member(mine, laptop)), invalid);
  });

  it('that is the chain of a device still lets it in, but with what was signed for it since', async () => {
    const me = await peer();
    const { token, jti } = await newToken(mine, { rights: [...memberRights, ...adminRights] });
    const chain = await enroll(token, laptop);
    const narrow = narrowRights(['grafana'], []);
    const signed = await member(mine, laptop, { rights: narrow, jti, expires: now + 60 });
    await me.trust.judge(laptop.peerId, chain);
    await me.trust.judge(laptop.peerId, signed);
    await me.restart(ownMembership);
    const standing = await me.trust.judge(laptop.peerId, chain);
    assert.deepEqual(standing.rights, narrow);
    assert.equal(standing.expires, now + 60);
    me.clock.step(61_000);
    await assert.rejects(me.trust.judge(laptop.peerId, chain), { code: 'membership_expired' });
  });

  it('is not the chain of a token that was made later', async () => {
    const { trust } = await peer();
    const later = await newToken(mine, { rights: adminRights, granted: now + 10 });
    const before = await newToken(mine, { rights: adminRights, granted: now - 10 });
    await trust.judge(laptop.peerId, await member(mine, laptop));
    const again = await trust.judge(laptop.peerId, await enroll(later.token, laptop, now + 10));
    assert.deepEqual(again.rights, adminRights);
    const old = await trust.judge(laptop.peerId, await enroll(before.token, laptop));
    assert.deepEqual(old.rights, memberRights);
  });

  it('that is a chain ends after a week', async () => {
    const me = await peer();
    const chain = await enroll((await newToken(mine)).token, laptop);
    const standing = await me.trust.judge(laptop.peerId, chain);
    assert.equal(standing.expires, now + provisionalSeconds);
    me.clock.step(provisionalSeconds * 1000);
    assert.equal(me.trust.objection(standing)?.code, 'membership_expired');
  });
});

describe('a rotation', () => {
  it('is learned from whoever shows it, and ends what was signed before', async () => {
    const me = await peer();
    const next = await rotated(mine);
    const before = await me.trust.judge(laptop.peerId, await member(mine, laptop));
    await me.trust.judge(phone.peerId, await member(next, phone));
    assert.deepEqual(me.told('rotation'), [{ kind: 'rotation', owner: mine.keys.id, epoch: 1 }]);
    assert.deepEqual(me.trust.recordsOf(mine.keys.id), next.keys.records);
    assert.equal(me.trust.objection(before)?.code, 'membership_invalid');
    assert.equal(me.trust.problem?.code, 'membership_invalid');
    const old = await member(mine, laptop, { serial: 9 });
    await assert.rejects(me.trust.judge(laptop.peerId, old), invalid);
    await me.restart(ownMembership);
    await assert.rejects(me.trust.judge(laptop.peerId, old), invalid);
    await me.trust.judge(laptop.peerId, await member(next, laptop));
    assert.equal(await me.trust.adopt(await member(next, self)), true);
    assert.equal(me.trust.problem, null);
  });

  it('leaves the tokens that it keeps', async () => {
    const { trust } = await peer();
    const [kept, lost] = [await newToken(mine), await newToken(mine)];
    const next = await rotated(mine, [kept.grantHash]);
    await trust.learn(mine.keys.id, next.keys.records, []);
    await trust.judge(laptop.peerId, await enroll(kept.token, laptop));
    await assert.rejects(trust.judge(phone.peerId, await enroll(lost.token, phone)), invalid);
  });

  it('is the first that was seen: another record of the same epoch is refused', async () => {
    const { trust } = await peer();
    const [next, other] = [await rotated(mine), await rotated(mine)];
    await trust.learn(mine.keys.id, next.keys.records, []);
    await assert.rejects(trust.judge(laptop.peerId, await member(other, laptop)), invalid);
    await assert.rejects(trust.adopt(await member(other, self, { serial: 2 })), invalid);
    await assert.rejects(trust.learn(mine.keys.id, (await rotated(other)).keys.records, []), invalid);
    assert.deepEqual(trust.recordsOf(mine.keys.id), next.keys.records);
    await trust.learn(mine.keys.id, mine.keys.records, []);
    assert.deepEqual(trust.recordsOf(mine.keys.id), next.keys.records);
  });

  it('that comes while old revocations are learned ends them', async () => {
    const me = await peer();
    const list: string[] = [];
    for (let n = 0; n < 30; n++)
      list.push(await signRevocation(mine.keys, list, { kind: 'token', subject: `token ${n}`, now }));
    const { records } = (await rotated(mine)).keys;
    await Promise.all([
      me.trust.learn(mine.keys.id, undefined, list),
      me.trust.learn(mine.keys.id, records, []),
    ]);
    const kinds = me.events.map(({ kind }) => kind);
    assert.ok(kinds.lastIndexOf('revocation') < kinds.indexOf('rotation'));
    assert.deepEqual(me.trust.revocations(mine.keys.id), []);
  });

  it('of another owner is not mine', async () => {
    const { trust } = await peer();
    const next = await rotated(theirs);
    await assert.rejects(trust.learn(mine.keys.id, next.keys.records, []), invalid);
    assert.deepEqual(trust.recordsOf(mine.keys.id), mine.keys.records);
  });

  it('begins the revocations anew: who was given a new membership is in again', async () => {
    const { trust } = await peer();
    const entry = await signRevocation(mine.keys, [], { kind: 'device', subject: laptop.peerId, now });
    await trust.learn(mine.keys.id, undefined, [entry]);
    const next = await rotated(mine);
    assert.equal(await trust.learn(mine.keys.id, next.keys.records, []), true);
    assert.deepEqual(trust.revocations(mine.keys.id), []);
    assert.equal(await trust.learn(mine.keys.id, undefined, [entry]), false);
    await trust.judge(laptop.peerId, await member(next, laptop));
    const again = await signRevocation(next.keys, [], { kind: 'device', subject: laptop.peerId, now });
    await trust.learn(mine.keys.id, undefined, [again]);
    await assert.rejects(trust.judge(laptop.peerId, await member(next, laptop)), { code: 'revoked' });
  });
});

describe('time', () => {
  it('does not go back with the clock behind what my owner has signed, also after a restart', async () => {
    const me = await peer();
    const ended = await member(mine, laptop, { expires: now + 60 });
    me.clock.step(120_000);
    await me.trust.judge(phone.peerId, await member(mine, phone, { now: now + 120 }));
    const behind = new SteppedClock((now - 30 * day) * 1000);
    await me.restart(ownMembership, behind);
    assert.equal(me.trust.now, now + 120);
    await assert.rejects(me.trust.judge(laptop.peerId, ended), { code: 'membership_expired' });
    // A clock that is so wrong says nothing about others.
    await me.trust.judge(phone.peerId, await member(mine, phone, { serial: 2, now: now + 3 * day }));
    assert.equal(me.trust.now, now + 3 * day);
  });

  it('is moved by my owner’s clocks a day ahead at most', async () => {
    const { trust } = await peer();
    await trust.judge(laptop.peerId, await member(mine, laptop, { now: now + day }));
    assert.equal(trust.now, now + day);
    await trust.judge(phone.peerId, await member(mine, phone, { now: now + 365 * day }));
    const entry = await signRevocation(mine.keys, [], {
      kind: 'device',
      subject: laptop.peerId,
      now: now + 365 * day,
    });
    await trust.learn(mine.keys.id, undefined, [entry]);
    assert.equal(trust.now, now + day);
  });

  it('is not moved by another owner', async () => {
    const { trust } = await peer();
    await trust.share(await share(mine, self, theirs));
    await trust.judge(laptop.peerId, await member(theirs, laptop, { now: now + 3600 }));
    assert.equal(trust.now, now);
  });
});
