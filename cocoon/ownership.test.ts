import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import type { MeshError, OwnerKeys } from '@cocoon-mesh/protocol';
import {
  allows,
  coOwnerRights,
  createOwnerSecret,
  createSetupToken,
  memberRights,
  ownerKeys,
  readSetupToken,
  redeem,
  rotateOwner,
  secretToText,
  signMembership,
  signReceipt,
  signingKeyFromSeed,
  randomBytes,
  verifyMembership,
} from '@cocoon-mesh/protocol';
import { Home } from './home.ts';
import { openIdentityKey } from './identity-key.ts';
import { OwnersFile } from './mesh-store.ts';
import type { Ownership } from './ownership.ts';
import { retireSecret, settleOwnership, useSecret } from './ownership.ts';

const now = 1_800_000_000;
let folder: string;
let home: Home;
const receiptSeed = randomBytes(32);

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cocoon-owner-'));
  home = new Home(folder);
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

async function settle(
  given: { token?: string; secret?: string } = {},
): Promise<{ ownership: Ownership; owners: OwnersFile }> {
  const owners = await OwnersFile.open(home.owners);
  const key = await openIdentityKey(home.identityKey);
  const ownership = await settleOwnership({
    home,
    owners,
    key,
    now,
    token: given.token ?? null,
    secret: given.secret ?? null,
  });
  return { ownership, owners };
}

async function newOwner(): Promise<{ keys: OwnerKeys; text: string }> {
  const { secret } = await createOwnerSecret();
  return { keys: await ownerKeys(secret), text: await secretToText(secret) };
}

/** The same owner after a rotation. */
async function rotated(): Promise<{ old: string; fresh: string; keys: OwnerKeys; oldKeys: OwnerKeys }> {
  const { secret, recoveryCode } = await createOwnerSecret();
  const next = (await createOwnerSecret()).secret;
  const oldKeys = await ownerKeys(secret);
  const keys = await rotateOwner(oldKeys.records, recoveryCode, next);
  const fresh = await secretToText({ ...next, records: keys.records });
  return { old: await secretToText(secret), fresh, keys, oldKeys };
}

async function use(secret: string): Promise<string> {
  const owners = await OwnersFile.open(home.owners);
  return useSecret({
    home,
    owners,
    key: await openIdentityKey(home.identityKey),
    now,
    token: null,
    secret,
  });
}

async function coOwnTokenOf(keys: OwnerKeys): Promise<string> {
  const { token } = await createSetupToken(keys, {
    scope: 'co-own',
    rights: coOwnerRights,
    cocoon: (await signingKeyFromSeed(randomBytes(32))).peerId,
    now,
    expires: now + 3600,
    signaling: 'ws://127.0.0.1:7400/ws',
    receiptKey: (await signingKeyFromSeed(receiptSeed)).publicKey,
  });
  return token;
}

async function tokenOf(keys: OwnerKeys): Promise<string> {
  const { token } = await createSetupToken(keys, {
    scope: 'enroll',
    rights: memberRights,
    now,
    expires: now + 3600,
    signaling: 'ws://127.0.0.1:7400/ws',
    receiptKey: (await signingKeyFromSeed(receiptSeed)).publicKey,
  });
  return token;
}

/** What the mesh does with a token at its first sign-in. */
async function redeemIt(text: string, owners: OwnersFile): Promise<void> {
  const token = await readSetupToken(text);
  const key = await openIdentityKey(home.identityKey);
  const redemption = await redeem(token, key, key.peerId);
  const receipt = await signReceipt(await signingKeyFromSeed(receiptSeed), {
    jti: token.grant.jti,
    redeemer: key.peerId,
    now,
  });
  owners.redeeming(token.grant.jti, token.grant.signaling);
  assert.equal(await owners.loadMembership(), null);
  await owners.saveMembership({ kind: 'claim', redemption, receipt });
  await retireSecret(home);
}

describe('a device without token and secret', () => {
  test('becomes its own owner, once, with every right and a code to recover', async () => {
    const { ownership, owners } = await settle();
    assert.ok(ownership.recoveryCode?.startsWith('cocoon-recovery-1.'));
    const key = await openIdentityKey(home.identityKey);
    const membership = await owners.loadMembership();
    assert.ok(membership);
    const proven = await verifyMembership(membership, key.peerId, now);
    assert.equal(proven.owner, ownership.keys?.id);
    assert.ok(allows(proven.rights, 'owner', 'admin', null) && allows(proven.rights, 'http', 'use', 'web'));
    assert.equal((await stat(home.secret)).mode & 0o777, 0o600);
    assert.ok(!(await readFile(home.secret, 'utf8')).includes(String(ownership.recoveryCode).slice(20)));
    const again = await settle();
    assert.equal(again.ownership.keys?.id, ownership.keys?.id);
    assert.equal(again.ownership.recoveryCode, null);
    assert.deepEqual(await again.owners.loadMembership(), membership);
  });

  test('does not start when its secret is damaged, and leaves it as it is', async () => {
    await settle();
    await writeFile(home.secret, 'cocoon-secret-1.broken', { mode: 0o600 });
    await assert.rejects(settle(), { code: 'key_corrupt', hint: /backup/ });
    assert.equal(await readFile(home.secret, 'utf8'), 'cocoon-secret-1.broken');
  });
});

describe('a setup token', () => {
  test('of a fresh device is to be redeemed, and no owner is made before that', async () => {
    const { keys } = await newOwner();
    const token = await tokenOf(keys);
    const { ownership, owners } = await settle({ token });
    assert.equal(ownership.token?.owner.id, keys.id);
    assert.equal(ownership.keys, null);
    await assert.rejects(stat(home.secret));
    await redeemIt(token, owners);
    const again = await settle({ token });
    assert.equal(again.ownership.token, null);
    assert.equal(again.owners.owners.signalingUrl, 'ws://127.0.0.1:7400/ws');
    assert.ok(await again.owners.loadMembership());
  });

  test('replaces a self-made owner that has no other device, and puts its secret away only after that', async () => {
    const first = await settle();
    const secret = await readFile(home.secret, 'utf8');
    const { keys } = await newOwner();
    const token = await tokenOf(keys);
    const { ownership, owners } = await settle({ token });
    assert.ok(ownership.token);
    assert.equal(await readFile(home.secret, 'utf8'), secret);
    assert.notEqual(first.ownership.keys?.id, keys.id);
    await redeemIt(token, owners);
    await assert.rejects(stat(home.secret));
    assert.equal(await readFile(home.replacedSecret, 'utf8'), secret);
    assert.equal((await settle()).ownership.keys, null);
  });

  test('that could not be redeemed leaves the device to the owner it had', async () => {
    const { ownership } = await settle();
    await settle({ token: await tokenOf((await newOwner()).keys) });
    assert.equal((await settle()).ownership.keys?.id, ownership.keys?.id);
  });

  test('is refused by a device whose owner has other devices', async () => {
    const { owners } = await settle();
    await owners.noteOtherDevices();
    const token = await tokenOf((await newOwner()).keys);
    await assert.rejects(settle({ token }), { code: 'already_owned' });
  });

  test('is refused by a device that was enrolled by another owner, and renews the one of its own', async () => {
    const { keys } = await newOwner();
    const token = await tokenOf(keys);
    const { owners } = await settle({ token });
    await redeemIt(token, owners);
    await assert.rejects(settle({ token: await tokenOf((await newOwner()).keys) }), {
      code: 'already_owned',
    });
    assert.ok((await settle({ token: await tokenOf(keys) })).ownership.token);
  });

  test('of the own owner is not needed where the secret is', async () => {
    const { ownership } = await settle();
    assert.ok(ownership.keys);
    const again = await settle({ token: await tokenOf(ownership.keys) });
    assert.equal(again.ownership.token, null);
    assert.equal(again.ownership.notes.length, 1);
  });

  test('that is none is refused before anything is made; an empty one only on a fresh device', async () => {
    await assert.rejects(settle({ token: 'nonsense' }), { code: 'token_malformed' });
    await assert.rejects(settle({ token: '' }), { code: 'token_malformed' });
    await assert.rejects(stat(home.secret));
    await settle();
    assert.ok((await settle({ token: '' })).ownership.keys);
  });
});

describe('a secret in the environment', () => {
  test('gives a device that its owner had a lesser membership for the right to be asked to sign', async () => {
    const { keys, text } = await newOwner();
    const owners = await OwnersFile.open(home.owners);
    const { peerId } = await openIdentityKey(home.identityKey);
    const serial = now + 100;
    await owners.saveMembership(await signMembership(keys, { peerId, serial, rights: memberRights, now }));
    const held = async () => {
      const stored = await (await settle({ secret: text })).owners.loadMembership();
      assert.ok(stored);
      return verifyMembership(stored, peerId, now);
    };
    const first = await held();
    assert.ok(allows(first.rights, 'owner', 'admin', null));
    // Otherwise it would not count beside the one before.
    assert.equal(first.serial, serial + 1);
    assert.equal((await held()).serial, serial + 1);
  });

  test('makes a fresh device one of its owner', async () => {
    const { keys, text } = await newOwner();
    const { ownership, owners } = await settle({ secret: text });
    assert.equal(ownership.keys?.id, keys.id);
    assert.equal(ownership.recoveryCode, null);
    assert.equal(owners.owners.selfMade, false);
    assert.equal((await settle({ secret: text })).ownership.keys?.id, keys.id);
    await assert.rejects(settle({ secret: (await newOwner()).text }), { code: 'already_owned' });
  });

  test('replaces a self-made owner, whose secret is kept beside', async () => {
    await settle();
    const { keys, text } = await newOwner();
    const { ownership, owners } = await settle({ secret: text });
    assert.equal(ownership.keys?.id, keys.id);
    assert.equal(owners.owners.selfMade, false);
    assert.ok(await stat(home.replacedSecret));
  });
});

describe('a token with which another owner shares a cocoon', () => {
  test('makes a fresh device its own owner, who is to claim', async () => {
    const { keys } = await newOwner();
    const token = await coOwnTokenOf(keys);
    const { ownership } = await settle({ token });
    assert.notEqual(ownership.keys?.id, keys.id);
    assert.ok(ownership.keys && ownership.recoveryCode);
    assert.deepEqual([ownership.token, ownership.claim?.owner.id], [null, keys.id]);
  });

  test('is claimed by the owner that the device has, and only once', async () => {
    const first = await settle();
    const token = await coOwnTokenOf((await newOwner()).keys);
    const { ownership, owners } = await settle({ token });
    assert.equal(ownership.keys?.id, first.ownership.keys?.id);
    assert.ok(ownership.claim);
    await owners.noteClaim(ownership.claim.grant.jti, 'ws://10.0.0.1:7400/ws');
    const again = await settle({ token });
    assert.equal(again.ownership.claim, null);
    assert.equal(again.owners.owners.signalingUrl, 'ws://10.0.0.1:7400/ws');
  });

  test('of one’s own cocoon is not needed', async () => {
    const { ownership } = await settle();
    assert.ok(ownership.keys);
    const again = await settle({ token: await coOwnTokenOf(ownership.keys) });
    assert.deepEqual([again.ownership.claim, again.ownership.notes.length], [null, 1]);
  });

  test('is refused where the secret of the owner who would claim is not', async () => {
    const { keys } = await newOwner();
    const token = await tokenOf(keys);
    const { owners } = await settle({ token });
    await redeemIt(token, owners);
    const shared = await coOwnTokenOf((await newOwner()).keys);
    await assert.rejects(settle({ token: shared }), { code: 'owner_key_offline' });
  });
});

describe('a secret that is taken over', () => {
  test('makes the device one of its owner at the next start', async () => {
    const { keys, text } = await newOwner();
    assert.equal(await use(`  ${text}\n`), keys.id);
    assert.equal((await stat(home.secret)).mode & 0o777, 0o600);
    const { ownership, owners } = await settle();
    assert.deepEqual([ownership.keys?.id, ownership.recoveryCode], [keys.id, null]);
    assert.equal(owners.owners.selfMade, false);
  });

  test('makes an enrolled device of the same owner one that signs, and is refused by those of another', async () => {
    const { keys, text } = await newOwner();
    const token = await tokenOf(keys);
    const { owners } = await settle({ token });
    await redeemIt(token, owners);
    await assert.rejects(use((await newOwner()).text), { code: 'already_owned' });
    assert.equal((await settle()).ownership.keys, null);
    await use(text);
    assert.equal((await settle()).ownership.keys?.id, keys.id);
  });

  test('is refused with what is wrong, and nothing is changed', async () => {
    await settle();
    const before = await readFile(home.secret, 'utf8');
    const { text } = await newOwner();
    for (const [wrong, why] of [
      ['', /starts with/],
      [text.slice(0, -9), /not complete/],
      [`${text}AAAA`, /too long/],
      [text.slice(0, -7) + (text.at(-7) === 'A' ? 'B' : 'A') + text.slice(-6), /typing error/],
    ] as const)
      await assert.rejects(use(wrong), (error: MeshError) => {
        assert.equal(error.code, 'key_corrupt');
        assert.match(error.message, why);
        assert.match(error.hint, /^Copy the whole secret again/);
        assert.ok(wrong === '' || !error.message.includes(wrong.slice(20, 60)));
        return true;
      });
    assert.equal(await readFile(home.secret, 'utf8'), before);
  });
});

describe('a secret that was replaced by a newer one', () => {
  test('gives way to it, whether it is taken over or stands in the environment, and does not come back', async () => {
    for (const take of [use, async (secret: string) => void (await settle({ secret }))]) {
      const { old, fresh, keys } = await rotated();
      await use(old);
      await take(fresh);
      const { ownership, owners } = await settle({ secret: old });
      assert.equal(ownership.keys?.epoch, 1);
      assert.equal(ownership.notes.length, 1);
      assert.equal((await readFile(home.secret, 'utf8')).trim(), fresh);
      await assert.rejects(use(old), { code: 'key_corrupt' });
      const membership = await owners.loadMembership();
      assert.ok(membership);
      const newest = { epoch: 1, keeps: [] };
      const { peerId } = await openIdentityKey(home.identityKey);
      assert.equal((await verifyMembership(membership, peerId, now, newest)).owner, keys.id);
      await rm(folder, { recursive: true });
      home = new Home(folder);
      await home.create();
    }
  });

  test('signs nothing any more once the device has heard of that, and is put away with a note', async () => {
    const { old, keys, oldKeys } = await rotated();
    await use(old);
    const owners = await OwnersFile.open(home.owners);
    await owners.saveTrust({
      v: 1,
      time: now,
      owners: {
        [oldKeys.id]: { records: keys.records, revocations: [], loose: [], memberships: [], redeemers: {} },
      },
      shares: [],
    });
    const { ownership } = await settle();
    assert.deepEqual([ownership.keys, ownership.notes.length], [null, 1]);
    assert.equal((await readFile(home.replacedSecret, 'utf8')).trim(), old);
    await assert.rejects(stat(home.secret));
    // A start with it in the environment is no way back.
    assert.equal((await settle({ secret: old })).ownership.keys, null);
  });

  test('is found out by the membership that came with the new one, too', async () => {
    const { old, keys } = await rotated();
    await use(old);
    const owners = await OwnersFile.open(home.owners);
    const { peerId } = await openIdentityKey(home.identityKey);
    await owners.saveMembership(await signMembership(keys, { peerId, serial: 1, rights: memberRights, now }));
    const { ownership, owners: after } = await settle();
    assert.equal(ownership.keys, null);
    assert.deepEqual(await after.loadMembership(), await owners.loadMembership());
  });
});
