import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { concat, fromHex, fromUtf8, lengthPrefixed, toBase64Url, toHex, utf8 } from './bytes.ts';
import {
  SignatureLabel,
  generateSigningKey,
  peerIdOf,
  publicKeyOf,
  signLabelled,
  signingKeyFromSeed,
  verifyLabelled,
} from './identity.ts';
import { sampleObjects, sampleSeed } from './sample-objects.ts';
import { signInParts } from './signaling-messages.ts';

const { device, otherDevice } = await sampleObjects();

/** RFC 8032, section 7.1, test 2. */
const rfc = {
  seed: '4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb',
  publicKey: '3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c',
  message: '72',
  signature:
    '92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00',
};

describe('a signing key', () => {
  it('signs as RFC 8032 says', async () => {
    const key = await signingKeyFromSeed(fromHex(rfc.seed));
    assert.equal(toHex(key.publicKey), rfc.publicKey);
    assert.equal(toHex(await key.sign(fromHex(rfc.message))), rfc.signature);
  });

  it('is made of 32 bytes and nothing else', async () => {
    for (const length of [0, 31, 33, 64])
      await assert.rejects(signingKeyFromSeed(new Uint8Array(length)), { code: 'key_corrupt' });
  });

  it('does not give its private half away', async () => {
    for (const { privateKey } of [await generateSigningKey(), device]) {
      await assert.rejects(crypto.subtle.exportKey('pkcs8', privateKey));
      await assert.rejects(crypto.subtle.exportKey('jwk', privateKey));
    }
  });
});

describe('a PeerId', () => {
  it('names a public key and gives it back', async () => {
    assert.equal(peerIdOf(device.publicKey), device.peerId);
    assert.deepEqual(publicKeyOf(device.peerId), device.publicKey);
    const fresh = await generateSigningKey();
    assert.deepEqual(publicKeyOf(fresh.peerId), fresh.publicKey);
  });

  it('in another spelling, or of another kind of key, is none', () => {
    const others = [
      '',
      'me',
      device.peerId.slice(0, -1),
      `${device.peerId} `,
      `z${device.peerId}`,
      // An RSA key's id, a CID and a base36 spelling of ids.
      'QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N',
      'bafzaajaiaejcbzdibmxyzdjbbehgvizh6g5tikvy47mshdy6gwbruvgwvd24seje',
      'k51qzi5uqu5dgutdk6i1ynyzgkqngpha5xpgia3a5qqp4jsh0u4csozksxel2r',
      'own_47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU',
    ];
    for (const text of others)
      assert.throws(() => publicKeyOf(text), { name: 'MeshError', code: 'bad_message' }, text);
  });
});

describe('a labelled signature', () => {
  const parts = [utf8('one'), utf8('two')] as const;

  it('is accepted for its key, label and parts, and for no others', async () => {
    const { signIn, redeemAccept } = SignatureLabel;
    const signature = await signLabelled(device, signIn, ...parts);
    await verifyLabelled(device.publicKey, signature, signIn, ...parts);
    const refused = [
      () => verifyLabelled(otherDevice.publicKey, signature, signIn, ...parts),
      () => verifyLabelled(device.publicKey, signature, redeemAccept, ...parts),
      () => verifyLabelled(device.publicKey, signature, signIn, utf8('onetwo')),
      () => verifyLabelled(device.publicKey, signature, signIn, utf8('on'), utf8('etwo')),
      () => verifyLabelled(device.publicKey, signature, signIn, ...parts, utf8('')),
      () => verifyLabelled(device.publicKey, signature.slice(1), signIn, ...parts),
      () => verifyLabelled(device.publicKey, new Uint8Array(64), signIn, ...parts),
      () => verifyLabelled(new Uint8Array(31), signature, signIn, ...parts),
    ];
    for (const attempt of refused)
      await assert.rejects(attempt, { name: 'MeshError', code: 'bad_signature' });
  });

  it('with its order of the curve added, which says the same in another way, is refused', async () => {
    const order = 2n ** 252n + 27742317777372353535851937790883648493n;
    const signature = await signLabelled(device, SignatureLabel.signIn, ...parts);
    const scalar = BigInt(`0x${toHex(signature.slice(32).toReversed())}`) + order;
    const respelled = concat(
      signature.slice(0, 32),
      fromHex(scalar.toString(16).padStart(64, '0')).toReversed(),
    );
    const attempt = verifyLabelled(device.publicKey, respelled, SignatureLabel.signIn, ...parts);
    await assert.rejects(attempt, { code: 'bad_signature' });
  });
});

/*
 * What a device key signs starts with one of four words. If two of these sets of bytes met, whoever chooses a
 * challenge could obtain a signature for another purpose.
 */
describe('a sign-in signature', () => {
  const noiseLabel = 'noise-libp2p-static-key:';

  /** What the key really signs for a challenge of a hostile server. */
  async function signedBytes(serverNonce: Uint8Array, time: number, publicUrl: string): Promise<Uint8Array> {
    let captured: Uint8Array = new Uint8Array();
    const key = {
      ...device,
      sign: async (bytes: Uint8Array) => {
        captured = bytes;
        return device.sign(bytes);
      },
    };
    const clientNonce = toBase64Url(await sampleSeed('nonce'));
    const content = { publicUrl, clientNonce, serverNonce: toBase64Url(serverNonce), time };
    await signLabelled(key, SignatureLabel.signIn, signInParts(content));
    return captured;
  }

  it('is never over what Noise or a JWS signs, whatever the server sends', async () => {
    const nasty = [utf8(noiseLabel), utf8('eyJhbGciOiJFZERTQSJ9.'), new Uint8Array(48)];
    const challenge = fc.oneof(fc.uint8Array({ minLength: 16, maxLength: 48 }), fc.constantFrom(...nasty));
    const property = fc.asyncProperty(challenge, fc.maxSafeNat(), fc.webUrl(), async (nonce, time, url) => {
      const bytes = await signedBytes(nonce, time, url);
      assert.equal(fromUtf8(bytes.slice(0, SignatureLabel.signIn.length)), SignatureLabel.signIn);
      assert.notEqual(toHex(bytes.slice(0, noiseLabel.length)), toHex(utf8(noiseLabel)));
      // A JWS signing input has base64url and one dot: the slash of every label is in neither.
      assert.ok(!/^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*$/.test(new TextDecoder().decode(bytes)));
    });
    await fc.assert(property, { numRuns: 200 });
  });

  it('says to which address it was given, so a server cannot pass it on to another', async () => {
    const nonce = await sampleSeed('nonce');
    const one = await signedBytes(nonce, 1, 'ws://192.0.2.1/ws');
    const two = await signedBytes(nonce, 1, 'ws://192.0.2.2/ws');
    assert.notDeepEqual(one, two);
  });

  it('has labels of which none begins another, each with a character no JWS has', () => {
    const labels = [...Object.values(SignatureLabel), noiseLabel];
    for (const label of labels)
      for (const other of labels) assert.ok(label === other || !other.startsWith(label), `${label} ${other}`);
    for (const label of Object.values(SignatureLabel)) assert.match(label, /^cocoon\/[a-z-]+\/1$/);
  });

  it('keeps its parts apart', () => {
    const nonces = { clientNonce: 'AAAAAAAAAAAAAAAAAAAAAA', serverNonce: 'AAAAAAAAAAAAAAAAAAAAAA', time: 1 };
    const parts = signInParts({ publicUrl: 'ws://a/ws', ...nonces });
    const zeros = new Uint8Array(16);
    assert.deepEqual(parts, lengthPrefixed(utf8('ws://a/ws'), zeros, zeros, utf8('1')));
  });
});
