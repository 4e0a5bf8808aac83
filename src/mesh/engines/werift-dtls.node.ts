/**
 * One DTLS session: werift makes the handshake's messages, everything else is ours. This stands between ICE and
 * werift in both directions. Inwards werift sees only whole, ordered, verified handshake messages; outwards its
 * records are taken apart, noted in the transcript and numbered anew. After the handshake werift sees nothing:
 * application data is sealed and opened here, and nothing unprotected is read any more, which rules out
 * renegotiation and forged alerts. Addresses are the matter of ICE, deadlines of the connection.
 */

import type { Clock, Timer } from '@cocoon-mesh/protocol';
import { endpointDefaults } from './werift-build.node.ts';
import type { DtlsEndpoint, DtlsTransport, SignatureHash, Werift } from './werift-build.node.ts';
import { Alert, HandshakeRefused, HandshakeType, handshakeHeader } from './werift-handshake-messages.node.ts';
import { HandshakeVerifier } from './werift-handshake.node.ts';
import type { DtlsRole } from './werift-handshake.node.ts';
import { HandshakeReassembly } from './werift-reassembly.node.ts';
import type { HandshakeMessage } from './werift-reassembly.node.ts';
import {
  ContentType,
  RecordKey,
  RecordOpener,
  RecordSealer,
  ReplayWindow,
  plainRecord,
  recordsOf,
} from './werift-records.node.ts';
import type { DtlsRecord } from './werift-records.node.ts';

export interface Certificate {
  readonly certPem: string;
  readonly keyPem: string;
  readonly signatureHash: SignatureHash;
}

export interface DtlsOptions {
  readonly clock: Clock;
  readonly role: DtlsRole;
  readonly certificate: Certificate;
  /** SHA-256 of the certificate the peer announced. */
  readonly remoteFingerprint: Uint8Array;
  readonly send: (datagram: Buffer) => void;
  /** The peer is proven; data may be sent. */
  readonly onOpen: () => void;
  readonly onData: (plaintext: Buffer) => void;
  /** Once; nothing follows it. */
  readonly onClosed: (reason: string) => void;
}

/** Sealed handshake records that come before the keys: Finished, overtaking the message before it. */
const maxEarlyRecords = 4;
/** Flights are packed into datagrams of at most this many bytes, which pass every path. */
const flightDatagramBytes = 1200;
/**
 * A flight without an answer is sent again after 100 ms, 200 ms, 400 ms, …; the connection's deadline ends it. Early,
 * because libdatachannel as a server loses what comes before it is ready.
 */
const firstRetryMs = 100;
const maxRetryMs = 4000;
const fatal = 2;

interface Keys {
  readonly sealer: RecordSealer;
  readonly opener: RecordOpener;
  /** Opens what werift sealed itself. */
  readonly ownOpener: RecordOpener;
}

type State = 'handshake' | 'open' | 'closed';

export class DtlsSession {
  readonly #options: DtlsOptions;
  readonly #verifier: HandshakeVerifier;
  readonly #werift: DtlsEndpoint;
  readonly #incoming = new HandshakeReassembly();
  readonly #outgoing = new HandshakeReassembly();
  readonly #replay = new ReplayWindow();
  #state: State = 'handshake';
  #keys: Keys | undefined;
  #early: DtlsRecord[] = [];
  #plainNumber = 0;
  /** Records on their way into datagrams. */
  #outbox: Buffer[] = [];
  /** What werift sent last, as it made it. */
  #lastFlight: readonly Buffer[] = [];
  #retry: Timer | undefined;
  #peerFinished: Buffer | undefined;
  /** How the datagrams reach werift; werift itself sets `onData`. */
  readonly #pipe: DtlsTransport;

  constructor(werift: Werift, options: DtlsOptions) {
    this.#options = options;
    this.#verifier = new HandshakeVerifier(options.role, options.remoteFingerprint, () => ({
      cookie: this.#werift.dtls.cookie,
      masterSecret: this.#werift.cipher.masterSecret,
      usesExtendedMasterSecret: this.#werift.dtls.remoteExtendedMasterSecret,
      namedCurve: this.#werift.cipher.namedCurve,
    }));
    this.#pipe = {
      type: 'cocoon',
      address: {},
      onData: (_datagram: Buffer): void => {},
      flight: (records, expectsAnswer) => this.#sendFlight(records, expectsAnswer ? firstRetryMs : 0),
      // Never rejects: werift answers a failed send by an unhandled rejection.
      send: async (datagram) => this.#fromWerift(datagram),
      close: async () => {},
    };
    const Endpoint = options.role === 'client' ? werift.DtlsClient : werift.DtlsServer;
    this.#werift = new Endpoint({
      cert: options.certificate.certPem,
      key: options.certificate.keyPem,
      signatureHash: options.certificate.signatureHash,
      transport: this.#pipe,
      ...endpointDefaults,
    });
    this.#werift.onConnect.subscribe(() => this.#weriftConnected());
    this.#werift.onError.subscribe((error) => this.#fail(Alert.handshakeFailure, String(error)));
  }

  /** The client's first message; a server waits. */
  start(): void {
    this.#werift
      .connect?.()
      .catch((error: unknown) => this.#fail(Alert.handshakeFailure, `DTLS: ${String(error)}`));
  }

  /** A datagram from a checked address. Never throws: whatever is wrong with it is the peer's matter. */
  receive(datagram: Buffer): void {
    for (const record of recordsOf(datagram)) {
      if (this.#state === 'closed') return;
      try {
        if (record.epoch === 1) this.#sealedRecord(record);
        else if (this.#state === 'handshake') this.#plainRecord(record);
      } catch (error) {
        if (error instanceof HandshakeRefused) this.#fail(error.alert, `DTLS refused: ${error.message}`);
        else this.#fail(Alert.decodeError, `DTLS: ${String(error)}`);
      }
    }
  }

  /** Sends application data; it is sealed before this returns, so the buffer may be used again. */
  sendData(plaintext: Buffer): void {
    if (this.#state !== 'open' || !this.#keys) return;
    this.#options.send(this.#keys.sealer.seal(ContentType.applicationData, plaintext));
  }

  /** Tells the peer; the caller closes the sockets a moment later. Idempotent. */
  close(): void {
    if (this.#state === 'closed') return;
    this.#sendAlert(1, Alert.closeNotify);
    this.#end();
  }

  // From the network

  #plainRecord(record: DtlsRecord): void {
    if (record.type === ContentType.handshake) {
      this.#incoming.add(
        record.body,
        0,
        (message) => this.#received(message),
        (message) => this.#repeated(message),
      );
    } else if (record.type === ContentType.alert && record.body.length === 2 && record.body[0] === fatal) {
      this.#closedByPeer(`the peer refused the handshake, alert ${record.body[1]}`);
    }
  }

  #sealedRecord(record: DtlsRecord): void {
    const keys = this.#deriveKeys();
    if (!keys) {
      if (record.type === ContentType.handshake && this.#early.length < maxEarlyRecords)
        this.#early.push({ ...record, body: Buffer.from(record.body) });
      return;
    }
    // Data before Finished comes from nobody proven.
    if (record.type !== ContentType.handshake && this.#state !== 'open') return;
    if (!this.#replay.isFresh(record.number)) return;
    const plaintext = keys.opener.open(record);
    if (!plaintext) return;
    this.#replay.mark(record.number);
    if (record.type === ContentType.applicationData) this.#options.onData(plaintext);
    else if (record.type === ContentType.handshake)
      this.#incoming.add(
        plaintext,
        1,
        (message) => this.#received(message),
        (message) => this.#repeated(message),
      );
    else if (record.type === ContentType.alert) this.#alert(plaintext);
  }

  #alert(body: Buffer): void {
    if (body.length !== 2) return;
    const [level, description] = body;
    if (level === fatal || description === Alert.closeNotify)
      this.#closedByPeer(
        description === Alert.closeNotify ? 'the peer closed the connection' : `DTLS alert ${description}`,
      );
  }

  /** The next handshake message, in order. */
  #received(message: HandshakeMessage): void {
    if (this.#state === 'closed') return;
    if (this.#verifier.complete)
      throw new HandshakeRefused(Alert.unexpectedMessage, 'renegotiation is refused');
    const { type, sequence, body, epoch } = message;
    this.#verifier.received(type, sequence, body, epoch);
    if (type === HandshakeType.finished) this.#finished(message);
    else this.#toWerift(message);
    if (type === HandshakeType.clientKeyExchange) this.#openEarly();
  }

  /** Only two repeated messages deserve an answer; the rest is dropped. */
  #repeated({ type, sequence, body, epoch }: HandshakeMessage): void {
    if (type === HandshakeType.clientHello && this.#verifier.awaitsCookie) {
      if (this.#verifier.repeatsFirstHello(body)) this.#toWerift({ type, sequence, body, epoch });
    } else if (
      type === HandshakeType.finished &&
      epoch === 1 &&
      this.#options.role === 'server' &&
      this.#state === 'open' &&
      this.#peerFinished?.equals(body)
    ) {
      this.#sendFlight(this.#lastFlight, 0);
    }
  }

  #openEarly(): void {
    const early = this.#early;
    this.#early = [];
    for (const record of early) if (this.#state !== 'closed') this.#sealedRecord(record);
  }

  /** The peer is proven. */
  #finished({ type, sequence, body }: HandshakeMessage): void {
    this.#peerFinished = body;
    // For the client nothing is left to do; a server has yet to send its own.
    if (this.#options.role === 'client') return this.#open();
    // werift opens this record with the same keys, so it is sealed again for it: with the peer's key.
    this.#toWeriftSealed(type, sequence, body);
  }

  #weriftConnected(): void {
    if (this.#options.role === 'server' && this.#verifier.complete) this.#open();
  }

  #open(): void {
    if (this.#state !== 'handshake' || !this.#deriveKeys()) return;
    this.#state = 'open';
    this.#retry?.cancel();
    this.#flushOutbox();
    this.#options.onOpen();
  }

  // To and from werift

  #toWerift({ type, sequence, body }: HandshakeMessage): void {
    const whole = Buffer.concat([handshakeHeader(type, sequence, body.length), body]);
    this.#pipe.onData(plainRecord(ContentType.handshake, sequence, whole));
  }

  #toWeriftSealed(type: number, sequence: number, body: Buffer): void {
    const peer = this.#weriftKeys()?.peer;
    if (!peer) return;
    const whole = Buffer.concat([handshakeHeader(type, sequence, body.length), body]);
    this.#pipe.onData(new RecordSealer(peer).seal(ContentType.handshake, whole));
  }

  /** Takes apart what werift would put on the wire. */
  #fromWerift(datagram: Buffer): void {
    if (this.#state === 'closed') return;
    for (const record of recordsOf(datagram)) {
      if (record.epoch === 0) {
        if (record.type === ContentType.handshake) this.#noteSent(record.body, 0);
        this.#queue(plainRecord(record.type, this.#plainNumber++, record.body));
        continue;
      }
      const keys = this.#deriveKeys();
      const plaintext = keys?.ownOpener.open(record);
      if (!keys || !plaintext) continue;
      this.#noteSent(plaintext, 1);
      this.#queue(keys.sealer.seal(ContentType.handshake, plaintext));
    }
  }

  #noteSent(payload: Buffer, epoch: number): void {
    this.#outgoing.add(payload, epoch, ({ type, sequence, body }) =>
      this.#verifier.sent(type, sequence, Buffer.from(body)),
    );
  }

  /** Sends a flight, again and again at growing intervals unless `retryMs` is 0, until the next one or the end. */
  #sendFlight(records: readonly Buffer[], retryMs: number): void {
    this.#retry?.cancel();
    this.#lastFlight = records;
    for (const record of records) this.#fromWerift(record);
    if (retryMs === 0 || this.#state !== 'handshake') return;
    this.#retry = this.#options.clock.after(retryMs, () =>
      this.#sendFlight(records, Math.min(2 * retryMs, maxRetryMs)),
    );
  }

  #queue(record: Buffer): void {
    if (this.#outbox.length === 0) queueMicrotask(() => this.#flushOutbox());
    this.#outbox.push(record);
  }

  #flushOutbox(): void {
    const records = this.#outbox;
    this.#outbox = [];
    let datagram: Buffer[] = [];
    let bytes = 0;
    for (const record of records) {
      if (bytes + record.length > flightDatagramBytes && bytes > 0) {
        this.#options.send(Buffer.concat(datagram));
        datagram = [];
        bytes = 0;
      }
      datagram.push(record);
      bytes += record.length;
    }
    if (bytes > 0) this.#options.send(Buffer.concat(datagram));
  }

  #weriftKeys(): { own: RecordKey; peer: RecordKey } | undefined {
    const cipher = this.#werift.cipher.cipher;
    if (!cipher?.clientWriteKey) return undefined;
    const client = new RecordKey(cipher.clientWriteKey, cipher.clientNonce);
    const server = new RecordKey(cipher.serverWriteKey, cipher.serverNonce);
    return this.#options.role === 'client' ? { own: client, peer: server } : { own: server, peer: client };
  }

  #deriveKeys(): Keys | undefined {
    if (this.#keys) return this.#keys;
    const keys = this.#weriftKeys();
    if (keys)
      this.#keys = {
        sealer: new RecordSealer(keys.own),
        opener: new RecordOpener(keys.peer),
        ownOpener: new RecordOpener(keys.own),
      };
    return this.#keys;
  }

  // Ending

  #fail(alert: Alert, reason: string): void {
    if (this.#state === 'closed') return;
    this.#sendAlert(fatal, alert);
    this.#closedByPeer(reason);
  }

  #closedByPeer(reason: string): void {
    if (this.#state === 'closed') return;
    this.#end();
    this.#options.onClosed(reason);
  }

  #sendAlert(level: number, description: Alert): void {
    const alert = Buffer.from([level, description]);
    if (this.#state === 'open' && this.#keys)
      this.#options.send(this.#keys.sealer.seal(ContentType.alert, alert));
    else if (this.#plainNumber > 0)
      this.#options.send(plainRecord(ContentType.alert, this.#plainNumber++, alert));
  }

  #end(): void {
    this.#state = 'closed';
    this.#retry?.cancel();
    this.#flushOutbox();
    this.#early = [];
  }
}
