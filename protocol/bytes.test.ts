import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  concat,
  equalBytes,
  fromBase64Url,
  fromHex,
  fromUtf8,
  isBase64Url,
  lengthPrefixed,
  sha256,
  toBase64Url,
  toHex,
  utf8,
} from './bytes.ts';

describe('bytes', () => {
  it('survive hex, base64url and back', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
        assert.deepEqual(fromHex(toHex(bytes)), Uint8Array.from(bytes));
        assert.deepEqual(fromBase64Url(toBase64Url(bytes)), Uint8Array.from(bytes));
      }),
    );
  });

  it('have one base64url text: padding, other alphabets, spare bits and blanks are refused', () => {
    for (const text of ['A', 'AB', 'AAB', 'AA==', 'AA=', '+A', '/w', ' AA', 'AA\n', 'AAAAA']) {
      assert.throws(() => fromBase64Url(text), TypeError, text);
      assert.equal(isBase64Url(text), false);
    }
    for (const text of ['', 'AA', 'AAA', 'AAAA', '_w', '-_8']) assert.equal(isBase64Url(text), true);
  });

  it('come from hex of even length only', () => {
    for (const hex of ['0', 'zz', '0g', ' 00', '00 ']) assert.throws(() => fromHex(hex), TypeError);
    assert.deepEqual(fromHex('00fFA0'), Uint8Array.of(0, 255, 160));
  });

  it('are text only when they are UTF-8', () => {
    assert.equal(fromUtf8(utf8('ä😀')), 'ä😀');
    for (const bytes of [[0xff], [0xc3], [0xed, 0xa0, 0x80], [0xc0, 0x80]])
      assert.throws(() => fromUtf8(Uint8Array.from(bytes)), TypeError);
  });

  it('are equal in all or not at all', () => {
    const bytes = Uint8Array.of(1, 2, 3);
    assert.equal(equalBytes(bytes, Uint8Array.of(1, 2, 3)), true);
    assert.equal(equalBytes(new Uint8Array(), new Uint8Array()), true);
    for (const other of [
      [1, 2],
      [1, 2, 3, 4],
      [0, 2, 3],
      [1, 2, 2],
      [129, 2, 3],
    ])
      assert.equal(equalBytes(bytes, Uint8Array.from(other)), false);
  });

  it('joined behind their lengths never coincide', () => {
    const lists = fc.array(fc.uint8Array({ maxLength: 6 }), { maxLength: 4 });
    fc.assert(
      fc.property(lists, lists, (one, two) => {
        const same = JSON.stringify(one.map(toHex)) === JSON.stringify(two.map(toHex));
        assert.equal(equalBytes(lengthPrefixed(...one), lengthPrefixed(...two)), same);
      }),
    );
    assert.equal(toHex(lengthPrefixed(utf8('ab'), new Uint8Array())), '00000002616200000000');
  });

  it('have the hash of FIPS 180', async () => {
    assert.equal(
      toHex(await sha256(utf8('abc'))),
      'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad',
    );
    const view = concat(utf8('xabcx')).subarray(1, 4);
    assert.deepEqual(await sha256(view), await sha256(utf8('abc')));
  });
});
