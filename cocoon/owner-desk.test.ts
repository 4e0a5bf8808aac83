import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';
import type { OwnerKeys, ProvenMembership, TokenRequest } from '@cocoon-mesh/protocol';
import {
  MeshError,
  coOwnerRights,
  ends,
  givesBack,
  limits,
  narrowRights,
  readSetupToken,
  signRevocation,
} from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import type { MadeToken } from './token-request.ts';
import { OwnerDesk } from './owner-desk.ts';
import { OwnerKeyring } from './owner-keyring.ts';
import { OwnerMesh, auditLines, claimedShare, newOwner, newPeerId } from './owner-mesh.contract.ts';

const enroll: TokenRequest = {
  scope: 'enroll',
  expires_s: 600,
  admin: false,
  services: [],
  capabilities: [],
};
const self = await newPeerId();
const phone = await newPeerId();
const { keys } = await newOwner();
const { keys: anna } = await newOwner();

let clock: SteppedClock;
let mesh: OwnerMesh;
let audit: ReturnType<typeof auditLines>;
let made: MadeToken[];
let keyring: OwnerKeyring;
let desk: OwnerDesk;

beforeEach(() => {
  clock = new SteppedClock();
  mesh = new OwnerMesh(self, keys, clock);
  audit = auditLines();
  made = [];
  keyring = new OwnerKeyring(keys);
  keyring.follow(() => mesh.ownerRecords);
  desk = new OwnerDesk({
    mesh: mesh.mesh,
    keyring,
    clock,
    audit,
    log: () => undefined,
    signalingUrl: 'ws://10.0.0.1:7400/ws',
    noteToken: async (token) => void made.push(token),
    madeTokens: () => made,
  });
  mesh.add({ peerId: self });
});

function now(): number {
  return Math.floor(clock.now() / 1000);
}

function known(peerId: string): ProvenMembership {
  const member = mesh.members().find((one) => one.peerId === peerId);
  assert.ok(member);
  return member;
}

describe('a chain that waits', () => {
  const chain = { peerId: phone, provisional: true, serial: 0, jti: 'A'.repeat(43) };

  test('becomes a membership with the same rights, dates and token', async () => {
    const rights = narrowRights(['web'], []);
    mesh.add({ ...chain, rights, until: now() + 9000, granted: now() - 50 });
    await desk.confirm();
    const member = known(phone);
    assert.deepEqual(
      [member.provisional, member.rights, member.until, member.granted, member.jti],
      [false, rights, now() + 9000, now() - 50, chain.jti],
    );
    assert.equal(audit.lines[0]?.['event'], 'membership.signed');
  });

  test('of a cocoon does not end by itself; of a browser, and of what nobody knows, in thirty days or sooner', async () => {
    mesh.add(chain);
    await desk.confirm();
    assert.equal(known(phone).expires, null);
    const tab = await newPeerId();
    const brief = await newPeerId();
    mesh.add({ ...chain, peerId: tab }, { kind: 'browser' });
    mesh.add({ ...chain, peerId: brief, until: now() + 60 }, { kind: 'browser' });
    await desk.confirm();
    assert.equal(known(tab).expires, now() + limits.browserMembershipMs / 1000);
    assert.equal(known(brief).expires, now() + 60);
    mesh.devices = () => [];
    clock.step(120_000);
    assert.ok(await desk.renew(tab));
    assert.equal(known(tab).expires, now() + limits.browserMembershipMs / 1000);
  });

  test('is told what the device is, once: a browser does not become a cocoon by saying so', async () => {
    const tab = await newPeerId();
    mesh.add({ ...chain, peerId: tab }, { kind: 'browser' });
    mesh.add(chain);
    await desk.confirm();
    assert.deepEqual([known(tab).kind, known(phone).kind], ['browser', 'cocoon']);
    mesh.known.find(({ member }) => member.peerId === tab)!.kind = 'cocoon';
    await desk.renew(tab);
    assert.equal(known(tab).kind, 'browser');
    assert.notEqual(known(tab).expires, null);
    // Whom nobody has seen may still say it.
    const unseen = await newPeerId();
    mesh.add({ ...chain, peerId: unseen });
    mesh.devices = () => [];
    await desk.confirm();
    assert.equal(known(unseen).kind, undefined);
    assert.equal(known(unseen).expires, now() + limits.browserMembershipMs / 1000);
  });

  test('of another owner becomes a share', async () => {
    const { share } = await claimedShare(keys, anna, self, now());
    mesh.sharesKnown = [share];
    await desk.confirm();
    const [confirmed] = mesh.shares();
    assert.deepEqual([confirmed?.provisional, confirmed?.rights], [false, coOwnerRights]);
    assert.ok((confirmed?.serial ?? 0) > share.serial);
  });

  test('that could not be handed out is signed again, one that could only after a while', async () => {
    mesh.add(chain);
    mesh.failing = new MeshError('signaling_unreachable');
    await desk.confirm();
    assert.equal(known(phone).provisional, true);
    mesh.failing = null;
    await desk.confirm();
    assert.equal(mesh.issued.length, 1);
    // Its old chain is shown once more.
    mesh.known.find(({ member }) => member.peerId === phone)!.member = { ...known(phone), provisional: true };
    await desk.confirm();
    assert.equal(mesh.issued.length, 1);
    clock.step(60_000);
    await desk.confirm();
    assert.equal(mesh.issued.length, 2);
  });

  test('waits on where the secret is outdated or missing', async () => {
    mesh.add(chain);
    mesh.ownerRecords = [...keys.records, 'next'];
    await desk.confirm();
    await assert.rejects(desk.renew(phone), { code: 'owner_key_offline' });
    assert.equal(desk.holdsKey, false);
    assert.equal(mesh.issued.length, 0);
  });
});

describe('serials and numbers', () => {
  test('are never given twice, however many ask at once', async () => {
    const serials = new Set<number>();
    mesh.add({ peerId: phone });
    const issue = mesh.issueMembership.bind(mesh);
    mesh.issueMembership = async (peerId, proof) => {
      await issue(peerId, proof);
      serials.add(known(phone).serial);
    };
    const victims = await Promise.all([1, 2, 3].map(() => newPeerId()));
    await Promise.all([
      desk.renew(phone),
      ...victims.map((victim) => desk.revokeDevice(victim)),
      desk.renew(phone),
      desk.removeOwner(anna.id),
      desk.renew(phone),
    ]);
    assert.equal(serials.size, 3);
    // The list verifies only when every number and link is right.
    assert.deepEqual(
      (await mesh.entries()).map(({ n }) => n),
      [1, 2, 3, 4],
    );
  });
});

describe('a revocation', () => {
  test('ends a device for good, but never the one that signs it', async () => {
    mesh.add({ peerId: phone });
    await desk.revokeDevice(phone);
    const [entry] = await mesh.entries();
    assert.ok(entry && ends(entry, { peerId: phone, jti: null, granted: now() + 999 }));
    await assert.rejects(desk.revokeDevice(self), { code: 'usage' });
  });

  test('of a device ends the tokens that it had made and nobody has redeemed, and no others', async () => {
    mesh.add({ peerId: phone });
    const forPhone = await desk.makeToken({ ...enroll, admin: true }, phone);
    const redeemed = await desk.makeToken(enroll, phone);
    await desk.makeToken(enroll, null);
    mesh.add({ peerId: await newPeerId(), jti: redeemed.jti });
    await desk.revokeDevice(phone);
    assert.deepEqual(
      (await mesh.entries()).map(({ kind, subject }) => [kind, subject]),
      [
        ['device', phone],
        ['token', forPhone.jti],
      ],
    );
  });

  test('that a device asks for is about somebody who is known, and leaves room for the user’s own', async () => {
    const stranger = await newPeerId();
    await assert.rejects(desk.revokeDevice(stranger, phone), { code: 'device_not_found' });
    await assert.rejects(desk.removeOwner(anna.id, phone), { code: 'owner_not_found' });
    assert.deepEqual(await mesh.entries(), []);
    const { share } = await claimedShare(keys, anna, self, now());
    mesh.sharesKnown = [share];
    mesh.list = Array.from({ length: limits.maxRevocations - 1_000 }, () => 'entry');
    await assert.rejects(desk.removeOwner(anna.id, phone), { code: 'overloaded' });
    const tab = await newPeerId();
    mesh.add({ peerId: tab });
    mesh.list = [];
    const entry = await desk.revokeDevice(await newPeerId());
    mesh.list = Array.from({ length: limits.maxRevocations - 1_000 }, () => entry);
    await assert.rejects(desk.revokeDevice(tab, phone), { code: 'overloaded' });
  });

  test('that a device asks for again is not signed again, but told again, in case it was not stored', async () => {
    const tab = await newPeerId();
    mesh.add({ peerId: tab });
    const { share } = await claimedShare(keys, anna, self, now());
    mesh.sharesKnown = [share];
    const asked = [() => desk.revokeDevice(tab, phone), () => desk.removeOwner(anna.id, phone)];
    for (const ask of asked) {
      const entry = await ask();
      mesh.sharesKnown = [];
      mesh.deaf = new MeshError('storage_failed');
      await assert.rejects(ask(), { code: 'storage_failed' });
      mesh.deaf = null;
      assert.equal(await ask(), entry);
      mesh.sharesKnown = [share];
    }
    assert.equal(mesh.list.length, 2);
  });

  test('gives back a cocoon that is somebody else’s, whatever this clock says', async () => {
    const { share } = await claimedShare(anna, keys, phone, now() + 200);
    mesh.sharesKnown = [share];
    await desk.revokeDevice(phone);
    const [entry] = await mesh.entries();
    assert.equal(entry?.kind, 'share');
    assert.ok(givesBack(entry, { peerId: phone, jti: null, granted: share.granted }));
  });

  test('of an owner ends all it was given, also by a clock that was ahead', async () => {
    const { share } = await claimedShare(keys, anna, self, now() + 200);
    mesh.sharesKnown = [share];
    await desk.removeOwner(anna.id);
    const [entry] = await mesh.entries();
    const right = { peerId: self, jti: share.jti, coOwner: anna.id };
    assert.ok(entry && ends(entry, { ...right, granted: share.granted }));
    await assert.rejects(desk.removeOwner(keys.id), { code: 'usage' });
  });

  test('does not end what the same owner is given afterwards, in the same second', async () => {
    await desk.removeOwner(anna.id);
    const { token } = await desk.makeToken({ ...enroll, scope: 'co-own', cocoon: self }, null);
    const { grant } = await readSetupToken(token);
    const [entry] = await mesh.entries();
    const again = { peerId: self, jti: grant.jti, coOwner: anna.id, granted: grant.iat };
    assert.ok(entry && !ends(entry, again));
  });
});

describe('a token', () => {
  test('is noted and audited, with who asked, and never as it is', async () => {
    const answer = await desk.makeToken(enroll, phone);
    assert.equal(made[0]?.jti, answer.jti);
    const [line] = audit.lines;
    assert.deepEqual([line?.['event'], line?.['jti'], line?.['asker']], ['token.made', answer.jti, phone]);
    assert.ok(!JSON.stringify(audit.lines).includes(answer.token.slice(-40)));
  });

  test('is dated after what was revoked, but not by a revocation that is further ahead than can be true', async () => {
    const co: TokenRequest = { ...enroll, scope: 'co-own', cocoon: self };
    const dayS = limits.maxOwnerClockAheadMs / 1000;
    for (const [ahead, dated] of [
      [100, 101],
      [40 * dayS, dayS + 1],
    ] as const) {
      const content = { kind: 'owner', subject: anna.id, now: now() + ahead } as const;
      mesh.list = [await signRevocation(keys, [], content)];
      const { grant } = await readSetupToken((await desk.makeToken(co, null)).token);
      assert.equal(grant.iat, now() + dated);
    }
  });

  test('is not made by a clock of signaling that cannot be right, and both times are told', async () => {
    mesh.clockOffsetMs = limits.clockSkewMs;
    await desk.makeToken(enroll, null);
    for (const offset of [40 * 365 * 86_400_000, -limits.clockSkewMs - 1000, Number.MAX_VALUE, Number.NaN]) {
      mesh.clockOffsetMs = offset;
      await assert.rejects(desk.makeToken(enroll, null), {
        code: 'clock_wrong',
        message: /^Here it is 2026-01-01T.*, at signaling .*Z: nothing is signed/,
      });
    }
    assert.equal(made.length, 1);
  });

  test('for another owner is about a cocoon of mine, and is not made without signaling', async () => {
    const tab = await newPeerId();
    mesh.add({ peerId: tab }, { kind: 'browser' });
    const { share } = await claimedShare(anna, keys, phone, now());
    mesh.sharesKnown = [share];
    for (const cocoon of [await newPeerId(), tab, phone])
      await assert.rejects(desk.makeToken({ ...enroll, scope: 'co-own', cocoon }, null), {
        code: 'device_not_found',
      });
    mesh.isConnected = false;
    await assert.rejects(desk.makeToken(enroll, null), { code: 'signaling_unreachable' });
  });
});

describe('a renewal', () => {
  test('gives what the device has now, and nothing to one that is not there or whose right is over', async () => {
    const rights = narrowRights(['web'], []);
    mesh.add({ peerId: phone, rights, until: now() + 60 });
    await desk.renew(phone);
    assert.deepEqual([known(phone).rights, known(phone).until], [rights, now() + 60]);
    await assert.rejects(desk.renew(await newPeerId()), { code: 'denied' });
    clock.step(61_000);
    await assert.rejects(desk.renew(phone), { code: 'membership_expired' });
  });
});

test('keys that were replaced count at once', async () => {
  const next: OwnerKeys = { ...keys, records: [...keys.records, 'next'], epoch: 1 };
  mesh.ownerRecords = next.records;
  assert.equal(keyring.keys, null);
  keyring.replace(next);
  assert.equal(keyring.keys, next);
});
