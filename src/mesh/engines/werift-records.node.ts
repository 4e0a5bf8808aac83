/**
 * The record layer of DTLS 1.2 with AES-128-GCM (RFC 6347 section 4.1, RFC 5288): cutting a datagram into
 * records, sealing, opening and the replay window. Record numbers of the sealed epoch are counted here and only
 * here, so that no number, and with it no AES-GCM nonce, is ever used twice. Keys come from the handshake.
 */

import { createCipheriv, createDecipheriv, createSecretKey } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import { dtls12 } from './werift-handshake-messages.node.ts';

/** ContentType of RFC 5246 section 6.2.1; the numbers are the wire's. */
export const ContentType = { changeCipherSpec: 20, alert: 21, handshake: 22, applicationData: 23 } as const;

export const recordHeaderBytes = 13;
const explicitNonceBytes = 8;
const tagBytes = 16;
/** What sealing adds to a plaintext, record header included. */
export const sealedOverheadBytes = recordHeaderBytes + explicitNonceBytes + tagBytes;
/** DTLS 1.0, which first messages carry in their record header. */
const dtls10 = 0xfeff;

export interface DtlsRecord {
  readonly type: number;
  readonly epoch: 0 | 1;
  readonly number: number;
  readonly body: Buffer;
}

/** The well-formed records of a datagram; at the first that is cut off, the rest is dropped. */
export function* recordsOf(datagram: Buffer): Generator<DtlsRecord> {
  for (let offset = 0; offset + recordHeaderBytes <= datagram.length;) {
    const start = offset + recordHeaderBytes;
    const end = start + datagram.readUInt16BE(offset + 11);
    if (end > datagram.length) return;
    const version = datagram.readUInt16BE(offset + 1);
    const epoch = datagram.readUInt16BE(offset + 3);
    if ((epoch === 1 && version === dtls12) || (epoch === 0 && (version === dtls12 || version === dtls10)))
      yield {
        type: datagram.readUInt8(offset),
        epoch,
        number: datagram.readUIntBE(offset + 5, 6),
        body: datagram.subarray(start, end),
      };
    offset = end;
  }
}

export function plainRecord(type: number, number: number, body: Buffer): Buffer {
  const record = Buffer.allocUnsafe(recordHeaderBytes + body.length);
  writeHeader(record, type, 0, number, body.length);
  body.copy(record, recordHeaderBytes);
  return record;
}

function writeHeader(record: Buffer, type: number, epoch: number, number: number, length: number): void {
  record[0] = type;
  record[1] = dtls12 >>> 8;
  record[2] = dtls12 & 0xff;
  record[3] = epoch >>> 8;
  record[4] = epoch & 0xff;
  record.writeUIntBE(number, 5, 6);
  record[11] = length >>> 8;
  record[12] = length & 0xff;
}

/** One direction's key and the fixed part of its nonces. */
export class RecordKey {
  /** Made once: a key given as bytes costs three times the encryption of a packet. */
  readonly key: KeyObject;
  /** Fixed part and, rewritten for each record, epoch and number. */
  readonly nonce = Buffer.alloc(12);
  /** Additional data: epoch, number, type, version, length. */
  readonly additional = Buffer.alloc(13);

  constructor(key: Buffer, salt: Buffer) {
    this.key = createSecretKey(key);
    salt.copy(this.nonce, 0, 0, 4);
    this.additional.writeUInt16BE(dtls12, 9);
  }
}

/** Records are cut from slabs: one allocation for dozens of packets keeps the garbage collector out of the way. */
const slabBytes = 64 * 1024;

export class RecordSealer {
  readonly #key: RecordKey;
  #next = 0;
  #slab: Buffer = Buffer.alloc(0);
  #slabUsed = 0;

  constructor(key: RecordKey) {
    this.#key = key;
  }

  /** The sealed record; its memory is written once, so the socket may read it whenever it likes. */
  seal(type: number, plaintext: Buffer): Buffer {
    const { key, nonce, additional } = this.#key;
    const length = plaintext.length;
    const record = this.#memory(sealedOverheadBytes + length);
    writeHeader(record, type, 1, this.#next++, sealedOverheadBytes - recordHeaderBytes + length);
    // Epoch and number are both the explicit nonce and the head of the additional data.
    record.copy(nonce, 4, 3, 11);
    record.copy(record, recordHeaderBytes, 3, 11);
    record.copy(additional, 0, 3, 11);
    additional[8] = type;
    additional[11] = length >>> 8;
    additional[12] = length & 0xff;
    const cipher = createCipheriv('aes-128-gcm', key, nonce);
    cipher.setAAD(additional);
    cipher.update(plaintext).copy(record, recordHeaderBytes + explicitNonceBytes);
    cipher.final();
    cipher.getAuthTag().copy(record, recordHeaderBytes + explicitNonceBytes + length);
    return record;
  }

  #memory(length: number): Buffer {
    if (this.#slabUsed + length > this.#slab.length) {
      this.#slab = Buffer.allocUnsafeSlow(Math.max(slabBytes, length));
      this.#slabUsed = 0;
    }
    const start = this.#slabUsed;
    this.#slabUsed += length;
    return this.#slab.subarray(start, start + length);
  }
}

export class RecordOpener {
  readonly #key: RecordKey;

  constructor(key: RecordKey) {
    this.#key = key;
  }

  /** Null for a record that is not authentic: it is dropped (RFC 6347 section 4.1.2.7). */
  open({ type, number, body }: DtlsRecord): Buffer | null {
    const length = body.length - explicitNonceBytes - tagBytes;
    if (length < 0) return null;
    const { key, nonce, additional } = this.#key;
    body.copy(nonce, 4, 0, explicitNonceBytes);
    additional.writeUInt16BE(1, 0);
    additional.writeUIntBE(number, 2, 6);
    additional[8] = type;
    additional[11] = length >>> 8;
    additional[12] = length & 0xff;
    const decipher = createDecipheriv('aes-128-gcm', key, nonce, openOptions);
    decipher.setAAD(additional);
    decipher.setAuthTag(body.subarray(explicitNonceBytes + length));
    const plaintext = decipher.update(body.subarray(explicitNonceBytes, explicitNonceBytes + length));
    try {
      decipher.final();
      return plaintext;
    } catch {
      return null;
    }
  }
}

const openOptions = { authTagLength: tagBytes };

const windowSize = 1024;

/** Each record number passes once; one older than the newest by `windowSize` or more never does. */
export class ReplayWindow {
  readonly #seen = new Uint8Array(windowSize);
  #top = -1;

  isFresh(number: number): boolean {
    if (number > this.#top) return true;
    return this.#top - number < windowSize && this.#seen[number % windowSize] === 0;
  }

  /** Call only for a record that proved authentic: others must not move the window. */
  mark(number: number): void {
    if (number - this.#top >= windowSize) this.#seen.fill(0);
    else for (let skipped = this.#top + 1; skipped < number; skipped++) this.#seen[skipped % windowSize] = 0;
    if (number > this.#top) this.#top = number;
    this.#seen[number % windowSize] = 1;
  }
}
