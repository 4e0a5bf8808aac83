/**
 * A walk over MessagePack bytes before the decoder sees them: plain values only, lengths that fit the bytes,
 * bounded depth and number. It keeps a five-byte header from reserving gigabytes and extension types from making objects.
 * https://github.com/msgpack/msgpack/blob/master/spec.md
 */

import { MeshError } from './errors.ts';

const maxDepth = 24;

/**
 * @param maxItems of all its lists and maps, keys counted too
 * @throws MeshError bad_message unless `bytes` is exactly one plain MessagePack value
 */
export function assertPlainMsgpack(bytes: Uint8Array, maxItems = Infinity): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let offset = 0;
  let seen = 0;

  function take(length: number): number {
    const at = offset;
    if (length > bytes.length - offset) throw malformed('is cut off');
    offset += length;
    return at;
  }
  function items(count: number, depth: number): void {
    // Every item takes at least one byte.
    if (count > bytes.length - offset) throw malformed('names more items than it has bytes');
    seen += count;
    if (seen > maxItems) throw malformed('has too many items');
    for (let i = 0; i < count; i++) value(depth + 1);
  }
  function value(depth: number): void {
    if (depth > maxDepth) throw malformed('is nested too deep');
    const head = view.getUint8(take(1));
    if (head <= 0x7f || head >= 0xe0) return;
    if (head <= 0x8f) return items(2 * (head & 0x0f), depth);
    if (head <= 0x9f) return items(head & 0x0f, depth);
    if (head <= 0xbf) return void take(head & 0x1f);
    switch (head) {
      case 0xc0: // nil
      case 0xc2: // false
      case 0xc3: // true
        return;
      case 0xc4: // bin 8
      case 0xd9: // str 8
        return void take(view.getUint8(take(1)));
      case 0xc5:
      case 0xda:
        return void take(view.getUint16(take(2)));
      case 0xc6:
      case 0xdb:
        return void take(view.getUint32(take(4)));
      case 0xcc: // uint 8
      case 0xd0: // int 8
        return void take(1);
      case 0xcd:
      case 0xd1:
        return void take(2);
      case 0xca: // float 32
      case 0xce:
      case 0xd2:
        return void take(4);
      case 0xcb: // float 64
      case 0xcf:
      case 0xd3:
        return void take(8);
      case 0xdc: // array 16
        return items(view.getUint16(take(2)), depth);
      case 0xdd:
        return items(view.getUint32(take(4)), depth);
      case 0xde: // map 16
        return items(2 * view.getUint16(take(2)), depth);
      case 0xdf:
        return items(2 * view.getUint32(take(4)), depth);
      default:
        throw malformed('has a type that is not used here');
    }
  }

  value(0);
  if (offset !== bytes.length) throw malformed('is followed by other bytes');
}

function malformed(what: string): MeshError {
  return new MeshError('bad_message', `A MessagePack value ${what}`);
}
