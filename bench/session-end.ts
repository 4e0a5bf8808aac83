/**
 * One end of the session benchmark, in a process of its own: forked by `session.ts` with the engine and the
 * carrier's high-water mark, joined to the other end over two connections (one bare, one with a session), then
 * told what to measure. The dialler measures; the listener only answers.
 */

import { limits, systemClock } from '@cocoon-mesh/protocol';
import { channelMarks } from '@cocoon-mesh/mesh/channel-carrier.ts';
import { selectEngine } from '@cocoon-mesh/mesh/engines/select.node.ts';
import { Session } from '@cocoon-mesh/mesh/session.ts';
import type { Carrier } from '@cocoon-mesh/mesh/carrier.ts';
import type { PeerConnection } from '@cocoon-mesh/mesh/engine.ts';
import type { Stream } from '@cocoon-mesh/mesh/stream.ts';
import { measureRaw, measureSession, rawListener, sessionListener } from './session-cases.ts';
import type { Case } from './session-cases.ts';

export type ToEnd =
  | { readonly type: 'connect'; readonly which: Which }
  | { readonly type: 'offer' | 'answer'; readonly which: Which; readonly sdp: string }
  | { readonly type: 'candidate'; readonly which: Which; readonly line: string | null }
  | { readonly type: 'measure'; readonly which: Which; readonly what: Case };

export type FromEnd =
  | { readonly type: 'offer' | 'answer'; readonly which: Which; readonly sdp: string }
  | { readonly type: 'candidate'; readonly which: Which; readonly line: string | null }
  | { readonly type: 'open'; readonly which: Which }
  | { readonly type: 'measured'; readonly value: number };

export type Which = 'raw' | 'session';

const [engineName = 'libdatachannel', highWaterKiB = '128', role = 'dialler'] = process.argv.slice(2);
// Only a benchmark moves the marks: they are constants everywhere else.
Object.assign(channelMarks, { high: Number(highWaterKiB) * 1024, low: (Number(highWaterKiB) * 1024) / 2 });

const { engine } = await selectEngine(engineName);
const connections = new Map<Which, PeerConnection>();
let raw: Carrier | null = null;
let session: Session | null = null;

process.on('message', (message: ToEnd) => void handle(message));
process.once('disconnect', () => process.exit(0));

async function handle(message: ToEnd): Promise<void> {
  const { which } = message;
  // Candidates may come before the offer.
  const connection = connections.get(which) ?? connect(which);
  switch (message.type) {
    case 'connect':
      return tell({ type: 'offer', which, sdp: await connection.createOffer() });
    case 'offer':
      return tell({ type: 'answer', which, sdp: await connection.acceptOffer(message.sdp) });
    case 'answer':
      return connection.acceptAnswer(message.sdp);
    case 'candidate':
      return connection.addCandidate(message.line);
    case 'measure':
      return tell({ type: 'measured', value: await measure(which, message.what) });
  }
}

function connect(which: Which): PeerConnection {
  const connection = engine.connect({
    iceServers: [],
    onCandidate: (line) => tell({ type: 'candidate', which, line }),
  });
  connections.set(which, connection);
  void connection.opened(AbortSignal.timeout(limits.connectTimeoutMs)).then((carrier) => {
    if (which === 'raw') raw = carrier;
    else session = makeSession(carrier);
    if (which === 'raw' && role === 'listener') rawListener(carrier);
    tell({ type: 'open', which });
  });
  return connection;
}

function makeSession(carrier: Carrier): Session {
  const [localPeer, remotePeer] = role === 'dialler' ? ['a', 'b'] : ['b', 'a'];
  const acceptStream = (stream: Stream) => void sessionListener(stream);
  return new Session({
    carrier,
    localPeer: localPeer ?? '',
    remotePeer: remotePeer ?? '',
    clock: systemClock,
    acceptStream,
  });
}

function measure(which: Which, what: Case): Promise<number> {
  if (which === 'raw' && raw) return measureRaw(raw, what);
  if (which === 'session' && session) return measureSession(session, what);
  throw new Error(`${which} is not open`);
}

function tell(message: FromEnd): void {
  process.send?.(message);
}
