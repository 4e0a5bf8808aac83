/**
 * werift's ICE agent behind a narrow door. Only authenticated STUN requests reach it, only datagrams of checked
 * candidate pairs leave it, no server is asked that was not configured, and a check that succeeds is acted on at
 * once. What the datagrams mean is the matter of DTLS.
 */

import { randomBytes } from 'node:crypto';
import { networkInterfaces } from 'node:os';
import type { Clock, Timer } from '@cocoon-mesh/protocol';
import type { IceServer, Path } from '../engine.ts';
import { iceServerAddresses } from '../ice-server.ts';
import { pathBetween } from '../path.ts';
import type { Candidate } from '../sdp.ts';
import { formatCandidate, isIpAddress, parseCandidate } from '../sdp.ts';
import type {
  Address,
  IceCandidate,
  IceConnection,
  IceConnectionOptions,
  IcePair,
  IceProtocol,
  Werift,
} from './werift-build.node.ts';
import { UdpSocket } from './werift-udp.node.ts';

/** Between two connectivity checks; RFC 8445 section 14.2 sets 5 ms as the least. */
const checkIntervalMs = 5;
/** More candidates than real machines have; each costs checks. */
const maxRemoteCandidates = 32;
/** Datagrams kept from an address whose check is still on its way: the first flight of an eager client. */
const maxHeldDatagrams = 8;
const maxHeldBytes = 2048;
const stunRequest = 0;
const pairSucceeded = 3;

export interface IceOptions {
  readonly controlling: boolean;
  readonly iceServers: readonly IceServer[];
  readonly loopback: boolean;
  readonly clock: Clock;
  /** `candidate:…` lines, then null. */
  readonly onCandidate: (line: string | null) => void;
  /** A pair is selected; data may be sent. Once. */
  readonly onConnected: () => void;
  /** From the address of a checked pair. */
  readonly onDatagram: (datagram: Buffer) => void;
  /** The path is gone. */
  readonly onFailed: (reason: string) => void;
}

interface Held {
  readonly datagram: Buffer;
  readonly protocol: IceProtocol;
  readonly from: Address;
}

export class IceAgent {
  readonly username = randomBytes(6).toString('hex');
  readonly password = randomBytes(16).toString('hex');
  readonly #werift: Werift;
  readonly #options: IceOptions;
  readonly #connection: IceConnection;
  #remoteUsername: string | undefined;
  #checking: Timer | undefined;
  readonly #sockets = new Set<UdpSocket>();
  #firstValid: IcePair | undefined;
  #nominated = false;
  #connected = false;
  #closed = false;
  #held: Held[] = [];

  constructor(werift: Werift, options: IceOptions) {
    this.#werift = werift;
    this.#options = options;
    const configured = connectionOptions(options);
    this.#connection = new werift.Connection(options.controlling, configured);
    // werift falls back to a public server of a third party.
    if (!configured.stunServer) this.#connection.stunServer = undefined;
    this.#connection.localUsername = this.username;
    this.#connection.localPassword = this.password;
    this.#connection.userHistory[this.username] = this.password;
    this.#hookProtocols();
    this.#hookSelection();
    this.#connection.onIceCandidate.subscribe((candidate) => this.#localCandidate(candidate.toSdp()));
    this.#connection.stateChanged.subscribe((state) => {
      if (state === 'failed' && !this.#closed) options.onFailed('the path to the peer is gone');
    });
  }

  /** Starts gathering; candidates come by `onCandidate`. */
  gather(): void {
    this.#connection
      .gatherCandidates()
      .catch(() => {})
      .finally(() => {
        if (!this.#closed) this.#options.onCandidate(null);
      });
  }

  /** The peer's credentials are known: connectivity checks start. */
  start(remote: { readonly username: string; readonly password: string }): void {
    if (this.#closed) return;
    const connection = this.#connection;
    this.#remoteUsername = remote.username;
    connection.setRemoteParams({
      iceLite: false,
      usernameFragment: remote.username,
      password: remote.password,
    });
    for (const candidate of connection.remoteCandidates) connection.pairRemoteCandidate(candidate);
    connection.sortCheckList();
    connection.unfreezeInitial();
    // Checks of the peer that came before its answer.
    const early = connection.earlyChecks;
    connection.earlyChecks = [];
    connection.earlyChecksDone = true;
    for (const [message, from, protocol] of early) connection.checkIncoming(message, from, protocol);
    this.#check();
  }

  /** A candidate of the peer. One behind an mDNS name is left out: who hides behind it will call us. */
  addRemoteCandidate(candidate: Candidate): void {
    if (this.#closed || !isIpAddress(candidate.address)) return;
    if (this.#connection.remoteCandidates.length >= maxRemoteCandidates) return;
    const line = formatCandidate(candidate).replace(/^candidate:/, '');
    this.#connection.addRemoteCandidate(this.#werift.Candidate.fromSdp(line)).catch(() => {});
    if (this.#remoteUsername !== undefined) this.#check();
  }

  send(datagram: Buffer): void {
    const pair = this.#selected;
    if (!pair || (this.#connection.nominated && !this.#connection.canSendApplicationData())) return;
    const { transport } = pair.protocol;
    const [host, port] = pair.remoteAddr;
    if (transport instanceof UdpSocket) transport.sendNow(datagram, host, port);
    else pair.protocol.sendData(datagram, pair.remoteAddr).catch(() => {});
  }

  get path(): Path | null {
    const pair = this.#selected;
    if (!pair) return null;
    const end = ({ type, host }: IceCandidate) => ({ type, address: host });
    return pathBetween(end(pair.localCandidate), end(pair.remoteCandidate));
  }

  /** The nominated pair; until there is one, the first that works (RFC 8445, 12.1), for libjuice nominates late. */
  get #selected(): IcePair | undefined {
    return this.#connection.nominated ?? this.#firstValid;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#checking?.cancel();
    this.#held = [];
    await this.#connection.close().catch(() => {});
    await Promise.all([...this.#sockets].map((socket) => socket.close()));
  }

  #localCandidate(line: string): void {
    // A relay's socket opens late, after the peer's candidates were paired with the others.
    if (this.#remoteUsername !== undefined) {
      for (const candidate of this.#connection.remoteCandidates)
        this.#connection.pairRemoteCandidate(candidate);
      this.#check();
    }
    const candidate = parseCandidate(`candidate:${line.replace(/^candidate:/, '')}`);
    if (candidate && !this.#closed) this.#options.onCandidate(formatCandidate(candidate));
  }

  /** Runs the check list, one check per interval, until a pair is nominated. */
  #check(): void {
    if (this.#checking || this.#connection.nominated || this.#closed) return;
    this.#connection.schedulingChecks();
    this.#checking = this.#options.clock.after(checkIntervalMs, () => {
      this.#checking = undefined;
      this.#check();
    });
  }

  /** werift looks for a selected pair every 20 ms; this learns of it when it happens. */
  #hookSelection(): void {
    const connection = this.#connection;
    const checkComplete = connection.checkComplete.bind(connection);
    connection.checkComplete = (pair: IcePair) => {
      checkComplete(pair);
      // The one that nominates uses nothing else; the other may send as soon as a pair works.
      if (!connection.iceControlling && pair.state === pairSucceeded) this.#firstValid ??= pair;
      this.#releaseHeld();
      if (this.#closed) return;
      if (connection.nominated && !this.#nominated) {
        this.#nominated = true;
        this.#checking?.cancel();
        connection.queryConsent();
        connection.setState('connected');
      }
      if (this.#connected || !this.#selected) return;
      this.#connected = true;
      this.#options.onConnected();
    };
  }

  #hookProtocols(): void {
    const connection = this.#connection;
    const ensureProtocol = connection.ensureProtocol.bind(connection);
    connection.ensureProtocol = (protocol: IceProtocol) => {
      ensureProtocol(protocol);
      if (protocol.handleStunMessage) {
        const inner = protocol.handleStunMessage.bind(protocol);
        protocol.handleStunMessage = (datagram, from) => this.#filter(protocol, inner, datagram, from);
      } else if (protocol.datagramReceived) {
        const inner = protocol.datagramReceived.bind(protocol);
        protocol.datagramReceived = (datagram, from) => this.#filter(protocol, inner, datagram, from);
        protocol.connectionMade = async (useIpv4) => {
          const udp = await UdpSocket.open(useIpv4 ? 4 : 6);
          // werift closes the sockets it has listed; while it gathers, there are some it has not.
          this.#sockets.add(udp);
          if (this.#closed) await udp.close();
          protocol.transport = udp;
          udp.onData = (datagram, from) => protocol.datagramReceived?.(datagram, from);
        };
      }
    };
  }

  /** Every datagram of every socket passes here. */
  #filter(
    protocol: IceProtocol,
    inner: (datagram: Buffer, from: Address) => void,
    datagram: Buffer,
    from: Address,
  ): void {
    if (this.#closed) return;
    const first = datagram[0] ?? 255;
    try {
      // RFC 7983: 0 to 3 is STUN, 20 to 63 DTLS; nothing else is spoken here.
      if (first <= 3) {
        if (this.#isAuthenticOrResponse(datagram)) inner(datagram, from);
      } else if (first >= 20 && first <= 63) {
        this.#dtls(protocol, datagram, from);
      }
    } catch {
      // werift throws at attributes it does not expect.
    }
  }

  /** werift verifies responses, but answers and believes any request. */
  #isAuthenticOrResponse(datagram: Buffer): boolean {
    const message = this.#werift.parseMessage(datagram);
    if (!message) return false;
    if (message.messageClass !== stunRequest) return true;
    const [local, remote] = (message.getAttributeValue('USERNAME') ?? '').split(':');
    if (local !== this.username) return false;
    if (this.#remoteUsername !== undefined && remote !== this.#remoteUsername) return false;
    const known = this.#connection.remoteCandidates.length + this.#connection.earlyChecks.length;
    if (known >= 2 * maxRemoteCandidates) return false;
    return this.#werift.parseMessage(datagram, Buffer.from(this.password)) !== undefined;
  }

  #dtls(protocol: IceProtocol, datagram: Buffer, from: Address): void {
    const selected = this.#connection.nominated;
    if (selected && isAt(selected, protocol, from)) return this.#options.onDatagram(datagram);
    // One address may be in several pairs: as an announced candidate and as one that a check revealed.
    const pairs = this.#connection.checkList.filter((pair) => isAt(pair, protocol, from));
    if (pairs.some(({ state }) => state === pairSucceeded)) this.#options.onDatagram(datagram);
    else if (pairs.length > 0 && datagram.length <= maxHeldBytes && this.#held.length < maxHeldDatagrams)
      this.#held.push({ datagram, protocol, from });
  }

  #releaseHeld(): void {
    if (this.#held.length === 0) return;
    const held = this.#held;
    this.#held = [];
    for (const { protocol, datagram, from } of held) this.#dtls(protocol, datagram, from);
  }
}

function isAt(pair: IcePair, protocol: IceProtocol, [host, port]: Address): boolean {
  const [pairHost, pairPort] = pair.remoteAddr;
  return pair.protocol === protocol && pairPort === port && pairHost === host;
}

/** werift takes one server of each kind: the first. */
function connectionOptions({ iceServers, loopback }: IceOptions): IceConnectionOptions {
  const found = iceServers.flatMap((server) =>
    iceServerAddresses(server).map((address) => ({ ...address, ...server })),
  );
  const stun = found.find(({ scheme }) => scheme === 'stun');
  const turn = found.find(({ scheme }) => scheme !== 'stun');
  return {
    useIpv4: true,
    useIpv6: true,
    additionalHostAddresses: hostAddresses(loopback),
    ...(stun && { stunServer: [stun.hostname, stun.port] }),
    ...(turn?.username !== undefined &&
      turn.credential !== undefined && {
        turnServer: [turn.hostname, turn.port],
        turnUsername: turn.username,
        turnPassword: turn.credential,
        turnTransport: turn.scheme === 'turns' ? 'tls' : turn.transport,
      }),
  };
}

/** werift leaves out interfaces by name, tunnels among them; a mesh over a VPN is a fair wish. */
function hostAddresses(loopback: boolean): string[] {
  const addresses = Object.values(networkInterfaces())
    .flatMap((details) => details ?? [])
    .filter(({ internal, address }) => !internal && !/^(fe80:|169\.254\.)/i.test(address))
    .map(({ address }) => address);
  return loopback ? ['127.0.0.1', ...addresses] : addresses;
}
