import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import type { OwnerKeys } from '@cocoon-mesh/protocol';
import {
  MeshError,
  adminRights,
  allows,
  createOwnerSecret,
  memberRights,
  ownerKeys,
  rotateOwner,
  secretFromText,
  secretToText,
  signRevocation,
  verifyOwnerRecords,
} from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { Home } from './home.ts';
import { openIdentityKey } from './identity-key.ts';
import { OwnersFile } from './mesh-store.ts';
import { OwnerDesk } from './owner-desk.ts';
import { OwnerKeyring } from './owner-keyring.ts';
import { OwnerMesh, auditLines, claimedShare, newOwner, newPeerId } from './owner-mesh.contract.ts';
import { settleOwnership } from './ownership.ts';
import type { PreparedRotation, RotationResult } from './rotation.ts';
import { Rotation } from './rotation.ts';

const phone = await newPeerId();
const thief = await newPeerId();
const { keys: anna } = await newOwner();

let home: Home;
let clock: SteppedClock;
let self: string;
let first: Awaited<ReturnType<typeof newOwner>>;
let mesh: OwnerMesh;
let device: Device;

/** What a daemon has, as far as a rotation needs it. */
interface Device {
  readonly keyring: OwnerKeyring;
  readonly desk: OwnerDesk;
  readonly owners: OwnersFile;
  readonly rotation: Rotation;
}

beforeEach(async () => {
  home = new Home(await mkdtemp(join(tmpdir(), 'cocoon-rotation-')));
  clock = new SteppedClock();
  self = (await openIdentityKey(home.identityKey)).peerId;
  first = await newOwner();
  await writeFile(home.secret, await secretToText(first.secret), { mode: 0o600 });
  mesh = new OwnerMesh(self, first.keys, clock);
  mesh.add({ peerId: self, rights: [...memberRights, ...adminRights] });
  mesh.add({ peerId: phone, rights: [...memberRights, ...adminRights] });
  device = await start();
});

afterEach(async () => {
  await rm(home.path, { recursive: true, force: true });
});

/** As the daemon does, with whatever the home says now. */
async function start(): Promise<Device> {
  const owners = await OwnersFile.open(home.owners);
  const key = await openIdentityKey(home.identityKey);
  const { keys } = await settleOwnership({ home, owners, key, now: now(), token: null, secret: null });
  const keyring = new OwnerKeyring(keys);
  keyring.follow(() => mesh.ownerRecords);
  const desk = new OwnerDesk({
    mesh: mesh.mesh,
    keyring,
    clock,
    audit: auditLines(),
    log: () => undefined,
    signalingUrl: 'ws://10.0.0.1:7400/ws',
    noteToken: (made) => owners.noteMade(made, now()),
    madeTokens: () => owners.owners.made,
  });
  const rotation = new Rotation({
    mesh: mesh.mesh,
    desk,
    keyring,
    owners,
    home,
    clock,
    log: () => undefined,
  });
  return { keyring, desk, owners, rotation };
}

function now(): number {
  return Math.floor(clock.now() / 1000);
}

async function rotate(
  given: { code?: string; keep?: readonly string[]; without?: readonly string[] } = {},
): Promise<{ prepared: PreparedRotation; result: RotationResult }> {
  const { rotation } = device;
  const prepared = await rotation.prepare(
    given.code ?? first.recoveryCode,
    given.keep ?? [],
    given.without ?? [],
  );
  return { prepared, result: await rotation.commit(prepared.id) };
}

async function storedKeys(): Promise<OwnerKeys> {
  return ownerKeys(await secretFromText(await readFile(home.secret, 'utf8')));
}

function epochOf(peerId: string): number | undefined {
  return mesh.members().find((member) => member.peerId === peerId)?.epoch;
}

describe('a rotation', () => {
  test('changes nothing before it is confirmed, and not by a code that is not this owner’s', async () => {
    const before = await readFile(home.secret, 'utf8');
    const prepared = await device.rotation.prepare(first.recoveryCode, [], []);
    assert.match(prepared.recovery_code, /^cocoon-recovery-1\./);
    assert.equal(prepared.epoch, 1);
    for (const code of ['', 'nonsense', (await newOwner()).recoveryCode])
      await assert.rejects(device.rotation.prepare(code, [], []), { code: 'key_corrupt' });
    await assert.rejects(device.rotation.commit('another'), { code: 'usage' });
    assert.equal(await readFile(home.secret, 'utf8'), before);
    assert.equal(mesh.ownerRecords?.length, 1);
    assert.equal(epochOf(phone), 0);
  });

  test('names the same owner, signs every device and share anew, its own membership after the others, and keeps the old secret beside', async () => {
    const { share } = await claimedShare(first.keys, anna, phone, now());
    mesh.sharesKnown = [share];
    const { prepared, result } = await rotate();
    const keys = await storedKeys();
    assert.deepEqual([keys.id, keys.epoch], [first.keys.id, 1]);
    assert.equal(device.keyring.keys?.epoch, 1);
    assert.deepEqual(mesh.ownerRecords, keys.records);
    assert.deepEqual([epochOf(self), epochOf(phone), mesh.shares()[0]?.epoch], [1, 1, 1]);
    assert.deepEqual(mesh.issued, [phone, self, anna.id]);
    assert.deepEqual(result, { signed: 3, waiting: 0 });
    assert.deepEqual(
      prepared.devices.map(({ peer_id: peerId }) => peerId),
      [phone, self],
    );
    assert.deepEqual(prepared.owners, [anna.id]);
    assert.equal((await readFile(home.replacedSecret, 'utf8')).trim(), await secretToText(first.secret));
    for (const file of [home.secret, home.replacedSecret])
      assert.equal((await stat(file)).mode & 0o777, 0o600);
    await assert.rejects(stat(home.rotation));
  });

  test('takes the right to administer from every other device: the thief could have given it', async () => {
    await rotate();
    const may = (peerId: string) =>
      allows(mesh.members().find((one) => one.peerId === peerId)?.rights ?? [], 'owner', 'admin', null);
    assert.deepEqual([may(self), may(phone)], [true, false]);
    assert.ok(allows(mesh.members()[1]?.rights ?? [], 'http', 'use', 'web'));
  });

  test('leaves out the devices that shall not stay', async () => {
    mesh.add({ peerId: thief });
    await rotate({ without: [thief] });
    assert.deepEqual([epochOf(phone), epochOf(thief)], [1, 0]);
    await assert.rejects(device.rotation.prepare(first.recoveryCode, [], [self]), { code: 'usage' });
  });

  test('keeps what was revoked revoked', async () => {
    await device.desk.revokeDevice(thief);
    await rotate();
    assert.deepEqual(
      (await mesh.entries()).map(({ kind, subject, epoch }) => [kind, subject, epoch]),
      [['device', thief, 1]],
    );
  });

  /** As `mesh.members()` is after a list of revocations that names them. */
  function forget(peerId: string): void {
    const [gone] = mesh.known.splice(
      mesh.known.findIndex(({ member }) => member.peerId === peerId),
      1,
    );
    if (gone) mesh.revoked.set(peerId, gone.member);
  }

  async function revokedByThief(subject: string, at = now()): Promise<void> {
    const content = { kind: 'device', subject, now: at } as const;
    await mesh.tellOwner(undefined, [await signRevocation(first.keys, mesh.list, content)]);
  }

  test('never says again that the device that rotates is revoked', async () => {
    await revokedByThief(self);
    const { result } = await rotate();
    assert.deepEqual(await mesh.entries(), []);
    assert.equal(result.waiting, 0);
    assert.equal(epochOf(self), 1);
  });

  test('shows what was revoked, and gives back the device that is named, without its right to administer', async () => {
    await device.desk.revokeDevice(thief);
    await revokedByThief(phone);
    forget(phone);
    const undone = { devices: [phone], since: null };
    const prepared = await device.rotation.prepare(first.recoveryCode, [], [], undone);
    assert.deepEqual(
      prepared.revoked.map(({ kind, subject, stays }) => [kind, subject, stays]),
      [
        ['device', thief, true],
        ['device', phone, false],
      ],
    );
    assert.ok(prepared.devices.some(({ peer_id: peerId }) => peerId === phone));
    await device.rotation.commit(prepared.id);
    assert.deepEqual(
      (await mesh.entries()).map(({ subject }) => subject),
      [thief],
    );
    assert.equal(epochOf(phone), 1);
    assert.ok(!allows(mesh.signedMembership(phone)?.rights ?? [], 'owner', 'admin', null));
    const unknown = { devices: [await newPeerId()], since: null };
    await assert.rejects(device.rotation.prepare(prepared.recovery_code, [], [], unknown), {
      code: 'device_not_found',
    });
  });

  test('undoes what was revoked since a date, and what came behind it with an older one', async () => {
    await device.desk.revokeDevice(thief);
    clock.step(3600_000);
    await revokedByThief(phone);
    forget(phone);
    const since = now();
    await revokedByThief(self, since - 7200);
    const { id } = await device.rotation.prepare(first.recoveryCode, [], [], { devices: [], since });
    await device.rotation.commit(id);
    assert.deepEqual(
      (await mesh.entries()).map(({ subject }) => subject),
      [thief],
    );
    assert.equal(epochOf(phone), 1);
  });

  test('undoes of what was revoked since a date all that it can, but leaves out whom it is told to', async () => {
    const given = { kind: 'share', subject: await newPeerId(), now: now() } as const;
    await mesh.tellOwner(undefined, [await signRevocation(first.keys, mesh.list, given)]);
    clock.step(3600_000);
    const since = now();
    const undone = { ...given, subject: await newPeerId(), now: since };
    await mesh.tellOwner(undefined, [await signRevocation(first.keys, mesh.list, undone)]);
    await revokedByThief(phone);
    forget(phone);
    const { id, devices } = await device.rotation.prepare(first.recoveryCode, [], [phone], {
      devices: [],
      since,
    });
    assert.ok(!devices.some(({ peer_id: peerId }) => peerId === phone));
    await device.rotation.commit(id);
    assert.deepEqual(
      (await mesh.entries()).map(({ subject }) => subject),
      [given.subject],
    );
  });

  test('says a thing that was said twice with its latest date, for it ends what was given until then', async () => {
    const given = { kind: 'share', subject: await newPeerId() } as const;
    for (let again = 0; again < 2; again++) {
      clock.step(3600_000);
      const entry = await signRevocation(first.keys, mesh.list, { ...given, now: now() });
      await mesh.tellOwner(undefined, [entry]);
    }
    const last = now();
    clock.step(3600_000);
    await rotate();
    assert.deepEqual(
      (await mesh.entries()).map(({ subject, iat }) => [subject, iat]),
      [[given.subject, last]],
    );
  });

  test('says each thing once, and of owners and tokens only what a kept token could undo', async () => {
    for (let again = 0; again < 2; again++) await revokedByThief(thief);
    const removed = { kind: 'owner', subject: anna.id, now: now() } as const;
    await mesh.tellOwner(undefined, [await signRevocation(first.keys, mesh.list, removed)]);
    const { prepared } = await rotate();
    assert.deepEqual(
      (await mesh.entries()).map(({ subject }) => subject),
      [thief],
    );
    const { keys } = device.keyring;
    assert.ok(keys);
    await mesh.tellOwner(undefined, [await signRevocation(keys, mesh.list, removed)]);
    const ask = { scope: 'enroll', admin: false, services: [], capabilities: [] } as const;
    const token = await device.desk.makeToken(
      { ...ask, expires_s: 600, services: [], capabilities: [] },
      null,
    );
    await rotate({ code: prepared.recovery_code, keep: [token.jti] });
    assert.deepEqual(
      (await mesh.entries()).map(({ subject }) => subject),
      [thief, anna.id],
    );
  });

  test('signs what was shown, whoever came or was revoked in between', async () => {
    const { id } = await device.rotation.prepare(first.recoveryCode, [], []);
    mesh.add({ peerId: thief });
    await revokedByThief(phone);
    await device.rotation.commit(id);
    assert.deepEqual([epochOf(phone), epochOf(thief)], [1, 0]);
    assert.deepEqual(await mesh.entries(), []);
  });

  test('keeps the tokens that are named, by the very grant, and no others', async () => {
    const ask = { scope: 'enroll', admin: false, services: [], capabilities: [] } as const;
    const token = await device.desk.makeToken(
      { ...ask, expires_s: 600, services: [], capabilities: [] },
      null,
    );
    const brief = await device.desk.makeToken({ ...ask, expires_s: 5, services: [], capabilities: [] }, null);
    clock.step(10_000);
    for (const jti of [brief.jti, 'A'.repeat(43)])
      await assert.rejects(device.rotation.prepare(first.recoveryCode, [jti], []), { code: 'usage' });
    await rotate({ keep: [token.jti] });
    const { keeps } = await verifyOwnerRecords(mesh.ownerRecords ?? []);
    assert.deepEqual(keeps, [device.owners.owners.made[0]?.grantHash]);
  });

  test('can be done again, with the code of the one before', async () => {
    const { prepared } = await rotate();
    await assert.rejects(rotate(), { code: 'key_corrupt' });
    await rotate({ code: prepared.recovery_code });
    assert.equal((await storedKeys()).epoch, 2);
    assert.deepEqual([epochOf(self), epochOf(phone)], [2, 2]);
  });

  test('that was prepared too long ago is not done', async () => {
    const { id } = await device.rotation.prepare(first.recoveryCode, [], []);
    clock.step(3600_000);
    await assert.rejects(device.rotation.commit(id), { code: 'usage' });
    assert.equal((await storedKeys()).epoch, 0);
  });
});

describe('a rotation that is broken off', () => {
  test('before its secret was written never happened', async () => {
    const { id } = await device.rotation.prepare(first.recoveryCode, [], []);
    // Nothing can be written there.
    const { path } = home;
    Object.defineProperty(home, 'secret', { value: join(path, 'identity.key', 'x') });
    await assert.rejects(device.rotation.commit(id));
    home = new Home(path);
    assert.equal((await stat(home.rotation)).isFile(), true);
    device = await start();
    await device.rotation.resume();
    assert.equal(device.keyring.keys?.epoch, 0);
    assert.deepEqual([mesh.ownerRecords?.length, epochOf(phone)], [1, 0]);
    // And can be done as if nothing had been.
    await rotate();
    assert.equal(epochOf(phone), 1);
  });

  test('is not taken for another one that came to the same epoch elsewhere', async () => {
    mesh.add({ peerId: thief });
    const { id } = await device.rotation.prepare(first.recoveryCode, [], []);
    const { path } = home;
    Object.defineProperty(home, 'secret', { value: join(path, 'identity.key', 'x') });
    await assert.rejects(device.rotation.commit(id));
    home = new Home(path);
    const other = await createOwnerSecret();
    const keys = await rotateOwner(first.keys.records, first.recoveryCode, other.secret);
    mesh.ownerRecords = keys.records;
    const secret = await secretToText({ ...other.secret, records: keys.records });
    await writeFile(home.secret, secret, { mode: 0o600 });
    device = await start();
    await device.rotation.resume();
    assert.equal(device.keyring.keys?.epoch, 1);
    assert.deepEqual([epochOf(thief), mesh.issued], [0, []]);
  });

  test('with nobody told is finished by the next start, though no device of the epoch before is known any more', async () => {
    const { share } = await claimedShare(first.keys, anna, phone, now());
    mesh.sharesKnown = [share];
    await device.desk.revokeDevice(thief);
    // Its owner's word, not what the device says now.
    const entry = mesh.known.find(({ member }) => member.peerId === phone);
    assert.ok(entry);
    entry.member = { ...entry.member, kind: 'browser' };
    const { id } = await device.rotation.prepare(first.recoveryCode, [], []);
    mesh.deaf = new MeshError('internal', 'the process ends here');
    mesh.failing = mesh.deaf;
    assert.deepEqual(await device.rotation.commit(id), { signed: 0, waiting: 3 });
    mesh.deaf = null;
    mesh.failing = null;
    mesh.isForgetful = true;
    device = await start();
    assert.equal(device.keyring.keys?.epoch, 1);
    await device.rotation.resume();
    mesh.isForgetful = false;
    assert.deepEqual([epochOf(self), epochOf(phone), mesh.shares()[0]?.epoch], [1, 1, 1]);
    assert.equal(mesh.members().find(({ peerId }) => peerId === phone)?.kind, 'browser');
    assert.equal((await mesh.entries())[0]?.subject, thief);
    await assert.rejects(stat(home.rotation));
  });

  test('that could not be stored is not told as done, and goes on with the new secret', async () => {
    const { id } = await device.rotation.prepare(first.recoveryCode, [], []);
    mesh.deaf = new MeshError('storage_failed');
    await assert.rejects(device.rotation.commit(id), { code: 'storage_failed' });
    assert.equal((await storedKeys()).epoch, 1);
    mesh.deaf = null;
    device = await start();
    await device.rotation.resume();
    assert.equal(mesh.ownerRecords?.length, 2);
    await assert.rejects(stat(home.rotation));
  });

  test('with one device out of reach goes on when it is back, and asks for it no more after that', async () => {
    const issue = mesh.issueMembership.bind(mesh);
    let isAway = true;
    mesh.issueMembership = async (peerId, proof) => {
      if (peerId === phone && isAway) throw new MeshError('signaling_unreachable');
      await issue(peerId, proof);
    };
    const { result } = await rotate();
    assert.deepEqual(result, { signed: 1, waiting: 1 });
    await device.rotation.resume();
    assert.equal(epochOf(phone), 0);
    isAway = false;
    await device.rotation.resume();
    assert.equal(epochOf(phone), 1);
    const { length } = mesh.issued;
    await device.rotation.resume();
    assert.equal(mesh.issued.length, length);
  });
});
