/**
 * One end of a connection as a process of its own, for suites and benchmarks: `fork`ed with the engine's name,
 * introduced over IPC, and driven by what `engine-process.contract.ts` sends. It leaves when its parent does.
 */

import { toMeshError } from '@cocoon-mesh/protocol';
import type { Carrier } from '../carrier.ts';
import type { PeerConnection } from '../engine.ts';
import type { FromPeer, ToPeer } from '../engine-process.contract.ts';
import { selectEngine } from './select.node.ts';

/** In mode `sink`, messages up to this size still come back: pings behind bulk. */
const pingBytes = 1024;

const { engine } = await selectEngine(process.argv[2]);
let connection: PeerConnection | null = null;
let echo: 'all' | 'small' = 'all';
let receivedBytes = 0;
let carrier: Carrier | null = null;

process.on('message', (message: ToPeer) => {
  handle(message).catch((error: unknown) => {
    const { code, message: text } = toMeshError(error);
    tell({ type: 'failed', code, message: text });
  });
});
process.once('disconnect', () => process.exit(0));
tell({ type: 'ready', sealed: engine.sealed });

async function handle(message: ToPeer): Promise<void> {
  switch (message.type) {
    case 'offer':
      return tell({ type: 'description', sdp: await connect().createOffer() });
    case 'accept-offer':
      return tell({ type: 'description', sdp: await connect().acceptOffer(message.sdp) });
    case 'accept-answer':
      return connection?.acceptAnswer(message.sdp);
    case 'candidate':
      return connection?.addCandidate(message.line);
    case 'echo':
      echo = message.which;
      return;
    case 'count':
      return tell({ type: 'counted', bytes: receivedBytes });
    case 'close':
      return carrier?.close(message.reason);
  }
}

function connect(): PeerConnection {
  connection = engine.connect({ iceServers: [], onCandidate: (line) => tell({ type: 'candidate', line }) });
  connection.opened(new AbortController().signal).then(serve, (error: unknown) => {
    const { code, message } = toMeshError(error);
    tell({ type: 'failed', code, message });
  });
  return connection;
}

function serve(opened: Carrier): void {
  carrier = opened;
  opened.start({
    message(bytes) {
      receivedBytes += bytes.length;
      if (echo === 'all' || bytes.length <= pingBytes) opened.send(bytes);
    },
    writable: () => undefined,
    closed: (reason) => tell({ type: 'closed', reason, bytes: receivedBytes }),
  });
  tell({ type: 'opened' });
}

function tell(message: FromPeer): void {
  // The parent may be gone between its last word and our `disconnect`.
  if (process.connected) process.send?.(message, undefined, undefined, () => undefined);
}
