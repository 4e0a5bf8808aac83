/** What the store promises on every database that it can be on. */

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { MembershipProof, Owner } from '@cocoon-mesh/protocol';
import { MeshError, verifyOwnerRecords } from '@cocoon-mesh/protocol';
import { openDatabase } from './open-database.ts';
import type { Claim, StoredDevice, StoredMembership } from './store.ts';
import { Store } from './store.ts';
import { newOwner, newRotatedOwner } from './test-client.ts';

export interface StoreLab {
  /** Of a database that is empty and not in memory. */
  newUrl(): Promise<string>;
  /**
   * Connections to one database that can be at work at the same time in one process. SQLite's have to be processes
   * of their own, for waiting blocks them: `test/stories/two-claims.slow.ts`.
   */
  readonly servers: number;
}

const proof: MembershipProof = { kind: 'membership', records: [], membership: 'a.b.c' };
const atOnce = 16;
const later = { nowSeconds: 1, maxDevices: 100 };

export function storeContract(database: string, lab: StoreLab): void {
  describe(`a store on ${database}`, () => {
    test('keeps everything when it is opened again', async () => {
      const url = await lab.newUrl();
      const owner = await anOwner();
      const before = new Store(await openDatabase(url));
      const seed = await before.signingKeySeed('receipt', 'first');
      const claimed = await before.claimToken(claimOf(owner), owner, 10);
      const admitted = await before.admit(deviceOf(owner), owner, later);
      await before.addRevocations(owner.id, 0, ['a.b.c'], []);
      await before.close();

      const after = new Store(await openDatabase(url));
      try {
        assert.equal(await after.signingKeySeed('receipt', 'second'), seed);
        assert.deepEqual(await after.claim('token'), claimed);
        assert.deepEqual(await after.devices(owner.id, 1), [admitted]);
        assert.deepEqual(await after.revocations(owner.id), { epoch: 0, list: ['a.b.c'] });
        assert.equal((await after.owner(owner.id))?.epoch, 0);
      } finally {
        await after.close();
      }
    });

    test('gives numbers back as the numbers they were, up to the largest', async () => {
      await using stores = await open(lab);
      const owner = await anOwner();
      const most = Number.MAX_SAFE_INTEGER;
      const device = deviceOf(owner, { serial: most, expires: most });
      await stores.one.admit({ ...device, seq: most, lastSeen: most }, owner, later);
      const [found] = await stores.one.devices(owner.id, 1);
      assert.deepEqual(found, { ...device, seq: most, lastSeen: most });
    });

    test('refuses a claim chain of anybody but the first redeemer, whoever signed its receipt', async () => {
      await using stores = await open(lab);
      const owner = await anOwner();
      await stores.one.claimToken(claimOf(owner, { redeemer: 'first' }), owner, 10);
      const chain = { provisional: true, serial: 0 };
      await stores.one.admit(deviceOf(owner, { ...chain, peerId: 'first' }), owner, later);
      await assert.rejects(
        stores.one.admit(deviceOf(owner, { ...chain, peerId: 'second' }), owner, later),
        refusal('membership_invalid'),
      );
      assert.equal((await stores.one.devices(owner.id, 1)).length, 1);
    });

    test('forgets memberships past their time, and devices without any', async () => {
      await using stores = await open(lab);
      const owner = await anOwner();
      await stores.one.admit(deviceOf(owner, { peerId: 'short', expires: 5 }), owner, later);
      await stores.one.admit(deviceOf(owner, { peerId: 'long' }), owner, later);
      assert.equal((await stores.one.devices(owner.id, 4)).length, 2);
      assert.equal((await stores.one.devices(owner.id, 5)).length, 1);
      await stores.one.forgetExpired(5);
      // Asked for an earlier time, it would still be listed if it were there.
      assert.deepEqual(await peerIds(stores.one, owner, 4), ['long']);
    });

    test('records nothing of what it refuses', async () => {
      await using stores = await open(lab);
      const [owner, other] = [await anOwner(), await anOwner()];
      await stores.one.claimToken(claimOf(owner), owner, 10);
      await assert.rejects(
        stores.one.claimToken(claimOf(other, { redeemer: 'second' }), other, 10),
        refusal('token_used'),
      );
      assert.equal(await stores.one.owner(other.id), null);
      await assert.rejects(
        stores.one.admit(deviceOf(other, { expires: 1 }), other, later),
        refusal('membership_expired'),
      );
      assert.equal(await stores.one.owner(other.id), null);
      // The next request is not inside of what was taken back.
      await stores.one.admit(deviceOf(other), other, later);
      assert.deepEqual(await peerIds(stores.one, other), ['device']);
    });
  });

  describe(`of requests at the same instant on ${database}`, () => {
    test('one claim of a token wins, and all that lose leave nothing', async () => {
      await using stores = await open(lab);
      const owners = await Promise.all(Array.from({ length: atOnce }, anOwner));
      const outcomes = await Promise.allSettled(
        owners.map((owner, n) =>
          stores
            .at(n)
            .claimToken(claimOf(owner, { redeemer: `device ${n}`, receipt: `receipt ${n}` }), owner, 10),
        ),
      );
      const won = outcomes.filter(({ status }) => status === 'fulfilled');
      assert.equal(won.length, 1);
      for (const outcome of outcomes)
        if (outcome.status === 'rejected') assert.equal((outcome.reason as MeshError).code, 'token_used');
      const kept = await Promise.all(owners.map(({ id }) => stores.one.owner(id)));
      assert.equal(kept.filter((owner) => owner !== null).length, 1);
    });

    test('the repeated claims of one redeemer get one receipt', async () => {
      await using stores = await open(lab);
      const owner = await anOwner();
      const claims = await stores.each((store, n) =>
        store.claimToken(claimOf(owner, { receipt: `receipt ${n}` }), owner, 10),
      );
      assert.equal(new Set(claims.map(({ receipt }) => receipt)).size, 1);
    });

    test('the newest membership and the newest record count, in whatever order they come', async () => {
      await using stores = await open(lab);
      const owner = await anOwner();
      const serials = shuffled(atOnce);
      await stores.each((store, n) => {
        const serial = serials[n] ?? 0;
        return store.admit({ ...deviceOf(owner, { serial }), seq: serial }, owner, later);
      });
      const [device] = await stores.one.devices(owner.id, 1);
      assert.equal(device?.membership.serial, atOnce);
      assert.equal(device.seq, atOnce);
    });

    test('the newest secret of an owner counts', async () => {
      await using stores = await open(lab);
      for (let round = 0; round < 4; round++) {
        const { before, after } = await newRotatedOwner();
        const [old, current] = [
          await verifyOwnerRecords(before.records),
          await verifyOwnerRecords(after.records),
        ];
        await Promise.allSettled(
          Array.from({ length: 6 }, (_, n) => stores.at(n).keepOwner(n === round ? current : old)),
        );
        assert.equal((await stores.one.owner(old.id))?.epoch, 1);
      }
    });

    test('the longest list of revocations stays, and every revocation', async () => {
      await using stores = await open(lab);
      const owner = await anOwner();
      const lengths = shuffled(atOnce);
      await stores.each((store, n) => {
        const length = lengths[n] ?? 0;
        const subject = `device ${length}`;
        const entry = { kind: 'device', subject, iat: 1 } as Parameters<Store['addRevocations']>[3][number];
        return store.addRevocations(owner.id, 0, Array<string>(length).fill('a.b.c'), [entry]);
      });
      assert.equal((await stores.one.revocations(owner.id))?.list.length, atOnce);
      for (let n = 1; n <= atOnce; n++)
        assert.equal(await stores.one.isRevoked(ofEpoch(owner.id, `device ${n}`, 0)), true);
    });

    test('a revocation ends what was given in its epoch or before, and a rotation undoes none by itself', async () => {
      await using stores = await open(lab);
      const owner = await anOwner();
      const store = stores.one;
      const entry = (subject: string, iat = 1) =>
        ({ kind: 'device', subject, iat }) as Parameters<Store['addRevocations']>[3][number];
      const isRevoked = (subject: string, epoch: number) =>
        store.isRevoked(ofEpoch(owner.id, subject, epoch));
      await store.addRevocations(owner.id, 0, ['a', 'b'], [entry('thief'), entry('laptop')]);
      await store.addRevocations(owner.id, 1, ['c'], [entry('thief')]);
      assert.deepEqual([await isRevoked('laptop', 0), await isRevoked('laptop', 1)], [true, false]);
      assert.deepEqual([await isRevoked('thief', 0), await isRevoked('thief', 1)], [true, true]);
      assert.deepEqual([await isRevoked('thief', 2), await isRevoked('nobody', 0)], [false, false]);
    });

    test('no more devices come in than an owner may have', async () => {
      await using stores = await open(lab);
      const owner = await anOwner();
      const outcomes = await Promise.allSettled(
        Array.from({ length: atOnce }, (_, n) =>
          stores.at(n).admit(deviceOf(owner, { peerId: `device ${n}` }), owner, { ...later, maxDevices: 5 }),
        ),
      );
      assert.equal(outcomes.filter(({ status }) => status === 'fulfilled').length, 5);
      assert.equal((await peerIds(stores.one, owner)).length, 5);
    });

    test('the first signing key ever stored is everybody’s', async () => {
      await using stores = await open(lab);
      const seeds = await stores.each((store, n) => store.signingKeySeed('receipt', `seed ${n}`));
      assert.equal(new Set(seeds).size, 1);
    });
  });
}

/** Servers on one new database. */
async function open(lab: StoreLab) {
  const url = await lab.newUrl();
  const stores = await Promise.all(
    Array.from({ length: lab.servers }, async () => new Store(await openDatabase(url))),
  );
  const at = (n: number): Store => {
    const store = stores[n % stores.length];
    assert.ok(store);
    return store;
  };
  return {
    one: at(0),
    at,
    each: <Result>(work: (store: Store, n: number) => Promise<Result>): Promise<Result[]> =>
      Promise.all(Array.from({ length: atOnce }, (_, n) => work(at(n), n))),
    [Symbol.asyncDispose]: async () => {
      await Promise.all(stores.map((store) => store.close()));
    },
  };
}

async function anOwner(): Promise<Owner> {
  return verifyOwnerRecords((await newOwner()).records);
}

function claimOf(owner: Owner, change: Partial<Claim> = {}): Claim {
  const base = { jti: 'token', scope: 'enroll', grantHash: 'hash', redeemer: 'device', receipt: 'a.b.c' };
  return { ...base, owner: owner.id, claimedAt: 1, ...change };
}

function deviceOf(owner: Owner, change: Partial<StoredMembership> = {}): StoredDevice {
  const membership: StoredMembership = {
    owner: owner.id,
    peerId: 'device',
    epoch: 0,
    serial: 1,
    provisional: false,
    expires: null,
    jti: 'token',
    proof,
    ...change,
  };
  return { seq: 1, record: 'a.b.c', lastSeen: 1, membership };
}

async function peerIds(store: Store, owner: Owner, nowSeconds = 1): Promise<string[]> {
  return (await store.devices(owner.id, nowSeconds)).map(({ membership }) => membership.peerId);
}

/** 1 to `count`, the largest neither first nor last. */
function shuffled(count: number): number[] {
  return Array.from({ length: count }, (_, n) => ((n * 5 + 8) % count) + 1);
}

function refusal(code: string): (thrown: unknown) => boolean {
  return (thrown) => thrown instanceof MeshError && thrown.code === code;
}

function ofEpoch(owner: string, peerId: string, epoch: number) {
  return { owner, peerId, jti: null, epoch };
}
