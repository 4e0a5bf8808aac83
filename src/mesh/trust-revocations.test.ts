import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { OwnerKeys, Revocation, RevocationMessage } from '@cocoon-mesh/protocol';
import {
  fromBase64Url,
  fromUtf8,
  generateSigningKey,
  limits,
  peekRevocation,
  signRevocation,
  toBase64Url,
  utf8,
} from '@cocoon-mesh/protocol';
import type { Trust } from './trust.ts';
import type { Party } from './trust-parties.contract.ts';
import {
  enroll,
  member,
  newOwner,
  newToken,
  now,
  rotated,
  share,
  TrustOfPeer,
} from './trust-parties.contract.ts';

const mine = await newOwner();
const id = mine.keys.id;
const [self, laptop] = [await generateSigningKey(), await generateSigningKey()];
const ownMembership = await member(mine, self);
const isLie = { code: 'bad_signature' };

/** Tokens that never were, so that many entries cost no keys. */
async function longer(owner: OwnerKeys, list: readonly string[], count: number, from = 0): Promise<string[]> {
  const longerList = [...list];
  for (let n = 0; n < count; n++) {
    const subject = `token ${from + n}`;
    longerList.push(await signRevocation(owner, longerList, { kind: 'token', subject, now }));
  }
  return longerList;
}

const revokesLaptop = (owner: OwnerKeys, list: readonly string[]) =>
  signRevocation(owner, list, { kind: 'device', subject: laptop.peerId, now });
const three = await longer(mine.keys, [], 3);
const [one = '', two = '', last = ''] = three;

async function peer(list: readonly string[] = [], owner: Party = mine): Promise<TrustOfPeer> {
  const made = await TrustOfPeer.create(self, await member(owner, self));
  await made.trust.learn(owner.keys.id, undefined, list);
  return made;
}

/** As two peers do it over a session. @returns how often was asked */
async function catchUp(learner: Trust, teller: Trust, most = 50): Promise<number> {
  const heads = teller.helloRevocations(null);
  for (const { owner, entries } of heads) await learner.learn(owner, undefined, entries);
  for (let asked = 0; asked < most; asked++) {
    const [ask] = learner.missing(heads);
    if (!ask) return asked;
    const tell = teller.tell(ask.owner, ask.epoch, ask.after);
    assert.ok(tell);
    if (!(await learner.learn(tell.owner, tell.records, tell.list))) return asked + 1;
  }
  throw new Error('It never ends');
}

describe('revocations', () => {
  it('are learned in pieces that overlap, and told of once each', async () => {
    const me = await peer();
    assert.equal(await me.trust.learn(id, undefined, [one]), true);
    assert.equal(await me.trust.learn(id, undefined, [one, two]), true);
    assert.equal(await me.trust.learn(id, undefined, [two, last]), true);
    assert.equal(await me.trust.learn(id, undefined, three), false);
    assert.deepEqual(me.trust.revocations(id), three);
    assert.deepEqual(
      me.told('revocation').map(({ entry }) => entry.n),
      [1, 2, 3],
    );
    await me.restart(ownMembership);
    assert.deepEqual(me.trust.revocations(id), three);
    assert.equal(await me.trust.learn(id, undefined, three), false);
  });

  it('that come twice at the same time are taken once', async () => {
    const me = await peer();
    await Promise.all([me.trust.learn(id, undefined, three), me.trust.learn(id, undefined, three)]);
    assert.deepEqual(me.trust.revocations(id), three);
    assert.equal(me.told('revocation').length, 3);
  });

  it('count at once, also where entries before them are missing', async () => {
    const me = await peer();
    const standing = await me.trust.judge(laptop.peerId, await member(mine, laptop));
    const fourth = await revokesLaptop(mine.keys, three);
    assert.equal(await me.trust.learn(id, undefined, [last, fourth]), true);
    assert.equal(me.trust.objection(standing)?.code, 'revoked');
    assert.deepEqual(me.trust.revocations(id), []);
    await me.restart(ownMembership);
    await assert.rejects(me.trust.judge(laptop.peerId, await member(mine, laptop)), { code: 'revoked' });
    assert.equal(await me.trust.learn(id, undefined, [one, two]), true);
    assert.deepEqual(me.trust.revocations(id), [...three, fourth]);
    assert.deepEqual(me.saved?.owners[id]?.loose, []);
  });

  it('that prove nothing are refused, and what came before them stays', async () => {
    const { trust } = await peer();
    const stranger = await newOwner();
    const content = { kind: 'device', subject: laptop.peerId, now } as const;
    const lies = [
      await signRevocation(stranger.keys, [], content),
      await signRevocation({ ...stranger.keys, id }, [], content),
      altered(two, { subject: 'token 7' }),
      altered(one, { n: 3 }),
      altered(last, { previous: undefined }),
    ];
    for (const lie of lies) await assert.rejects(trust.learn(id, undefined, [one, lie]), isLie);
    assert.deepEqual(trust.revocations(id), [one]);
    await trust.judge(laptop.peerId, await member(mine, laptop));
  });

  it('of which the owner signed two with one number all count, and the first list stays', async () => {
    const me = await peer([one]);
    const standing = await me.trust.judge(laptop.peerId, await member(mine, laptop));
    const fork = await revokesLaptop(mine.keys, [one]);
    const afterFork = await longer(mine.keys, [one, fork], 1, 10);
    await me.trust.learn(id, undefined, [two, last]);
    assert.equal(await me.trust.learn(id, undefined, afterFork), true);
    assert.equal(me.trust.objection(standing)?.code, 'revoked');
    assert.deepEqual(me.trust.revocations(id), three);
    await me.restart(ownMembership);
    await assert.rejects(me.trust.judge(laptop.peerId, await member(mine, laptop)), { code: 'revoked' });
    assert.equal(me.told('revocation').length, 5);
    assert.deepEqual(me.trust.tell(id, 0, 2)?.list, [last, ...afterFork.slice(1)]);
    // Both branches go on to whoever meets this peer.
    const other = await peer(three);
    await catchUp(other.trust, me.trust);
    await assert.rejects(other.trust.judge(laptop.peerId, await member(mine, laptop)), { code: 'revoked' });
  });

  it('of a kind that is not known are kept and end nothing', async () => {
    const { trust } = await peer();
    const kind = 'service' as unknown as 'device';
    const unknown = await signRevocation(mine.keys, [], { kind, subject: laptop.peerId, now });
    await trust.learn(id, undefined, await longer(mine.keys, [unknown], 1));
    assert.equal(trust.revocations(id).length, 2);
    await trust.judge(laptop.peerId, await member(mine, laptop));
  });

  it('of an owner that I share nothing with are not taken', async () => {
    const me = await peer();
    const stranger = await newOwner();
    const { saves } = me;
    const list = await longer(stranger.keys, [], 1);
    assert.equal(await me.trust.learn(stranger.keys.id, stranger.keys.records, list), false);
    assert.equal(me.saves, saves);
    assert.equal(me.trust.tell(stranger.keys.id, 0, 0), null);
    assert.deepEqual(me.trust.helloRevocations(stranger.keys.id), me.trust.helloRevocations(null));
  });
});

describe('in HELLO', () => {
  it('go the head and the newest entries, of my owner and of the peer’s', async () => {
    const friend = await newOwner();
    const list = await longer(mine.keys, [], limits.maxHelloRevocations + 2);
    const { trust } = await peer(list);
    await trust.share(await share(mine, self, friend));
    await trust.learn(friend.keys.id, undefined, await longer(friend.keys, [], 1));
    const [own, theirs, ...others] = trust.helloRevocations(friend.keys.id);
    assert.equal(own?.n, list.length);
    assert.deepEqual(own?.entries, list.slice(2));
    assert.deepEqual([theirs?.owner, theirs?.n, theirs?.entries.length], [friend.keys.id, 1, 1]);
    assert.deepEqual(others, []);
    assert.equal(trust.helloRevocations(null).length, 1);
    assert.equal(trust.helloRevocations(id).length, 1);
  });
});

describe('what is missing', () => {
  it('is nothing when the newest entries reach what is known', async () => {
    const teller = await peer(three);
    const learner = await peer([one]);
    assert.equal(await catchUp(learner.trust, teller.trust), 0);
    assert.deepEqual(learner.trust.revocations(id), three);
    assert.equal(await catchUp(teller.trust, learner.trust), 0);
  });

  it('is asked for, piece by piece, until both know the same', async () => {
    const list = await longer(mine.keys, [], 2 * limits.maxRevocationsPerMessage + 40);
    const teller = await peer(list);
    const learner = await peer(list.slice(0, 3));
    assert.equal(await catchUp(learner.trust, teller.trust), 3);
    assert.deepEqual(learner.trust.revocations(id), list);
    assert.deepEqual(learner.saved?.owners[id]?.loose, []);
  });

  it('is found from where two lists of one owner parted', async () => {
    const left = await longer(mine.keys, [], limits.maxRevocationsPerMessage + 50);
    const right = await longer(mine.keys, left.slice(0, 3), limits.maxRevocationsPerMessage + 50, 1000);
    const [teller, learner] = [await peer(right), await peer(left)];
    await catchUp(learner.trust, teller.trust);
    assert.deepEqual(learner.trust.revocations(id), left);
    assert.equal(learner.saved?.owners[id]?.loose.length, right.length - 3);
    assert.deepEqual(learner.trust.missing(teller.trust.helloRevocations(null)), []);
  });

  it('ends with a peer that has less than it says', async () => {
    const { trust } = await peer([one]);
    const teller = await peer([one]);
    const [head] = teller.trust.helloRevocations(null);
    assert.ok(head);
    const boast = { ...head, n: 5000, hash: toBase64Url(new Uint8Array(32)) };
    const [ask] = trust.missing([boast]);
    assert.deepEqual(ask, { kind: 'ask', owner: id, epoch: 0, after: 4900 });
    const tell: RevocationMessage | null = teller.trust.tell(id, 0, 4900);
    assert.deepEqual(tell?.kind === 'tell' ? tell.list : null, []);
    const unknown = { ...boast, owner: (await newOwner()).keys.id };
    assert.deepEqual(trust.missing([unknown]), []);
  });

  it('is told with the records after a rotation, and old epochs are not asked for', async () => {
    const next = await rotated(mine);
    const teller = await peer([], next);
    const list = await longer(next.keys, [], 2);
    await teller.trust.learn(id, undefined, list);
    const learner = await peer(three);
    assert.deepEqual(learner.trust.missing(teller.trust.helloRevocations(null)), [
      { kind: 'ask', owner: id, epoch: 1, after: 0 },
    ]);
    const [head] = teller.trust.helloRevocations(null);
    assert.ok(head);
    const long = { ...head, n: 500, hash: toBase64Url(new Uint8Array(32)) };
    assert.equal(learner.trust.missing([long])[0]?.after, 0);
    assert.deepEqual(teller.trust.missing(learner.trust.helloRevocations(null)), []);
    // Whoever asks for the old list hears of the rotation.
    const tell = teller.trust.tell(id, 0, 3);
    assert.deepEqual([tell?.after, tell?.list], [0, list]);
    assert.equal(await catchUp(learner.trust, teller.trust), 1);
    assert.deepEqual(learner.trust.revocations(id), list);
    assert.deepEqual(learner.trust.recordsOf(id), next.keys.records);
  });
});

/** With another field and the old signature. */
function altered(jws: string, change: Partial<Record<keyof Revocation, unknown>>): string {
  const [header, payload = '', signature] = jws.split('.');
  const content = { ...(JSON.parse(fromUtf8(fromBase64Url(payload))) as object), ...change };
  const text = `${header}.${toBase64Url(utf8(JSON.stringify(content)))}.${signature}`;
  assert.notDeepEqual(peekRevocation(text), peekRevocation(jws));
  return text;
}

describe('a rotation after a theft of the secret', () => {
  it('gives back what the thief has revoked by signing it anew, and the rest stays ended, also before the new list is here', async () => {
    const me = await peer([]);
    const phone = await generateSigningKey();
    const kept = await member(mine, phone);
    await me.trust.judge(phone.peerId, kept);
    const thiefs = await signRevocation(mine.keys, [], { kind: 'device', subject: phone.peerId, now });
    const itself = await signRevocation(mine.keys, [thiefs], { kind: 'device', subject: self.peerId, now });
    await me.trust.learn(id, undefined, [thiefs, itself]);
    assert.equal(me.trust.problem?.code, 'revoked');
    assert.equal(me.trust.signedMembership(phone.peerId)?.peerId, phone.peerId);
    const next = await rotated(mine);
    await me.trust.learn(id, next.keys.records, []);
    await assert.rejects(me.trust.judge(phone.peerId, kept), { code: 'membership_invalid' });
    await me.trust.judge(phone.peerId, await member(next, phone));
    assert.equal(await me.trust.adopt(await member(next, self)), true);
    assert.equal(me.trust.problem, null);
  });

  it('leaves a kept token ended that was ended before, until the new list says so itself', async () => {
    const { token, grantHash, jti } = await newToken(mine);
    const phone = await generateSigningKey();
    const me = await peer([]);
    await me.trust.learn(id, undefined, [
      await signRevocation(mine.keys, [], { kind: 'token', subject: jti, now }),
    ]);
    const next = await rotated(mine, [grantHash]);
    await me.trust.learn(id, next.keys.records, []);
    await assert.rejects(me.trust.judge(phone.peerId, await enroll(token, phone)), { code: 'revoked' });
  });

  it('finds a device that was revoked still to be its own, at its next start as well', async () => {
    const me = await peer([]);
    const own = await member(mine, self);
    await me.trust.learn(id, undefined, [
      await signRevocation(mine.keys, [], { kind: 'device', subject: self.peerId, now }),
    ]);
    const again = await me.restart();
    await assert.rejects(again.adopt(own), { code: 'revoked' });
    await again.adopt(own, true);
    assert.deepEqual([again.owner, again.problem?.code], [id, 'revoked']);
  });
});

describe('an owner that is not mine', () => {
  it('makes me keep so many of its revocations and no more, and mine keeps its own', async () => {
    const eve = await newOwner();
    const me = await peer([]);
    await me.trust.share(await share(mine, self, eve));
    const list = await longer(eve.keys, [], limits.maxForeignRevocations + 1);
    await assert.rejects(me.trust.learn(eve.keys.id, undefined, list), { code: 'message_too_large' });
    assert.equal(me.trust.revocations(eve.keys.id).length, limits.maxForeignRevocations);
    const own = await longer(mine.keys, [], limits.maxForeignRevocations + 1);
    await me.trust.learn(id, undefined, own);
    await me.restart(ownMembership);
    assert.equal(me.trust.revocations(id).length, own.length);
  });

  it('fills nothing with entries behind one that it never shows', async () => {
    const eve = await newOwner();
    const me = await peer([]);
    await me.trust.share(await share(mine, self, eve));
    const [, ...loose] = await longer(eve.keys, [], limits.maxForeignRevocations + 2);
    await assert.rejects(me.trust.learn(eve.keys.id, undefined, loose), { code: 'message_too_large' });
    const kept = me.saved?.owners[eve.keys.id];
    assert.deepEqual([kept?.revocations.length, kept?.loose.length], [0, limits.maxForeignRevocations]);
    await me.restart(ownMembership);
    await assert.rejects(me.trust.learn(eve.keys.id, undefined, loose.slice(-1)), {
      code: 'message_too_large',
    });
  });

  it('is forgotten when my owner has ended all it was given, and not when it gave that back itself', async () => {
    for (const [by, kind] of [
      ['mine', 'owner'],
      ['theirs', 'share'],
    ] as const) {
      const eve = await newOwner();
      const me = await peer([]);
      const proof = await share(mine, self, eve);
      await me.trust.share(proof);
      const [granting, subject] = by === 'mine' ? [mine, eve.keys.id] : [eve, self.peerId];
      const entry = await signRevocation(granting.keys, [], { kind, subject, now });
      await me.trust.learn(granting.keys.id, undefined, [entry]);
      assert.equal(me.trust.recordsOf(eve.keys.id) === null, by === 'mine');
      await assert.rejects(me.trust.share(proof), { code: 'revoked' });
      const more = await longer(eve.keys, [], 3);
      assert.equal(await me.trust.learn(eve.keys.id, eve.keys.records, more), by === 'theirs');
    }
  });
});
