import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { fromBase64Url, fromUtf8, toBase64Url, utf8 } from './bytes.ts';
import { MeshError } from './errors.ts';
import type { Grant, Redemption } from './grant.ts';
import {
  assertGrantValidAt,
  assertRightLasts,
  createSetupToken,
  grantSchema,
  peekGrant,
  readSetupToken,
  redeem,
  signReceipt,
  verifyGrant,
  verifyReceipt,
  verifyRedemption,
} from './grant.ts';
import { limits } from './limits.ts';
import { memberRights } from './rights.ts';
import { sampleNow, sampleObjects, sampleSeed, secondRedemption } from './sample-objects.ts';
import { signObject } from './signed-object.ts';

const sample = await sampleObjects();
const { owner, otherOwner, device, otherDevice, signaling, token, redemption, coOwnRedemption } = sample;
const { grant } = await verifyGrant(redemption.records, redemption.grant);
const prefix = 'cocoon-token-1.';

async function code(attempt: Promise<unknown>): Promise<string> {
  try {
    await attempt;
    return 'accepted';
  } catch (thrown) {
    assert.ok(thrown instanceof MeshError, String(thrown));
    return thrown.code;
  }
}

/** The same object with one field changed and the old signature. */
function altered(jws: string, change: object): string {
  const [header, payload = '', signature] = jws.split('.');
  const content = { ...(JSON.parse(fromUtf8(fromBase64Url(payload))) as object), ...change };
  return `${header}.${toBase64Url(utf8(JSON.stringify(content)))}.${signature}`;
}

/** A grant that the owner really signed, differing from a good one. */
async function signedGrant(change: Record<string, unknown>): Promise<string> {
  return signObject('grant', grantSchema, { ...grant, ...change }, owner.key);
}

/** Signed past the schema, as a newer version with more to say would. */
async function newerGrant(change: Record<string, unknown>): Promise<string> {
  const { CompactSign } = await import('jose');
  return new CompactSign(utf8(JSON.stringify({ ...grant, ...change })))
    .setProtectedHeader({ alg: 'EdDSA', typ: 'grant' })
    .sign(owner.key.privateKey);
}

function tokenOf(body: unknown): string {
  return prefix + toBase64Url(utf8(JSON.stringify(body)));
}
const body = JSON.parse(fromUtf8(fromBase64Url(token.slice(prefix.length)))) as {
  records: string[];
  grant: string;
  key: string;
};

/** For each field of a grant another value that its schema accepts. */
const otherValues: Record<keyof Grant, unknown> = {
  v: 2,
  crit: ['x'],
  jti: otherOwner.id.slice(4),
  iss: otherOwner.id,
  epoch: 1,
  scope: 'co-own',
  rights: [],
  iat: grant.iat - 1,
  nbf: grant.nbf - 1,
  exp: grant.exp + 1,
  until: grant.exp,
  one_time_key: toBase64Url(device.publicKey),
  receipt_key: toBase64Url(device.publicKey),
  signaling: 'ws://192.0.2.66/ws',
  cocoon: otherDevice.peerId,
};

describe('a setup token', () => {
  it('is read back by its holder, whitespace around it ignored', async () => {
    const read = await readSetupToken(`  ${token}\n`);
    assert.equal(read.owner.id, owner.id);
    assert.deepEqual(read.grant, grant);
  });

  it('is another one each time', async () => {
    const terms = {
      scope: 'enroll',
      rights: memberRights,
      now: sampleNow,
      expires: sampleNow + 1,
      signaling: 'ws://192.0.2.10/ws',
      receiptKey: signaling.receiptKey.publicKey,
    } as const;
    const first = await createSetupToken(owner, terms);
    const second = await createSetupToken(owner, terms);
    assert.notEqual(first.jti, second.jti);
    assert.equal((await readSetupToken(first.token)).grant.jti, first.jti);
  });

  it('with any field of its grant changed is refused', async () => {
    for (const [field, value] of Object.entries(otherValues)) {
      const changed = tokenOf({ ...body, grant: altered(body.grant, { [field]: value }) });
      assert.equal(await code(readSetupToken(changed)), 'token_invalid', field);
    }
  });

  it('with the records of another owner, with none, or with the key of another token is refused', async () => {
    const seed = toBase64Url(await sampleSeed('another'));
    assert.equal(
      await code(readSetupToken(tokenOf({ ...body, records: otherOwner.records }))),
      'token_invalid',
    );
    assert.equal(await code(readSetupToken(tokenOf({ ...body, records: [] }))), 'token_malformed');
    assert.equal(await code(readSetupToken(tokenOf({ ...body, key: seed }))), 'token_invalid');
  });

  it('that is malformed says so', async () => {
    const malformed = [
      '',
      'cocoon-token-1',
      prefix,
      `cocoon-token-2.${token.slice(prefix.length)}`,
      token.slice(0, -10),
      `${token}=`,
      `${token.slice(0, 40)} ${token.slice(40)}`,
      tokenOf([]),
      tokenOf({ ...body, more: 1 }),
      tokenOf({ records: body.records, grant: body.grant }),
      // 43 characters whose last one has spare bits.
      tokenOf({ ...body, key: `${body.key.slice(0, -1)}B` }),
      prefix + 'A'.repeat(limits.maxTokenBytes),
      sample.recoveryCode,
    ];
    for (const text of malformed)
      assert.equal(await code(readSetupToken(text)), 'token_malformed', text.slice(0, 60));
  });
});

describe('a grant', () => {
  it('that names another owner, epoch or token than its own is refused, though the owner signed it', async () => {
    for (const field of ['iss', 'epoch', 'jti', 'one_time_key'] as const) {
      const jws = await signedGrant({ [field]: otherValues[field] });
      assert.equal(await code(verifyGrant(owner.records, jws)), 'token_invalid', field);
    }
  });

  it('of another owner cannot bear the name of a token, so no receipt fits two', async () => {
    const own = { ...grant, iss: otherOwner.id };
    const jws = await signObject('grant', grantSchema, own, otherOwner.key);
    assert.equal(await code(verifyGrant(otherOwner.records, jws)), 'token_invalid');
  });

  it('names a device when it is about one, and only then', async () => {
    assert.equal(
      await code(verifyGrant(owner.records, await signedGrant({ cocoon: device.peerId }))),
      'token_invalid',
    );
    assert.equal(
      await code(verifyGrant(owner.records, await signedGrant({ scope: 'co-own' }))),
      'token_invalid',
    );
  });

  it('with a version, scope, right, verb or constraint that is not known is refused as such', async () => {
    const right = { protocol: 'http', verbs: ['use'], names: ['*'] };
    const newer: Record<string, unknown>[] = [
      { v: 2 },
      { crit: ['network'] },
      { scope: 'lend' },
      { network: '192.0.2.0/24' },
      { rights: [{ ...right, protocol: 'shell' }] },
      { rights: [{ ...right, verbs: ['use', 'peek'] }] },
      { rights: [{ ...right, paths: ['/public'] }] },
    ];
    for (const change of newer) {
      const jws = await newerGrant(change);
      assert.equal(await code(verifyGrant(owner.records, jws)), 'unknown_constraint', JSON.stringify(change));
      const text = tokenOf({ ...body, grant: jws });
      assert.equal(await code(readSetupToken(text)), 'unknown_constraint', JSON.stringify(change));
    }
  });

  it('can be redeemed from its first second and not from its last', () => {
    const at = (now: number): string => {
      try {
        assertGrantValidAt(grant, now);
        return 'valid';
      } catch (thrown) {
        return (thrown as MeshError).code;
      }
    };
    assert.equal(at(grant.nbf - 1), 'token_not_yet_valid');
    assert.equal(at(grant.nbf), 'valid');
    assert.equal(at(grant.exp - 1), 'valid');
    assert.equal(at(grant.exp), 'token_expired');
  });

  it('gives nothing from the moment on at which its right ends', () => {
    assertRightLasts({ ...grant, until: grant.iat + 1 }, grant.iat);
    assert.throws(() => assertRightLasts({ ...grant, until: grant.iat }, grant.iat), {
      code: 'token_expired',
      message: /right .* ended/,
    });
  });

  it('holds at once at a signaling server whose clock is a little behind', () => {
    assert.equal(grant.nbf, sampleNow - limits.clockSkewMs / 1000);
  });

  it('is read without its owner once it was verified', () => {
    assert.equal(peekGrant(redemption.grant).jti, grant.jti);
  });
});

describe('a redemption', () => {
  it('by the holder of the token is accepted', async () => {
    assert.equal((await verifyRedemption(redemption)).owner.id, owner.id);
    assert.equal((await verifyRedemption(await secondRedemption(sample))).grant.jti, grant.jti);
  });

  it('for another redeemer than signed is refused', async () => {
    const forOther = { ...redemption, redeemer: otherDevice.peerId };
    assert.equal(await code(verifyRedemption(forOther)), 'token_invalid');
    const other = await secondRedemption(sample);
    const mixed: Redemption[] = [
      { ...other, one_time_signature: redemption.one_time_signature },
      { ...other, acceptance: redemption.acceptance },
      { ...redemption, acceptance: other.acceptance },
      { ...redemption, acceptance: redemption.one_time_signature },
      { ...redemption, one_time_signature: redemption.acceptance },
    ];
    for (const each of mixed) assert.equal(await code(verifyRedemption(each)), 'token_invalid');
  });

  it('of another grant than signed is refused', async () => {
    const { token: second } = await createSetupToken(owner, {
      scope: 'enroll',
      rights: [],
      now: sampleNow,
      expires: sampleNow + 60,
      signaling: 'ws://192.0.2.10/ws',
      receiptKey: signaling.receiptKey.publicKey,
    });
    const { grantJws } = await readSetupToken(second);
    assert.equal(await code(verifyRedemption({ ...redemption, grant: grantJws })), 'token_invalid');
  });

  it('of an enroll token is by a device, of a co-own token by an owner with its records', async () => {
    const enroll = await readSetupToken(token);
    const coOwn = await readSetupToken(sample.coOwnToken);
    const byOwner = await redeem(enroll, otherOwner.key, otherOwner.id, otherOwner.records);
    const byDevice = await redeem(coOwn, device, device.peerId);
    const { redeemer_records: _, ...withoutRecords } = coOwnRedemption;
    assert.equal((await verifyRedemption(coOwnRedemption)).grant.cocoon, device.peerId);
    assert.equal(await code(verifyRedemption(byOwner)), 'token_invalid');
    assert.equal(await code(verifyRedemption(byDevice)), 'token_invalid');
    assert.equal(await code(verifyRedemption(withoutRecords)), 'token_invalid');
    const foreign = { ...coOwnRedemption, redeemer_records: owner.records };
    assert.equal(await code(verifyRedemption(foreign)), 'token_invalid');
    // In the name of another owner, accepted by oneself.
    const inAnothersName = await redeem(coOwn, owner.key, otherOwner.id, owner.records);
    assert.equal(await code(verifyRedemption(inAnothersName)), 'token_invalid');
  });
});

describe('a receipt', () => {
  const receive = (content: { jti?: string; redeemer?: string; now?: number }, key = signaling.receiptKey) =>
    signReceipt(key, { jti: grant.jti, redeemer: device.peerId, now: sampleNow, ...content });
  const verdict = async (jws: Promise<string>) => code(verifyReceipt(await jws, grant, device.peerId));

  it('for this token and redeemer is accepted', async () => {
    assert.equal(await verdict(receive({})), 'accepted');
  });

  it('for another redeemer or token is refused', async () => {
    assert.equal(await verdict(receive({ redeemer: otherDevice.peerId })), 'token_invalid');
    assert.equal(await verdict(receive({ jti: otherOwner.id.slice(4) })), 'token_invalid');
  });

  it('by another key than the token names is refused, signaling having others included', async () => {
    for (const key of [signaling.ticketKey, signaling.accessKey, device, owner.key])
      assert.equal(await verdict(receive({}, key)), 'token_invalid');
  });

  it('of a time when the token was not valid is refused', async () => {
    assert.equal(await verdict(receive({ now: grant.nbf - 1 })), 'token_not_yet_valid');
    assert.equal(await verdict(receive({ now: grant.nbf })), 'accepted');
    assert.equal(await verdict(receive({ now: grant.exp - 1 })), 'accepted');
    assert.equal(await verdict(receive({ now: grant.exp })), 'token_expired');
  });
});
