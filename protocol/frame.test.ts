import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { concat, fromHex, toHex } from './bytes.ts';
import {
  FrameFlag,
  FrameType,
  ResetCode,
  frameHeadBytes,
  readFrameHead,
  readU64,
  toResetCode,
  writeFrameHead,
  writeU64,
} from './frame.ts';
import { limits } from './limits.ts';
import { encodeFrame, sampleFrames } from './sample-objects.ts';

const violation = { name: 'MeshError', code: 'protocol_violation' };

function head(type: number, flags: number, length: number, streamId: number): Uint8Array {
  const bytes = new Uint8Array(frameHeadBytes);
  writeFrameHead(bytes, 0, type as FrameType, flags, length, streamId);
  return bytes;
}

describe('a frame', () => {
  it('is written and read as drawn', () => {
    assert.equal(toHex(head(FrameType.data, FrameFlag.fin, 0x010203, 0x0a0b0c0d)), '310102030a0b0c0d');
    const message = concat(fromHex('31000003fffffffe'), new Uint8Array(3));
    assert.deepEqual(readFrameHead(message, 0), { type: 3, flags: 1, length: 3, streamId: 0xffff_fffe });
  });

  it('is found behind others in one message', () => {
    const frames = sampleFrames();
    const message = concat(...frames.map(encodeFrame));
    let offset = 0;
    for (const { type, flags, streamId, payload } of frames) {
      const expected = { type, flags, streamId, length: payload.length };
      assert.deepEqual(readFrameHead(message, offset), expected);
      offset += frameHeadBytes + payload.length;
    }
    assert.equal(offset, message.length);
  });

  it('is read from the middle of a larger buffer', () => {
    const buffer = concat(new Uint8Array(5), head(FrameType.ping, 0, 8, 0), new Uint8Array(8));
    assert.equal(readFrameHead(buffer.subarray(5), 0).length, 8);
  });

  it('that is cut off anywhere is refused', () => {
    const whole = concat(head(FrameType.data, 0, 4, 1), new Uint8Array(4));
    for (let length = 0; length < whole.length; length++)
      assert.throws(() => readFrameHead(whole.subarray(0, length), 0), violation);
    assert.throws(() => readFrameHead(whole, whole.length), violation);
    assert.throws(() => readFrameHead(whole, 6), violation);
  });

  it('of an unknown type is refused', () => {
    for (const type of [0, 9, 10, 11, 12, 13, 14, 15])
      assert.throws(() => readFrameHead(head(type, 0, 0, 1), 0), violation);
  });

  it('over its limit is refused, though it is all there', () => {
    const at = (type: FrameType, length: number) =>
      readFrameHead(concat(head(type, 0, length, 1), new Uint8Array(length)), 0).length;
    assert.equal(at(FrameType.data, limits.maxFrameBytes), limits.maxFrameBytes);
    assert.throws(() => at(FrameType.data, limits.maxFrameBytes + 1), violation);
    assert.equal(at(FrameType.open, limits.maxOpenHeaderBytes), limits.maxOpenHeaderBytes);
    assert.throws(() => at(FrameType.open, limits.maxOpenHeaderBytes + 1), violation);
    assert.throws(
      () => readFrameHead(concat(head(FrameType.data, 0, 0xff_ffff, 1), new Uint8Array(64)), 0),
      violation,
    );
  });
});

describe('a 64-bit number', () => {
  const edges: [number, string][] = [
    [0, '0000000000000000'],
    [1, '0000000000000001'],
    [0xffff_ffff, '00000000ffffffff'],
    [0x1_0000_0000, '0000000100000000'],
    [0x1_0000_0001, '0000000100000001'],
    [Number.MAX_SAFE_INTEGER - 1, '001ffffffffffffe'],
    [Number.MAX_SAFE_INTEGER, '001fffffffffffff'],
  ];

  it('is exact up to 2^53 - 1', () => {
    for (const [value, hex] of edges) {
      const bytes = new Uint8Array(10);
      writeU64(bytes, 1, value);
      assert.equal(toHex(bytes), `00${hex}00`);
      assert.equal(readU64(bytes, 1), value);
      assert.equal(readU64(bytes.subarray(1), 0), value);
    }
  });

  it('of 2^53 or more, or cut off, is refused', () => {
    for (const hex of ['0020000000000000', '0020000000000001', '8000000000000000', 'ffffffffffffffff'])
      assert.throws(() => readU64(fromHex(hex), 0), violation);
    assert.throws(() => readU64(new Uint8Array(7), 0), violation);
    assert.throws(() => readU64(new Uint8Array(8), 1), violation);
  });
});

describe('a reset code', () => {
  it('is itself when it is known, and internal when it is not', () => {
    for (const code of Object.values(ResetCode)) assert.equal(toResetCode(code), code);
    for (const code of [0, 16, 0xffff]) assert.equal(toResetCode(code), ResetCode.internal);
  });

  it('and a frame type are each used once', () => {
    for (const table of [ResetCode, FrameType]) {
      const values = Object.values(table);
      assert.equal(new Set(values).size, values.length);
    }
  });
});
