import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { GrantTerms, OwnerAnswer, OwnerKeys, TokenRequest } from '@cocoon-mesh/protocol';
import {
  adminRights,
  coOwnerRights,
  createOwnerSecret,
  createSetupToken,
  memberRights,
  narrowRights,
  readSetupToken,
  rotateOwner,
  signRevocation,
  signingKeyFromSeed,
} from '@cocoon-mesh/protocol';
import { claimedShare, newOwner, newPeerId, receiptKey } from './owner-mesh.contract.ts';
import { provenRevocation, provenToken } from './owner-proof.ts';

const now = 1_700_000_000;
const [box, other] = [await newPeerId(), await newPeerId()];
const { keys, recoveryCode } = await newOwner();
const { keys: anna } = await newOwner();
const { keys: bert } = await newOwner();
const known = { owner: keys.id, epoch: 0, receiptKey: receiptKey.publicKey, now };

const request: TokenRequest = {
  scope: 'co-own',
  expires_s: 600,
  until: now + 86_400,
  admin: false,
  services: ['web'],
  capabilities: [],
  cocoon: box,
};
const terms: GrantTerms = {
  scope: 'co-own',
  rights: narrowRights(['web'], []),
  now,
  expires: now + 600,
  until: now + 86_400,
  signaling: 'ws://10.0.0.1:7400/ws',
  receiptKey: receiptKey.publicKey,
  cocoon: box,
};

async function tokenOf(by: OwnerKeys, change: Partial<GrantTerms> = {}): Promise<OwnerAnswer> {
  const { token } = await createSetupToken(by, { ...terms, ...change });
  // What stands beside it is nobody's word.
  const beside = { scope: 'enroll', jti: 'A'.repeat(43), expires_at: 'never', signaling: 'ws://x' } as const;
  return { token: { token, ...beside } };
}

describe('a token that was asked for', () => {
  test('is told as the owner signed it, whatever stands beside it', async () => {
    const answer = await tokenOf(keys);
    const proven = await provenToken(answer, request, known);
    const { grant } = await readSetupToken(proven.token);
    assert.deepEqual(proven, {
      token: answer.token?.token,
      scope: 'co-own',
      jti: grant.jti,
      expires_at: new Date((now + 600) * 1000).toISOString(),
      signaling: terms.signaling,
    });
  });

  test('is no other one: of another owner, cocoon, scope, right, end, life or signaling server', async () => {
    const { until: _, ...lasting } = terms;
    const { cocoon: __, ...enrolling } = terms;
    const elsewhere = (await signingKeyFromSeed(new Uint8Array(32))).publicKey;
    const wrong: OwnerAnswer[] = [
      {},
      { token: { ...(await tokenOf(keys)).token!, token: 'cocoon-token-1.nonsense' } },
      await tokenOf(anna),
      await tokenOf(keys, { cocoon: other }),
      { token: await answerOf({ ...enrolling, scope: 'enroll' }) },
      await tokenOf(keys, { rights: coOwnerRights }),
      await tokenOf(keys, { rights: [] }),
      await tokenOf(keys, { until: now + 86_401 }),
      { token: await answerOf(lasting) },
      await tokenOf(keys, { expires: now + 601 }),
      await tokenOf(keys, { now: now - 600, expires: now }),
      await tokenOf(keys, { receiptKey: elsewhere }),
    ];
    for (const [index, answer] of wrong.entries())
      await assert.rejects(provenToken(answer, request, known), `${index}`);
    await provenToken(await tokenOf(keys, { receiptKey: elsewhere }), request, {
      ...known,
      receiptKey: null,
    });
  });

  test('is not one of a secret that was replaced', async () => {
    const answer = await tokenOf(keys);
    await assert.rejects(provenToken(answer, request, { ...known, epoch: 1 }), { code: 'token_invalid' });
  });

  test('for an administrator is none for a plain device, nor the other way round', async () => {
    const { cocoon: _, ...rest } = request;
    const enroll: TokenRequest = { ...rest, scope: 'enroll', services: [] };
    const { cocoon: __, ...base } = terms;
    const plain = { token: await answerOf({ ...base, scope: 'enroll', rights: memberRights }) };
    const rights = [...memberRights, ...adminRights];
    const admin = { token: await answerOf({ ...base, scope: 'enroll', rights }) };
    await provenToken(plain, enroll, known);
    await provenToken(admin, { ...enroll, admin: true }, known);
    await assert.rejects(provenToken(admin, enroll, known), { code: 'token_invalid' });
    await assert.rejects(provenToken(plain, { ...enroll, admin: true }, known), { code: 'token_invalid' });
  });
});

async function answerOf(of: GrantTerms) {
  const { token, jti } = await createSetupToken(keys, of);
  return { token, scope: of.scope, jti, expires_at: '', signaling: '' };
}

type Content = Parameters<typeof signRevocation>[2];

async function ended(by: OwnerKeys, content: Omit<Content, 'now'> & { now?: number }): Promise<OwnerAnswer> {
  const entry = await signRevocation(by, [], { now, ...content });
  return { revocations: { kind: 'tell', owner: by.id, records: by.records, after: 0, list: [entry] } };
}

describe('the end of something that was asked for', () => {
  test('of a token is the owner’s word about this token', async () => {
    const [jti, another] = ['A'.repeat(43), `B${'A'.repeat(42)}`];
    const ending = { kind: 'token', jti } as const;
    const answer = await ended(keys, { kind: 'token', subject: jti });
    assert.equal(await provenRevocation(answer, ending, known), answer.revocations);
    for (const wrong of [
      await ended(anna, { kind: 'token', subject: jti }),
      await ended(keys, { kind: 'token', subject: another }),
      await ended(keys, { kind: 'device', subject: jti }),
    ])
      await assert.rejects(provenRevocation(wrong, ending, known));
  });

  test('of a device is the owner’s word about this device', async () => {
    const ending = { kind: 'device', peerId: box } as const;
    const answer = await ended(keys, { kind: 'device', subject: box });
    assert.equal(await provenRevocation(answer, ending, known), answer.revocations);
    const forged = { ...answer.revocations!, owner: keys.id, records: anna.records };
    for (const wrong of [
      {},
      { revocations: { ...answer.revocations!, list: [] } },
      { revocations: forged },
      await ended(anna, { kind: 'device', subject: box }),
      await ended(keys, { kind: 'device', subject: other }),
      await ended(keys, { kind: 'share', subject: box }),
    ])
      await assert.rejects(provenRevocation(wrong, ending, known));
    await assert.rejects(provenRevocation(answer, ending, { ...known, epoch: 1 }), { code: 'bad_signature' });
  });

  test('may come with a rotation that the asker has not heard of', async () => {
    const next = await rotateOwner(keys.records, recoveryCode, (await createOwnerSecret()).secret, []);
    const answer = await ended(next, { kind: 'device', subject: box });
    assert.ok(await provenRevocation(answer, { kind: 'device', peerId: box }, known));
  });

  test('of another owner covers everything that it was given, and names nobody else', async () => {
    const { share } = await claimedShare(keys, anna, box, now);
    const ending = { kind: 'owner', owner: anna.id, shares: [share] } as const;
    await provenRevocation(await ended(keys, { kind: 'owner', subject: anna.id }), ending, known);
    for (const wrong of [
      await ended(keys, { kind: 'owner', subject: anna.id, now: now - 1 }),
      await ended(keys, { kind: 'owner', subject: bert.id }),
      await ended(keys, { kind: 'device', subject: box }),
    ])
      await assert.rejects(provenRevocation(wrong, ending, known), { code: 'bad_signature' });
    const nothing = { ...ending, shares: [] };
    const wrong = await ended(keys, { kind: 'owner', subject: bert.id });
    await assert.rejects(provenRevocation(wrong, nothing, known), { code: 'bad_signature' });
  });

  test('of what was shared with my owner gives back this cocoon', async () => {
    const { share } = await claimedShare(anna, keys, box, now);
    const ending = { kind: 'share', shares: [share] } as const;
    await provenRevocation(await ended(keys, { kind: 'share', subject: box }), ending, known);
    for (const wrong of [
      await ended(keys, { kind: 'share', subject: other }),
      await ended(keys, { kind: 'share', subject: box, now: now - 1 }),
      await ended(anna, { kind: 'share', subject: box }),
    ])
      await assert.rejects(provenRevocation(wrong, ending, known), { code: 'bad_signature' });
  });
});
