import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { CompactSign } from 'jose';
import { fromBase64Url, fromUtf8, toBase64Url, utf8 } from './bytes.ts';
import { check } from './codec.ts';
import { MeshError } from './errors.ts';
import type { GrantTerms } from './grant.ts';
import { createSetupToken, readSetupToken, redeem, signReceipt, verifyRedemption } from './grant.ts';
import { limits } from './limits.ts';
import type { NewestRecord } from './membership.ts';
import { verifyMembership } from './membership.ts';
import { createOwnerSecret, ownerKeys, rotateOwner, verifyOwnerRecords } from './owner.ts';
import { adminRights, allows, coOwnerRights, memberRights, narrowRights } from './rights.ts';
import { sampleNow, sampleObjects } from './sample-objects.ts';
import type { ShareProof } from './share.ts';
import { shareProofSchema, shareRecords, signShare, verifyShare } from './share.ts';

const sample = await sampleObjects();
const { owner, otherOwner, rotated, device, otherDevice, signaling, shareClaim, share, claim } = sample;
const day = 86_400;

async function code(attempt: Promise<unknown>): Promise<string> {
  try {
    await attempt;
    return 'accepted';
  } catch (thrown) {
    assert.ok(thrown instanceof MeshError, String(thrown));
    return thrown.code;
  }
}

function verdict(proof: ShareProof, now = sampleNow, newest: NewestRecord | null = null): Promise<string> {
  return code(verifyShare(proof, now, newest));
}

const baseTerms = {
  scope: 'co-own',
  rights: coOwnerRights,
  now: sampleNow,
  expires: sampleNow + 3600,
  signaling: 'ws://192.0.2.10/ws',
  receiptKey: signaling.receiptKey.publicKey,
  cocoon: device.peerId,
} as const;

/** A fresh token of these terms, claimed by the other owner. */
async function claimed(
  terms: Partial<GrantTerms> = {},
  granting = owner,
): Promise<ShareProof & { kind: 'claim' }> {
  const { token, jti } = await createSetupToken(granting, { ...baseTerms, ...terms });
  const redemption = await redeem(
    await readSetupToken(token),
    otherOwner.key,
    otherOwner.id,
    otherOwner.records,
  );
  const content = { jti, redeemer: otherOwner.id, now: sampleNow };
  return { kind: 'claim', redemption, receipt: await signReceipt(signaling.receiptKey, content) };
}

describe('a share from the future', () => {
  const ahead = sampleNow + 2 * day;

  it('is refused, whoever signed its date', async () => {
    const terms = { now: ahead, expires: ahead + 3600 };
    const { token, jti } = await createSetupToken(owner, { ...baseTerms, ...terms });
    const setup = await readSetupToken(token);
    const redemption = await redeem(setup, otherOwner.key, otherOwner.id, otherOwner.records);
    const receipt = await signReceipt(signaling.receiptKey, { jti, redeemer: otherOwner.id, now: ahead });
    const chain: ShareProof = { kind: 'claim', redemption, receipt };
    assert.equal(await code(verifyShare(chain, sampleNow)), 'membership_invalid');
    assert.equal(await code(verifyShare(chain, ahead - day)), 'accepted');
    const direct = await signShare(owner, await verifyShare(chain, ahead), 1, sampleNow);
    assert.equal(await code(verifyShare(direct, sampleNow)), 'membership_invalid');
  });

  it('is refused by its receipt alone: its seven days would not end', async () => {
    const { token, jti } = await createSetupToken(owner, { ...baseTerms, expires: ahead + 3600 });
    const setup = await readSetupToken(token);
    const redemption = await redeem(setup, otherOwner.key, otherOwner.id, otherOwner.records);
    const receipt = await signReceipt(signaling.receiptKey, { jti, redeemer: otherOwner.id, now: ahead });
    assert.equal(
      await code(verifyShare({ kind: 'claim', redemption, receipt }, sampleNow)),
      'membership_invalid',
    );
  });
});

async function signed(proof: ShareProof, serial = 1): Promise<ShareProof & { kind: 'share' }> {
  const result = await signShare(owner, await verifyShare(proof, sampleNow), serial, sampleNow);
  assert.ok(result.kind === 'share');
  return result;
}

function payloadOf(jws: string): Record<string, unknown> {
  return JSON.parse(fromUtf8(fromBase64Url(jws.split('.')[1] ?? ''))) as Record<string, unknown>;
}

/** What the owner of the cocoon really signed, whatever our own code would. */
async function signedPast(change: object, proof = share): Promise<ShareProof> {
  const jws = await new CompactSign(utf8(JSON.stringify({ ...payloadOf(proof.share), ...change })))
    .setProtectedHeader({ alg: 'EdDSA', typ: 'share' })
    .sign(owner.key.privateKey);
  return { ...proof, share: jws };
}

describe('a claimed share', () => {
  it('says what was granted, to whom, and that nobody with the key has confirmed it', async () => {
    const { redemption, grantHash, ...proven } = await verifyShare(shareClaim, sampleNow + 60);
    assert.deepEqual(proven, {
      owner: owner.id,
      epoch: 0,
      cocoon: device.peerId,
      coOwner: otherOwner.id,
      rights: coOwnerRights,
      granted: sampleNow,
      expires: sampleNow + day,
      until: sampleNow + day,
      jti: sample.coOwnJti,
      serial: 0,
      provisional: true,
    });
    assert.equal(grantHash, sample.coOwnGrantHash);
    assert.equal(redemption, sample.coOwnRedemption);
    assert.deepEqual(shareRecords(shareClaim), owner.records);
  });

  it('ends after seven days, or with the right when that is sooner', async () => {
    const endless = await claimed();
    assert.equal(await verdict(endless, sampleNow + limits.provisionalMs / 1000 - 1), 'accepted');
    assert.equal(await verdict(endless, sampleNow + limits.provisionalMs / 1000), 'membership_expired');
    assert.equal((await verifyShare(endless, sampleNow)).until, null);
    const short = await claimed({ until: sampleNow + 600 });
    assert.equal(await verdict(short, sampleNow + 599), 'accepted');
    assert.equal(await verdict(short, sampleNow + 600), 'membership_expired');
  });

  it('is never made of an enroll token, nor a membership of a co-own token', async () => {
    assert.equal(await verdict(claim), 'membership_invalid');
    assert.equal(await code(verifyMembership(shareClaim, otherOwner.id, sampleNow)), 'membership_invalid');
    assert.equal(await code(verifyMembership(shareClaim, device.peerId, sampleNow)), 'membership_invalid');
  });

  it("needs the co-owner's own signature and the receipt for that co-owner", async () => {
    const { redemption, receipt } = shareClaim;
    const receiptFor = (redeemer: string, jti = sample.coOwnJti, key = signaling.receiptKey) =>
      signReceipt(key, { jti, redeemer, now: sampleNow });
    const byOwner = await redeem(
      await readSetupToken(sample.coOwnToken),
      owner.key,
      otherOwner.id,
      otherOwner.records,
    );
    const { redeemer_records: _, ...nameless } = redemption;
    for (const [what, proof] of Object.entries({
      'in the name of another': { ...shareClaim, redemption: byOwner },
      'without records': { ...shareClaim, redemption: nameless },
      'with the records of the granting owner': {
        ...shareClaim,
        redemption: { ...redemption, redeemer_records: owner.records },
      },
      'of another acceptance': {
        ...shareClaim,
        redemption: { ...redemption, acceptance: claim.redemption.acceptance },
      },
      'without the one-time key': {
        ...shareClaim,
        redemption: { ...redemption, one_time_signature: redemption.acceptance },
      },
      'with the receipt of another': { redemption, kind: 'claim', receipt: await receiptFor(owner.id) },
      'with the receipt of another token': {
        redemption,
        kind: 'claim',
        receipt: await receiptFor(otherOwner.id, sample.jti),
      },
      'with a receipt by another key': {
        redemption,
        kind: 'claim',
        receipt: await receiptFor(otherOwner.id, sample.coOwnJti, signaling.ticketKey),
      },
      'with a receipt and another grant': { ...claim, receipt },
    } satisfies Record<string, ShareProof>))
      assert.equal(await verdict(proof), 'membership_invalid', what);
  });

  it('with its own owner is none', async () => {
    const { token, jti } = await createSetupToken(owner, baseTerms);
    const redemption = await redeem(await readSetupToken(token), owner.key, owner.id, owner.records);
    const receipt = await signReceipt(signaling.receiptKey, { jti, redeemer: owner.id, now: sampleNow });
    assert.equal(await verdict({ kind: 'claim', redemption, receipt }), 'membership_invalid');
  });

  it('of the epoch before a rotation is void, unless the rotation keeps its very grant', async () => {
    const newest = await verifyOwnerRecords(rotated.records);
    assert.equal(await verdict(shareClaim, sampleNow, newest), 'accepted');
    assert.equal(await verdict(await claimed(), sampleNow, newest), 'membership_invalid');
    assert.equal(await verdict(shareClaim, sampleNow, { ...newest, keeps: [] }), 'membership_invalid');
    assert.equal(
      await verdict(shareClaim, sampleNow, { ...newest, keeps: [sample.coOwnJti] }),
      'membership_invalid',
    );
  });

  it('of a wider grant that whoever has the old secret signed under a kept name is void', async () => {
    // The thief has the secret of epoch 0 and the token itself, so the one-time key, so the same jti.
    const fresh = await createSetupToken(owner, { ...baseTerms, rights: narrowRights(['web'], []) });
    const text = fromUtf8(fromBase64Url(fresh.token.split('.')[1] ?? ''));
    const seed = fromBase64Url((JSON.parse(text) as { key: string }).key);
    const wide = await createSetupToken(owner, baseTerms, seed);
    assert.equal(wide.jti, fresh.jti);
    assert.notEqual(wide.grantHash, fresh.grantHash);
    const { recoveryCode, nextSecret } = sample;
    const after = await rotateOwner(owner.records, recoveryCode, nextSecret, [fresh.grantHash]);
    const newest = await verifyOwnerRecords(after.records);
    const proofOf = async (token: string): Promise<ShareProof> => {
      const read = await readSetupToken(token);
      const redemption = await redeem(read, otherOwner.key, otherOwner.id, otherOwner.records);
      const content = { jti: fresh.jti, redeemer: otherOwner.id, now: sampleNow };
      return { kind: 'claim', redemption, receipt: await signReceipt(signaling.receiptKey, content) };
    };
    assert.equal(await verdict(await proofOf(fresh.token), sampleNow, newest), 'accepted');
    assert.equal(await verdict(await proofOf(wide.token), sampleNow, newest), 'membership_invalid');
  });
});

describe('a signed share', () => {
  it('says what the claim said, and does not end with it', async () => {
    const { provisional, serial, grantHash, ...said } = await verifyShare(share, sampleNow);
    const {
      provisional: _,
      serial: __,
      grantHash: ___,
      ...before
    } = await verifyShare(shareClaim, sampleNow);
    assert.deepEqual([provisional, serial, grantHash], [false, 2, null]);
    assert.deepEqual(said, before);
    const endless = await signed(await claimed());
    assert.equal(await verdict(endless, sampleNow + 36_500 * day), 'accepted');
    assert.deepEqual(check(shareProofSchema, share), share);
  });

  it('never passes the end of the right, however often it is signed again', async () => {
    const again = await signed(await signed(await claimed({ until: sampleNow + 600 })), 2);
    assert.equal(await verdict(again, sampleNow + 599), 'accepted');
    assert.equal(await verdict(again, sampleNow + 600), 'membership_expired');
    assert.equal((await verifyShare(again, sampleNow)).granted, sampleNow);
  });

  it('with any field changed is refused', async () => {
    const otherValues: Record<string, unknown> = {
      v: 2,
      crit: ['x'],
      iss: otherOwner.id,
      epoch: 1,
      serial: 3,
      cocoon: otherDevice.peerId,
      sub: owner.id,
      rights: [],
      iat: sampleNow,
      granted: sampleNow + 1,
      until: sampleNow + 2 * day,
      jti: sample.jti,
    };
    const content = payloadOf(share.share);
    assert.deepEqual(Object.keys(otherValues).toSorted(), Object.keys(content).toSorted());
    const [header, , signature] = share.share.split('.');
    for (const [field, value] of Object.entries(otherValues)) {
      const payload = toBase64Url(utf8(JSON.stringify({ ...content, [field]: value })));
      const forged = { ...share, share: `${header}.${payload}.${signature}` };
      assert.equal(await verdict(forged), 'membership_invalid', field);
    }
  });

  it('attaches no owner that did not accept it: the cocoon, its owner, the token and who accepts all fit', async () => {
    const third = await ownerKeys((await createOwnerSecret()).secret);
    for (const change of [
      // An unwilling victim, another cocoon of the same owner, another token.
      { sub: third.id },
      { cocoon: otherDevice.peerId },
      { jti: sample.jti },
    ])
      assert.equal(await verdict(await signedPast(change)), 'membership_invalid', Object.keys(change).join());
    // Accepted, but from somebody else who names the same cocoon.
    const foreign = (await claimed({}, third)).redemption;
    const accepted = { ...share, redemption: foreign };
    const { jti } = (await verifyRedemption(foreign)).grant;
    assert.equal(await verdict(await signedPast({ jti }, accepted)), 'membership_invalid');
    const elsewhere = await claimed({ cocoon: otherDevice.peerId });
    for (const redemption of [
      // An acceptance of an enroll token, of another share, and of a token of another owner.
      claim.redemption,
      elsewhere.redemption,
      (await claimed({}, third)).redemption,
      { ...share.redemption, acceptance: elsewhere.redemption.acceptance },
    ])
      assert.equal(await verdict({ ...share, redemption }), 'membership_invalid');
  });

  it("is by the cocoon's owner: nobody signs one of another's cocoon, or beside another's records", async () => {
    const proven = await verifyShare(shareClaim, sampleNow);
    assert.equal(await code(signShare(otherOwner, proven, 1, sampleNow)), 'membership_invalid');
    const forged = await signShare({ ...otherOwner, id: owner.id }, proven, 1, sampleNow);
    assert.equal(await verdict(forged), 'membership_invalid');
    assert.equal(await verdict({ ...forged, records: owner.records } as ShareProof), 'membership_invalid');
    assert.equal(await verdict({ ...share, records: otherOwner.records }), 'membership_invalid');
    for (const change of [{ epoch: 1 }, { iss: otherOwner.id }])
      assert.equal(await verdict(await signedPast(change)), 'membership_invalid');
  });

  it('is no membership, and a membership is no share', async () => {
    const asMembership = { kind: 'membership', records: share.records, membership: share.share } as const;
    for (const peerId of [device.peerId, otherOwner.id])
      assert.equal(await code(verifyMembership(asMembership, peerId, sampleNow)), 'membership_invalid');
    const asShare = { ...share, share: sample.membership.membership };
    assert.equal(await verdict(asShare), 'membership_invalid');
  });

  it('gives nothing to be passed on, though the owner signed it', async () => {
    const rights = [...memberRights, ...adminRights];
    const proofs = [await claimed({ rights }), await signed(await claimed()), await signedPast({ rights })];
    for (const proof of proofs) {
      const proven = await verifyShare(proof, sampleNow);
      assert.deepEqual(proven.rights, coOwnerRights);
      assert.equal(allows(proven.rights, 'owner', 'admin', null), false);
      assert.equal(allows(proven.rights, 'relay', 'use', null), false);
    }
    const narrow = narrowRights(['web'], []);
    assert.deepEqual((await verifyShare(await claimed({ rights: narrow }), sampleNow)).rights, narrow);
  });

  it('of the epoch before a rotation is void, kept or not, and one of the next epoch stands', async () => {
    const newest = await verifyOwnerRecords(rotated.records);
    assert.equal(await verdict({ ...share, records: rotated.records }), 'membership_invalid');
    assert.equal(await verdict(share, sampleNow, newest), 'membership_invalid');
    const renewed = await signShare(rotated, await verifyShare(share, sampleNow), 3, sampleNow);
    const proven = await verifyShare(renewed, sampleNow, newest);
    assert.deepEqual([proven.epoch, proven.owner, proven.coOwner], [1, owner.id, otherOwner.id]);
  });

  it('with a field, right or version that is not known is refused as such', async () => {
    for (const change of [
      { v: 2 },
      { crit: ['place'] },
      { place: 'home' },
      { rights: [{ protocol: 'ssh', verbs: ['use'], names: ['*'] }] },
    ])
      assert.equal(await verdict(await signedPast(change)), 'unknown_constraint', JSON.stringify(change));
  });
});
