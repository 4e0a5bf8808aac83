/**
 * The JavaScript engine: werift's ICE and DTLS messages behind our own checks, and our own SCTP, for machines
 * where libdatachannel has no prebuilt. The parts: `werift-build` admits the reviewed build only, `werift-ice`
 * filters addresses, `werift-dtls` with `werift-handshake` and `werift-records` proves the peer and protects
 * the records, `werift-sctp` carries the messages. Not audited, so the session above stays sealed by Noise.
 */

import { X509Certificate, createHash } from 'node:crypto';
import type { Bytes, Clock, Timer } from '@cocoon-mesh/protocol';
import { MeshError, limits, systemClock } from '@cocoon-mesh/protocol';
import type { Carrier } from '../carrier.ts';
import { ChannelCarrier, channelMarks } from '../channel-carrier.ts';
import type { Channel } from '../channel-carrier.ts';
import type { ConnectionOptions, Engine, Path, PeerConnection } from '../engine.ts';
import { Opening } from '../opening.ts';
import { formatDescription, isLoopback, parseCandidate, parseDescription } from '../sdp.ts';
import type { Candidate, Description } from '../sdp.ts';
import { loadWerift } from './werift-build.node.ts';
import type { Werift } from './werift-build.node.ts';
import { DtlsSession } from './werift-dtls.node.ts';
import type { Certificate } from './werift-dtls.node.ts';
import { IceAgent } from './werift-ice.node.ts';
import { sctpPort } from './werift-sctp-packet.node.ts';
import { SctpAssociation } from './werift-sctp.node.ts';

/** With DTLS, UDP and IP around it, a packet of Ethernet's 1500 bytes, TURN included. */
const sctpMtu = 1400;
/** What a peer may have on its way to us; the socket buffers hold as much. */
const receiveWindowBytes = 1024 * 1024;
/** Payload protocol identifiers of RFC 8831 section 8. The empty ones and the rest are left out on purpose. */
const PayloadProtocol = { text: 51, binary: 53 } as const;
/** werift's names for ECDSA, SHA-256 and P-256. */
const ecdsaSha256 = { signature: 3, hash: 4 };
const p256 = 23;

/** @throws MeshError engine_unavailable when werift is absent or is not the reviewed build */
export async function weriftEngine(clock: Clock = systemClock): Promise<Engine> {
  const werift = await loadWerift();
  return {
    name: 'werift',
    sealed: true,
    connect: (options) => new WeriftConnection(werift, options, clock),
  };
}

type State =
  | { readonly name: 'new' }
  | { readonly name: 'offered'; readonly local: Local }
  | { readonly name: 'agreed'; readonly local: Local; readonly remote: Description }
  | { readonly name: 'closed'; readonly local?: Local; readonly remote?: Description };

interface Local {
  readonly description: Description;
  readonly certificate: Certificate;
}

class WeriftConnection implements PeerConnection {
  readonly #werift: Werift;
  readonly #options: ConnectionOptions;
  readonly #clock: Clock;
  readonly #opening: Opening;
  #state: State = { name: 'new' };
  /** A description is being made; another call has to fail. */
  #busy = false;
  #ice: IceAgent | undefined;
  #dtls: DtlsSession | undefined;
  #sctp: SctpAssociation | undefined;
  #carrier: ChannelCarrier | undefined;
  #deadline: Timer | undefined;
  #received = 0;
  #early: Candidate[] = [];
  #ended: Promise<void> | undefined;

  constructor(werift: Werift, options: ConnectionOptions, clock: Clock) {
    this.#werift = werift;
    this.#options = options;
    this.#clock = clock;
    this.#opening = new Opening(clock);
  }

  get localFingerprint(): Bytes {
    if (this.#state.name === 'new' || !this.#state.local) throw outOfTurn('localFingerprint');
    return this.#state.local.description.fingerprint;
  }

  get remoteFingerprint(): Bytes {
    if (this.#state.name === 'new' || this.#state.name === 'offered' || !this.#state.remote)
      throw outOfTurn('remoteFingerprint');
    return this.#state.remote.fingerprint;
  }

  async createOffer(): Promise<string> {
    const local = await this.#prepare('createOffer', { type: 'offer', setup: 'actpass', mid: '0' });
    this.#state = { name: 'offered', local };
    this.#ice?.gather();
    return formatDescription(local.description);
  }

  async acceptOffer(sdp: string): Promise<string> {
    if (this.#state.name !== 'new' || this.#busy) throw outOfTurn('acceptOffer');
    const remote = parseDescription(sdp, 'offer');
    // Who offers to be the client is answered as one (RFC 5763 section 5): it may be no good server.
    const setup = remote.setup === 'active' ? 'passive' : 'active';
    const local = await this.#prepare('acceptOffer', { type: 'answer', setup, mid: remote.mid });
    this.#ice?.gather();
    this.#agree(local, remote);
    return formatDescription(local.description);
  }

  async acceptAnswer(sdp: string): Promise<void> {
    if (this.#state.name !== 'offered') throw outOfTurn('acceptAnswer');
    this.#agree(this.#state.local, parseDescription(sdp, 'answer'));
  }

  addCandidate(line: string | null): void {
    const candidate = line === null ? null : parseCandidate(line);
    if (!candidate || ++this.#received > limits.maxSignalsPerIntroduction) return;
    if (this.#options.loopback === false && isLoopback(candidate.address)) return;
    if (this.#state.name === 'agreed') this.#ice?.addRemoteCandidate(candidate);
    else if (this.#state.name !== 'closed') this.#early.push(candidate);
  }

  opened(signal: AbortSignal): Promise<Carrier> {
    return this.#opening.wait(signal);
  }

  async path(): Promise<Path | null> {
    return this.#state.name === 'closed' ? null : (this.#ice?.path ?? null);
  }

  close(): Promise<void> {
    if (this.#carrier) this.#carrier.abort('the connection was closed');
    return this.#end('it was closed');
  }

  /** A fresh certificate and ICE agent, and the description that announces them. */
  async #prepare(call: string, role: Pick<Description, 'type' | 'setup' | 'mid'>): Promise<Local> {
    if (this.#state.name !== 'new' || this.#busy) throw outOfTurn(call);
    this.#busy = true;
    const certificate = await this.#werift.createSelfSignedCertificate(ecdsaSha256, p256);
    // Closed while the certificate was being made.
    if (this.#isClosed()) throw new MeshError('carrier_lost', 'The connection was closed');
    this.#ice = this.#createIce(role.type === 'offer');
    const { raw } = new X509Certificate(certificate.certPem);
    const description: Description = {
      ...role,
      iceUfrag: this.#ice.username,
      icePassword: this.#ice.password,
      fingerprint: new Uint8Array(createHash('sha256').update(raw).digest()),
      sctpPort,
      maxMessageBytes: limits.maxCarrierMessageBytes,
      candidates: [],
    };
    return { description, certificate };
  }

  #isClosed(): boolean {
    return this.#state.name === 'closed';
  }

  #createIce(controlling: boolean): IceAgent {
    return new IceAgent(this.#werift, {
      controlling,
      iceServers: this.#options.iceServers,
      loopback: this.#options.loopback !== false,
      clock: this.#clock,
      onCandidate: this.#options.onCandidate,
      onConnected: () => this.#dtls?.start(),
      onDatagram: (datagram) => this.#dtls?.receive(datagram),
      onFailed: (reason) => this.#lost(reason),
    });
  }

  #agree(local: Local, remote: Description): void {
    this.#state = { name: 'agreed', local, remote };
    this.#deadline = this.#clock.after(limits.connectTimeoutMs, () => this.#lost('it took too long'));
    const client =
      local.description.setup === 'active' || (remote.type === 'answer' && remote.setup === 'passive');
    const ice = this.#ice;
    this.#dtls = new DtlsSession(this.#werift, {
      clock: this.#clock,
      role: client ? 'client' : 'server',
      certificate: local.certificate,
      remoteFingerprint: remote.fingerprint,
      send: (datagram) => ice?.send(datagram),
      onOpen: () => this.#sctp?.start(),
      onData: (packet) => this.#sctp?.receive(packet),
      onClosed: (reason) => this.#lost(reason),
    });
    this.#createSctp(this.#dtls, remote);
    for (const candidate of [...remote.candidates, ...this.#early.splice(0)])
      if (this.#options.loopback !== false || !isLoopback(candidate.address))
        ice?.addRemoteCandidate(candidate);
    ice?.start({ username: remote.iceUfrag, password: remote.icePassword });
  }

  #createSctp(dtls: DtlsSession, remote: Description): void {
    const sctp = new SctpAssociation({
      clock: this.#clock,
      initiator: remote.type === 'answer',
      remotePort: remote.sctpPort,
      mtu: sctpMtu,
      windowBytes: receiveWindowBytes,
      maxMessageBytes: limits.maxCarrierMessageBytes,
      send: (packet) => dtls.sendData(packet),
      onOpen: () => this.#open(),
      onMessage: ({ streamId, protocol, bytes }) => {
        if (streamId !== 0) return;
        if (protocol === PayloadProtocol.binary) carrier.received(bytes);
        else if (protocol === PayloadProtocol.text) carrier.received(bytes.toString());
      },
      onProgress: () => {
        if (sctp.queuedBytes <= channelMarks.low) carrier.drained();
      },
      onClosed: (reason) => this.#lost(reason),
    });
    const channel: Channel = {
      get bufferedBytes() {
        return sctp.queuedBytes;
      },
      sendBytes: (message) => sctp.send(PayloadProtocol.binary, message),
      sendText: (message) => sctp.send(PayloadProtocol.text, Buffer.from(message)),
      destroy: () => this.#end('it was closed'),
    };
    const carrier = new ChannelCarrier(channel, this.#clock);
    this.#sctp = sctp;
    this.#carrier = carrier;
  }

  #open(): void {
    this.#deadline?.cancel();
    if (this.#carrier) this.#opening.succeed(this.#carrier);
  }

  #lost(reason: string): void {
    this.#opening.fail(reason);
    // Ends the connection by `destroy`.
    if (this.#carrier) this.#carrier.lost(reason);
    else void this.#end(reason);
  }

  #end(reason: string): Promise<void> {
    this.#ended ??= this.#shutDown(reason);
    return this.#ended;
  }

  /** From the top down, so that each layer can still say goodbye through the one below. */
  async #shutDown(reason: string): Promise<void> {
    const { name: _, ...known } = this.#state;
    this.#state = { name: 'closed', ...known };
    this.#deadline?.cancel();
    this.#opening.fail(reason);
    this.#early = [];
    this.#sctp?.abort(reason);
    this.#dtls?.close();
    await this.#ice?.close();
  }
}

function outOfTurn(call: string): MeshError {
  return new MeshError('bad_sdp', `${call} came out of turn: descriptions are exchanged once`);
}
