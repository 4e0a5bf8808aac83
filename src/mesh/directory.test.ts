import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { DeviceEntry, DeviceKind, ShareProof, SigningKey } from '@cocoon-mesh/protocol';
import { generateSigningKey, limits, signDeviceRecord, signRevocation } from '@cocoon-mesh/protocol';
import type { Pins } from './directory.ts';
import { Directory } from './directory.ts';
import type { Party } from './trust-parties.contract.ts';
import { TrustOfPeer, member, newOwner, now, share } from './trust-parties.contract.ts';

const [mine, theirs, third] = [await newOwner(), await newOwner(), await newOwner()];
const me = await generateSigningKey();
const theirName = theirs.keys.id.slice(4, 12);

async function entry(
  key: SigningKey,
  name: string,
  change: {
    owner?: Party;
    seq?: number;
    expires?: number;
    holder?: SigningKey;
    audience?: string;
    share?: ShareProof;
    /** As its record says. */
    kind?: DeviceKind;
    /** As its owner says. */
    signed?: DeviceKind;
  } = {},
): Promise<DeviceEntry> {
  const { audience, share, expires, kind = 'cocoon', signed } = change;
  return {
    peer_id: key.peerId,
    online: true,
    load: 0,
    record: await signDeviceRecord(key, {
      kind,
      name,
      seq: change.seq ?? 1,
      services: [],
      capabilities: [],
      ...(audience === undefined ? {} : { audience }),
      iat: now,
    }),
    membership: await member(change.owner ?? mine, change.holder ?? key, {
      ...(expires === undefined ? {} : { expires }),
      ...(signed ? { kind: signed } : {}),
    }),
    ...(share ? { share } : {}),
    last_seen: now,
  };
}

async function verified(made: Directory, { peer_id: peerId, record, membership }: DeviceEntry) {
  return made.verify(peerId, record, membership);
}

/** An entry of a cocoon of theirs that is shared with me. */
async function foreign(key: SigningKey, name: string): Promise<DeviceEntry> {
  return entry(key, name, {
    owner: theirs,
    audience: mine.keys.id,
    share: await share(theirs, key, mine),
  });
}

async function directory(pins: Pins = {}) {
  const saved: Pins[] = [];
  const rejected: string[] = [];
  const { trust } = await TrustOfPeer.create(me, await member(mine, me));
  const made = new Directory({
    trust,
    self: me.peerId,
    pins,
    pinned: (next) => saved.push(next),
    rejected: (peerId) => rejected.push(peerId),
  });
  return { made, saved, rejected, trust };
}

test('a device is listed when its membership and its own record prove it', async () => {
  const key = await generateSigningKey();
  const { made, saved } = await directory();
  assert.ok(await made.apply(await entry(key, 'server')));
  assert.equal(made.resolve('server').record.peer_id, key.peerId);
  assert.equal(made.resolve(key.peerId).record.name, 'server');
  assert.deepEqual(saved, [{ server: key.peerId }]);
});

describe('what a device is', () => {
  test('stands in what its owner signed for it: a record that says something else is refused', async () => {
    for (const [signed, said] of [
      ['browser', 'cocoon'],
      ['cocoon', 'browser'],
    ] as const) {
      const key = await generateSigningKey();
      const { made, rejected } = await directory();
      assert.equal(await made.apply(await entry(key, 'tab', { signed, kind: said })), false);
      assert.deepEqual(rejected, [key.peerId]);
      await assert.rejects(verified(made, await entry(key, 'tab', { signed, kind: said })), {
        code: 'denied',
      });
      assert.ok(await made.apply(await entry(key, 'tab', { signed, kind: signed })));
      assert.equal(made.get(key.peerId)?.standing.membership.kind, signed);
    }
  });

  test('stays a browser while its owner has not said so, whatever the device says next', async () => {
    const key = await generateSigningKey();
    const { made } = await directory();
    assert.ok(await made.apply(await entry(key, 'tab', { kind: 'browser' })));
    assert.equal(await made.apply(await entry(key, 'tab', { kind: 'cocoon', seq: 2 })), false);
    await assert.rejects(verified(made, await entry(key, 'tab', { kind: 'cocoon', seq: 2 })), {
      code: 'denied',
    });
    assert.equal(made.get(key.peerId)?.record.kind, 'browser');
    assert.ok(await made.apply(await entry(key, 'tab', { kind: 'browser', seq: 2 })));
  });
});

test('a device of another owner, with a stolen or ended membership, or with another’s record is not listed', async () => {
  const [anna, ben] = [await generateSigningKey(), await generateSigningKey()];
  const { made, rejected } = await directory();
  const honest = await entry(ben, 'ben');
  const wrong = [
    await entry(anna, 'server', { owner: theirs }),
    await entry(anna, 'server', { holder: ben }),
    await entry(anna, 'server', { expires: now }),
    { ...(await entry(anna, 'server')), record: honest.record },
  ];
  for (const each of wrong) assert.equal(await made.apply(each), false);
  assert.equal(rejected.length, wrong.length);
  assert.deepEqual(made.all(), []);
  assert.throws(() => made.resolve('server'), { code: 'device_not_found' });
});

test('an older record that is shown again does not undo a newer one', async () => {
  const key = await generateSigningKey();
  const { made } = await directory();
  await made.apply(await entry(key, 'newer', { seq: 2 }));
  await made.apply(await entry(key, 'older', { seq: 1 }));
  assert.equal(made.get(key.peerId)?.record.name, 'newer');
});

test('an entry that was being judged when a newer membership came does not undo it', async () => {
  const key = await generateSigningKey();
  const { trust } = await TrustOfPeer.create(me, await member(mine, me));
  const judged: PromiseWithResolvers<void>[] = [];
  const made = new Directory({
    trust: {
      owner: trust.owner,
      objection: (standing) => trust.objection(standing),
      judge: async (...shown) => {
        const standing = await trust.judge(...shown);
        const held = Promise.withResolvers<void>();
        judged.push(held);
        await held.promise;
        return standing;
      },
    },
    self: me.peerId,
    pins: {},
    pinned: () => undefined,
    rejected: () => undefined,
  });
  const old = await entry(key, 'server');
  const [first, second] = [made.apply(old), made.apply(old)];
  while (judged.length < 2) await new Promise((resolve) => setImmediate(resolve));
  judged[0]?.resolve();
  // Signatures are checked side by side: either may be through first.
  await Promise.race([first, second]);
  const renewing = made.renew(key.peerId, await member(mine, key, { serial: 2 }));
  while (judged.length < 3) await new Promise((resolve) => setImmediate(resolve));
  judged[2]?.resolve();
  await renewing;
  judged[1]?.resolve();
  await Promise.all([first, second]);
  assert.equal(made.get(key.peerId)?.standing.membership.serial, 2);
});

test('a name stays with the device that had it first, and a change names both', async () => {
  const [first, second] = [await generateSigningKey(), await generateSigningKey()];
  const { made, saved } = await directory();
  await made.apply(await entry(first, 'server'));
  await made.apply(await entry(second, 'server'));
  assert.equal(made.resolve('server').record.peer_id, first.peerId);
  const afterRestart = (await directory(saved.at(-1) ?? {})).made;
  await afterRestart.apply(await entry(second, 'server'));
  assert.throws(
    () => afterRestart.resolve('server'),
    (error: Error & { code: string }) =>
      error.code === 'name_changed' &&
      error.message.includes(first.peerId) &&
      error.message.includes(second.peerId),
  );
  assert.equal(afterRestart.resolve(second.peerId).record.peer_id, second.peerId);
  afterRestart.acceptName('server');
  assert.equal(afterRestart.resolve('server').record.peer_id, second.peerId);
});

test('a device that takes another name keeps its old one, until the user accepts who has it now', async () => {
  const [first, second] = [await generateSigningKey(), await generateSigningKey()];
  const { made, saved } = await directory();
  await made.apply(await entry(first, 'server'));
  await made.apply(await entry(first, 'rack', { seq: 2 }));
  await made.apply(await entry(second, 'server'));
  assert.throws(() => made.resolve('server'), { code: 'name_changed' });
  assert.equal(made.resolve('rack').record.peer_id, first.peerId);
  assert.deepEqual(saved.at(-1), { server: first.peerId, rack: first.peerId });
  made.acceptName('server');
  assert.equal(made.resolve('server').record.peer_id, second.peerId);
});

test('a device that gave its name up for a while finds it again, whoever showed it meanwhile', async () => {
  const [server, thief] = [await generateSigningKey(), await generateSigningKey()];
  const { made } = await directory();
  await made.apply(await entry(server, 'server'));
  await made.apply(await entry(thief, 'narrow'));
  await made.apply(await entry(thief, 'server', { seq: 2 }));
  await made.apply(await entry(server, 'server-2', { seq: 2 }));
  await made.apply(await entry(thief, 'server', { seq: 3 }));
  assert.throws(() => made.resolve('server'), { code: 'name_changed' });
  await made.apply(await entry(server, 'server', { seq: 3 }));
  assert.equal(made.resolve('server').record.peer_id, server.peerId);
  // Both show it: what the user accepts is the one that has not had it.
  made.acceptName('server');
  assert.equal(made.resolve('server').record.peer_id, thief.peerId);
});

test('a device that shows one name after the other keeps no more than some, and takes nobody else’s', async () => {
  const [other, many] = [await generateSigningKey(), await generateSigningKey()];
  const { made, saved } = await directory();
  await made.apply(await entry(other, 'server'));
  for (let n = 0; n <= limits.maxPinnedNames; n++)
    await made.apply(await entry(many, `name-${n}`, { seq: n + 1 }));
  const pins = saved.at(-1) ?? {};
  assert.equal(Object.values(pins).filter((peerId) => peerId === many.peerId).length, limits.maxPinnedNames);
  assert.deepEqual([pins['server'], pins['name-0']], [other.peerId, undefined]);
  assert.equal(made.resolve(`name-${limits.maxPinnedNames}`).record.peer_id, many.peerId);
});

test('a device that was revoked gives its name free, and nobody else’s', async () => {
  const [first, second, other] = [
    await generateSigningKey(),
    await generateSigningKey(),
    await generateSigningKey(),
  ];
  const { made } = await directory();
  await made.apply(await entry(first, 'server'));
  await made.apply(await entry(other, 'laptop'));
  made.freeNamesOf(first.peerId);
  await made.apply(await entry(second, 'server'));
  assert.equal(made.pinnedElsewhere('server', second.peerId), null);
  assert.equal(made.pinnedElsewhere('laptop', second.peerId), other.peerId);
});

test('a taken name gets the first free number, within the length of a name', async () => {
  const { made } = await directory();
  const long = 'x'.repeat(31);
  for (const name of ['server', 'server-2', long])
    await made.apply(await entry(await generateSigningKey(), name));
  assert.equal(made.takeName('laptop'), 'laptop');
  assert.equal(made.takeName('server'), 'server-3');
  assert.equal(made.takeName(long), `${'x'.repeat(29)}-2`);
});

test('my own name stays mine, also after a restart: nobody who comes later pushes me off it', async () => {
  const other = await generateSigningKey();
  const { made, saved } = await directory();
  assert.equal(made.takeName('server'), 'server');
  await made.apply(await entry(other, 'server'));
  assert.equal(made.takeName('server'), 'server');
  assert.equal(made.pinnedElsewhere('server', other.peerId), me.peerId);
  const afterRestart = (await directory(saved.at(-1) ?? {})).made;
  await afterRestart.apply(await entry(other, 'server'));
  assert.equal(afterRestart.takeName('server'), 'server');
});

test('a name that another device had first is not taken, and it is found by it', async () => {
  const other = await generateSigningKey();
  const { made } = await directory();
  await made.apply(await entry(other, 'server'));
  assert.equal(made.takeName('server'), 'server-2');
  assert.equal(made.resolve('server').record.peer_id, other.peerId);
  await made.apply(await entry(await generateSigningKey(), 'server-2'));
  assert.equal(made.takeName('server'), 'server-2');
});

test('a device that was revoked is not listed any more, nor found by name', async () => {
  const key = await generateSigningKey();
  const { made, trust } = await directory();
  await made.apply(await entry(key, 'server'));
  const entryOf = { kind: 'device', subject: key.peerId, now } as const;
  await trust.learn(mine.keys.id, undefined, [await signRevocation(mine.keys, [], entryOf)]);
  assert.deepEqual(made.all(), []);
  assert.equal(made.get(key.peerId), undefined);
  assert.throws(() => made.resolve('server'), { code: 'device_not_found' });
});

test('a record that my device wrote for another owner is not shown as what it says to me', async () => {
  const key = await generateSigningKey();
  const { made, rejected } = await directory();
  assert.equal(await made.apply(await entry(key, 'server', { audience: theirs.keys.id })), false);
  assert.equal(await made.apply(await entry(key, 'server', { audience: mine.keys.id })), false);
  assert.equal(rejected.length, 2);
});

describe('a cocoon of another owner that is shared with mine', () => {
  test('is listed with its owner behind its name, and found by both forms and its PeerId', async () => {
    const key = await generateSigningKey();
    const { made, saved } = await directory();
    assert.ok(await made.apply(await foreign(key, 'gpu')));
    const name = `gpu@${theirName}`;
    for (const text of [name, `gpu@${theirs.keys.id}`, key.peerId])
      assert.equal(made.resolve(text).name, name);
    assert.deepEqual(saved, [{ [name]: key.peerId }]);
    assert.equal(made.resolve(name).standing.relation, 'shared');
  });

  test('never answers to a bare name, also when nobody else has it', async () => {
    const { made } = await directory();
    await made.apply(await foreign(await generateSigningKey(), 'gpu'));
    assert.throws(() => made.resolve('gpu'), { code: 'device_not_found' });
    const own = await generateSigningKey();
    await made.apply(await entry(own, 'gpu'));
    assert.equal(made.resolve('gpu').record.peer_id, own.peerId);
    assert.equal(made.takeName('other'), 'other');
  });

  test('keeps its name against another cocoon of the same owner', async () => {
    const [first, second] = [await generateSigningKey(), await generateSigningKey()];
    const { made } = await directory();
    await made.apply(await foreign(first, 'gpu'));
    await made.apply(await foreign(second, 'gpu'));
    assert.equal(made.resolve(`gpu@${theirName}`).record.peer_id, first.peerId);
  });

  test('shows what is written for me, and no record that is written for others or its owner', async () => {
    const key = await generateSigningKey();
    const { made } = await directory();
    const proof = await share(theirs, key, mine);
    assert.equal(await made.apply(await entry(key, 'gpu', { owner: theirs, share: proof })), false);
    const forOthers = await entry(key, 'gpu', { owner: theirs, share: proof, audience: theirs.keys.id });
    assert.equal(await made.apply(forOthers), false);
    assert.deepEqual(made.all(), []);
  });

  test('is not listed with a share of another cocoon, with another owner, or without one', async () => {
    const [key, other] = [await generateSigningKey(), await generateSigningKey()];
    const { made } = await directory();
    const common = { owner: theirs, audience: mine.keys.id };
    const wrong = [
      await entry(key, 'gpu', common),
      await entry(key, 'gpu', { ...common, share: await share(theirs, other, mine) }),
      await entry(key, 'gpu', { ...common, share: await share(theirs, key, third) }),
    ];
    for (const each of wrong) assert.equal(await made.apply(each), false);
    assert.deepEqual(made.all(), []);
  });

  test('is gone when its owner takes the share back, and when mine gives it back', async () => {
    for (const [owner, content] of [
      [theirs, { kind: 'owner', subject: mine.keys.id, now }],
      [mine, { kind: 'share', subject: '', now }],
    ] as const) {
      const key = await generateSigningKey();
      const { made, trust } = await directory();
      await made.apply(await foreign(key, 'gpu'));
      const subject = content.subject || key.peerId;
      const list = [await signRevocation(owner.keys, [], { ...content, subject })];
      await trust.learn(owner.keys.id, undefined, list);
      assert.deepEqual(made.all(), []);
    }
  });
});

test('a peer of another owner that may come here is no device of mine to see', async () => {
  const key = await generateSigningKey();
  const { made, rejected } = await directory();
  const visitor = await entry(key, 'visitor', {
    owner: theirs,
    audience: mine.keys.id,
    share: await share(mine, me, theirs),
  });
  const { standing } = await made.verify(visitor.peer_id, visitor.record, visitor.membership, visitor.share);
  assert.equal(standing.relation, 'co-owner');
  assert.equal(await made.apply(visitor), false);
  assert.deepEqual(rejected, [key.peerId]);
});
