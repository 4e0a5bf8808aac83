import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { CompactSign, jwtVerify } from 'jose';
import * as z from 'zod/mini';
import { toBase64Url, utf8 } from './bytes.ts';
import { verifyDeviceRecord } from './device-record.ts';
import { MeshError } from './errors.ts';
import { signedFields } from './fields.ts';
import { verifyGrant, verifyReceipt } from './grant.ts';
import type { SigningKey } from './identity.ts';
import { importPublicKey } from './identity.ts';
import { verifyMembership } from './membership.ts';
import { verifyOwnerRecords } from './owner.ts';
import { verifyRevocations } from './revocation.ts';
import { verifyShare } from './share.ts';
import { sampleNow, sampleObjects, sampleSigned } from './sample-objects.ts';
import type { SignedType } from './signed-object.ts';
import { maxSignedObjectBytes, peekObject, signObject, signedTypes, verifyObject } from './signed-object.ts';
import { verifyTicket } from './ticket.ts';

const sample = await sampleObjects();
const signed = sampleSigned(sample);
const { owner, device, otherDevice, signaling } = sample;
const records = owner.records;
const verifiedOwner = await verifyOwnerRecords(records);
const { grant } = await verifyGrant(records, signed.grant);

/** The door through which each kind comes in. */
const places: Record<SignedType, (jws: string) => Promise<unknown>> = {
  'owner-record': (jws) => verifyOwnerRecords([jws]),
  grant: (jws) => verifyGrant(records, jws),
  receipt: (jws) => verifyReceipt(jws, grant, device.peerId),
  membership: (membership) =>
    verifyMembership({ kind: 'membership', records, membership }, device.peerId, sampleNow),
  share: (share) =>
    verifyShare({ kind: 'share', records, share, redemption: sample.coOwnRedemption }, sampleNow),
  'device-record': (jws) => verifyDeviceRecord(jws, device.peerId),
  revocation: (jws) => verifyRevocations([jws], verifiedOwner),
  ticket: (jws) => {
    const expected = { offerer: device.peerId, answerer: otherDevice.peerId };
    return verifyTicket(jws, signaling.ticketKey.publicKey, expected, sampleNow);
  },
  access: async (jws) => {
    const key = await importPublicKey(signaling.accessKey.publicKey);
    const currentDate = new Date(sampleNow * 1000);
    return jwtVerify(jws, key, { typ: 'access', algorithms: ['EdDSA'], currentDate });
  },
};

/** The codes from the one thrown down to its cause. */
async function refusal(attempt: Promise<unknown>): Promise<string> {
  try {
    await attempt;
    return 'accepted';
  } catch (thrown) {
    const codes: string[] = [];
    for (let error = thrown; error instanceof Error; error = error.cause)
      if ('code' in error && typeof error.code === 'string') codes.push(error.code);
    return codes.join(' < ');
  }
}

/** With one and the same key for every purpose, nothing but the type tells objects apart. */
const looseSchema = z.looseObject({ ...signedFields });
const allPurposeKey = device;

async function signRaw(header: object, payload: unknown, key: SigningKey): Promise<string> {
  const text = typeof payload === 'string' ? payload : JSON.stringify(payload);
  return new CompactSign(utf8(text)).setProtectedHeader(header as { alg: string }).sign(key.privateKey);
}

describe('a signed object', () => {
  it('is accepted in its own place', async () => {
    for (const type of signedTypes) assert.equal(await refusal(places[type](signed[type])), 'accepted', type);
  });

  it('is refused in the place of each other, as kept', async () => {
    const fresh: Record<string, Record<string, string>> = {};
    for (const place of signedTypes) {
      const row: Record<string, string> = {};
      for (const shown of signedTypes)
        if (shown !== place) row[shown] = await refusal(places[place](signed[shown]));
      fresh[`in the place of ${place}`] = row;
    }
    const file = new URL('./vectors/refusals.json', import.meta.url);
    if (process.env['COCOON_WRITE_VECTORS'] === '1') {
      mkdirSync(new URL('.', file), { recursive: true });
      writeFileSync(file, `${JSON.stringify(fresh, null, 2)}\n`);
    }
    assert.deepEqual(JSON.parse(readFileSync(file, 'utf8')), fresh);
    for (const row of Object.values(fresh))
      for (const codes of Object.values(row))
        assert.match(
          codes,
          /wrong_type$|ERR_JWT_CLAIM_VALIDATION_FAILED$|ERR_JWS_SIGNATURE_VERIFICATION_FAILED$/,
        );
  });

  it('is told from each other by its type alone, were all of them signed by one key', async () => {
    for (const shown of signedTypes) {
      const jws = await signObject(shown, looseSchema, { v: 1, crit: [] }, allPurposeKey);
      for (const place of signedTypes) {
        const attempt = verifyObject(place, looseSchema, jws, allPurposeKey.publicKey);
        assert.equal(await refusal(attempt), place === shown ? 'accepted' : 'wrong_type');
      }
    }
  });

  it('cannot have its type changed afterwards', async () => {
    for (const shown of signedTypes)
      for (const place of signedTypes) {
        if (place === shown) continue;
        const [, payload, signature] = signed[shown].split('.');
        const header = toBase64Url(utf8(JSON.stringify({ alg: 'EdDSA', typ: place })));
        const forged = `${header}.${payload}.${signature}`;
        assert.notEqual(await refusal(places[place](forged)), 'accepted', `${shown} as ${place}`);
      }
  });

  it('is refused with any bit of it changed', async () => {
    for (const type of signedTypes) {
      const jws = signed[type];
      for (let at = 0; at < jws.length; at += 7) {
        const changed = jws[at] === 'A' ? 'B' : 'A';
        const forged = jws.slice(0, at) + changed + jws.slice(at + 1);
        assert.notEqual(await refusal(places[type](forged)), 'accepted', `${type} at ${at}`);
      }
    }
  });

  it('has one spelling: spare bits at the end of its signature are refused', async () => {
    const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
    const jws = signed.grant;
    const last = alphabet.indexOf(jws.at(-1) ?? '');
    for (let spare = 1; spare < 16; spare++) {
      const respelled = jws.slice(0, -1) + alphabet[last + spare];
      assert.match(await refusal(places.grant(respelled)), /bad_message$/);
    }
  });

  it('has one spelling of its payload: padded, escaped or said twice it is refused', async () => {
    const header = { alg: 'EdDSA', typ: 'grant' };
    const content = { v: 1, crit: [], name: 'a/b' };
    const text = JSON.stringify(content);
    const read = async (payload: string) =>
      refusal(verifyObject('grant', looseSchema, await signRaw(header, payload, device), device.publicKey));
    for (const other of [
      `${text} `,
      ` ${text}`,
      JSON.stringify(content, null, 1),
      text.replace('a/b', 'a\\/b'),
      text.replace('"v":1', '"v":1.0'),
      text.replace('{', '{"v":1,'),
      `\uFEFF${text}`,
    ])
      assert.match(await read(other), /^bad_message/, other);
    assert.equal(await read(text), 'accepted');
  });

  it('of another version, or with a critical extension, is refused', async () => {
    for (const head of [
      { v: 2, crit: [] },
      { v: 0, crit: [] },
      { v: 1, crit: ['region'] },
    ]) {
      const jws = await signRaw({ alg: 'EdDSA', typ: 'grant' }, head, device);
      const attempt = verifyObject('grant', looseSchema, jws, device.publicKey);
      assert.equal(await refusal(attempt), 'unknown_constraint');
    }
  });

  it('without version, without extensions or with a payload that is no object is refused', async () => {
    for (const payload of [
      { crit: [] },
      { v: 1 },
      { v: '1', crit: [] },
      [],
      null,
      1,
      '{',
      '{"v":1,"crit":[]',
    ]) {
      const jws = await signRaw({ alg: 'EdDSA', typ: 'grant' }, payload, device);
      const attempt = verifyObject('grant', looseSchema, jws, device.publicKey);
      assert.equal(await refusal(attempt).then((codes) => codes.split(' ')[0]), 'bad_message');
    }
  });

  it('with a field its schema does not have, or a word it does not know, is refused as unknown', async () => {
    const schema = z.strictObject({ ...signedFields, scope: z.enum(['enroll']) });
    const refused = async (payload: object) => {
      const jws = await signRaw({ alg: 'EdDSA', typ: 'grant' }, payload, device);
      return refusal(verifyObject('grant', schema, jws, device.publicKey));
    };
    assert.equal(await refused({ v: 1, crit: [], scope: 'enroll' }), 'accepted');
    assert.match(await refused({ v: 1, crit: [], scope: 'enroll', only_at: 'night' }), /^unknown_constraint/);
    assert.match(await refused({ v: 1, crit: [], scope: 'lend' }), /^unknown_constraint/);
  });

  it('with any other header member is refused', async () => {
    for (const more of [{ kid: 'x' }, { jwk: {} }, { cty: 'x' }]) {
      const jws = await signRaw({ alg: 'EdDSA', typ: 'grant', ...more }, { v: 1, crit: [] }, device);
      const attempt = verifyObject('grant', looseSchema, jws, device.publicKey);
      assert.equal(await refusal(attempt), 'unknown_constraint');
    }
  });

  it('with another algorithm, or none, is refused', async () => {
    const payload = toBase64Url(utf8(JSON.stringify({ v: 1, crit: [] })));
    const signature = signed.grant.split('.')[2];
    for (const alg of ['none', 'HS256', 'ES256', 'Ed25519', 'eddsa']) {
      const header = toBase64Url(utf8(JSON.stringify({ alg, typ: 'grant' })));
      const attempt = verifyObject(
        'grant',
        looseSchema,
        `${header}.${payload}.${signature}`,
        device.publicKey,
      );
      assert.equal(await refusal(attempt), 'bad_signature');
    }
  });

  it('that is no compact JWS is refused', async () => {
    const [header = '', payload = '', signature = ''] = signed.grant.split('.');
    const malformed = [
      '',
      '.',
      '..',
      header,
      `${header}.${payload}`,
      `${header}.${payload}.${signature}.${signature}`,
      `${header}.${payload}.${signature}=`,
      ` ${signed.grant}`,
      `${signed.grant}\n`,
      `${header}..${signature}`,
    ];
    for (const jws of malformed) {
      assert.throws(() => peekObject('grant', looseSchema, jws), MeshError, JSON.stringify(jws));
      await assert.rejects(verifyObject('grant', looseSchema, jws, device.publicKey), MeshError);
    }
  });

  it('is judged by its signature before what it says', async () => {
    const jws = await signRaw({ alg: 'EdDSA', typ: 'grant' }, { v: 2, crit: ['x'] }, otherDevice);
    const attempt = verifyObject('grant', looseSchema, jws, device.publicKey);
    assert.match(await refusal(attempt), /^bad_signature/);
  });

  it('over its size is neither made nor read', async () => {
    const schema = z.looseObject({ ...signedFields });
    const payload = { v: 1, crit: [], note: 'x'.repeat(maxSignedObjectBytes) };
    assert.equal(await refusal(signObject('grant', schema, payload, device)), 'message_too_large');
    const jws = await signRaw({ alg: 'EdDSA', typ: 'grant' }, payload, device);
    assert.equal(await refusal(verifyObject('grant', schema, jws, device.publicKey)), 'message_too_large');
  });

  it('is refused under a key that is not one', async () => {
    for (const length of [0, 31, 33]) {
      const attempt = verifyObject('grant', looseSchema, signed.grant, new Uint8Array(length));
      assert.match(await refusal(attempt), /^bad_signature/);
    }
  });
});
