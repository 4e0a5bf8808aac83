/**
 * The native engine: libdatachannel through node-datachannel's own API. Three rules keep the process alive:
 * native code only sees descriptions and candidates written by `sdp.ts`; negotiation is left to it (its
 * `setLocalDescription` lets C++ exceptions escape, which aborts); and no native object is dropped before it
 * has reported its close, because it calls back into what it was created from.
 */

import { networkInterfaces } from 'node:os';
import type * as Native from 'node-datachannel';
import type { Bytes, Clock, Timer } from '@cocoon-mesh/protocol';
import { equalBytes, fromHex, limits, MeshError, systemClock } from '@cocoon-mesh/protocol';
import type { Carrier } from '../carrier.ts';
import type { Channel } from '../channel-carrier.ts';
import { ChannelCarrier, channelMarks } from '../channel-carrier.ts';
import type { ConnectionOptions, Engine, IceServer, Path, PeerConnection } from '../engine.ts';
import { iceServerAddresses } from '../ice-server.ts';
import { Opening } from '../opening.ts';
import { pathBetween } from '../path.ts';
import type { Candidate, Description } from '../sdp.ts';
import { formatCandidate, formatDescription, isIpAddress, isLoopback } from '../sdp.ts';
import { parseCandidate, parseDescription } from '../sdp.ts';

type NativeModule = typeof Native;

const KiB = 1024;
const MiB = 1024 * KiB;

/**
 * Of usrsctp, for the whole process. The send buffer is the queue that small messages wait in behind bulk (our
 * marks only see what did not fit into it), and also the most that can be on the way: 512 KiB is 26 MB/s at
 * 20 ms. Ping p99 behind bulk, loopback: 8 MiB 450 ms, 1 MiB 48-66, 512 KiB 28-53, 256 KiB 10-12, at equal bulk.
 */
const sctpSettings = {
  recvBufferSize: 8 * MiB,
  sendBufferSize: 512 * KiB,
  initialCongestionWindow: 32,
} as const;

/**
 * How long remote candidates, and with them our checks, are held back. The DTLS server's checks wait until a
 * near answer has been read: the library starts DTLS before it has stored the description it compares the
 * certificate with, and fails when both come together. The client's wait longer, so that the server is ready
 * first; mostly it connects before, by answering the server's checks.
 */
const holdMs = { server: 10, client: 100 } as const;

/** @throws MeshError engine_unavailable where no prebuilt fits this machine */
export async function libdatachannelEngine(clock: Clock = systemClock): Promise<Engine> {
  const native = await (loaded ??= load());
  const alive = new Set<object>();
  return {
    name: 'libdatachannel',
    sealed: false,
    connect: (options) => new LibdatachannelConnection(native, options, alive, clock),
  };
}

/** The library has one set of threads and settings per process, so it is set up once per process. */
let loaded: Promise<NativeModule> | undefined;

async function load(): Promise<NativeModule> {
  try {
    const native = await import('node-datachannel');
    native.setSctpSettings(sctpSettings);
    // Connections that live at exit would run into the destructors of the library's statics.
    process.once('exit', () => native.cleanup());
    return native;
  } catch (error) {
    throw new MeshError('engine_unavailable', 'libdatachannel cannot be loaded on this machine', {
      cause: error,
    });
  }
}

type State =
  | { readonly name: 'new' }
  | { readonly name: 'offered'; readonly local: Description }
  | { readonly name: 'agreed'; readonly local: Description; readonly remote: Description }
  | { readonly name: 'closed'; readonly local?: Description; readonly remote?: Description };

class LibdatachannelConnection implements PeerConnection {
  readonly #native: Native.PeerConnection;
  readonly #options: ConnectionOptions;
  readonly #alive: Set<object>;
  readonly #clock: Clock;
  readonly #opening: Opening;
  #state: State = { name: 'new' };
  #link: { readonly channel: Native.DataChannel; readonly carrier: ChannelCarrier } | null = null;
  /** Theirs, until the description is there and they are not held back. */
  readonly #early: Candidate[] = [];
  #holding: Timer | null = null;
  #received = 0;
  /** Ours, as sent. */
  readonly #sent = new Set<string>();
  /** Ours, until the descriptions are exchanged. */
  readonly #untold: (string | null)[] = [];
  /** What still has to report its close. */
  readonly #open = new Set<'channel' | 'connection'>(['connection']);
  readonly #ended = Promise.withResolvers<void>();

  constructor(native: NativeModule, options: ConnectionOptions, alive: Set<object>, clock: Clock) {
    this.#options = options;
    this.#alive = alive;
    this.#clock = clock;
    this.#opening = new Opening(clock);
    this.#native = new native.PeerConnection('', {
      iceServers: options.iceServers.flatMap(nativeIceServers),
      // One byte more than agreed: longer messages are cut there, and so are seen to be too long.
      maxMessageSize: limits.maxCarrierMessageBytes + 1,
      ...(hasOnlyLoopback() ? { bindAddress: '127.0.0.1' } : {}),
    });
    alive.add(this);
    this.#native.onLocalCandidate((line) => this.#localCandidate(parseCandidate(line)));
    this.#native.onGatheringStateChange((state) => {
      if (state === 'complete') this.#gathered();
    });
    this.#native.onStateChange((state) => this.#stateChanged(state));
  }

  get localFingerprint(): Bytes {
    if (this.#state.name === 'new' || !this.#state.local) throw outOfTurn('localFingerprint');
    return this.#state.local.fingerprint;
  }

  get remoteFingerprint(): Bytes {
    if (this.#state.name === 'new' || this.#state.name === 'offered' || !this.#state.remote)
      throw outOfTurn('remoteFingerprint');
    return this.#state.remote.fingerprint;
  }

  /**
   * Offers to be the DTLS client, and as answerer takes that part by itself: its server may overlook a
   * ClientHello that comes before ICE is ready until the next datagram, a second later. Only between two of
   * this engine one has to be the server.
   */
  async createOffer(): Promise<string> {
    if (this.#state.name !== 'new') throw outOfTurn('createOffer');
    this.#openChannel();
    const local: Description = { ...this.#localDescription('offer'), setup: 'active' };
    this.#state = { name: 'offered', local };
    return formatDescription(local);
  }

  async acceptOffer(sdp: string): Promise<string> {
    if (this.#state.name !== 'new') throw outOfTurn('acceptOffer');
    const remote = parseDescription(sdp, 'offer');
    this.#setRemote(remote);
    this.#openChannel();
    const local = this.#localDescription('answer');
    this.#agree(local, remote);
    return formatDescription(local);
  }

  async acceptAnswer(sdp: string): Promise<void> {
    if (this.#state.name !== 'offered') throw outOfTurn('acceptAnswer');
    const remote = parseDescription(sdp, 'answer');
    this.#setRemote(remote);
    this.#agree(this.#state.local, remote);
  }

  addCandidate(line: string | null): void {
    const candidate = line === null ? null : parseCandidate(line);
    if (!candidate || !this.#usable(candidate) || ++this.#received > limits.maxSignalsPerIntroduction) return;
    if (this.#state.name === 'closed') return;
    if (this.#state.name === 'agreed' && !this.#holding) this.#addRemote(candidate, this.#state.remote);
    else this.#early.push(candidate);
  }

  opened(signal: AbortSignal): Promise<Carrier> {
    return this.#opening.wait(signal);
  }

  async path(): Promise<Path | null> {
    if (this.#state.name === 'closed') return null;
    const pair = this.#native.getSelectedCandidatePair();
    return pair && pathBetween(pair.local, pair.remote);
  }

  close(): Promise<void> {
    if (this.#link) this.#link.carrier.abort('the connection was closed');
    else this.#destroy('it was closed');
    return this.#whenEnded();
  }

  /** With auto-negotiation on, the first channel also makes the offer, inside the binding's try-catch. */
  #openChannel(): void {
    const channel = this.#native.createDataChannel('', { negotiated: true, id: 0 });
    const carrier = new ChannelCarrier(this.#asChannel(channel), this.#clock);
    this.#link = { channel, carrier };
    this.#open.add('channel');
    channel.setBufferedAmountLowThreshold(channelMarks.low);
    // Handlers run in the order of their registration when several are due: messages before the close.
    channel.onMessage((message) => carrier.received(toMessage(message)));
    channel.onOpen(() => this.#channelOpened(carrier));
    channel.onBufferedAmountLow(() => carrier.drained());
    channel.onError(() => carrier.lost('the data channel failed'));
    channel.onClosed(() => {
      carrier.lost('the data channel was closed');
      this.#reportedClosed('channel');
    });
  }

  #asChannel(channel: Native.DataChannel): Channel {
    return {
      get bufferedBytes() {
        return channel.bufferedAmount();
      },
      sendBytes: (message) => void channel.sendMessageBinary(message),
      sendText: (message) => void channel.sendMessage(message),
      destroy: () => {
        this.#destroy('it was closed');
        return this.#whenEnded();
      },
    };
  }

  /** The library compares the certificate itself; this holds it to the very one that was announced. */
  #channelOpened(carrier: ChannelCarrier): void {
    if (this.#state.name !== 'agreed') return;
    const { algorithm, value } = this.#native.remoteFingerprint();
    const presented = algorithm === 'sha-256' ? fromHex(value.replaceAll(':', '')) : new Uint8Array();
    if (equalBytes(presented, this.#state.remote.fingerprint)) this.#opening.succeed(carrier);
    else carrier.abort('the other side presented another certificate');
  }

  #localDescription(type: 'offer' | 'answer'): Description {
    const own = this.#native.localDescription();
    if (own?.type !== type) throw new MeshError('internal', `libdatachannel made no ${type}`);
    return { ...parseDescription(own.sdp, type), maxMessageBytes: limits.maxCarrierMessageBytes };
  }

  #setRemote(remote: Description): void {
    try {
      this.#native.setRemoteDescription(formatDescription(remote), remote.type);
    } catch (error) {
      throw new MeshError('bad_sdp', 'The engine did not take the session description', { cause: error });
    }
  }

  /** Candidates are only taken from here on: before, the library has no ICE transport and throws. */
  #agree(local: Description, remote: Description): void {
    this.#state = { name: 'agreed', local, remote };
    for (const line of this.#untold.splice(0)) this.#options.onCandidate(line);
    this.#early.unshift(...remote.candidates.filter((candidate) => this.#usable(candidate)));
    const isServer = local.setup === 'passive' || remote.setup === 'active';
    const wait = isServer ? holdMs.server : holdMs.client;
    this.#holding = this.#clock.after(wait, () => this.#releaseEarly());
  }

  #releaseEarly(): void {
    this.#holding?.cancel();
    this.#holding = null;
    if (this.#state.name !== 'agreed') return;
    for (const candidate of this.#early.splice(0)) this.#addRemote(candidate, this.#state.remote);
  }

  /** A `.local` name would be looked up by the system; who hides behind one will call us. */
  #usable({ address }: Candidate): boolean {
    return isIpAddress(address) && (this.#options.loopback !== false || !isLoopback(address));
  }

  #addRemote(candidate: Candidate, { mid }: Description): void {
    try {
      this.#native.addRemoteCandidate(formatCandidate(candidate), mid);
    } catch {
      // One candidate less; without any the connection ends by time.
    }
  }

  /** The library never lists loopback, but its socket is bound to every address. */
  #localCandidate(candidate: Candidate | null): void {
    if (!candidate || this.#state.name === 'closed') return;
    if (!isLoopback(candidate.address)) this.#send(candidate);
    if (this.#options.loopback === false || candidate.type !== 'host') return;
    this.#send({ ...candidate, foundation: '127', priority: loopbackPriority, address: '127.0.0.1' });
  }

  #send(candidate: Candidate): void {
    const line = formatCandidate(candidate);
    if (this.#sent.has(line)) return;
    this.#sent.add(line);
    this.#tell(line);
  }

  /**
   * Ours are told only once theirs is taken: the library starts ICE before it has stored the other side's
   * fingerprint, and a check that came in between would make DTLS fail.
   */
  #tell(line: string | null): void {
    if (this.#state.name === 'agreed') this.#options.onCandidate(line);
    else this.#untold.push(line);
  }

  /** The end of gathering and the candidates come on different paths; the description knows them all. */
  #gathered(): void {
    if (this.#state.name === 'closed') return;
    const own = this.#native.localDescription();
    for (const line of own?.sdp.split('\r\n') ?? [])
      if (line.startsWith('a=candidate:')) this.#localCandidate(parseCandidate(line));
    this.#tell(null);
  }

  #stateChanged(state: string): void {
    if (state === 'closed') this.#reportedClosed('connection');
    if (state !== 'failed' && state !== 'disconnected' && state !== 'closed') return;
    this.#opening.fail(state);
    if (this.#link) this.#link.carrier.lost(`the connection is ${state}`);
    else this.#destroy(`the connection is ${state}`);
  }

  #destroy(reason: string): void {
    if (this.#state.name === 'closed') return;
    const { name: _, ...known } = this.#state;
    this.#state = { name: 'closed', ...known };
    this.#holding?.cancel();
    this.#opening.fail(reason);
    // This closes the channel too. Closing it by hand races with the library's own thread, and when both
    // come together, its `closed` is never reported and the process stays alive.
    this.#native.close();
  }

  #reportedClosed(part: 'channel' | 'connection'): void {
    this.#open.delete(part);
    if (this.#open.size > 0) return;
    this.#alive.delete(this);
    this.#ended.resolve();
  }

  /** Closing is a matter of microseconds; the limit is for a library that does not answer. */
  async #whenEnded(): Promise<void> {
    const timer = this.#clock.after(limits.closeDrainMs, () => this.#ended.resolve());
    await this.#ended.promise;
    timer.cancel();
  }
}

/** RFC 8445, 5.1.2.1: a host candidate of the least local preference, so that others are tried first. */
const loopbackPriority = 126 * 2 ** 24 + 255;

function nativeIceServers(server: IceServer): Native.IceServer[] {
  return iceServerAddresses(server).map(({ scheme, hostname, port, transport }) =>
    scheme === 'stun'
      ? { hostname, port }
      : {
          hostname,
          port,
          username: server.username ?? '',
          password: server.credential ?? '',
          relayType: scheme === 'turns' ? 'TurnTls' : transport === 'tcp' ? 'TurnTcp' : 'TurnUdp',
        },
  );
}

function hasOnlyLoopback(): boolean {
  const addresses = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  return !addresses.some(({ internal, address }) => !internal && !address.startsWith('fe80:'));
}

function toMessage(message: string | Buffer | ArrayBuffer): Uint8Array | string {
  return message instanceof ArrayBuffer ? new Uint8Array(message) : message;
}

function outOfTurn(call: string): MeshError {
  return new MeshError('bad_sdp', `${call} came out of turn: descriptions are exchanged once`);
}
