/*
 * Whatever comes from outside ends as a value or a MeshError: nothing else is thrown, nothing hangs, nothing
 * grows beyond the input. A failure prints its seed; put the input it found into `regressions` below, or run
 * it again with COCOON_FUZZ_SEED. COCOON_TEST_FULL=1 tries twenty times as much.
 */

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { Packr } from 'msgpackr';
import * as z from 'zod/mini';
import { concat, fromHex, fromUtf8, toBase64Url, utf8 } from './bytes.ts';
import type { Schema } from './codec.ts';
import { decode, decodeJson, encode, encodeJson } from './codec.ts';
import { MeshError } from './errors.ts';
import { signedFields } from './fields.ts';
import { frameHeadBytes, readFrameHead, readU64 } from './frame.ts';
import { readSetupToken } from './grant.ts';
import { publicKeyOf } from './identity.ts';
import { assertPlainMsgpack } from './msgpack-shape.ts';
import { secretFromText, secretToText } from './owner.ts';
import * as protocol from './index.ts';
import {
  sampleQueryParts,
  sampleQueryRequests,
  sampleStreamEncodings,
  sampleTaskAnswers,
  sampleTaskRequests,
} from './sample-messages.ts';
import { sampleEncodings, sampleFrames, sampleNow, sampleObjects, encodeFrame } from './sample-objects.ts';
import { peekObject, signedTypes } from './signed-object.ts';

const seed = Number(process.env['COCOON_FUZZ_SEED'] ?? Math.floor(Math.random() * 0x7fff_ffff));
const runs = process.env['COCOON_TEST_FULL'] === '1' ? 20 : 1;
const maxBytes = 64 * 1024;

/** Inputs that once broke a decoder, or nearly: tried first, for ever. */
const regressions = {
  /** A map with a prototype, an array that announces 4 G items, an extension, nesting, invalid UTF-8. */
  msgpack: [
    '81a95f5f70726f746f5f5f81a161c3',
    'ddffffffff',
    'd40000',
    '91'.repeat(30) + 'c0',
    'a2c328',
    '81c0c0',
    '8190c0',
    'cbfff8000000000000',
    'cfffffffffffffffff',
    'de0001a474797065de0000',
  ],
  json: [
    '',
    '{"__proto__":{"type":"ping"},"id":1}',
    '['.repeat(60_000),
    '"\\ud800"',
    '1e999',
    '{"type":"ping","id":1e999}',
  ],
  /** A nonce of 25 characters is no base64url. */
  sign_in: ['A'.repeat(25)],
} as const;

const sample = await sampleObjects();
const encodings = await sampleEncodings(sample);
const messages = [
  ...encodings.client.map(({ msgpack }) => msgpack),
  ...encodings.server.map(({ msgpack }) => msgpack),
  encodings.hello.msgpack,
  ...Object.values(sampleStreamEncodings()).flatMap((group) => group.map(({ msgpack }) => msgpack)),
];
const texts = [...encodings.client, ...encodings.server].map(({ json }) => json);

/** Everything exported that is a schema, so that a new one is fuzzed without anybody thinking of it. */
const schemas = Object.values(protocol as Record<string, unknown>).filter(
  (exported): exported is Schema<unknown> => exported instanceof z.ZodMiniType,
);

function onlyMeshError(attempt: () => unknown): void {
  try {
    attempt();
  } catch (thrown) {
    if (!(thrown instanceof MeshError)) throw thrown;
  }
}

async function onlyMeshErrorLater(attempt: () => Promise<unknown>): Promise<void> {
  try {
    await attempt();
  } catch (thrown) {
    if (!(thrown instanceof MeshError)) throw thrown;
  }
}

/** Good bytes with some overwritten, cut out or put in. */
function damaged(originals: readonly Uint8Array[]): fc.Arbitrary<Uint8Array> {
  const edit = fc.record({ at: fc.nat(), cut: fc.nat({ max: 4 }), put: fc.uint8Array({ maxLength: 4 }) });
  return fc
    .tuple(fc.constantFrom(...originals), fc.array(edit, { minLength: 1, maxLength: 4 }))
    .map(([original, edits]) =>
      edits.reduce<Uint8Array>((bytes, { at, cut, put }) => {
        const offset = at % (bytes.length + 1);
        return concat(bytes.subarray(0, offset), put, bytes.subarray(offset + cut));
      }, original),
    );
}

function damagedText(originals: readonly string[]): fc.Arbitrary<string> {
  const edit = fc.record({ at: fc.nat(), cut: fc.nat({ max: 8 }), put: fc.string({ maxLength: 4 }) });
  return fc
    .tuple(fc.constantFrom(...originals), fc.array(edit, { minLength: 1, maxLength: 3 }))
    .map(([original, edits]) =>
      edits.reduce((text, { at, cut, put }) => {
        const offset = at % (text.length + 1);
        return text.slice(0, offset) + put + text.slice(offset + cut);
      }, original),
    );
}

/** Values of the right outline with one field of another kind: further into a schema than random bytes get. */
function twisted(originals: readonly object[]): fc.Arbitrary<unknown> {
  const value = fc.oneof(
    fc.jsonValue({ maxDepth: 2 }),
    fc.constantFrom(undefined, NaN, -0, 2 ** 53, 'A'.repeat(43)),
  );
  return fc.tuple(fc.constantFrom(...originals), fc.nat(), value).map(([original, index, other]) => {
    const keys = Object.keys(original);
    return { ...original, [keys[index % keys.length] ?? 'x']: other };
  });
}

function property<T>(arbitrary: fc.Arbitrary<T>, numRuns: number, attempt: (input: T) => unknown): void {
  fc.assert(
    fc.property(arbitrary, (input) => onlyMeshError(() => attempt(input))),
    { seed, numRuns: numRuns * runs },
  );
}

async function asyncProperty<T>(
  arbitrary: fc.Arbitrary<T>,
  numRuns: number,
  attempt: (input: T) => Promise<unknown>,
): Promise<void> {
  const each = fc.asyncProperty(arbitrary, (input) => onlyMeshErrorLater(() => attempt(input)));
  await fc.assert(each, { seed, numRuns: numRuns * runs });
}

const packr = new Packr({ useRecords: false });

describe(`bytes from outside (seed ${seed})`, () => {
  it('through every schema, as MessagePack', () => {
    assert.ok(schemas.length >= 20, `only ${schemas.length} schemas are exported`);
    const objects = [
      ...[...encodings.client, ...encodings.server].map(({ message }) => message),
      ...sampleTaskRequests,
      ...sampleTaskAnswers,
      ...sampleQueryRequests,
      ...sampleQueryParts,
    ];
    const value = fc.anything({ withBigInt: false, withDate: true, withMap: true, withTypedArray: true });
    for (const schema of schemas) {
      for (const hex of regressions.msgpack) onlyMeshError(() => decode(schema, fromHex(hex), maxBytes));
      property(fc.uint8Array({ maxLength: 64 }), 60, (bytes) => decode(schema, bytes, maxBytes));
      property(damaged(messages), 60, (bytes) => decode(schema, bytes, maxBytes));
      property(twisted(objects), 40, (object) => decode(schema, packr.pack(object), maxBytes));
      property(value, 30, (any) => decode(schema, packr.pack(any), maxBytes));
    }
  });

  it('through every schema, as JSON', () => {
    for (const schema of schemas) {
      for (const text of regressions.json) onlyMeshError(() => decodeJson(schema, text, maxBytes));
      property(fc.string({ maxLength: 64 }), 30, (text) => decodeJson(schema, text, maxBytes));
      property(fc.json(), 30, (text) => decodeJson(schema, text, maxBytes));
      property(damagedText(texts), 40, (text) => decodeJson(schema, text, maxBytes));
    }
  });

  it('that were accepted are written again and read as the same', () => {
    const { clientMessageSchema, serverMessageSchema, queryPartSchema, taskRequestSchema } = protocol;
    const written = [clientMessageSchema, serverMessageSchema, queryPartSchema, taskRequestSchema];
    for (const schema of written as Schema<unknown>[])
      property(damaged(messages), 600, (bytes) => {
        const value = decode(schema, bytes, maxBytes);
        assert.deepEqual(decode(schema, encode(schema, value), maxBytes), value);
        assert.deepEqual(decodeJson(schema, encodeJson(schema, value), maxBytes), value);
      });
  });

  it('as a sign-in that passed its schema, up to the bytes that are signed', () => {
    for (const nonce of regressions.sign_in)
      assert.throws(() => protocol.check(protocol.nonceField, nonce), { code: 'bad_message' });
    const text = fc.stringMatching(/^[A-Za-z0-9_-]{20,66}$/);
    property(fc.tuple(text, text), 500, ([clientNonce, serverNonce]) => {
      protocol.check(protocol.nonceField, clientNonce);
      protocol.check(protocol.nonceField, serverNonce);
      protocol.signInParts({ publicUrl: 'ws://a', clientNonce, serverNonce, time: 1 });
    });
  });

  it('as MessagePack never take more than a walk over them', () => {
    property(fc.uint8Array({ maxLength: 4096 }), 500, assertPlainMsgpack);
    const announced = fc.constantFrom(...['dd', 'df', 'db', 'c6'].map((head) => fromHex(`${head}ffffffff`)));
    const before = process.memoryUsage().arrayBuffers;
    property(fc.tuple(announced, fc.uint8Array({ maxLength: 64 })), 500, ([head, rest]) =>
      decode(z.unknown(), concat(head, rest), maxBytes),
    );
    assert.ok(process.memoryUsage().arrayBuffers - before < 16 * 1024 * 1024);
  });

  it('as frames', () => {
    const frames = sampleFrames().map(encodeFrame);
    const message = fc.oneof(fc.uint8Array({ maxLength: 40 }), damaged(frames), damaged([concat(...frames)]));
    property(message, 3000, (bytes) => {
      for (let offset = 0; offset < bytes.length;) {
        const head = readFrameHead(bytes, offset);
        const end = offset + frameHeadBytes + head.length;
        assert.ok(end <= bytes.length && head.streamId >= 0 && head.streamId <= 0xffff_ffff);
        offset = end;
      }
    });
    property(fc.tuple(fc.uint8Array({ maxLength: 12 }), fc.nat({ max: 12 })), 500, ([bytes, at]) =>
      assert.ok(Number.isSafeInteger(readU64(bytes, at))),
    );
  });
});

describe(`texts from outside (seed ${seed})`, () => {
  it('as setup tokens', async () => {
    const { token, coOwnToken } = sample;
    const prefix = 'cocoon-token-1.';
    const inside = fromUtf8(protocol.fromBase64Url(token.slice(prefix.length)));
    const resealed = damagedText([inside]).map((text) => prefix + toBase64Url(utf8(text)));
    await asyncProperty(fc.string(), 100, readSetupToken);
    await asyncProperty(damagedText([token, coOwnToken]), 200, async (text) => {
      const read = await readSetupToken(text);
      // What is accepted after a change is the same token, with other blanks around it.
      assert.ok([token, coOwnToken].includes(text.trim()) && read.owner.id === sample.owner.id);
    });
    await asyncProperty(resealed, 300, readSetupToken);
  });

  it('as signed objects', () => {
    const schema = z.looseObject({ ...signedFields });
    const originals = [sample.redemption.grant, sample.ticket, sample.record, sample.access];
    const segment = fc.oneof(fc.json(), fc.string()).map((text) => toBase64Url(utf8(text)));
    const assembled = fc.array(segment, { maxLength: 4 }).map((segments) => segments.join('.'));
    for (const type of signedTypes) {
      property(fc.oneof(fc.string(), assembled, damagedText(originals)), 150, (text) =>
        peekObject(type, schema, text),
      );
    }
  });

  it('as secrets', async () => {
    const rotated = await secretToText({ ...sample.nextSecret, records: sample.rotated.records });
    const text = await secretToText(sample.secret);
    await asyncProperty(fc.oneof(fc.string(), damagedText([text, rotated])), 400, async (candidate) => {
      const secret = await secretFromText(candidate);
      assert.equal(await secretToText(secret), candidate.trim());
    });
  });

  it('as shares and memberships that passed their schema, up to what is proven', async () => {
    const { share, shareClaim, claim, membership, coOwnRedemption, redemption, receipt } = sample;
    const proofs = [share, shareClaim, claim, membership];
    const redemptions = [coOwnRedemption, redemption];
    const mixed = fc
      .tuple(twisted(proofs), fc.oneof(twisted(redemptions), fc.constantFrom(undefined, ...redemptions)))
      .map(([proof, other]) =>
        other === undefined ? proof : { receipt, ...Object(proof), redemption: other },
      );
    await asyncProperty(mixed, 300, async (input) => {
      const proof = protocol.check(protocol.shareProofSchema, input);
      const proven = await protocol.verifyShare(proof, sampleNow);
      assert.deepEqual([proven.owner, proven.coOwner], [sample.owner.id, sample.otherOwner.id]);
    });
    await asyncProperty(mixed, 300, async (input) => {
      const proof = protocol.check(protocol.membershipProofSchema, input);
      const proven = await protocol.verifyMembership(proof, sample.device.peerId, sampleNow);
      assert.equal(proven.owner, sample.owner.id);
    });
  });

  it('as PeerIds', () => {
    const { peerId } = sample.device;
    property(fc.oneof(fc.string(), damagedText([peerId])), 1500, (text) => {
      const key = publicKeyOf(text);
      assert.equal(key.length, 32);
      assert.equal(protocol.peerIdOf(key), text);
    });
  });
});
