/** What the store of shares promises on every database that it can be on. */

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { MembershipProof, Owner, Revocation, ShareProof } from '@cocoon-mesh/protocol';
import { MeshError, limits, verifyOwnerRecords } from '@cocoon-mesh/protocol';
import { openDatabase } from './open-database.ts';
import { rowFromShare } from './share-rows.ts';
import type { VerifiedShare } from './share-store.ts';
import type { StoreLab } from './store.contract.ts';
import type { Claim, StoredDevice } from './store.ts';
import { Store } from './store.ts';
import { newOwner, newRotatedOwner } from './test-client.ts';

const now = 100;
const day = 24 * 3600;
const proof: ShareProof = {
  kind: 'share',
  records: [],
  share: 'a.b.c',
  redemption: { records: [], grant: 'a.b.c', redeemer: 'tom', one_time_signature: '', acceptance: '' },
};

export function shareStoreContract(database: string, lab: StoreLab): void {
  describe(`shares on ${database}`, () => {
    test('are found by their owner, their cocoon and their co-owner', async () => {
      await using stores = await open(lab);
      const rita = await anOwner();
      await stores.one.admit(deviceOf(rita), rita, { nowSeconds: now, maxDevices: 9 });
      const [share, other] = [shareOf(rita), shareOf(rita, { cocoon: 'nas' })];
      for (const one of [share, other]) assert.equal(await stores.one.shares.save(one, rita, now), true);
      assert.equal(await stores.one.shares.saveRecord(share, { seq: 3, record: 'a.b.c' }), true);
      assert.equal(await stores.one.shares.saveRecord(share, { seq: 2, record: 'd.e.f' }), false);
      const stored = { ...share, record: { seq: 3, record: 'a.b.c' } };
      const { shares } = stores.one;
      assert.deepEqual((await shares.ofOwner(rita.id, now)).length, 2);
      assert.deepEqual(await shares.ofCocoon(rita.id, 'gpu', now), [stored]);
      const found = await shares.find('tom', 'gpu', now);
      assert.deepEqual(found?.share, stored);
      assert.deepEqual(await shares.withCoOwner('tom', now), [found]);
      assert.equal(await shares.find('eve', 'gpu', now), null);
      assert.deepEqual(await shares.partners('tom'), { coOwners: [], owners: [rita.id] });
    });

    test('show no cocoon that is not its owner’s', async () => {
      await using stores = await open(lab);
      const [rita, eve] = [await anOwner(), await anOwner()];
      await stores.one.admit(deviceOf(rita), rita, { nowSeconds: now, maxDevices: 9 });
      await stores.one.shares.save(shareOf(eve), eve, now);
      assert.equal(await stores.one.shares.find('tom', 'gpu', now), null);
      // Not even when Eve signs the cocoon a membership that it did not ask for.
      const { membership } = deviceOf(eve);
      await stores.one.issue(membership, eve, { nowSeconds: now, maxDevices: 9 });
      assert.equal(await stores.one.shares.find('tom', 'gpu', now), null);
      assert.deepEqual(await stores.one.devices(eve.id, now), []);
      assert.equal((await stores.one.devices(rita.id, now)).length, 1);
    });

    for (const [what, by, entry, ended] of [
      ['its token', 'rita', { kind: 'token', subject: 'token', iat: 1 }, true],
      ['its cocoon', 'rita', { kind: 'device', subject: 'gpu', iat: 1 }, true],
      ['its co-owner', 'rita', { kind: 'owner', subject: 'tom', iat: 50 }, true],
      ['its co-owner before it was granted', 'rita', { kind: 'owner', subject: 'tom', iat: 49 }, false],
      [
        'its cocoon, by the co-owner who gives it back',
        'tom',
        { kind: 'share', subject: 'gpu', iat: 50 },
        true,
      ],
      ['its cocoon, given back before', 'tom', { kind: 'share', subject: 'gpu', iat: 49 }, false],
      ['its cocoon, by its co-owner', 'tom', { kind: 'device', subject: 'gpu', iat: 99 }, false],
      ['a share, by its owner', 'rita', { kind: 'share', subject: 'gpu', iat: 99 }, false],
      ['its token, by somebody else', 'eve', { kind: 'token', subject: 'token', iat: 99 }, false],
    ] as const)
      test(`that stand do ${ended ? 'not ' : ''}stand after a revocation of ${what}`, async () => {
        await using stores = await open(lab);
        const rita = await anOwner();
        const share = shareOf(rita);
        const store = stores.one;
        await store.shares.save(share, rita, now);
        await store.addRevocations(by === 'rita' ? rita.id : by, 0, ['a.b.c'], [entry as Revocation]);
        assert.equal((await store.shares.ofOwner(rita.id, now)).length, ended ? 0 : 1);
        if (!ended) return;
        const newer = { ...share, serial: 2 };
        await assert.rejects(store.shares.save(newer, rita, now), refusal('revoked'));
        // Nor was it recorded.
        assert.deepEqual(await store.shares.isKnown(share), true);
        // A device is revoked for good; anything else can be granted again.
        const again = store.shares.save({ ...share, jti: 'later', granted: 60, serial: 3 }, rita, now);
        if (entry.kind === 'device') await assert.rejects(again, refusal('revoked'));
        else assert.equal(await again, true);
      });

    test('end by time and with the secret that signed them', async () => {
      await using stores = await open(lab);
      const { before, after } = await newRotatedOwner();
      const [old, current] = [
        await verifyOwnerRecords(before.records),
        await verifyOwnerRecords(after.records),
      ];
      const { shares } = stores.one;
      await shares.save(shareOf(old, { expires: now + 1 }), old, now);
      assert.equal((await shares.ofOwner(old.id, now)).length, 1);
      assert.equal((await shares.ofOwner(old.id, now + 1)).length, 0);
      await assert.rejects(
        shares.save(shareOf(old, { cocoon: 'nas', expires: now }), old, now),
        refusal('membership_expired'),
      );
      await stores.one.keepOwner(current);
      assert.equal((await shares.ofOwner(old.id, now)).length, 0);
      await assert.rejects(shares.save(shareOf(old), old, now), refusal('membership_invalid'));
      assert.equal(await shares.save(shareOf(old, { epoch: 1, serial: 0 }), current, now), true);
    });

    test('of one token go to one redeemer, whoever comes at the same instant', async () => {
      await using stores = await open(lab);
      const rita = await anOwner();
      const outcomes = await Promise.allSettled(
        Array.from({ length: 16 }, async (_, n) => {
          const coOwner = `owner ${n}`;
          const share = shareOf(rita, { coOwner, provisional: true, serial: 0 });
          return stores.at(n).shares.claim(claimOf(share), share, rita, now);
        }),
      );
      assert.equal(outcomes.filter(({ status }) => status === 'fulfilled').length, 1);
      for (const outcome of outcomes)
        if (outcome.status === 'rejected') assert.ok(refusal('token_used')(outcome.reason));
      assert.equal((await stores.one.shares.ofOwner(rita.id, now)).length, 1);
    });

    test('of one token stay its first redeemer’s, even when that has another grant by now', async () => {
      await using stores = await open(lab);
      const rita = await anOwner();
      const claim = (coOwner: string, jti: string): Promise<unknown> => {
        const share = shareOf(rita, { coOwner, jti, provisional: true, serial: 0 });
        return stores.one.shares.claim(claimOf(share), share, rita, now);
      };
      await claim('tom', 'token');
      await claim('tom', 'another');
      await assert.rejects(claim('eve', 'token'), refusal('token_used'));
      assert.equal((await stores.one.shares.ofOwner(rita.id, now)).length, 1);
    });

    test('and memberships that an owner has signed use their token up, wherever it was redeemed', async () => {
      await using stores = await open(lab);
      const rita = await anOwner();
      const share = shareOf(rita);
      await stores.one.shares.save(share, rita, now);
      const stolen = { ...share, coOwner: 'eve', provisional: true, serial: 0 };
      await assert.rejects(
        stores.one.shares.claim(claimOf(stolen), stolen, rita, now),
        refusal('token_used'),
      );
      const device = deviceOf(rita);
      const membership = { ...device.membership, jti: 'for a device' };
      await stores.one.admit({ ...device, membership }, rita, { nowSeconds: now, maxDevices: 9 });
      const claim = { ...claimOf(share), jti: 'for a device', scope: 'enroll', redeemer: 'thief' };
      await assert.rejects(stores.one.claimToken(claim, rita, 9), refusal('token_used'));
    });

    test('keep the newest, in whatever order they come', async () => {
      await using stores = await open(lab);
      const rita = await anOwner();
      const serials = Array.from({ length: 16 }, (_, n) => ((n * 5 + 8) % 16) + 1);
      await Promise.all(
        serials.map((serial, n) => stores.at(n).shares.save(shareOf(rita, { serial }), rita, now)),
      );
      assert.equal((await stores.one.shares.ofOwner(rita.id, now))[0]?.serial, 16);
    });

    test('are no more than a welcome can tell', async () => {
      await using stores = await open(lab);
      const rita = await anOwner();
      const { shares } = stores.one;
      await stores.one.keepOwner(rita);
      const rows = Array.from({ length: limits.maxShares }, (_, n) =>
        rowFromShare({ ...shareOf(rita, { coOwner: `owner ${n}`, expires: now + 1 }), record: null }),
      );
      await stores.db.insertInto('share').values(rows).execute();
      await assert.rejects(shares.save(shareOf(rita), rita, now), refusal('overloaded'));
      // What has ended takes no room.
      assert.equal(await shares.save(shareOf(rita), rita, now + 1), true);
    });

    test('that ended long ago are forgotten, and tokens that nobody could redeem', async () => {
      await using stores = await open(lab);
      const rita = await anOwner();
      const { shares } = stores.one;
      const share = shareOf(rita, { expires: now + 1 });
      await shares.claim({ ...claimOf(share), expires: now }, share, rita, now);
      await stores.one.forgetExpired(now + 29 * day);
      assert.equal(await shares.isKnown(share), true);
      assert.equal(await stores.one.claim('token'), null);
      await stores.one.forgetExpired(now + 31 * day);
      assert.equal(await shares.isKnown(share), false);
    });
  });

  describe(`owners on ${database}`, () => {
    test('with two secrets of one epoch keep the first that was seen', async () => {
      await using stores = await open(lab);
      const { after, rotateKeeping } = await newRotatedOwner();
      const [first, second] = [
        await verifyOwnerRecords(after.records),
        await verifyOwnerRecords((await rotateKeeping([])).records),
      ];
      assert.equal(first.id, second.id);
      await stores.one.keepOwner(first);
      await assert.rejects(stores.one.keepOwner(second), refusal('membership_invalid'));
      assert.deepEqual((await stores.one.owner(first.id))?.records, first.records);
    });

    test('that nobody has seen for a month are forgotten but for the last ones', async () => {
      await using stores = await open(lab);
      const store = stores.one;
      const owners = await Promise.all(Array.from({ length: 4 }, anOwner));
      for (const [n, owner] of owners.entries()) {
        const device = deviceOf(owner, `device ${n}`);
        await store.admit({ ...device, lastSeen: now + n }, owner, { nowSeconds: now, maxDevices: 9 });
        await store.shares.save(shareOf(owner, { cocoon: `device ${n}` }), owner, now);
        await store.addRevocations(owner.id, 0, ['a.b.c'], []);
      }
      const [first, second, third, last] = owners;
      assert.ok(first && second && third && last);
      await store.seen('device 3', now + 30 * day);
      const known = async (): Promise<boolean[]> =>
        Promise.all(owners.map(async ({ id }) => (await store.owner(id)) !== null));
      await store.forgetExpired(now + 30 * day, { maxIdleOwners: 1 });
      assert.deepEqual(await known(), [true, true, true, true]);
      await store.forgetExpired(now + 31 * day, { maxIdleOwners: 1 });
      assert.deepEqual(await known(), [false, false, true, true]);
      assert.deepEqual(await store.devices(first.id, now), []);
      assert.deepEqual(await store.shares.partners(first.id), { coOwners: [], owners: [] });
      assert.equal(await store.revocations(first.id), null);
      assert.equal((await store.devices(third.id, now)).length, 1);
    });
  });
}

/** Servers on one new database. */
async function open(lab: StoreLab) {
  const url = await lab.newUrl();
  const stores = await Promise.all(
    Array.from({ length: lab.servers }, async () => new Store(await openDatabase(url))),
  );
  const db = await openDatabase(url);
  const at = (n: number): Store => {
    const store = stores[n % stores.length];
    assert.ok(store);
    return store;
  };
  return {
    one: at(0),
    at,
    db,
    [Symbol.asyncDispose]: async () => {
      await Promise.all([...stores.map((store) => store.close()), db.destroy()]);
    },
  };
}

async function anOwner(): Promise<Owner> {
  return verifyOwnerRecords((await newOwner()).records);
}

export function shareOf(
  { id, epoch }: Pick<Owner, 'id' | 'epoch'>,
  change: Partial<VerifiedShare> = {},
): VerifiedShare {
  const names = { owner: id, cocoon: 'gpu', coOwner: 'tom', jti: 'token', proof };
  return { ...names, epoch, serial: 1, provisional: false, granted: 50, expires: null, ...change };
}

function claimOf({ owner, coOwner, jti }: VerifiedShare): Claim {
  const base = { jti, owner, scope: 'co-own', grantHash: 'hash', claimedAt: now };
  return { ...base, redeemer: coOwner, receipt: `receipt of ${coOwner}` };
}

function deviceOf(owner: Owner, peerId = 'gpu'): StoredDevice {
  const names = { owner: owner.id, peerId, jti: null };
  const membership: MembershipProof = { kind: 'membership', records: [], membership: 'a.b.c' };
  const terms = { epoch: 0, serial: 1, provisional: false, expires: null };
  return { seq: 1, record: 'a.b.c', lastSeen: now, membership: { ...names, ...terms, proof: membership } };
}

function refusal(code: string): (thrown: unknown) => boolean {
  return (thrown) => thrown instanceof MeshError && thrown.code === code;
}
