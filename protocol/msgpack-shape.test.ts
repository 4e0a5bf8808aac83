import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { concat, fromHex } from './bytes.ts';
import { assertPlainMsgpack } from './msgpack-shape.ts';

const badMessage = { name: 'MeshError', code: 'bad_message' };
const refused = (hex: string, message: RegExp) =>
  assert.throws(() => assertPlainMsgpack(fromHex(hex)), { ...badMessage, message }, hex);

describe('MessagePack from outside', () => {
  it('may be any plain value', () => {
    const plain = [
      '00 7f e0 ff c0 c2 c3 cc80 cd0100 ce00010000 cf0000000100000000 d080 d18000 d280000000 d38000000000000000',
      'ca00000000 cb0000000000000000 a0 a161 d90161 da000161 db0000000161 c40100 c5000100 c60000000100',
      '80 810102 90 9100 dc000100 dd0000000100 de00010102 df000000010102',
    ].flatMap((line) => line.split(' '));
    for (const hex of plain) assertPlainMsgpack(fromHex(hex));
  });

  it('is one value and nothing after it', () => {
    refused('', /cut off/);
    refused('0000', /followed by other bytes/);
    refused('c0c0', /followed by other bytes/);
    refused('810102c0', /followed by other bytes/);
  });

  it('has no extension types, no dates and nothing that is not assigned', () => {
    for (const hex of ['c1', 'c70100aa', 'c8000100aa', 'c90000000100aa', 'd400aa', 'd6ff00000000', 'd8ff'])
      refused(hex, /not used here/);
  });

  it('cannot announce more than it has', () => {
    for (const hex of ['a5', 'd9ff61', 'daffff61', 'dbffffffff61', 'c4ff', 'c6ffffffff00', 'cd00', 'cb00'])
      refused(hex, /cut off/);
    for (const hex of ['9f', 'dcffff', 'ddffffffff', '8f', 'deffff', 'dfffffffff', 'ddffffffff00000000'])
      refused(hex, /more items than it has bytes/);
  });

  it('has at most as many items as whoever reads it says, keys and all', () => {
    const bytes = fromHex('92 81a16101 90'.replaceAll(' ', ''));
    assertPlainMsgpack(bytes, 4);
    assert.throws(() => assertPlainMsgpack(bytes, 3), { ...badMessage, message: /too many items/ });
  });

  it('is not nested without end', () => {
    const nested = (depth: number) => concat(new Uint8Array(depth).fill(0x91), Uint8Array.of(0));
    assertPlainMsgpack(nested(24));
    for (const depth of [25, 1000, 60_000])
      assert.throws(() => assertPlainMsgpack(nested(depth)), { ...badMessage, message: /too deep/ });
    const maps = concat(...Array.from({ length: 30 }, () => Uint8Array.of(0x81, 0x00)), Uint8Array.of(0));
    assert.throws(() => assertPlainMsgpack(maps), { ...badMessage, message: /too deep/ });
  });
});
