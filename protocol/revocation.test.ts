import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { CompactSign } from 'jose';
import { fromBase64Url, fromUtf8, toBase64Url, utf8 } from './bytes.ts';
import { verifyOwnerRecords } from './owner.ts';
import { signRevocation, verifyRevocations } from './revocation.ts';
import { sampleNow, sampleObjects } from './sample-objects.ts';
import { hashObject } from './signed-object.ts';

const { owner, otherOwner, rotated, device, otherDevice, revocations, jti } = await sampleObjects();
const verified = await verifyOwnerRecords(owner.records);
const [first = '', second = ''] = revocations;
const third = await signRevocation(owner, revocations, {
  kind: 'owner',
  subject: otherOwner.id,
  now: sampleNow,
});
const list = [first, second, third];
const gap = { code: 'bad_signature', message: /gap/ };

describe('a list of revocations', () => {
  it('is read in order, also the empty one', async () => {
    assert.deepEqual(await verifyRevocations([], verified), []);
    const entries = await verifyRevocations(list, verified);
    assert.deepEqual(
      entries.map(({ n, kind, subject }) => [n, kind, subject]),
      [
        [1, 'device', otherDevice.peerId],
        [2, 'token', jti],
        [3, 'owner', otherOwner.id],
      ],
    );
  });

  it('with an entry left out, repeated or moved is refused', async () => {
    for (const wrong of [
      [second],
      [first, third],
      [first, first],
      [second, first],
      [...list, third],
      [third, second, first],
    ])
      await assert.rejects(verifyRevocations(wrong, verified), gap);
  });

  it('with a wrong number is refused, though it is linked right', async () => {
    const content = { kind: 'device', subject: device.peerId, now: sampleNow } as const;
    const misnumbered = await signRevocation(owner, [second, first], content);
    await assert.rejects(verifyRevocations([first, misnumbered], verified), gap);
  });

  it('that forks is refused: an entry goes on from one past only', async () => {
    const content = { kind: 'device', subject: device.peerId, now: sampleNow } as const;
    const fork = await signRevocation(owner, [first], content);
    const afterFork = await signRevocation(owner, [first, fork], content);
    await verifyRevocations([first, fork, afterFork], verified);
    await assert.rejects(verifyRevocations([first, second, afterFork], verified), gap);
    await assert.rejects(verifyRevocations([first, fork, third], verified), gap);
  });

  it('may come in pieces, each going on from the last entry that is known', async () => {
    const known = { n: 1, hash: toBase64Url(await hashObject(first)) };
    const entries = await verifyRevocations([second, third], verified, known);
    assert.deepEqual(
      entries.map(({ n }) => n),
      [2, 3],
    );
    await assert.rejects(verifyRevocations([third], verified, known), gap);
    await assert.rejects(verifyRevocations(list, verified, known), gap);
    const forked = { n: 1, hash: toBase64Url(await hashObject(second)) };
    await assert.rejects(verifyRevocations([second, third], verified, forked), gap);
  });

  it('of another owner or signed by anybody else is refused', async () => {
    await assert.rejects(verifyRevocations(list, await verifyOwnerRecords(otherOwner.records)), {
      code: 'bad_signature',
    });
    const foreign = await signRevocation({ ...otherOwner, id: owner.id }, [], {
      kind: 'device',
      subject: device.peerId,
      now: 1,
    });
    await assert.rejects(verifyRevocations([foreign], verified), { code: 'bad_signature' });
    const misnamed = await signRevocation({ ...owner, id: otherOwner.id }, [], {
      kind: 'device',
      subject: device.peerId,
      now: 1,
    });
    await assert.rejects(verifyRevocations([misnamed], verified), { code: 'bad_signature' });
  });

  it('ends with its epoch: the key of a lost secret revokes nobody any more', async () => {
    const after = await verifyOwnerRecords(rotated.records);
    await assert.rejects(verifyRevocations(list, after), { code: 'bad_signature' });
    const mislabelled = await signRevocation({ ...rotated, epoch: 0 }, [], {
      kind: 'device',
      subject: device.peerId,
      now: 1,
    });
    await assert.rejects(verifyRevocations([mislabelled], after), { code: 'bad_signature' });
    const fresh = await signRevocation(rotated, [], { kind: 'device', subject: device.peerId, now: 1 });
    assert.equal((await verifyRevocations([fresh], after)).length, 1);
  });

  it('keeps what a newer version revoked among what it knows itself, and refuses other novelties', async () => {
    const content = JSON.parse(fromUtf8(fromBase64Url(first.split('.')[1] ?? ''))) as object;
    const newer = (change: object) =>
      new CompactSign(utf8(JSON.stringify({ ...content, ...change })))
        .setProtectedHeader({ alg: 'EdDSA', typ: 'revocation' })
        .sign(owner.key.privateKey);
    const [entry] = await verifyRevocations([await newer({ kind: 'service' })], verified);
    assert.equal(entry?.kind, 'service');
    for (const change of [{ v: 2 }, { crit: ['x'] }, { from: sampleNow }])
      await assert.rejects(verifyRevocations([await newer(change)], verified), {
        code: 'unknown_constraint',
      });
  });
});
