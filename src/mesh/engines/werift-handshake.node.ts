/**
 * What werift's DTLS leaves out: proof that the peer holds the key of its certificate. The verifier keeps its own
 * transcript of both directions and lets a message through to werift only when it is expected, well-formed and
 * true: the certificate is the announced one, ServerKeyExchange or CertificateVerify is signed by its key, the
 * master secret is the extended one (RFC 7627), and Finished matches. One verifier serves one handshake; there
 * is no second one (renegotiation).
 */

import {
  createHash,
  createHmac,
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  timingSafeEqual,
  verify,
} from 'node:crypto';
import {
  Alert,
  HandshakeRefused,
  HandshakeType,
  demand,
  dtls12,
  extendedMasterSecret,
  handshakeHeader,
  parseCertificate,
  parseCertificateVerify,
  parseClientHello,
  parseClientKeyExchange,
  parseServerHello,
  parseServerKeyExchange,
  renegotiationInfo,
} from './werift-handshake-messages.node.ts';
import type { ClientHello, PeerCertificate, ServerHello, Signed } from './werift-handshake-messages.node.ts';

export type DtlsRole = 'client' | 'server';

/** What only werift knows during the handshake. */
export interface HandshakeSecrets {
  readonly cookie: Buffer | undefined;
  readonly masterSecret: Buffer | undefined;
  readonly usesExtendedMasterSecret: boolean;
  /** The curve of our own key share, as a server. */
  readonly namedCurve: number | undefined;
}

/** The peer's messages after the hello exchange, in their only order. */
const expectedOrder = {
  client: [
    HandshakeType.serverHello,
    HandshakeType.certificate,
    HandshakeType.serverKeyExchange,
    HandshakeType.certificateRequest,
    HandshakeType.serverHelloDone,
    HandshakeType.finished,
  ],
  server: [
    HandshakeType.certificate,
    HandshakeType.clientKeyExchange,
    HandshakeType.certificateVerify,
    HandshakeType.finished,
  ],
} as const satisfies Record<DtlsRole, readonly number[]>;

export class HandshakeVerifier {
  readonly #role: DtlsRole;
  /** SHA-256 of the certificate the peer announced in its description. */
  readonly #fingerprint: Uint8Array;
  readonly #secrets: () => HandshakeSecrets;
  #transcript: Buffer[] = [];
  /** How many of the expected messages came. */
  #position = 0;
  #verifyRequested = false;
  #firstHello: ClientHello | undefined;
  #ownHello: ClientHello | undefined;
  #clientRandom: Buffer | undefined;
  #serverHello: ServerHello | undefined;
  #serverRandom: Buffer | undefined;
  #certificate: PeerCertificate | undefined;
  #provedKey = false;

  constructor(role: DtlsRole, fingerprint: Uint8Array, secrets: () => HandshakeSecrets) {
    this.#role = role;
    this.#fingerprint = fingerprint;
    this.#secrets = secrets;
  }

  /** True once the peer's Finished was verified: the peer is proven and every check above has passed. */
  get complete(): boolean {
    return this.#position === expectedOrder[this.#role].length;
  }

  /** True while the peer's cookie-less ClientHello may be answered again. */
  get awaitsCookie(): boolean {
    return this.#role === 'server' && this.#firstHello !== undefined && this.#clientRandom === undefined;
  }

  /** A retransmission of the ClientHello that was seen, and nothing else? */
  repeatsFirstHello(body: Buffer): boolean {
    try {
      const hello = parseClientHello(body);
      return (
        hello.cookie.length === 0 && this.#firstHello?.withoutCookie.equals(hello.withoutCookie) === true
      );
    } catch {
      return false;
    }
  }

  /** One of our own messages, in order, each once. */
  sent(type: number, sequence: number, body: Buffer): void {
    if (type === HandshakeType.helloVerifyRequest) return;
    if (type === HandshakeType.clientHello) {
      this.#ownHello = parseClientHello(body);
      this.#clientRandom = this.#ownHello.random;
      this.#transcript = [];
    }
    if (type === HandshakeType.serverHello) this.#serverRandom = parseServerHello(body).random;
    this.#record(type, sequence, body);
  }

  /**
   * The next message of the peer. Returns normally when werift may see it.
   * @throws HandshakeRefused when the handshake must end
   */
  received(type: number, sequence: number, body: Buffer, epoch: number): void {
    demand(
      (type === HandshakeType.finished) === (epoch === 1),
      Alert.unexpectedMessage,
      `handshake message ${type} in epoch ${epoch}`,
    );
    if (type === HandshakeType.helloVerifyRequest) return this.#helloVerifyRequest();
    if (type === HandshakeType.clientHello) return this.#clientHello(sequence, body);
    demand(
      type === expectedOrder[this.#role][this.#position] && this.#clientRandom !== undefined,
      Alert.unexpectedMessage,
      `handshake message ${type} is out of order`,
    );
    this.#check(type, body);
    this.#record(type, sequence, body);
    this.#position++;
  }

  #record(type: number, sequence: number, body: Buffer): void {
    this.#transcript.push(handshakeHeader(type, sequence, body.length), body);
  }

  #helloVerifyRequest(): void {
    demand(
      this.#role === 'client' && this.#position === 0 && !this.#verifyRequested,
      Alert.unexpectedMessage,
      'HelloVerifyRequest is out of order',
    );
    this.#verifyRequested = true;
  }

  #clientHello(sequence: number, body: Buffer): void {
    demand(
      this.#role === 'server' && this.#position === 0 && this.#clientRandom === undefined,
      Alert.unexpectedMessage,
      'ClientHello is out of order',
    );
    const hello = parseClientHello(body);
    demand(hello.version === dtls12, Alert.protocolVersion, 'the client speaks another DTLS version');
    demand(
      hello.extensions.has(extendedMasterSecret),
      Alert.handshakeFailure,
      'the client offers no extended master secret',
    );
    if (hello.cookie.length === 0) {
      this.#firstHello = hello;
      return;
    }
    demand(
      this.#firstHello?.withoutCookie.equals(hello.withoutCookie) === true,
      Alert.illegalParameter,
      'the second ClientHello differs from the first',
    );
    demand(
      this.#secrets().cookie?.equals(hello.cookie) === true,
      Alert.illegalParameter,
      'the cookie is wrong',
    );
    this.#clientRandom = hello.random;
    // The exchange before the cookie is no part of the transcript (RFC 6347 section 4.2.1).
    this.#transcript = [];
    this.#record(HandshakeType.clientHello, sequence, body);
  }

  #check(type: number, body: Buffer): void {
    switch (type) {
      case HandshakeType.serverHello:
        return this.#checkServerHello(body);
      case HandshakeType.certificate:
        return this.#checkCertificate(body);
      case HandshakeType.serverKeyExchange:
        return this.#checkServerKeyExchange(body);
      case HandshakeType.serverHelloDone:
        return demand(body.length === 0, Alert.decodeError, 'ServerHelloDone has a body');
      case HandshakeType.clientKeyExchange:
        return this.#checkShare(this.#secrets().namedCurve, parseClientKeyExchange(body));
      case HandshakeType.certificateVerify:
        this.#checkSignature(
          parseCertificateVerify(body),
          Buffer.concat(this.#transcript),
          'CertificateVerify',
        );
        this.#provedKey = true;
        return;
      case HandshakeType.finished:
        return this.#checkFinished(body);
    }
  }

  #checkServerHello(body: Buffer): void {
    const hello = parseServerHello(body);
    demand(hello.version === dtls12, Alert.protocolVersion, 'the server speaks another DTLS version');
    demand(
      (hello.cipherSuite === 0xc02b || hello.cipherSuite === 0xc02f) && hello.compression === 0,
      Alert.illegalParameter,
      `cipher suite ${hello.cipherSuite} was not offered`,
    );
    demand(
      hello.extensions.has(extendedMasterSecret),
      Alert.handshakeFailure,
      'the server accepts no extended master secret',
    );
    for (const extension of hello.extensions)
      demand(
        extension === renegotiationInfo || this.#ownHello?.extensions.has(extension) === true,
        Alert.illegalParameter,
        `extension ${extension} was not offered`,
      );
    this.#serverHello = hello;
    this.#serverRandom = hello.random;
  }

  #checkCertificate(body: Buffer): void {
    const certificate = parseCertificate(body);
    demand(
      timingSafeEqual(certificate.sha256, this.#fingerprint),
      Alert.badCertificate,
      'the certificate is not the announced one',
    );
    if (this.#role === 'client')
      demand(
        certificate.cipherSuite === this.#serverHello?.cipherSuite,
        Alert.illegalParameter,
        'the certificate does not fit the cipher suite',
      );
    this.#certificate = certificate;
  }

  #checkServerKeyExchange(body: Buffer): void {
    const exchange = parseServerKeyExchange(body);
    this.#checkShare(exchange.curve, exchange.share);
    const signedBytes = [this.#clientRandom, this.#serverRandom, exchange.parameters];
    this.#checkSignature(
      exchange,
      Buffer.concat(signedBytes.filter((part) => part !== undefined)),
      'ServerKeyExchange',
    );
    this.#provedKey = true;
  }

  #checkSignature(signed: Signed, bytes: Buffer, what: string): void {
    const certificate = this.#certificate;
    demand(certificate !== undefined, Alert.badCertificate, `${what} without a certificate`);
    demand(
      signed.scheme === certificate.signatureScheme,
      Alert.illegalParameter,
      `the signature scheme of ${what} does not fit the certificate`,
    );
    demand(verifies(certificate, bytes, signed.signature), Alert.decryptError, `${what} has a bad signature`);
  }

  #checkShare(curve: number | undefined, share: Buffer): void {
    demand(isUsableShare(curve, share), Alert.illegalParameter, 'the key share is no usable point');
  }

  #checkFinished(body: Buffer): void {
    const { masterSecret, usesExtendedMasterSecret } = this.#secrets();
    demand(this.#provedKey, Alert.handshakeFailure, 'the peer did not prove its key');
    demand(
      usesExtendedMasterSecret && masterSecret !== undefined,
      Alert.handshakeFailure,
      'the master secret is not the extended one',
    );
    const label = this.#role === 'client' ? 'server finished' : 'client finished';
    const expected = finished(masterSecret, label, Buffer.concat(this.#transcript));
    demand(
      body.length === expected.length && timingSafeEqual(expected, body),
      Alert.decryptError,
      'Finished does not match',
    );
  }
}

/** RFC 5246 section 7.4.9; the twelve bytes fit in one block of P_SHA256. */
export function finished(masterSecret: Buffer, label: string, transcript: Buffer): Buffer {
  const seed = Buffer.concat([Buffer.from(label), createHash('sha256').update(transcript).digest()]);
  const hmac = (data: Buffer) => createHmac('sha256', masterSecret).update(data).digest();
  return hmac(Buffer.concat([hmac(seed), seed])).subarray(0, 12);
}

function verifies(certificate: PeerCertificate, bytes: Buffer, signature: Buffer): boolean {
  try {
    return verify('sha256', bytes, certificate.key, signature);
  } catch {
    return false;
  }
}

const x25519SpkiPrefix = Buffer.from('302a300506032b656e032100', 'hex');

/** Contributory on X25519 (no all-zero secret) and on the curve on P-256, found out by trying. */
function isUsableShare(curve: number | undefined, share: Buffer): boolean {
  try {
    if (curve === 29) {
      const publicKey = createPublicKey({
        key: Buffer.concat([x25519SpkiPrefix, share]),
        format: 'der',
        type: 'spki',
      });
      const { privateKey } = generateKeyPairSync('x25519');
      return diffieHellman({ privateKey, publicKey }).some((byte) => byte !== 0);
    }
    if (curve !== 23 || share.length !== 65 || share[0] !== 4) return false;
    const x = share.subarray(1, 33).toString('base64url');
    const y = share.subarray(33).toString('base64url');
    return createPublicKey({ key: { kty: 'EC', crv: 'P-256', x, y }, format: 'jwk' }).type === 'public';
  } catch {
    return false;
  }
}

export { HandshakeRefused };
