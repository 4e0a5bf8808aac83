/**
 * An attacker's end of a connection, for suites: werift as it is shipped (its CommonJS build, a copy of every
 * class apart from our engine), with whatever certificate and key it is given. Our engine would refuse both
 * the copied certificate and the unchecked one.
 */

import { generateKeyPairSync } from 'node:crypto';
import { createRequire } from 'node:module';

interface SignatureHash {
  readonly signature: number;
  readonly hash: number;
}

export interface StockCertificate {
  readonly certPem: string;
  readonly keyPem: string;
  readonly signatureHash: SignatureHash;
}

interface StockChannel {
  readonly stateChanged: { subscribe(listener: (state: string) => void): void };
  readonly onMessage: { subscribe(listener: (data: Buffer | string) => void): void };
  send(data: Buffer): void;
}

interface StockConnection {
  readonly localDescription: { readonly sdp: string };
  readonly dtlsTransports: readonly {
    srtpProfiles: readonly never[];
    readonly onStateChange: { subscribe(listener: (state: string) => void): void };
    readonly dtls?: {
      readonly cipher: { readonly remoteCertificate?: Buffer };
      readonly dtls: { flight: number };
    };
  }[];
  createDataChannel(label: string, options: { negotiated: boolean; id: number }): StockChannel;
  createOffer(): Promise<object>;
  createAnswer(): Promise<object>;
  setLocalDescription(description: object): Promise<unknown>;
  setRemoteDescription(description: { type: 'offer' | 'answer'; sdp: string }): Promise<void>;
  addIceCandidate(candidate: { candidate: string; sdpMid: string; sdpMLineIndex: number }): Promise<void>;
  close(): Promise<void>;
}

interface StockWerift {
  readonly RTCPeerConnection: new (config: object) => StockConnection;
  createSelfSignedCertificate(signature: SignatureHash, namedCurve: number): Promise<StockCertificate>;
}

const werift = createRequire(import.meta.url)('werift') as StockWerift;
const ecdsaSha256: SignatureHash = { signature: 3, hash: 4 };
const p256 = 23;

export function ownCertificate(): Promise<StockCertificate> {
  return werift.createSelfSignedCertificate(ecdsaSha256, p256);
}

/** Somebody's certificate, which travels in clear, with a private key that does not belong to it. */
export function copiedCertificate(der: Uint8Array): StockCertificate {
  const base64 = Buffer.from(der).toString('base64').replaceAll(/.{64}/g, '$&\n');
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return {
    certPem: `-----BEGIN CERTIFICATE-----\n${base64}\n-----END CERTIFICATE-----\n`,
    keyPem: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
    signatureHash: ecdsaSha256,
  };
}

export class StockPeer {
  /** Resolves when its own side believes that the channel is open. */
  readonly opened: Promise<void>;
  /** DER of the certificate that the other side presented, once DTLS is through. */
  readonly remoteCertificate: Promise<Buffer>;
  readonly received: Buffer[] = [];
  readonly #connection: StockConnection;
  readonly #channel: StockChannel;
  readonly #open = Promise.withResolvers<void>();
  readonly #certificate = Promise.withResolvers<Buffer>();

  constructor(keys: StockCertificate) {
    this.opened = this.#open.promise;
    this.remoteCertificate = this.#certificate.promise;
    this.#connection = new werift.RTCPeerConnection({
      // Without one it asks a public server.
      iceServers: [{ urls: 'stun:127.0.0.1:9' }],
      iceStunGatherTimeout: 0.01,
      iceAdditionalHostAddresses: ['127.0.0.1'],
      dtls: { keys },
    });
    this.#channel = this.#connection.createDataChannel('cocoon', { negotiated: true, id: 0 });
    this.#channel.stateChanged.subscribe((state) => {
      if (state === 'open') this.#open.resolve();
    });
    const [dtls] = this.#connection.dtlsTransports;
    if (!dtls) throw new Error('werift made no DTLS transport');
    // Otherwise it gives up on a client that does not ask for media.
    dtls.srtpProfiles = [];
    dtls.onStateChange.subscribe((state) => {
      const certificate = dtls.dtls?.cipher.remoteCertificate;
      if (state === 'connected' && certificate) this.#certificate.resolve(certificate);
    });
    this.#channel.onMessage.subscribe((data) => this.received.push(Buffer.from(data)));
  }

  async offer(): Promise<string> {
    await this.#connection.setLocalDescription(await this.#connection.createOffer());
    return this.#connection.localDescription.sdp;
  }

  async answer(sdp: string): Promise<string> {
    await this.#connection.setRemoteDescription({ type: 'offer', sdp });
    await this.#connection.setLocalDescription(await this.#connection.createAnswer());
    return this.#connection.localDescription.sdp;
  }

  acceptAnswer(sdp: string): Promise<void> {
    return this.#connection.setRemoteDescription({ type: 'answer', sdp });
  }

  addCandidate(candidate: string | null): void {
    if (candidate === null) return;
    this.#connection.addIceCandidate({ candidate, sdpMid: '0', sdpMLineIndex: 0 }).catch(() => {});
  }

  send(bytes: Uint8Array): void {
    this.#channel.send(Buffer.from(bytes));
  }

  async close(): Promise<void> {
    // werift sends a flight again for half a minute and then throws, closed or not; unless it went on.
    for (const { dtls } of this.#connection.dtlsTransports) if (dtls) dtls.dtls.flight = Infinity;
    await Promise.race([this.#connection.close(), new Promise((resolve) => setTimeout(resolve, 500))]);
  }
}
