import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { concat, fromBase64Url, sha256, toBase64Url, utf8 } from './bytes.ts';
import { check } from './codec.ts';
import { MeshError } from './errors.ts';
import { fromUtf8 } from './bytes.ts';
import { limits } from './limits.ts';
import type { OwnerRecord, OwnerSecret } from './owner.ts';
import {
  createOwnerSecret,
  ownerKeys,
  ownerRecordsField,
  rotateOwner,
  secretFromText,
  secretToText,
  verifyOwnerRecords,
} from './owner.ts';
import type { SigningKey } from './identity.ts';
import { signingKeyFromSeed } from './identity.ts';
import { sampleObjects, sampleSecret, sampleSeed } from './sample-objects.ts';
import { hashObject } from './signed-object.ts';
import { CompactSign } from 'jose';

const sample = await sampleObjects();
const { owner, otherOwner, rotated, secret, recoveryCode, nextSecret } = sample;

async function code(attempt: Promise<unknown>): Promise<string> {
  try {
    await attempt;
    return 'accepted';
  } catch (thrown) {
    assert.ok(thrown instanceof MeshError, String(thrown));
    return thrown.code;
  }
}

function contentOf(jws: string): OwnerRecord {
  return JSON.parse(fromUtf8(fromBase64Url(jws.split('.')[1] ?? ''))) as OwnerRecord;
}

async function signRecord(content: object, key: SigningKey): Promise<string> {
  return new CompactSign(utf8(JSON.stringify(content)))
    .setProtectedHeader({ alg: 'EdDSA', typ: 'owner-record' })
    .sign(key.privateKey);
}

describe('an owner', () => {
  it('is the same on every device that holds the secret', async () => {
    const again = await ownerKeys(await secretFromText(await secretToText(secret)));
    assert.equal(again.id, owner.id);
    assert.deepEqual(again.records, owner.records);
    assert.deepEqual(again.discoveryKey, owner.discoveryKey);
  });

  it('is named by what its first record says, not by one signature under it', async () => {
    const payload = (owner.records[0] ?? '').split('.')[1] ?? '';
    assert.equal(owner.id, `own_${toBase64Url(await sha256(fromBase64Url(payload)))}`);
  });

  it('differs from every other', async () => {
    const [one, two] = [await createOwnerSecret(), await createOwnerSecret()];
    assert.notEqual((await ownerKeys(one.secret)).id, (await ownerKeys(two.secret)).id);
  });

  it('shows neither its secret nor its discovery key in its record', async () => {
    const text = JSON.stringify(contentOf(owner.records[0] ?? ''));
    for (const hidden of [secret.seed, owner.discoveryKey]) assert.ok(!text.includes(toBase64Url(hidden)));
  });

  it('has no first record that anybody else signed', async () => {
    const content = contentOf(owner.records[0] ?? '');
    assert.equal(
      await code(verifyOwnerRecords([await signRecord(content, otherOwner.key)])),
      'bad_signature',
    );
  });

  it('needs a first record of epoch 0 without a past', async () => {
    const content = contentOf(owner.records[0] ?? '');
    const hash = toBase64Url(await sha256(utf8('x')));
    for (const change of [{ epoch: 1 }, { previous: hash }, { recovery_key: hash }, { keeps: [hash] }]) {
      const record = await signRecord({ ...content, ...change }, owner.key);
      assert.equal(await code(verifyOwnerRecords([record])), 'membership_invalid');
    }
    assert.equal(await code(verifyOwnerRecords([])), 'membership_invalid');
    assert.equal(await code(verifyOwnerRecords(rotated.records.slice(1))), 'membership_invalid');
  });

  it('record with a field that is not known is refused', async () => {
    const content = { ...contentOf(owner.records[0] ?? ''), threshold: 2 };
    assert.equal(
      await code(verifyOwnerRecords([await signRecord(content, owner.key)])),
      'unknown_constraint',
    );
  });
});

describe('a rotation', () => {
  const first = owner.records[0] ?? '';
  const second = rotated.records[1] ?? '';
  const content = contentOf(second);

  /** A second record that differs from the good one, signed by the recovery key unless said otherwise. */
  async function following(change: Partial<OwnerRecord>, key?: SigningKey): Promise<string[]> {
    const recovery = await signingKeyFromSeed(await sampleSeed('owner recovery'));
    return [first, await signRecord({ ...content, ...change }, key ?? recovery)];
  }

  it('keeps the name and changes the keys', async () => {
    const verified = await verifyOwnerRecords(rotated.records);
    assert.equal(verified.id, owner.id);
    assert.equal(verified.epoch, 1);
    assert.notDeepEqual(verified.publicKey, owner.key.publicKey);
    assert.deepEqual(await verifyOwnerRecords(await following({})), verified);
  });

  it('is signed by the recovery key: not by the old key, the new key or another owner', async () => {
    for (const key of [owner.key, rotated.key, otherOwner.key]) {
      assert.equal(await code(verifyOwnerRecords(await following({}, key))), 'bad_signature');
      // Nor by a key that calls itself the recovery key.
      const claimed = await following({ recovery_key: toBase64Url(key.publicKey) }, key);
      assert.equal(await code(verifyOwnerRecords(claimed)), 'membership_invalid');
    }
  });

  it('follows the record before: no gap, no repeat, no other past', async () => {
    for (const change of [{ epoch: 0 }, { epoch: 2 }, { previous: toBase64Url(await hashObject(second)) }])
      assert.equal(await code(verifyOwnerRecords(await following(change))), 'membership_invalid');
    const { previous: _, ...unlinked } = content;
    const recovery = await signingKeyFromSeed(await sampleSeed('owner recovery'));
    assert.equal(
      await code(verifyOwnerRecords([first, await signRecord(unlinked, recovery)])),
      'membership_invalid',
    );
    assert.equal(await code(verifyOwnerRecords([first, first])), 'membership_invalid');
    assert.equal(await code(verifyOwnerRecords([first, second, second])), 'membership_invalid');
    assert.equal(await code(verifyOwnerRecords([otherOwner.records[0] ?? '', second])), 'membership_invalid');
  });

  it('without a recovery key is refused, also where nothing hashes to the expected', async () => {
    const { recovery_key: _, ...without } = content;
    const recovery = await signingKeyFromSeed(await sampleSeed('owner recovery'));
    assert.equal(
      await code(verifyOwnerRecords([first, await signRecord(without, recovery)])),
      'membership_invalid',
    );
  });

  it('can be repeated, up to the limit of the chain', async () => {
    let { records } = owner;
    let next = recoveryCode;
    for (let epoch = 1; epoch <= 3; epoch++) {
      const fresh = await createOwnerSecret();
      ({ records } = await rotateOwner(records, next, fresh.secret));
      next = fresh.recoveryCode;
    }
    assert.equal((await verifyOwnerRecords(records)).epoch, 3);
    assert.equal((await verifyOwnerRecords(records)).id, owner.id);
    assert.ok(limits.maxOwnerRecords > 3);
  });

  it('needs the newest recovery code, and says so', async () => {
    const other = (await sampleSecret('other owner')).recoveryCode;
    await assert.rejects(rotateOwner(owner.records, other, nextSecret), {
      code: 'key_corrupt',
      message: /not the one/,
    });
    await assert.rejects(rotateOwner(rotated.records, recoveryCode, secret), {
      code: 'key_corrupt',
      hint: /the one that was shown last/,
    });
    await assert.rejects(rotateOwner(owner.records, await secretToText(secret), nextSecret), {
      code: 'key_corrupt',
      message: /starts with cocoon-recovery-1\./,
      hint: /^Copy the whole recovery code again/,
    });
  });

  it('gives its keys to whoever holds the new secret and the records, and to nobody with the old one', async () => {
    const keys = await ownerKeys(nextSecret, rotated.records);
    assert.equal(keys.id, owner.id);
    assert.equal(keys.epoch, 1);
    assert.equal(await code(ownerKeys(secret, rotated.records)), 'membership_invalid');
  });

  it('names the grants it keeps in its newest record only, and no more than the limit', async () => {
    const hash = async (name: string) => toBase64Url(await sampleSeed(name));
    const { secret: last, recoveryCode: lastCode } = await createOwnerSecret();
    const once = await rotateOwner(owner.records, recoveryCode, last, [await hash('kept')]);
    assert.deepEqual((await verifyOwnerRecords(once.records)).keeps, [await hash('kept')]);
    const twice = await rotateOwner(once.records, lastCode, (await createOwnerSecret()).secret);
    assert.deepEqual((await verifyOwnerRecords(twice.records)).keeps, []);
    const many = await Promise.all(Array.from({ length: limits.maxKeptTokens }, (_, i) => hash(`kept ${i}`)));
    const full = await rotateOwner(owner.records, recoveryCode, last, many);
    assert.deepEqual((await verifyOwnerRecords(full.records)).keeps, many);
    check(ownerRecordsField, full.records);
    const tooMany = rotateOwner(owner.records, recoveryCode, last, [...many, await hash('more')]);
    assert.equal(await code(tooMany), 'bad_message');
  });

  it('that nobody would accept, because the chain is full, is not made', async () => {
    let { records } = owner;
    let next = recoveryCode;
    while (records.length < limits.maxOwnerRecords) {
      const fresh = await createOwnerSecret();
      ({ records } = await rotateOwner(records, next, fresh.secret));
      next = fresh.recoveryCode;
    }
    check(ownerRecordsField, records);
    assert.equal(await code(rotateOwner(records, next, nextSecret)), 'message_too_large');
  });
});

describe('a secret as text', () => {
  it('comes back as it was', async () => {
    const { secret: fresh } = await createOwnerSecret();
    assert.deepEqual(await secretFromText(` ${await secretToText(fresh)}\n`), fresh);
  });

  it('comes back with its records after rotations, and is the same owner', async () => {
    let { records } = owner;
    let code = recoveryCode;
    let fresh = await createOwnerSecret();
    for (let epoch = 1; epoch <= 3; epoch++) {
      fresh = await createOwnerSecret();
      ({ records } = await rotateOwner(records, code, fresh.secret));
      code = fresh.recoveryCode;
      const whole = { ...fresh.secret, records };
      const text = await secretToText(whole);
      assert.ok(text.startsWith('cocoon-secret-2.'));
      const read = await secretFromText(` ${text}\n`);
      assert.deepEqual(read, whole);
      assert.equal(await secretToText(read), text);
      const keys = await ownerKeys(read);
      assert.deepEqual([keys.id, keys.epoch], [owner.id, epoch]);
    }
    // The seed alone would be another owner.
    assert.notEqual((await ownerKeys(fresh.secret)).id, owner.id);
  });

  it('with records that are not those of its seed is refused, by whoever reads it and by whoever uses it', async () => {
    const { records } = rotated;
    const first = records.slice(0, 1);
    const otherRecovery = { ...nextSecret, recoveryKeyHash: secret.recoveryKeyHash, records };
    const wrong: OwnerSecret[] = [
      { ...secret, records },
      { ...nextSecret, seed: secret.seed, records },
      { ...nextSecret, records: first },
      { ...nextSecret, records: otherOwner.records },
      { ...nextSecret, records: records.toReversed() },
      { ...nextSecret, records: [...records, records[1] ?? ''] },
      { ...nextSecret, records: ['x', 'y'] },
      { ...nextSecret, records: [...records, ''] },
      otherRecovery,
    ];
    for (const [i, each] of wrong.entries()) {
      await assert.rejects(ownerKeys(each), MeshError, String(i));
      const expected = { code: 'key_corrupt', message: /do not belong together/ };
      await assert.rejects(secretFromText(await secretToText(each)), expected, String(i));
    }
    assert.equal(await code(ownerKeys({ ...secret, records })), 'membership_invalid');
    assert.equal(await code(ownerKeys(otherRecovery)), 'membership_invalid');
  });

  it('that was made up is refused as weak, in both forms', async () => {
    const { recoveryKeyHash } = secret;
    const seeds = {
      zeros: new Uint8Array(32),
      'one byte': new Uint8Array(32).fill(0xa5),
      counting: Uint8Array.from({ length: 32 }, (_, i) => i),
      'counting down by seven': Uint8Array.from({ length: 32 }, (_, i) => 250 - 7 * i),
      'twelve values in disorder': Uint8Array.from(
        { length: 32 },
        (_, i) =>
          [3, 20, 44, 77, 100, 131, 149, 180, 200, 222, 240, 251][(i * i * 7 + (i >> 2) * 5) % 12] ?? 0,
      ),
      'a word again and again': utf8('cocoon!!'.repeat(4)),
      'a sentence': utf8('the quick brown fox jumps, and b'),
      'random, but little of it': concat(secret.seed.slice(0, 10), new Uint8Array(22)),
    };
    for (const [what, seed] of Object.entries(seeds)) {
      const made = { seed: concat(seed), recoveryKeyHash };
      const expected = { code: 'key_corrupt', message: /weak/ };
      await assert.rejects(secretFromText(await secretToText(made)), expected, what);
      const keys = await rotateOwner(owner.records, recoveryCode, made);
      const text = await secretToText({ ...made, records: keys.records });
      await assert.rejects(secretFromText(text), expected, what);
    }
    for (let i = 0; i < 200; i++)
      await secretFromText(await secretToText((await createOwnerSecret()).secret));
  });

  it('after a rotation says what is wrong with it, and has no other form', async () => {
    const text = await secretToText({ ...nextSecret, records: rotated.records });
    const at = text.length - 200;
    const cases: [string, RegExp][] = [
      [text.slice(0, -1), /typing error or is not complete/],
      [text.slice(0, 400), /typing error or is not complete/],
      [text.slice(0, 80), /not complete/],
      [`${text}AAAA`, /typing error/],
      [`${text}=`, /characters that do not belong/],
      [text.slice(0, at) + (text[at] === 'x' ? 'y' : 'x') + text.slice(at + 1), /typing error/],
      [text.replace('secret-2', 'secret-1'), /too long/],
      [(await secretToText(nextSecret)).replace('secret-1', 'secret-2'), /not complete/],
      [`cocoon-secret-2.${'A'.repeat(200_000)}`, /too long/],
      [`cocoon-secret-2.${'A'.repeat(93)}`, /typing error/],
      ['cocoon-secret-2.', /not complete/],
    ];
    for (const [malformed, message] of cases)
      await assert.rejects(
        secretFromText(malformed),
        { code: 'key_corrupt', message },
        malformed.slice(0, 60),
      );
  });

  it('says what is wrong with it', async () => {
    const text = await secretToText(secret);
    const at = text.length - 20;
    const typed = text.slice(0, at) + (text[at] === 'x' ? 'y' : 'x') + text.slice(at + 1);
    const prefix = 'cocoon-secret-1.';
    const tooLong = toBase64Url(concat(new Uint8Array(70)));
    const cases: [string, RegExp][] = [
      ['', /starts with cocoon-secret-1\./],
      [text.slice(1), /starts with/],
      [text.toUpperCase(), /starts with/],
      [text.replace('secret-1', 'secret-2'), /not complete/],
      [recoveryCode, /starts with/],
      ...[1, 2, 3, 4, 5].map((cut): [string, RegExp] => [text.slice(0, -cut), /not complete/]),
      [prefix, /not complete/],
      [prefix + tooLong, /too long/],
      [`${text}A`, /too long/],
      [typed, /typing error/],
      [`${text}=`, /characters that do not belong/],
      [text.replace('.', '. '), /characters that do not belong/],
      [`${text.slice(0, -1)}é`, /characters that do not belong/],
    ];
    const hint = /^Copy the whole secret again/;
    for (const [malformed, message] of cases)
      await assert.rejects(secretFromText(malformed), { code: 'key_corrupt', message, hint }, malformed);
  });
});
