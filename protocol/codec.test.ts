import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import * as z from 'zod/mini';
import { fromHex, toHex, utf8 } from './bytes.ts';
import { check, decode, decodeJson, encode, encodeJson } from './codec.ts';
import { clientMessageSchema } from './signaling-messages.ts';

const schema = z.object({ name: z.string(), count: z.optional(z.int()) });
const badMessage = { name: 'MeshError', code: 'bad_message' };
const tooLarge = { name: 'MeshError', code: 'message_too_large' };

describe('the codec', () => {
  it('writes and reads the same value in both encodings', () => {
    const value = { name: 'ä€😀', count: 3 };
    assert.deepEqual(decode(schema, encode(schema, value), 100), value);
    assert.deepEqual(decodeJson(schema, encodeJson(schema, value), 100), value);
    assert.deepEqual(decodeJson(schema, utf8(encodeJson(schema, value)), 100), value);
    assert.equal(toHex(encode(schema, { name: 'a', count: 1 })), 'de0002a46e616d65a161a5636f756e7401');
  });

  it('leaves an absent field out, however its absence is written', () => {
    const bytes = encode(schema, { name: 'a', count: undefined });
    assert.deepEqual(bytes, encode(schema, { name: 'a' }));
    assert.deepEqual(decode(schema, bytes, 100), { name: 'a' });
    assert.equal(encodeJson(schema, { name: 'a', count: undefined }), '{"name":"a"}');
    const nested = z.object({ list: z.array(schema) });
    const list = [{ name: 'a', count: undefined }];
    assert.deepEqual(decode(nested, encode(nested, { list }), 100), { list: [{ name: 'a' }] });
  });

  it('measures before it looks', () => {
    const bytes = encode(schema, { name: 'a' });
    decode(schema, bytes, bytes.length);
    assert.throws(() => decode(schema, bytes, bytes.length - 1), tooLarge);
    assert.throws(() => decodeJson(schema, '{"name":"a"}', 11), tooLarge);
    assert.throws(() => decode(schema, new Uint8Array(200), 100), tooLarge);
  });

  it('drops fields that the schema does not know', () => {
    assert.deepEqual(decodeJson(schema, '{"name":"a","more":1,"__proto__":{"count":1}}', 100), { name: 'a' });
    const loose = z.looseObject({ name: z.string() });
    assert.deepEqual(decode(schema, encode(loose, { name: 'a', more: [1] }), 100), { name: 'a' });
  });

  it('refuses what does not follow the schema, and names the field', () => {
    assert.throws(() => decodeJson(schema, '{"name":1}', 100), { ...badMessage, message: /The field name/ });
    assert.throws(() => decodeJson(schema, '[]', 100), badMessage);
    assert.throws(() => encode(schema, { name: 1 } as unknown as { name: string }), badMessage);
    assert.throws(() => encodeJson(schema, {} as { name: string }), badMessage);
  });

  it('refuses what is no JSON and no MessagePack', () => {
    for (const text of ['', '{', '{"name":"a"}x', 'undefined'])
      assert.throws(() => decodeJson(schema, text, 100), badMessage);
    assert.throws(() => decodeJson(schema, Uint8Array.of(0x22, 0xff, 0x22), 100), badMessage);
    for (const hex of ['', 'c1', '81', '81a46e616d65', '81a46e616d65a161c0'])
      assert.throws(() => decode(schema, fromHex(hex), 100), badMessage);
  });

  it('lets no extension type through, which would make objects of other classes', () => {
    for (const hex of ['d6ff00000000', 'd40000', 'c70101aa', '81a16ad6ff00000000'])
      assert.throws(() => decode(z.unknown(), fromHex(hex), 100), badMessage);
  });

  it('is not fooled by keys that objects have of themselves', () => {
    const proto = fromHex('82a46e616d65a161a95f5f70726f746f5f5f81a5636f756e7401');
    const value = decode(schema, proto, 100);
    assert.deepEqual(value, { name: 'a' });
    assert.equal(Object.getPrototypeOf(value), Object.prototype);
    assert.equal(({} as { count?: number }).count, undefined);
  });

  it('tells a kind it does not know from a message that is wrong', () => {
    const unsupported = { name: 'MeshError', code: 'unsupported' };
    assert.throws(() => check(clientMessageSchema, { type: 'teleport', to: 1 }), unsupported);
    assert.throws(() => decodeJson(clientMessageSchema, '{"type":"teleport"}', 100), unsupported);
    for (const value of [
      {},
      { type: 1 },
      { type: null },
      null,
      'ping',
      { type: 'ping' },
      { type: 'ping', id: 'x' },
    ])
      assert.throws(() => check(clientMessageSchema, value), badMessage, JSON.stringify(value));
    const signal = { type: 'signal', jti: 'AAAAAAAAAAAAAAAAAAAAAA', payload: { kind: 'telepathy' } };
    assert.throws(() => check(clientMessageSchema, signal), badMessage);
  });
});
