/**
 * Loads the one werift build that was reviewed, or nothing. The hardening reaches into werift's inner parts, so
 * a build whose ESM entry differs in a single byte is refused instead of being trusted to work the same way.
 * The interfaces below are exactly the inner parts in use; what they do is in the reviewed file.
 */

import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { MeshError } from '@cocoon-mesh/protocol';

/** SHA-256 of `lib/index.mjs` of werift 0.25.2. */
export const reviewedBuild = '0848cdde8e5507cf9fe0de6e66e5bd1c4f7e5b0e8c0dae582fcdc29b9dcec62e';

export type Address = readonly [host: string, port: number];

interface Subscribable<Args extends unknown[]> {
  subscribe(listener: (...args: Args) => void): unknown;
}

/** The transport werift's DTLS writes to and, by `onData`, reads from. */
export interface DtlsTransport {
  /** One flight of handshake records; when it expects an answer, it is sent again until that comes. */
  flight(records: readonly Buffer[], expectsAnswer: boolean): void;
  type: string;
  address: object;
  onData: (datagram: Buffer) => void;
  send(datagram: Buffer): Promise<void>;
  close(): Promise<void>;
}

export interface DtlsEndpoint {
  readonly onConnect: Subscribable<[]>;
  readonly onError: Subscribable<[Error]>;
  readonly dtls: { cookie?: Buffer; remoteExtendedMasterSecret: boolean };
  readonly cipher: {
    masterSecret?: Buffer;
    namedCurve?: number;
    cipher?: { clientWriteKey: Buffer; serverWriteKey: Buffer; clientNonce: Buffer; serverNonce: Buffer };
  };
  /** Of the client only. */
  connect?(): Promise<void>;
  /** Of the server only, once a client has sent a message of flight 5. */
  readonly flight6?: object;
  onHandleHandshakes(messages: readonly { msg_type: number; fragment: Buffer }[]): Promise<void>;
}

/** What werift makes each flight of. */
interface FlightPrototype {
  transmit(this: Flight, records: readonly Buffer[]): Promise<void>;
}

interface Flight {
  readonly nextFlight: number | undefined;
  readonly transport: { readonly socket: DtlsTransport };
}

export interface SignatureHash {
  readonly signature: number;
  readonly hash: number;
}

export interface DtlsEndpointOptions {
  readonly cert?: string;
  readonly key?: string;
  readonly signatureHash?: SignatureHash;
  readonly transport: DtlsTransport;
  readonly srtpProfiles: readonly never[];
  readonly extendedMasterSecret: true;
  readonly certificateRequest: true;
}

export interface IceCandidate {
  readonly component: number;
  readonly transport: string;
  readonly host: string;
  readonly port: number;
  readonly type: string;
  foundation: string;
  toSdp(): string;
}

export interface StunMessage {
  readonly messageClass: number;
  readonly attributesKeys: readonly string[];
  getAttributeValue(name: 'USERNAME'): string | undefined;
}

/** One socket or TURN allocation below the ICE agent. */
export interface IceProtocol {
  readonly type: string;
  localCandidate?: IceCandidate;
  transport?: UdpTransport;
  /** Of `stun` protocols: opens the socket. */
  connectionMade(useIpv4: boolean): Promise<void>;
  datagramReceived?(datagram: Buffer, from: Address): void;
  /** Of `turn` protocols: what the relay delivered. */
  handleStunMessage?(datagram: Buffer, from: Address): void;
  sendData(datagram: Buffer, to: Address): Promise<void>;
}

export interface UdpTransport {
  readonly type: string;
  readonly addressFamily: 4 | 6;
  readonly address: { address: string; port: number };
  readonly closed: boolean;
  onData: (datagram: Buffer, from: Address) => void;
  send(datagram: Buffer, to: Address): Promise<void>;
  close(): Promise<void>;
}

export interface IcePair {
  readonly protocol: IceProtocol;
  readonly remoteAddr: Address;
  readonly remoteCandidate: IceCandidate;
  readonly localCandidate: IceCandidate;
  /** 3 is SUCCEEDED: our own check was answered with the right password. */
  readonly state: number;
}

export interface IceConnection {
  localUsername: string;
  localPassword: string;
  readonly userHistory: Record<string, string>;
  iceControlling: boolean;
  stunServer: Address | undefined;
  readonly stateChanged: Subscribable<[string]>;
  readonly onIceCandidate: Subscribable<[IceCandidate]>;
  readonly checkList: readonly IcePair[];
  readonly remoteCandidates: readonly IceCandidate[];
  readonly nominated: IcePair | undefined;
  readonly protocols: readonly IceProtocol[];
  readonly state: string;
  earlyChecks: (readonly [StunMessage, Address, IceProtocol])[];
  earlyChecksDone: boolean;
  setRemoteParams(parameters: { iceLite: boolean; usernameFragment: string; password: string }): void;
  gatherCandidates(): Promise<void>;
  addRemoteCandidate(candidate: IceCandidate | undefined): Promise<void>;
  pairRemoteCandidate(candidate: IceCandidate): void;
  ensureProtocol(protocol: IceProtocol): void;
  checkComplete(pair: IcePair): void;
  checkIncoming(message: StunMessage, from: Address, protocol: IceProtocol): void;
  schedulingChecks(): boolean;
  sortCheckList(): void;
  unfreezeInitial(): void;
  queryConsent(): void;
  setState(state: string): void;
  canSendApplicationData(): boolean;
  close(): Promise<void>;
}

export interface IceConnectionOptions {
  readonly useIpv4: boolean;
  readonly useIpv6: boolean;
  readonly additionalHostAddresses: readonly string[];
  readonly stunServer?: Address;
  readonly turnServer?: Address;
  readonly turnUsername?: string;
  readonly turnPassword?: string;
  readonly turnTransport?: 'udp' | 'tcp' | 'tls';
}

export interface Werift {
  readonly Connection: new (controlling: boolean, options: IceConnectionOptions) => IceConnection;
  readonly Candidate: { fromSdp(line: string): IceCandidate };
  readonly DtlsClient: new (options: DtlsEndpointOptions) => DtlsEndpoint;
  readonly DtlsServer: new (options: DtlsEndpointOptions) => DtlsEndpoint;
  readonly parseMessage: (datagram: Buffer, integrityKey?: Buffer) => StunMessage | undefined;
  readonly createSelfSignedCertificate: (
    signature: SignatureHash,
    namedCurve: number,
  ) => Promise<{ certPem: string; keyPem: string; signatureHash: SignatureHash }>;
}

/** @throws MeshError engine_unavailable when werift is absent or is not the reviewed build */
export async function loadWerift(entry = () => import.meta.resolve('werift')): Promise<Werift> {
  try {
    const url = entry();
    const digest = createHash('sha256')
      .update(await readFile(new URL(url)))
      .digest('hex');
    if (digest !== reviewedBuild) throw new Error(`the werift build ${digest} was not reviewed`);
    const werift = (await import(url)) as Werift;
    await takeOverRetransmission(werift);
    return werift;
  } catch (cause) {
    throw new MeshError('engine_unavailable', 'werift cannot be loaded', { cause });
  }
}

let takenOver: Promise<void> | undefined;

/**
 * werift sends a flight again by sleeping in loops that nobody can end, and throws when it gives up. Its
 * `transmit` is replaced, once per process, by handing the flight to the transport. The class is not exported;
 * a server that was fed an empty certificate holds an instance of it.
 */
function takeOverRetransmission(werift: Werift): Promise<void> {
  takenOver ??= (async () => {
    const transport = {
      type: 'none',
      address: {},
      onData: () => {},
      flight: () => {},
      send: async () => {},
      close: async () => {},
    };
    const server = new werift.DtlsServer({ ...endpointDefaults, transport });
    await server.onHandleHandshakes([{ msg_type: 11, fragment: Buffer.alloc(3) }]);
    const flight: unknown = Object.getPrototypeOf(Object.getPrototypeOf(server.flight6));
    const prototype = flight as FlightPrototype;
    if (!Object.hasOwn(prototype, 'transmit')) throw new Error('werift has no Flight.transmit');
    prototype.transmit = async function (records) {
      this.transport.socket.flight(records, this.nextFlight !== undefined);
    };
  })();
  return takenOver;
}

export const endpointDefaults = {
  srtpProfiles: [],
  extendedMasterSecret: true,
  certificateRequest: true,
} as const;
