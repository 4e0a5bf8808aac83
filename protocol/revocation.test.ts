import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { CompactSign } from 'jose';
import { fromBase64Url, fromUtf8, toBase64Url, utf8 } from './bytes.ts';
import { verifyOwnerRecords } from './owner.ts';
import { check } from './codec.ts';
import { limits } from './limits.ts';
import type { Revocable, Revocation } from './revocation.ts';
import {
  ends,
  givesBack,
  helloRevocationsSchema,
  peekRevocation,
  renewRevocations,
  revocationMessageSchema,
  signRevocation,
  verifyRevocations,
} from './revocation.ts';
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

  it('is said again after a rotation, with its own dates and every kind that is not known', async () => {
    const after = await verifyOwnerRecords(rotated.records);
    const before = await verifyRevocations(list, verified);
    const entries = [...before, { kind: 'service', subject: 'web', iat: sampleNow + 9 }];
    const renewed = await verifyRevocations(await renewRevocations(rotated, entries), after);
    assert.deepEqual(
      renewed.map(({ n, epoch, kind, subject, iat }) => [n, epoch, kind, subject, iat]),
      entries.map(({ kind, subject, iat }, i) => [i + 1, 1, kind, subject, iat]),
    );
    assert.deepEqual(await renewRevocations(rotated, []), []);
  });

  it('goes forward in time, though the clock of a device that signs is behind', async () => {
    const content = { kind: 'owner', subject: otherOwner.id } as const;
    const late = await signRevocation(owner, list, { ...content, now: sampleNow + 500 });
    const behind = await signRevocation(owner, [...list, late], { ...content, now: sampleNow - 500 });
    const entries = await verifyRevocations([...list, late, behind], verified);
    assert.deepEqual(
      entries.slice(-2).map(({ iat }) => iat),
      [sampleNow + 500, sampleNow + 500],
    );
  });

  it('is dated a day ahead at most, whatever was signed by a wrong clock before', async () => {
    const content = { kind: 'owner', subject: otherOwner.id } as const;
    const day = 86_400;
    const wrong = await signRevocation(owner, list, { ...content, now: sampleNow + 1000 * day });
    for (const least of [0, sampleNow + 5000 * day]) {
      const next = await signRevocation(owner, [...list, wrong], { ...content, now: sampleNow, least });
      assert.equal(peekRevocation(next).iat, sampleNow + day);
    }
    const soon = await signRevocation(owner, [], { ...content, now: sampleNow, least: sampleNow + 60 });
    assert.equal(peekRevocation(soon).iat, sampleNow + 60);
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

describe('an entry', () => {
  const right: Revocable = { peerId: device.peerId, jti, granted: sampleNow };
  const share: Revocable = { ...right, coOwner: otherOwner.id };
  const entry = (kind: string, subject: string, iat = sampleNow): Revocation => ({
    v: 1,
    crit: [],
    iss: owner.id,
    epoch: 0,
    n: 1,
    kind,
    subject,
    iat,
  });

  it('about a device ends every right of it for good, also one that was given later', () => {
    for (const each of [right, share, { ...right, jti: null, granted: sampleNow + 1000 }])
      assert.equal(ends(entry('device', device.peerId), each), true);
    assert.equal(ends(entry('device', otherDevice.peerId), right), false);
  });

  it('about a token ends what came from it, and nothing that came from none', () => {
    for (const each of [right, share]) assert.equal(ends(entry('token', jti), each), true);
    assert.equal(ends(entry('token', jti), { ...right, jti: null }), false);
    assert.equal(ends(entry('token', device.peerId), right), false);
  });

  it('about an owner ends what that owner was given until then, and not what it is given afterwards', () => {
    const removed = entry('owner', otherOwner.id, sampleNow);
    assert.equal(ends(removed, share), true);
    assert.equal(ends(removed, { ...share, granted: sampleNow - 1 }), true);
    assert.equal(ends(removed, { ...share, granted: sampleNow + 1 }), false);
    assert.equal(ends(entry('owner', owner.id), share), false);
    // A membership is with no other owner, and the owner's own devices are not removed by naming the owner.
    assert.equal(ends(removed, right), false);
    assert.equal(ends(entry('owner', owner.id), right), false);
  });

  it('of one kind is never taken for another, whatever its subject', () => {
    const subjects = [device.peerId, jti, otherOwner.id];
    const right: Record<string, string> = { device: device.peerId, token: jti, owner: otherOwner.id };
    for (const kind of ['device', 'token', 'owner', 'share', 'service', 'constructor'])
      for (const subject of subjects)
        assert.equal(ends(entry(kind, subject), share), right[kind] === subject, `${kind} ${subject}`);
  });

  it('with which a co-owner gives a share back ends nothing in the list of who gave it, nor another cocoon', () => {
    const back = entry('share', device.peerId, sampleNow);
    assert.equal(givesBack(back, share), true);
    assert.equal(ends(back, share), false);
    assert.equal(givesBack(back, { ...share, peerId: otherDevice.peerId }), false);
    assert.equal(givesBack(back, { ...share, granted: sampleNow + 1 }), false);
    for (const kind of ['device', 'owner', 'token'])
      assert.equal(givesBack(entry(kind, device.peerId), share), false);
  });
});

describe('revocations on their way', () => {
  it('are asked for and told, in pieces', () => {
    const ask = { kind: 'ask', owner: owner.id, epoch: 0, after: 2 };
    const tell = { kind: 'tell', owner: owner.id, records: rotated.records, after: 2, list };
    for (const message of [ask, tell]) assert.deepEqual(check(revocationMessageSchema, message), message);
    const long = Array.from({ length: limits.maxRevocationsPerMessage + 1 }, () => first);
    for (const wrong of [
      { ...tell, list: long },
      { ...tell, records: [] },
      { ...tell, after: -1 },
      { ...ask, owner: device.peerId },
      { ...ask, epoch: -1 },
    ])
      assert.throws(() => check(revocationMessageSchema, wrong), { code: 'bad_message' });
    assert.throws(() => check(revocationMessageSchema, { ...ask, kind: 'forget' }), { code: 'unsupported' });
  });

  it('fit into HELLO with their newest end', () => {
    const entries = Array.from({ length: limits.maxHelloRevocations }, () => first);
    const said = { owner: owner.id, epoch: 0, n: entries.length, entries };
    assert.deepEqual(check(helloRevocationsSchema, said), said);
    assert.throws(() => check(helloRevocationsSchema, { ...said, entries: [...entries, first] }), {
      code: 'bad_message',
    });
  });
});
