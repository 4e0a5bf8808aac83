/**
 * The frame of a session: eight bytes of head, then the payload. Many frames are packed into one carrier
 * message; a frame never spans two.
 *
 *   0       1              4              8
 *   +-------+--------------+--------------+---------
 *   | T | F | length (u24) | stream (u32) | payload
 *   +-------+--------------+--------------+---------
 *   T type, high 4 bits · F flags, low 4 bits · all numbers big-endian
 *
 * Every frame but HELLO, PING and ACK is numbered by both sides counting (64 bits, from 1, never on the wire):
 * the numbers are what ACK acknowledges and what a resume continues from.
 */

import { MeshError } from './errors.ts';
import { limits } from './limits.ts';

export const frameHeadBytes = 8;

/** Written out and never reused. 0 and 9 to 15 are free. */
export const FrameType = {
  /** Stream 0. Payload: msgpack Hello. The first frame of each side, once, not numbered. */
  hello: 1,
  /** Opens a stream. Payload: length of the protocol name (u8), the name, the header. */
  open: 2,
  /**
   * Bytes of a stream. Flag `fin`: the last ones (payload may be empty). Flag `minimum`: charged to what the
   * stream may always have unread (`limits.streamMinimumBytes`), not to the session's credit.
   */
  data: 3,
  /** Payload: u64, the absolute offset up to which the receiver may be sent. Stream 0: the whole session. */
  credit: 4,
  /** Ends both directions of a stream. Payload: u16 reset code. */
  reset: 5,
  /** Not numbered. Payload: 8 opaque bytes, sent back with flag `pong`. */
  ping: 6,
  /** Not numbered. Payload: u64, how many numbered frames were received in order. */
  ack: 7,
  /** Stream 0. No new streams will be accepted; open ones finish. Payload: u16 reset code. */
  goaway: 8,
} as const;
export type FrameType = (typeof FrameType)[keyof typeof FrameType];

export const FrameFlag = { none: 0, fin: 1, minimum: 2, pong: 1 } as const;

/** Why a stream or session ended, on the wire as u16. Written out and never reused. */
export const ResetCode = {
  /** The reader or writer no longer wants it. */
  cancel: 1,
  internal: 2,
  /** No handler for the protocol, or its header does not follow its schema. */
  unsupported: 3,
  badHeader: 4,
  denied: 5,
  notFound: 6,
  tooManyStreams: 7,
  creditOverflow: 8,
  timeout: 9,
  /** The service refused the connection. */
  refused: 10,
  shuttingDown: 11,
  /** The right was revoked while the stream was open. */
  revoked: 12,
  idle: 13,
  /** The same two peers have another session that won. */
  glare: 14,
  protocolViolation: 15,
} as const;
export type ResetCode = (typeof ResetCode)[keyof typeof ResetCode];

const knownTypes = new Set<number>(Object.values(FrameType));
const knownResetCodes = new Set<number>(Object.values(ResetCode));

/** A code this version does not know counts as `internal`. */
export function toResetCode(value: number): ResetCode {
  return knownResetCodes.has(value) ? (value as ResetCode) : ResetCode.internal;
}

/** The word for a code, for messages and logs. */
export function resetCodeName(code: ResetCode): string {
  return Object.entries(ResetCode).find(([, value]) => value === code)?.[0] ?? 'internal';
}

export interface FrameHead {
  readonly type: FrameType;
  readonly flags: number;
  /** Bytes of payload. */
  readonly length: number;
  readonly streamId: number;
}

/** Writes a head at `offset`; the caller has made room. */
export function writeFrameHead(
  target: Uint8Array,
  offset: number,
  type: FrameType,
  flags: number,
  length: number,
  streamId: number,
): void {
  target[offset] = (type << 4) | flags;
  target[offset + 1] = length >>> 16;
  target[offset + 2] = length >>> 8;
  target[offset + 3] = length;
  target[offset + 4] = streamId >>> 24;
  target[offset + 5] = streamId >>> 16;
  target[offset + 6] = streamId >>> 8;
  target[offset + 7] = streamId;
}

/**
 * Reads the head at `offset` of a carrier message and checks that its payload lies inside the message.
 * @throws MeshError protocol_violation on an unknown type, a truncated frame or one over its limit
 */
export function readFrameHead(message: Uint8Array, offset: number): FrameHead {
  if (offset + frameHeadBytes > message.length) throw violation('a frame head is cut off');
  const first = byte(message, offset);
  const type = first >>> 4;
  if (!knownTypes.has(type)) throw violation(`frame type ${type} is unknown`);
  const length =
    (byte(message, offset + 1) << 16) | (byte(message, offset + 2) << 8) | byte(message, offset + 3);
  if (offset + frameHeadBytes + length > message.length) throw violation('a frame is cut off');
  const limit = type === FrameType.open ? limits.maxOpenHeaderBytes : limits.maxFrameBytes;
  if (length > limit) throw violation(`a frame of ${length} bytes is over the limit`);
  const streamId =
    ((byte(message, offset + 4) << 24) |
      (byte(message, offset + 5) << 16) |
      (byte(message, offset + 6) << 8) |
      byte(message, offset + 7)) >>>
    0;
  return { type: type as FrameType, flags: first & 15, length, streamId };
}

/** Offsets and counts stay below 2^53, which 8 bytes hold exactly as a JavaScript number. */
export function writeU64(target: Uint8Array, offset: number, value: number): void {
  const view = new DataView(target.buffer, target.byteOffset, target.byteLength);
  view.setUint32(offset, Math.floor(value / 0x1_0000_0000));
  view.setUint32(offset + 4, value >>> 0);
}

/** @throws MeshError protocol_violation when the value is 2^53 or more, or cut off */
export function readU64(source: Uint8Array, offset: number): number {
  if (offset + 8 > source.length) throw violation('a 64-bit number is cut off');
  const view = new DataView(source.buffer, source.byteOffset, source.byteLength);
  const value = view.getUint32(offset) * 0x1_0000_0000 + view.getUint32(offset + 4);
  if (!Number.isSafeInteger(value)) throw violation('a 64-bit number is out of range');
  return value;
}

function byte(bytes: Uint8Array, offset: number): number {
  return bytes[offset] ?? 0;
}

function violation(message: string): MeshError {
  return new MeshError('protocol_violation', message);
}
