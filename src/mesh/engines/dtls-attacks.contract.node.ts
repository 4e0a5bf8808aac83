/**
 * A hostile peer for tests: a stock werift, loaded apart from the one our engine uses, whose DTLS is bent in one
 * place per attack. It speaks the engine seam, so the same attack runs against any engine, and without a bend it
 * is an honest peer: the control that keeps a refusal from proving nothing.
 */

import { generateKeyPairSync } from 'node:crypto';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import type { ConnectionOptions } from '../engine.ts';
import type { DtlsRole } from './werift-handshake.node.ts';

export interface StockCertificate {
  readonly certPem: string;
  readonly privateKey: string;
  readonly signatureHash: object;
}

interface Listenable<Args extends unknown[]> {
  subscribe(listener: (...args: Args) => void): unknown;
}

interface StockChannel {
  readonly readyState: string;
  readonly stateChanged: Listenable<[string]>;
  readonly onMessage: Listenable<[Buffer | string]>;
  send(message: Buffer | string): void;
}

interface StockIce {
  readonly connection: {
    send: (datagram: Buffer) => Promise<void>;
    readonly onData: Listenable<[Buffer]>;
  };
}

export interface StockConnection {
  readonly iceTransports: readonly StockIce[];
  readonly dtlsTransports: readonly { readonly role: string; srtpProfiles: readonly number[] }[];
  readonly sctpTransport: {
    readonly dtlsTransport: { sendData(packet: Buffer): Promise<void> };
    readonly sctp: {
      readonly remoteVerificationTag: number;
      send(streamId: number, protocol: number, data: Buffer): Promise<void>;
    };
  };
  readonly onIceCandidate: Listenable<[{ candidate: string } | undefined]>;
  readonly localDescription: { readonly sdp: string };
  createDataChannel(label: string, options: { negotiated: true; id: number }): StockChannel;
  createOffer(): Promise<object>;
  createAnswer(): Promise<{ readonly sdp: string }>;
  setLocalDescription(description: object): Promise<unknown>;
  setRemoteDescription(description: { type: 'offer' | 'answer'; sdp: string }): Promise<void>;
  addIceCandidate(candidate: { candidate: string; sdpMid: string; sdpMLineIndex: number }): Promise<void>;
  close(): Promise<void>;
}

/** The exports of stock werift that are used here. */
export interface StockWerift {
  readonly RTCPeerConnection: new (configuration: object) => StockConnection;
  readonly RTCCertificate: new (keyPem: string, certPem: string, signatureHash: object) => StockCertificate;
  readonly createSelfSignedCertificate: (
    signatureHash: object,
    curve: number,
  ) => Promise<{ keyPem: string; certPem: string; signatureHash: object }>;
}

const require = createRequire(import.meta.url);
const stockRoot = join(dirname(require.resolve('werift')), '../..');
/** The CommonJS build: every class of it is another one than in the ESM build of our engine. */
export const attackerWerift = require('werift') as StockWerift;
export const stockPart = (path: string): Record<string, unknown> =>
  require(join(stockRoot, path)) as Record<string, unknown>;

export async function freshCertificate(werift: StockWerift): Promise<StockCertificate> {
  const made = await werift.createSelfSignedCertificate({ signature: 3, hash: 4 }, 23);
  return new werift.RTCCertificate(made.keyPem, made.certPem, made.signatureHash);
}

/** The certificate of somebody else, with a key of our own: what anyone holds who has seen one handshake. */
export function stolenCertificate(werift: StockWerift, victim: StockCertificate): StockCertificate {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const keyPem = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
  return new werift.RTCCertificate(keyPem, victim.certPem, victim.signatureHash);
}

/** A stock werift peer behind the calls of our seam that an introduction needs. */
export class StockPeer {
  readonly connection: StockConnection;
  readonly channel: StockChannel;
  /** Payloads that came over the channel. */
  readonly messages: (Buffer | string)[] = [];
  /** Datagrams that came from the other side, STUN left out. */
  readonly datagrams: Buffer[] = [];
  readonly opened: Promise<void>;
  /** Its own first ClientHello, where it was DTLS client. */
  sentHello: Buffer | undefined;
  #wake = Promise.withResolvers<void>();

  constructor(werift: StockWerift, certificate: StockCertificate, options: ConnectionOptions) {
    this.connection = new werift.RTCPeerConnection({
      // A server that never answers, in place of the public one that stock werift asks on its own.
      iceServers: [{ urls: 'stun:127.0.0.1:9' }],
      iceStunGatherTimeout: 0.01,
      iceUseIpv6: false,
      iceAdditionalHostAddresses: ['127.0.0.1'],
      dtls: {
        keys: {
          keyPem: certificate.privateKey,
          certPem: certificate.certPem,
          signatureHash: certificate.signatureHash,
        },
      },
    });
    this.connection.onIceCandidate.subscribe((candidate) =>
      options.onCandidate(candidate ? `candidate:${candidate.candidate.replace(/^candidate:/, '')}` : null),
    );
    this.channel = this.connection.createDataChannel('', { negotiated: true, id: 0 });
    const opened = Promise.withResolvers<void>();
    this.opened = opened.promise;
    this.channel.stateChanged.subscribe((state) => {
      if (state === 'open') opened.resolve();
    });
    this.channel.onMessage.subscribe((message) => {
      this.messages.push(message);
      this.#notify();
    });
    const ice = this.connection.iceTransports[0]?.connection;
    if (ice) {
      const send = ice.send.bind(ice);
      ice.send = (datagram) => {
        if (datagram[0] === 22 && datagram[13] === 1) this.sentHello ??= datagram;
        return send(datagram);
      };
    }
    ice?.onData.subscribe((datagram) => {
      this.datagrams.push(Buffer.from(datagram));
      this.#notify();
    });
  }

  async createOffer(): Promise<string> {
    await this.connection.setLocalDescription(await this.connection.createOffer());
    return this.connection.localDescription.sdp;
  }

  /** The answer takes the DTLS role. */
  async acceptOffer(sdp: string, role: DtlsRole = 'client'): Promise<string> {
    await this.connection.setRemoteDescription({ type: 'offer', sdp });
    this.#withoutSrtp();
    const answer = await this.connection.createAnswer();
    const setup = role === 'client' ? 'active' : 'passive';
    const chosen = answer.sdp.replace(/a=setup:\w+/, `a=setup:${setup}`);
    await this.connection.setLocalDescription({ type: 'answer', sdp: chosen });
    return this.connection.localDescription.sdp;
  }

  get role(): string {
    return this.connection.dtlsTransports[0]?.role ?? 'none';
  }

  async acceptAnswer(sdp: string): Promise<void> {
    this.#withoutSrtp();
    await this.connection.setRemoteDescription({ type: 'answer', sdp });
  }

  addCandidate(line: string | null): void {
    if (line === null) return;
    const adding = this.connection.addIceCandidate({ candidate: line, sdpMid: '0', sdpMLineIndex: 0 });
    adding.catch(() => undefined);
  }

  /** A datagram over the selected pair, as it is. */
  sendDatagram(datagram: Buffer): void {
    void this.connection.iceTransports[0]?.connection.send(datagram);
  }

  /** An SCTP packet inside DTLS, as it is. */
  sendPacket(packet: Buffer): void {
    void this.connection.sctpTransport.dtlsTransport.sendData(packet);
  }

  /** Resolves once `done` holds; looked at whenever something comes. */
  async until(done: () => boolean): Promise<void> {
    while (!done()) await this.#wake.promise;
  }

  async close(): Promise<void> {
    await this.connection.close();
  }

  /** Stock werift gives up when a peer without audio and video offers no SRTP. */
  #withoutSrtp(): void {
    for (const transport of this.connection.dtlsTransports) transport.srtpProfiles = [];
  }

  #notify(): void {
    this.#wake.resolve();
    this.#wake = Promise.withResolvers();
  }
}

export interface Attack {
  /** Completes "is refused: a peer …". */
  readonly name: string;
  /** The DTLS roles in which the attacker can try it. */
  readonly roles: readonly DtlsRole[];
  readonly stolenKey?: true;
  readonly wrongFingerprint?: true;
  /** libdatachannel connects without the extended master secret; RFC 7627 leaves that to it. */
  readonly weriftOnly?: true;
  /** Why our engine refuses it: another reason would mean that this check was never reached. */
  readonly refusal: RegExp;
  /** Whether stock werift falls for it: then the attack is a real one. */
  readonly worksOnStock: boolean;
  readonly bend?: () => readonly Undo[];
}

export type Undo = () => void;

type Method = (this: never, ...args: never[]) => unknown;

/** Replaces a method of the attacker's werift; `make` gets the one before. */
function bendMethod(path: string, className: string, method: string, make: (before: Method) => Method): Undo {
  const { prototype } = stockPart(path)[className] as { prototype: Record<string, Method> };
  const before = prototype[method] as Method;
  prototype[method] = make(before);
  return () => {
    prototype[method] = before;
  };
}

interface StockRecord {
  serialize(): Buffer;
}

/** What the bent methods use of a flight. */
interface StockFlight {
  readonly dtls: { requestedCertificateTypes: number[]; recordSequenceNumber: number };
  readonly cipher: {
    readonly namedCurve: number;
    localKeyPair: { publicKey: Buffer };
    generateKeySignature(hash: string): Buffer;
    encryptPacket(record: StockRecord): StockRecord;
  };
  createPacket(messages: readonly object[]): readonly StockRecord[];
}

interface StockSocket {
  readonly options: { extendedMasterSecret: boolean };
}

const flight4 = 'dtls/src/flight/server/flight4.js';
const flight5 = 'dtls/src/flight/client/flight5.js';
const flight6 = 'dtls/src/flight/server/flight6.js';
const cipherContext = 'dtls/src/context/cipher.js';

const call = (method: Method, self: object, ...args: unknown[]): unknown =>
  Reflect.apply(method as (...all: unknown[]) => unknown, self, args);

function serializeMessage(flight: StockFlight, message: object): Buffer {
  return Buffer.concat(flight.createPacket([message]).map((record) => record.serialize()));
}

function construct(path: string, className: string, ...args: unknown[]): object {
  return Reflect.construct(stockPart(path)[className] as new (...all: unknown[]) => object, args);
}

/** The CertificateVerify of the handshake before: signed by the right key, over another transcript. */
let recordedSignature: unknown;

export const attacks: readonly Attack[] = [
  {
    name: 'has the right certificate and another private key',
    roles: ['client', 'server'],
    stolenKey: true,
    refusal: /ServerKeyExchange has a bad signature|CertificateVerify has a bad signature/,
    worksOnStock: true,
  },
  {
    name: 'sends a wrong Finished',
    roles: ['client', 'server'],
    refusal: /Finished does not match/,
    worksOnStock: true,
    bend: () => [
      bendMethod(cipherContext, 'CipherContext', 'verifyData', (before) => {
        return function (this: object, ...args: unknown[]) {
          const data = Buffer.from(call(before, this, ...args) as Buffer);
          data[0] = (data[0] ?? 0) ^ 1;
          return data;
        };
      }),
    ],
  },
  {
    name: 'sends an empty Finished',
    roles: ['client', 'server'],
    refusal: /Finished does not match/,
    worksOnStock: true,
    bend: () => [bendMethod(cipherContext, 'CipherContext', 'verifyData', () => () => Buffer.alloc(0))],
  },
  {
    name: 'sends its Finished unencrypted',
    roles: ['server'],
    refusal: /message 20 in epoch 0/,
    worksOnStock: true,
    bend: () => [
      bendMethod(flight6, 'Flight6', 'sendFinished', () => {
        return function (this: StockFlight) {
          const message = construct('dtls/src/handshake/message/finished.js', 'Finished', Buffer.alloc(12));
          return serializeMessage(this, message);
        };
      }),
    ],
  },
  {
    name: 'signs one key share and presents another',
    roles: ['server'],
    refusal: /ServerKeyExchange has a bad signature/,
    worksOnStock: false,
    bend: () => [
      bendMethod(flight4, 'Flight4', 'sendServerKeyExchange', (before) => {
        return function (this: StockFlight) {
          const sign = this.cipher.generateKeySignature.bind(this.cipher);
          const { generateKeyPair } = stockPart('dtls/src/cipher/namedCurve.js');
          this.cipher.generateKeySignature = function (hash) {
            const own = this.localKeyPair;
            const { publicKey } = (generateKeyPair as (curve: number) => { publicKey: Buffer })(
              this.namedCurve,
            );
            this.localKeyPair = { ...own, publicKey };
            const signature = sign(hash);
            this.localKeyPair = own;
            return signature;
          };
          return call(before, this);
        };
      }),
    ],
  },
  {
    name: 'presents no certificate',
    roles: ['client'],
    refusal: /message 16 is out of order/,
    worksOnStock: false,
    bend: () => [
      bendMethod(flight5, 'Flight5', 'exec', (before) => {
        return function (this: StockFlight) {
          this.dtls.requestedCertificateTypes = [];
          return call(before, this);
        };
      }),
    ],
  },
  {
    name: 'presents an empty certificate list',
    roles: ['client'],
    refusal: /presented no certificate/,
    worksOnStock: false,
    bend: () => [
      bendMethod(flight5, 'Flight5', 'sendCertificate', () => {
        return function (this: StockFlight) {
          return serializeMessage(
            this,
            construct('dtls/src/handshake/message/certificate.js', 'Certificate', []),
          );
        };
      }),
      bendMethod(flight5, 'Flight5', 'sendCertificateVerify', () => () => false),
    ],
  },
  {
    name: 'presents a certificate and never proves its key',
    roles: ['client'],
    stolenKey: true,
    refusal: /message 20 is out of order/,
    worksOnStock: false,
    bend: () => [bendMethod(flight5, 'Flight5', 'sendCertificateVerify', () => () => false)],
  },
  {
    name: 'repeats the CertificateVerify of an earlier handshake',
    roles: ['client'],
    refusal: /CertificateVerify has a bad signature/,
    worksOnStock: true,
    bend: () => [
      bendMethod(cipherContext, 'CipherContext', 'signatureData', (before) => {
        return function (this: object, ...args: unknown[]) {
          recordedSignature ??= call(before, this, Buffer.from('another transcript'), ...args.slice(1));
          return recordedSignature;
        };
      }),
      () => {
        recordedSignature = undefined;
      },
    ],
  },
  {
    name: 'does without the extended master secret',
    roles: ['client', 'server'],
    weriftOnly: true,
    refusal: /no extended master secret/,
    worksOnStock: true,
    bend: () => [
      bendMethod('dtls/src/socket.js', 'DtlsSocket', 'setupExtensions', (before) => {
        return function (this: StockSocket) {
          this.options.extendedMasterSecret = false;
          return call(before, this);
        };
      }),
    ],
  },
  {
    name: 'presents another certificate than the announced one',
    roles: ['client', 'server'],
    wrongFingerprint: true,
    refusal: /not the announced one/,
    worksOnStock: false,
  },
];

/** A record of application data, sealed right behind its own Finished: before the other side's answer. */
export function bendToSendEarlyData(payload: Buffer, placed: 'before' | 'after'): Undo {
  return bendMethod(flight5, 'Flight5', 'sendFinished', (before) => {
    return function (this: StockFlight) {
      const finished = call(before, this) as Buffer;
      const { createPlaintext } = stockPart('dtls/src/record/builder.js');
      const build = createPlaintext as (
        dtls: object,
      ) => (fragments: readonly object[], number: number) => readonly StockRecord[];
      // A number of its own, so that no nonce repeats and only the order is wrong.
      const [record] = build(this.dtls)([{ type: 23, fragment: payload }], 1000);
      if (!record) throw new Error('no record was built');
      const early = this.cipher.encryptPacket(record).serialize();
      return Buffer.concat(placed === 'before' ? [early, finished] : [finished, early]);
    };
  });
}
