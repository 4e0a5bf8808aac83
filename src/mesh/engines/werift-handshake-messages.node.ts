/**
 * The DTLS 1.2 handshake messages that matter for authentication, parsed strictly: a message is read to its last
 * byte or refused (RFC 5246 section 7.4, RFC 6347 section 4.3.2). Whether a message is acceptable in its place
 * is the matter of `werift-handshake.node.ts`.
 */

import { X509Certificate, createHash } from 'node:crypto';
import type { KeyObject } from 'node:crypto';

/** HandshakeType of RFC 5246 section 7.4; the numbers are the wire's. */
export const HandshakeType = {
  clientHello: 1,
  serverHello: 2,
  helloVerifyRequest: 3,
  certificate: 11,
  serverKeyExchange: 12,
  certificateRequest: 13,
  serverHelloDone: 14,
  certificateVerify: 15,
  clientKeyExchange: 16,
  finished: 20,
} as const;

/** AlertDescription of RFC 5246 section 7.2. */
export const Alert = {
  closeNotify: 0,
  unexpectedMessage: 10,
  handshakeFailure: 40,
  badCertificate: 42,
  illegalParameter: 47,
  decodeError: 50,
  decryptError: 51,
  protocolVersion: 70,
} as const;
export type Alert = (typeof Alert)[keyof typeof Alert];

/** The handshake is over: the peer is told `alert` and the connection closes. */
export class HandshakeRefused extends Error {
  readonly alert: Alert;

  constructor(alert: Alert, message: string) {
    super(message);
    this.alert = alert;
  }
}

export function demand(condition: boolean, alert: Alert, message: string): asserts condition {
  if (!condition) throw new HandshakeRefused(alert, message);
}

export const extendedMasterSecret = 23;
export const renegotiationInfo = 0xff01;
export const dtls12 = 0xfefd;

/** Reads big-endian fields and never past the end. */
export class Reader {
  readonly #bytes: Buffer;
  #offset = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get offset(): number {
    return this.#offset;
  }

  get more(): boolean {
    return this.#offset < this.#bytes.length;
  }

  number(width: number): number {
    return this.bytes(width).readUIntBE(0, width);
  }

  bytes(length: number): Buffer {
    demand(this.#offset + length <= this.#bytes.length, Alert.decodeError, 'a message is too short');
    this.#offset += length;
    return this.#bytes.subarray(this.#offset - length, this.#offset);
  }

  /** A vector behind its length of `width` bytes. */
  vector(width: number): Buffer {
    return this.bytes(this.number(width));
  }

  end(): void {
    demand(!this.more, Alert.decodeError, 'a message has trailing bytes');
  }
}

/** The header a message has in the transcript: unfragmented (RFC 6347 section 4.2.6). */
export function handshakeHeader(type: number, sequence: number, length: number): Buffer {
  const header = Buffer.alloc(12);
  header[0] = type;
  header.writeUIntBE(length, 1, 3);
  header.writeUInt16BE(sequence, 4);
  header.writeUIntBE(length, 9, 3);
  return header;
}

export interface ClientHello {
  readonly version: number;
  readonly random: Buffer;
  readonly cookie: Buffer;
  readonly extensions: ReadonlySet<number>;
  /** Everything but the cookie: the second ClientHello must repeat the first. */
  readonly withoutCookie: Buffer;
}

export function parseClientHello(body: Buffer): ClientHello {
  const reader = new Reader(body);
  const version = reader.number(2);
  const random = reader.bytes(32);
  reader.vector(1);
  const beforeCookie = reader.offset;
  const cookie = reader.vector(1);
  const withoutCookie = Buffer.concat([body.subarray(0, beforeCookie), body.subarray(reader.offset)]);
  reader.vector(2);
  reader.vector(1);
  return { version, random, cookie, withoutCookie, extensions: parseExtensions(reader) };
}

export interface ServerHello {
  readonly version: number;
  readonly random: Buffer;
  readonly cipherSuite: number;
  readonly compression: number;
  readonly extensions: ReadonlySet<number>;
}

export function parseServerHello(body: Buffer): ServerHello {
  const reader = new Reader(body);
  const version = reader.number(2);
  const random = reader.bytes(32);
  reader.vector(1);
  const cipherSuite = reader.number(2);
  const compression = reader.number(1);
  return { version, random, cipherSuite, compression, extensions: parseExtensions(reader) };
}

function parseExtensions(reader: Reader): ReadonlySet<number> {
  const types = new Set<number>();
  if (reader.more) {
    const list = new Reader(reader.vector(2));
    while (list.more) {
      const type = list.number(2);
      demand(!types.has(type), Alert.decodeError, 'an extension comes twice');
      types.add(type);
      list.vector(2);
    }
  }
  reader.end();
  return types;
}

export interface PeerCertificate {
  readonly key: KeyObject;
  readonly sha256: Buffer;
  /** The only signature scheme that fits the key: ecdsa_secp256r1_sha256 or rsa_pkcs1_sha256. */
  readonly signatureScheme: 0x0403 | 0x0401;
  /** The only cipher suite that fits the key. */
  readonly cipherSuite: 0xc02b | 0xc02f;
}

export function parseCertificate(body: Buffer): PeerCertificate {
  const reader = new Reader(body);
  const list = new Reader(reader.vector(3));
  reader.end();
  demand(list.more, Alert.badCertificate, 'the peer presented no certificate');
  const der = list.vector(3);
  const key = publicKeyOf(der);
  const sha256 = createHash('sha256').update(der).digest();
  const details = key.asymmetricKeyDetails;
  if (key.asymmetricKeyType === 'ec' && details?.namedCurve === 'prime256v1')
    return { key, sha256, signatureScheme: 0x0403, cipherSuite: 0xc02b };
  demand(
    key.asymmetricKeyType === 'rsa' && (details?.modulusLength ?? 0) >= 2048,
    Alert.badCertificate,
    'the certificate has another key than P-256 or RSA 2048',
  );
  return { key, sha256, signatureScheme: 0x0401, cipherSuite: 0xc02f };
}

function publicKeyOf(der: Buffer): KeyObject {
  try {
    return new X509Certificate(der).publicKey;
  } catch {
    throw new HandshakeRefused(Alert.badCertificate, 'the certificate is unreadable');
  }
}

export interface Signed {
  readonly scheme: number;
  readonly signature: Buffer;
}

export interface ServerKeyExchange extends Signed {
  readonly curve: number;
  readonly share: Buffer;
  /** The signed parameters, as on the wire. */
  readonly parameters: Buffer;
}

export function parseServerKeyExchange(body: Buffer): ServerKeyExchange {
  const reader = new Reader(body);
  const curveType = reader.number(1);
  const curve = reader.number(2);
  const share = reader.vector(1);
  const parameters = body.subarray(0, reader.offset);
  demand(curveType === 3, Alert.illegalParameter, 'the server key share names no curve');
  return { curve, share, parameters, ...signed(reader) };
}

export function parseCertificateVerify(body: Buffer): Signed {
  return signed(new Reader(body));
}

function signed(reader: Reader): Signed {
  const scheme = reader.number(2);
  const signature = reader.vector(2);
  reader.end();
  return { scheme, signature };
}

export function parseClientKeyExchange(body: Buffer): Buffer {
  const reader = new Reader(body);
  const share = reader.vector(1);
  reader.end();
  return share;
}
