import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  generateSigningKey,
  limits,
  memberRights,
  signRevocation,
  verifyMembership,
  verifyOwnerRecords,
} from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { KnownOwner } from './known-owner.ts';
import { FirstRedeemers } from './first-redeemers.ts';
import { member, newOwner, now, rotated, share, TrustOfPeer } from './trust-parties.contract.ts';
import type { TrustState } from './trust.ts';
import { Trust } from './trust.ts';

const [mine, friend] = [await newOwner(), await newOwner()];
const [self, laptop] = [await generateSigningKey(), await generateSigningKey()];
const ownMembership = await member(mine, self);

/** Of a cocoon with something of everything. */
async function fullState(): Promise<TrustState> {
  const me = await TrustOfPeer.create(self, ownMembership);
  const list: string[] = [];
  for (let n = 0; n < 5; n++)
    list.push(await signRevocation(mine.keys, list, { kind: 'token', subject: `token ${n}`, now }));
  await me.trust.learn(mine.keys.id, undefined, [...list.slice(0, 3), ...list.slice(4)]);
  await me.trust.judge(laptop.peerId, await member(friend, laptop), await share(mine, self, friend));
  assert.ok(me.saved);
  return me.saved;
}

const empty = { revocations: [], loose: [], memberships: [], redeemers: {} };
const good = await fullState();
const own = good.owners[mine.keys.id];
assert.ok(own);

/** The state with something else known of my owner. */
function withOwner(change: Partial<typeof own>): unknown {
  return { ...good, owners: { ...good.owners, [mine.keys.id]: { ...own, ...change } } };
}

async function open(state: unknown, saved: TrustState[] = []): Promise<Trust> {
  return Trust.open({
    clock: new SteppedClock(),
    self: self.peerId,
    state,
    save: (next) => saved.push(next),
    report: () => {},
  });
}

describe('what was saved', () => {
  it('is all there after a restart, and saved the same', async () => {
    const saved: TrustState[] = [];
    const trust = await open(JSON.parse(JSON.stringify(good)), saved);
    await trust.adopt(await member(mine, self, { serial: 2 }));
    const [again] = saved;
    assert.deepEqual(again?.shares, good.shares);
    assert.deepEqual(again?.time, good.time);
    assert.deepEqual(again?.owners[friend.keys.id], good.owners[friend.keys.id]);
    assert.deepEqual({ ...again?.owners[mine.keys.id], memberships: [] }, { ...own, memberships: [] });
    assert.equal(own?.loose.length, 1);
    assert.equal((await trust.judge(laptop.peerId, await member(friend, laptop))).relation, 'co-owner');
  });

  it('is not read when anything in it is none or not signed', async () => {
    const [first = '', second = '', third = ''] = own?.revocations ?? [];
    const [loose = ''] = own?.loose ?? [];
    const foreign = await signRevocation(friend.keys, [], { kind: 'token', subject: 'x', now });
    const [proof] = good.shares;
    assert.ok(proof?.kind === 'claim');
    const damages: Record<string, unknown> = {
      'no object': 'x',
      'no version': { ...good, v: undefined },
      'a time that is none': { ...good, time: -1 },
      'records of another owner': withOwner({ records: friend.keys.records }),
      'another owner’s records': {
        ...good,
        owners: { ...good.owners, [(await newOwner()).keys.id]: { ...empty, records: friend.keys.records } },
      },
      'an early entry with another signature': withOwner({
        revocations: [swapSignature(first, third), second, third],
      }),
      'an entry left out': withOwner({ revocations: [first, third] }),
      'the first entry left out': withOwner({ revocations: [second, third] }),
      'an entry with another signature': withOwner({
        revocations: [first, swapSignature(second, third), third],
      }),
      'a last entry that is not signed': withOwner({ revocations: [first, swapSignature(second, third)] }),
      'a foreign entry': withOwner({ revocations: [foreign] }),
      'a loose entry that is not signed': withOwner({ loose: [swapSignature(loose, third)] }),
      'a foreign loose entry': withOwner({ loose: [foreign] }),
      'a foreign membership': withOwner({ memberships: [jwsOf(await member(friend, laptop))] }),
      'a membership of another epoch': withOwner({
        memberships: [jwsOf(await member(await rotated(mine), laptop))],
      }),
      'a redeemer that is none': withOwner({
        redeemers: { [Object.keys(own?.redeemers ?? {})[0] ?? '']: 'x' },
      }),
      'a share that is not signed': { ...good, shares: [{ ...proof, receipt: first }] },
    };
    for (const [name, state] of Object.entries(damages)) {
      const saved: TrustState[] = [];
      await assert.rejects(open(state, saved), { code: 'database_corrupt' }, name);
      assert.deepEqual(saved, []);
    }
  });

  it('by a newer version is left to it', async () => {
    await assert.rejects(open({ ...good, v: 2 }), { code: 'database_newer' });
  });

  it('holds so many first redeemers, the newest', () => {
    const redeemers = new FirstRedeemers();
    for (let n = 0; n <= limits.maxKnownRedeemers; n++) redeemers.set(`token ${n}`, 'x');
    assert.equal(redeemers.get('token 0'), undefined);
    assert.equal(Object.keys(redeemers.state()).length, limits.maxKnownRedeemers);
    assert.equal(redeemers.get(`token ${limits.maxKnownRedeemers}`), 'x');
  });

  it('holds so many memberships of one owner, and rather those that stand', async () => {
    const owner = new KnownOwner(await verifyOwnerRecords(mine.keys.records), {
      report: () => {},
      changed: () => {},
      maxRevocations: () => limits.maxRevocations,
    });
    const one = await verifyMembership(ownMembership, self.peerId, now);
    const admit = (peerId: string, serial: number, expires: number | null = null) =>
      owner.admit({ ...one, peerId, serial, expires }, `${peerId} ${serial}`, now);
    const held = () => owner.state().memberships;
    for (let n = 0; n < limits.maxKnownMemberships; n++) admit(`device ${n}`, 1, n === 5 ? now + 1 : null);
    admit('device 0', 2);
    assert.equal(held().length, limits.maxKnownMemberships);
    owner.admit({ ...one, peerId: 'late', serial: 1 }, 'late 1', now + 1);
    assert.equal(owner.signedMembership('device 5'), undefined);
    admit('later', 1);
    assert.equal(owner.signedMembership('device 1'), undefined);
    assert.equal(held().length, limits.maxKnownMemberships);
    assert.equal(held().includes('device 0 2'), true);
  });

  it('is saved once for each thing that changed, and not for what changed nothing', async () => {
    const me = await TrustOfPeer.create(self, ownMembership);
    assert.equal(me.saves, 1);
    const proof = await member(mine, laptop, { rights: memberRights, now: now + 1 });
    await me.trust.judge(laptop.peerId, proof);
    assert.equal(me.saves, 2);
    await me.trust.judge(laptop.peerId, proof);
    assert.equal(me.saves, 2);
  });
});

function swapSignature(jws: string, other: string): string {
  return [...jws.split('.').slice(0, 2), other.split('.')[2]].join('.');
}

function jwsOf(proof: Awaited<ReturnType<typeof member>>): string {
  return proof.kind === 'membership' ? proof.membership : '';
}
