/** One end of `engines.ts`, in a process of its own. The dialler sends bulk; the listener counts and confirms. */

import { createRequire } from 'node:module';
import { limits, signingKeyFromSeed, systemClock } from '@cocoon-mesh/protocol';
import type { Carrier } from '@cocoon-mesh/mesh/carrier.ts';
import { selectEngine } from '@cocoon-mesh/mesh/engines/select.node.ts';
import { nodeAead } from '@cocoon-mesh/mesh/noise-cipher.node.ts';
import { prove } from '@cocoon-mesh/mesh/proof.ts';

export const engineKinds = ['stock werift', 'werift', 'werift with Noise', 'libdatachannel'] as const;
export type EngineKind = (typeof engineKinds)[number];

export type EndMessage =
  | { readonly type: 'ready' | 'connect' | 'open' | 'measure' }
  | { readonly type: 'signal'; readonly kind: 'offer' | 'answer' | 'candidate'; readonly text: string | null }
  | { readonly type: 'measured'; readonly rate: number };

const bulkBytes = 32 * 1024 * 1024;
const chunkBytes = 60 * 1024;
const stockHighWaterBytes = 256 * 1024;

/** What a measured run needs of either kind of channel. */
interface Pipe {
  /** Resolves when more may be sent. */
  ready(): Promise<void>;
  send(bytes: Uint8Array): void;
  onMessage: (bytes: Uint8Array) => void;
}

/** Only a forked end runs; `engines.ts` takes the names from here. */
if (process.send) await run(process.argv[2] as EngineKind, process.argv[3] === 'dialler');

async function run(kind: EngineKind, dialler: boolean): Promise<void> {
  process.once('disconnect', () => process.exit(0));
  const pipe = kind === 'stock werift' ? await stockPipe(dialler) : await carrierPipe(kind, dialler);
  if (!dialler) {
    let received = 0;
    pipe.onMessage = (bytes) => {
      received += bytes.length;
      if (received < bulkBytes) return;
      received = 0;
      pipe.send(Uint8Array.of(1));
    };
    return;
  }
  process.on('message', (message: EndMessage) => {
    if (message.type === 'measure') void bulk(pipe).then((rate) => tell({ type: 'measured', rate }));
  });
  tell({ type: 'open' });
}

async function bulk(pipe: Pipe): Promise<number> {
  const confirmed = new Promise<void>((resolve) => {
    pipe.onMessage = () => resolve();
  });
  const began = performance.now();
  for (let sent = 0; sent < bulkBytes; sent += chunkBytes) {
    await pipe.ready();
    pipe.send(new Uint8Array(Math.min(chunkBytes, bulkBytes - sent)));
  }
  await confirmed;
  return bulkBytes / 1e3 / (performance.now() - began);
}

function tell(message: EndMessage): void {
  process.send?.(message);
}

function onSignal(take: (message: EndMessage & { type: 'signal' }) => void): void {
  process.on('message', (message: EndMessage) => {
    if (message.type === 'signal') take(message);
  });
}

async function told(type: EndMessage['type']): Promise<void> {
  await new Promise<void>((resolve) => {
    process.on('message', (message: EndMessage) => message.type === type && resolve());
  });
}

async function carrierPipe(kind: EngineKind, dialler: boolean): Promise<Pipe> {
  const { engine } = await selectEngine(kind === 'libdatachannel' ? 'libdatachannel' : 'werift');
  const connection = engine.connect({
    iceServers: [],
    onCandidate: (text) => tell({ type: 'signal', kind: 'candidate', text }),
  });
  onSignal(({ kind: what, text }) => {
    if (what === 'candidate') connection.addCandidate(text);
    else if (what === 'answer') void connection.acceptAnswer(text ?? '');
    else
      void connection
        .acceptOffer(text ?? '')
        .then((sdp) => tell({ type: 'signal', kind: 'answer', text: sdp }));
  });
  const connect = told('connect');
  tell({ type: 'ready' });
  if (dialler) {
    await connect;
    tell({ type: 'signal', kind: 'offer', text: await connection.createOffer() });
  }
  const bare = await connection.opened(AbortSignal.timeout(limits.connectTimeoutMs));
  if (kind !== 'werift with Noise') return pipeOf(bare);
  const keys = await Promise.all([1, 2].map((digit) => signingKeyFromSeed(new Uint8Array(32).fill(digit))));
  const [own, other] = dialler ? keys : keys.toReversed();
  if (!own || !other) throw new Error('no keys');
  const { localFingerprint, remoteFingerprint } = connection;
  const { carrier } = await prove(bare, {
    role: dialler ? 'dialler' : 'listener',
    key: own,
    expectedPeer: other.peerId,
    binding: {
      kind: 'webrtc',
      offererFingerprint: dialler ? localFingerprint : remoteFingerprint,
      answererFingerprint: dialler ? remoteFingerprint : localFingerprint,
    },
    introduction: new Uint8Array(32),
    hello: new Uint8Array(1),
    seal: true,
    clock: systemClock,
    aead: nodeAead,
  });
  return pipeOf(carrier);
}

function pipeOf(carrier: Carrier): Pipe {
  let wake: (() => void) | null = null;
  const pipe: Pipe = {
    async ready() {
      while (!carrier.writable) await new Promise<void>((resolve) => (wake = resolve));
    },
    send: (bytes) => carrier.send(bytes),
    onMessage: () => undefined,
  };
  carrier.start({
    message: (bytes) => pipe.onMessage(bytes),
    writable: () => wake?.(),
    closed: () => undefined,
  });
  return pipe;
}

interface StockChannel {
  readonly bufferedAmount: number;
  bufferedAmountLowThreshold: number;
  readonly bufferedAmountLow: { subscribe(listener: () => void): void };
  readonly stateChanged: { subscribe(listener: (state: string) => void): void };
  readonly onMessage: { subscribe(listener: (data: Buffer | string) => void): void };
  send(data: Buffer): void;
}

interface StockConnection {
  readonly localDescription: { readonly sdp: string };
  readonly iceGatheringState: string;
  readonly iceGatheringStateChange: { subscribe(listener: (state: string) => void): void };
  createDataChannel(label: string, options: object): StockChannel;
  createOffer(): Promise<object>;
  createAnswer(): Promise<object>;
  setLocalDescription(description: object): Promise<unknown>;
  setRemoteDescription(description: object): Promise<void>;
}

/** werift's CommonJS build: a copy of every class that our hardening does not touch. */
async function stockPipe(dialler: boolean): Promise<Pipe> {
  const werift = createRequire(import.meta.url)('werift') as {
    RTCPeerConnection: new (config: object) => StockConnection;
  };
  const connection = new werift.RTCPeerConnection({
    iceServers: [],
    iceAdditionalHostAddresses: ['127.0.0.1'],
    maxMessageSize: 65_536,
  });
  const channel = connection.createDataChannel('', { negotiated: true, id: 0 });
  const opened = new Promise<void>((resolve) => {
    channel.stateChanged.subscribe((state) => state === 'open' && resolve());
  });
  const gathered = (): Promise<void> =>
    new Promise((resolve) => {
      const look = (): void => {
        if (connection.iceGatheringState === 'complete') resolve();
      };
      connection.iceGatheringStateChange.subscribe(look);
      look();
    });
  const describe = async (kind: 'offer' | 'answer', made: Promise<object>): Promise<void> => {
    await connection.setLocalDescription(await made);
    await gathered();
    tell({ type: 'signal', kind, text: connection.localDescription.sdp });
  };
  onSignal(({ kind, text }) => {
    if (kind === 'candidate') return;
    void connection.setRemoteDescription({ type: kind, sdp: text }).then(() => {
      if (kind === 'offer') return describe('answer', connection.createAnswer());
      return undefined;
    });
  });
  const connect = told('connect');
  tell({ type: 'ready' });
  if (dialler) {
    await connect;
    await describe('offer', connection.createOffer());
  }
  await opened;
  channel.bufferedAmountLowThreshold = stockHighWaterBytes / 4;
  let wake: (() => void) | null = null;
  channel.bufferedAmountLow.subscribe(() => wake?.());
  const pipe: Pipe = {
    async ready() {
      if (channel.bufferedAmount < stockHighWaterBytes) return;
      await new Promise<void>((resolve) => (wake = resolve));
    },
    send: (bytes) => channel.send(Buffer.from(bytes)),
    onMessage: () => undefined,
  };
  channel.onMessage.subscribe((data) => pipe.onMessage(Buffer.from(data)));
  return pipe;
}
