import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DeviceEntry, OwnerKeys, SigningKey } from '@cocoon-mesh/protocol';
import {
  createOwnerSecret,
  generateSigningKey,
  memberRights,
  ownerKeys,
  signDeviceRecord,
  signMembership,
} from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import type { Pins } from './directory.ts';
import { Directory } from './directory.ts';

const clock = new SteppedClock();
const now = Math.floor(clock.now() / 1000);
const mine = await ownerKeys((await createOwnerSecret()).secret);
const theirs = await ownerKeys((await createOwnerSecret()).secret);

async function entry(
  key: SigningKey,
  name: string,
  change: { owner?: OwnerKeys; seq?: number; expires?: number; member?: SigningKey } = {},
): Promise<DeviceEntry> {
  const member = change.member ?? key;
  return {
    peer_id: key.peerId,
    online: true,
    load: 0,
    record: await signDeviceRecord(key, {
      kind: 'cocoon',
      name,
      seq: change.seq ?? 1,
      services: [],
      capabilities: [],
      iat: now,
    }),
    membership: await signMembership(change.owner ?? mine, {
      peerId: member.peerId,
      serial: 1,
      rights: memberRights,
      now,
      ...(change.expires === undefined ? {} : { expires: change.expires }),
    }),
    last_seen: now,
  };
}

function directory(pins: Pins = {}, self = 'me') {
  const saved: Pins[] = [];
  const rejected: string[] = [];
  const made = new Directory({
    clock,
    self,
    owner: () => mine.id,
    pins,
    pinned: (next) => saved.push(next),
    rejected: (peerId) => rejected.push(peerId),
  });
  return { made, saved, rejected };
}

test('a device is listed when its membership and its own record prove it', async () => {
  const key = await generateSigningKey();
  const { made, saved } = directory();
  assert.ok(await made.apply(await entry(key, 'server')));
  assert.equal(made.resolve('server').record.peer_id, key.peerId);
  assert.equal(made.resolve(key.peerId).record.name, 'server');
  assert.deepEqual(saved, [{ server: key.peerId }]);
});

test('a device of another owner, with a stolen or ended membership, or with another’s record is not listed', async () => {
  const [anna, ben] = [await generateSigningKey(), await generateSigningKey()];
  const { made, rejected } = directory();
  const honest = await entry(ben, 'ben');
  const wrong = [
    await entry(anna, 'server', { owner: theirs }),
    await entry(anna, 'server', { member: ben }),
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
  const { made } = directory();
  await made.apply(await entry(key, 'newer', { seq: 2 }));
  await made.apply(await entry(key, 'older', { seq: 1 }));
  assert.equal(made.get(key.peerId)?.record.name, 'newer');
});

test('a name stays with the device that had it first, and a change names both', async () => {
  const [first, second] = [await generateSigningKey(), await generateSigningKey()];
  const { made, saved } = directory();
  await made.apply(await entry(first, 'server'));
  await made.apply(await entry(second, 'server'));
  assert.equal(made.resolve('server').record.peer_id, first.peerId);
  const afterRestart = directory(saved.at(-1) ?? {}).made;
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

test('a device that takes another name gives its old one free', async () => {
  const [first, second] = [await generateSigningKey(), await generateSigningKey()];
  const { made } = directory();
  await made.apply(await entry(first, 'server'));
  await made.apply(await entry(first, 'rack', { seq: 2 }));
  await made.apply(await entry(second, 'server'));
  assert.equal(made.resolve('server').record.peer_id, second.peerId);
});

test('a taken name gets the first free number, within the length of a name', async () => {
  const { made } = directory();
  const long = 'x'.repeat(31);
  for (const name of ['server', 'server-2', long])
    await made.apply(await entry(await generateSigningKey(), name));
  assert.equal(made.freeName('laptop', 'me'), 'laptop');
  assert.equal(made.freeName('server', 'me'), 'server-3');
  assert.equal(made.freeName(long, 'me'), `${'x'.repeat(29)}-2`);
});

test('a device never pins a name to itself, so that it finds the other whose name it wanted', async () => {
  const [me, other] = [await generateSigningKey(), await generateSigningKey()];
  const { made } = directory({ server: me.peerId }, me.peerId);
  await made.apply(await entry(me, 'server'));
  await made.apply(await entry(other, 'server'));
  assert.equal(made.freeName('server', me.peerId), 'server-2');
  await made.apply(await entry(me, 'server-2', { seq: 2 }));
  assert.equal(made.resolve('server').record.peer_id, other.peerId);
});
