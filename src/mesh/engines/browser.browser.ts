/**
 * The browser's own engine, through W3C WebRTC. It checks certificates itself; here it only gets descriptions
 * written by `sdp.ts`, like every engine, and candidates one beside the other: a `.local` name that nobody
 * answers takes seconds, and must not hold up the rest.
 */

import type { Bytes, Clock } from '@cocoon-mesh/protocol';
import { limits, MeshError, systemClock } from '@cocoon-mesh/protocol';
import type { Carrier } from '../carrier.ts';
import type { Channel } from '../channel-carrier.ts';
import { ChannelCarrier, channelMarks } from '../channel-carrier.ts';
import type { ConnectionOptions, Engine, IceServer, Path, PeerConnection } from '../engine.ts';
import { iceServerAddresses } from '../ice-server.ts';
import { Opening } from '../opening.ts';
import { pathBetween } from '../path.ts';
import type { Candidate, Description, SdpType } from '../sdp.ts';
import { formatCandidate, formatDescription, isLoopback } from '../sdp.ts';
import { parseCandidate, parseDescription } from '../sdp.ts';

export function browserEngine(clock: Clock = systemClock): Engine {
  return {
    name: 'browser',
    sealed: false,
    connect: (options) => new BrowserConnection(options, clock),
  };
}

type State =
  | { readonly name: 'new' }
  /** A call is under way that no other may overtake. */
  | { readonly name: 'busy'; readonly local?: Description }
  | { readonly name: 'offered'; readonly local: Description }
  | { readonly name: 'agreed'; readonly local: Description; readonly remote: Description }
  | { readonly name: 'closed'; readonly local?: Description; readonly remote?: Description };

class BrowserConnection implements PeerConnection {
  readonly #connection: RTCPeerConnection;
  readonly #carrier: ChannelCarrier;
  readonly #options: ConnectionOptions;
  readonly #opening: Opening;
  readonly #early: Candidate[] = [];
  #received = 0;
  #state: State = { name: 'new' };

  constructor(options: ConnectionOptions, clock: Clock) {
    this.#options = options;
    this.#opening = new Opening(clock);
    // No certificate is given, so the browser makes one for this connection alone.
    this.#connection = new RTCPeerConnection({ iceServers: options.iceServers.flatMap(browserIceServer) });
    this.#connection.addEventListener('icecandidate', ({ candidate }) => this.#localCandidate(candidate));
    this.#connection.addEventListener('connectionstatechange', () => this.#stateChanged());
    const channel = this.#connection.createDataChannel('', { negotiated: true, id: 0 });
    this.#carrier = new ChannelCarrier(this.#asChannel(channel), clock);
    this.#listen(channel);
  }

  get localFingerprint(): Bytes {
    const local = 'local' in this.#state ? this.#state.local : undefined;
    if (!local) throw outOfTurn('localFingerprint');
    return local.fingerprint;
  }

  get remoteFingerprint(): Bytes {
    const remote = 'remote' in this.#state ? this.#state.remote : undefined;
    if (!remote) throw outOfTurn('remoteFingerprint');
    return remote.fingerprint;
  }

  async createOffer(): Promise<string> {
    if (this.#state.name !== 'new') throw outOfTurn('createOffer');
    this.#state = { name: 'busy' };
    const local = await this.#describe('offer');
    this.#become({ name: 'offered', local });
    return formatDescription(local);
  }

  async acceptOffer(sdp: string): Promise<string> {
    if (this.#state.name !== 'new') throw outOfTurn('acceptOffer');
    const remote = parseDescription(sdp, 'offer');
    this.#state = { name: 'busy' };
    await this.#setRemote(remote);
    const local = await this.#describe('answer');
    this.#agree(local, remote);
    return formatDescription(local);
  }

  async acceptAnswer(sdp: string): Promise<void> {
    if (this.#state.name !== 'offered') throw outOfTurn('acceptAnswer');
    const { local } = this.#state;
    const remote = parseDescription(sdp, 'answer');
    this.#state = { name: 'busy', local };
    await this.#setRemote(remote);
    this.#agree(local, remote);
  }

  addCandidate(line: string | null): void {
    const candidate = line === null ? null : parseCandidate(line);
    if (!candidate || !this.#usable(candidate) || ++this.#received > limits.maxSignalsPerIntroduction) return;
    if (this.#state.name === 'agreed') this.#addRemote(candidate);
    else if (this.#state.name !== 'closed') this.#early.push(candidate);
  }

  opened(signal: AbortSignal): Promise<Carrier> {
    return this.#opening.wait(signal);
  }

  async path(): Promise<Path | null> {
    if (this.#state.name !== 'agreed') return null;
    const stats = new Map<string, Record<string, unknown>>();
    (await this.#connection.getStats()).forEach((entry: RTCStats) => stats.set(entry.id, { ...entry }));
    const entries = [...stats.values()];
    const transport = entries.find(({ type }) => type === 'transport');
    const pair =
      stats.get(String(transport?.['selectedCandidatePairId'])) ??
      // Firefox marks the pair itself.
      entries.find((entry) => entry['type'] === 'candidate-pair' && entry['selected'] === true);
    const local = stats.get(String(pair?.['localCandidateId']));
    const remote = stats.get(String(pair?.['remoteCandidateId']));
    return local && remote ? pathBetween(pathEnd(local), pathEnd(remote)) : null;
  }

  async close(): Promise<void> {
    this.#carrier.abort('the connection was closed');
  }

  #listen(channel: RTCDataChannel): void {
    channel.binaryType = 'arraybuffer';
    channel.bufferedAmountLowThreshold = channelMarks.low;
    channel.addEventListener('open', () => this.#opening.succeed(this.#carrier));
    channel.addEventListener('bufferedamountlow', () => this.#carrier.drained());
    channel.addEventListener('close', () => this.#carrier.lost('the data channel was closed'));
    channel.addEventListener('message', ({ data }: MessageEvent<ArrayBuffer | string>) =>
      this.#carrier.received(typeof data === 'string' ? data : new Uint8Array(data)),
    );
  }

  #asChannel(channel: RTCDataChannel): Channel {
    return {
      get bufferedBytes() {
        return channel.bufferedAmount;
      },
      sendBytes: (message) => channel.send(message as Uint8Array<ArrayBuffer>),
      sendText: (message) => channel.send(message),
      destroy: async () => this.#destroy(),
    };
  }

  async #describe(type: SdpType): Promise<Description> {
    try {
      await this.#connection.setLocalDescription();
    } catch (error) {
      throw new MeshError('carrier_lost', `The browser made no ${type}`, { cause: error });
    }
    const own = parseDescription(this.#connection.localDescription?.sdp ?? '', type);
    return { ...own, maxMessageBytes: limits.maxCarrierMessageBytes };
  }

  async #setRemote(remote: Description): Promise<void> {
    try {
      await this.#connection.setRemoteDescription({ type: remote.type, sdp: formatDescription(remote) });
    } catch (error) {
      throw new MeshError('bad_sdp', 'The engine did not take the session description', { cause: error });
    }
  }

  #agree(local: Description, remote: Description): void {
    this.#become({ name: 'agreed', local, remote });
    for (const candidate of remote.candidates) if (this.#usable(candidate)) this.#addRemote(candidate);
    for (const candidate of this.#early.splice(0)) this.#addRemote(candidate);
  }

  /** A close that came during a call stays. */
  #become(state: State): void {
    if (this.#state.name !== 'closed') this.#state = state;
  }

  #usable({ address }: Candidate): boolean {
    return this.#options.loopback !== false || !isLoopback(address);
  }

  #addRemote(candidate: Candidate): void {
    if (this.#state.name === 'closed') return;
    const line = formatCandidate(candidate);
    this.#connection.addIceCandidate({ candidate: line, sdpMLineIndex: 0 }).catch(() => {
      // One candidate less; without any the connection ends by time.
    });
  }

  #localCandidate(found: RTCIceCandidate | null): void {
    if (this.#state.name === 'closed') return;
    if (!found) return this.#options.onCandidate(null);
    const candidate = parseCandidate(found.candidate);
    if (candidate && this.#usable(candidate)) this.#options.onCandidate(formatCandidate(candidate));
  }

  /** `disconnected` may heal by itself; the session's heartbeat knows better. */
  #stateChanged(): void {
    const state = this.#connection.connectionState;
    if (state === 'failed' || state === 'closed') this.#carrier.lost(`the connection is ${state}`);
  }

  #destroy(): void {
    if (this.#state.name === 'closed') return;
    const { name: _, ...known } = this.#state;
    this.#state = { name: 'closed', ...known };
    this.#opening.fail('it was closed');
    this.#connection.close();
  }
}

/** Browsers refuse a whole list for one url they do not know. */
function browserIceServer(server: IceServer): RTCIceServer[] {
  const urls = server.urls.filter((url) => iceServerAddresses({ urls: [url] }).length > 0);
  if (urls.length === 0) return [];
  const { username, credential } = server;
  return [
    { urls, ...(username !== undefined && { username }), ...(credential !== undefined && { credential }) },
  ];
}

function pathEnd(candidate: Record<string, unknown>): { type: string; address: string } {
  const { candidateType, address, ip } = candidate;
  const known = address ?? ip;
  return { type: String(candidateType), address: typeof known === 'string' ? known : '' };
}

function outOfTurn(call: string): MeshError {
  return new MeshError('bad_sdp', `${call} came out of turn: descriptions are exchanged once`);
}
