import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { MeshError, MembershipProof } from '@cocoon-mesh/protocol';
import { verifyOwnerRecords } from '@cocoon-mesh/protocol';
import { openDatabase } from './open-database.ts';
import type { StoredMembership } from './store.ts';
import { Store, newerMembership } from './store.ts';
import { newOwner } from './test-client.ts';

const proof: MembershipProof = { kind: 'membership', records: [], membership: 'a.b.c' };
const base: StoredMembership = {
  owner: 'own',
  peerId: 'peer',
  epoch: 0,
  serial: 1,
  provisional: false,
  expires: null,
  jti: 'token',
  proof,
};
const claim: StoredMembership = { ...base, serial: 0, provisional: true };

describe('of two memberships of a device', () => {
  for (const [what, known, shown, counts] of [
    ['a first one', null, claim, 'shown'],
    ['a higher serial', base, { ...base, serial: 2 }, 'shown'],
    ['a lower serial', { ...base, serial: 2 }, base, 'known'],
    ['a lower serial of a new epoch', { ...base, serial: 2 }, { ...base, epoch: 1 }, 'shown'],
    ['a membership after the claim', claim, base, 'shown'],
    ['the claim that a membership replaced', base, claim, 'known'],
    ['a claim by another token', base, { ...claim, jti: 'other' }, 'shown'],
  ] as const)
    test(`${what}: the one that is ${counts} counts`, () => {
      const expected = counts === 'known' ? known : shown;
      assert.equal(newerMembership(known, shown), expected);
    });
});

test('a claim chain of anybody but the first redeemer is refused, whoever signed its receipt', async () => {
  const store = new Store(await openDatabase('sqlite::memory:'));
  try {
    const owner = await verifyOwnerRecords((await newOwner()).records);
    const used = { jti: 'token', scope: 'enroll', grantHash: 'hash', receipt: 'a.b.c', claimedAt: 1 };
    await store.claimToken({ ...used, owner: owner.id, redeemer: 'first' }, owner, 10);
    const device = (peerId: string) => ({
      seq: 1,
      record: 'a.b.c',
      lastSeen: 1,
      membership: { ...claim, owner: owner.id, peerId },
    });
    const limits = { nowSeconds: 1, maxDevices: 10 };
    await store.admit(device('first'), owner, limits);
    await assert.rejects(
      store.admit(device('second'), owner, limits),
      (error: MeshError) => error.code === 'membership_invalid',
    );
    assert.equal((await store.devices(owner.id, 1)).length, 1);
  } finally {
    await store.close();
  }
});

test('memberships past their time are forgotten, and devices without any', async () => {
  const store = new Store(await openDatabase('sqlite::memory:'));
  try {
    const owner = await verifyOwnerRecords((await newOwner()).records);
    const limits = { nowSeconds: 1, maxDevices: 10 };
    for (const [peerId, expires] of [
      ['short', 5],
      ['long', null],
    ] as const)
      await store.admit(
        { seq: 1, record: 'a.b.c', lastSeen: 1, membership: { ...base, owner: owner.id, peerId, expires } },
        owner,
        limits,
      );
    assert.equal((await store.devices(owner.id, 4)).length, 2);
    assert.equal((await store.devices(owner.id, 5)).length, 1);
    await store.forgetExpired(5);
    // Asked for an earlier time, it would still be listed if it were there.
    assert.deepEqual(
      (await store.devices(owner.id, 4)).map(({ membership }) => membership.peerId),
      ['long'],
    );
  } finally {
    await store.close();
  }
});
