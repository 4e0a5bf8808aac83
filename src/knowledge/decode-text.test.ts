import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { decodeText } from './decode-text.ts';

function bytes(...parts: (string | readonly number[])[]): Uint8Array {
  return Buffer.concat(parts.map((part) => Buffer.from(part as string)));
}

describe('the text of a file', () => {
  it('is read in UTF-8 and in UTF-16 with a mark', () => {
    assert.equal(decodeText(bytes('\ufeffÄ\n')), 'Ä\n');
    assert.equal(decodeText(bytes([0xff, 0xfe], [...Buffer.from('Äb', 'utf16le')])), 'Äb');
    assert.equal(decodeText(bytes([0xfe, 0xff], [...Buffer.from('Äb', 'utf16le').swap16()])), 'Äb');
  });

  it('has one kind of line end', () => {
    assert.equal(decodeText(bytes('a\r\nb\rc\n')), 'a\nb\nc\n');
  });

  it('survives damaged UTF-8 in places, and is read in the old way where it is old', () => {
    assert.equal(decodeText(bytes('Größe über ', [0xc3], ' Öl')), 'Größe über \ufffd Öl');
    assert.equal(decodeText(bytes('caf', [0xe9], ' und ', [0xfc], 'ber')), 'café und über');
  });

  it('is not found in what is binary, whatever its name', () => {
    assert.equal(decodeText(bytes('text\0text')), null);
    assert.equal(decodeText(bytes('%PDF-1.7\ntext')), null);
    assert.equal(decodeText(bytes([0xff, 0xfe], [...Buffer.from('a\0b', 'utf16le')])), null);
    assert.equal(decodeText(bytes(`${'text '.repeat(200)}${'\x01'.repeat(10)}`)), null);
    assert.equal(decodeText(Uint8Array.from({ length: 4096 }, (_, i) => (i * 97) % 255 || 1)), null);
  });

  it('may be empty', () => {
    assert.equal(decodeText(new Uint8Array(0)), '');
  });
});
