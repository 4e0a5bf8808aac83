/**
 * One end of a connection that lives elsewhere, in a process (`engines/engine-peer.contract.node.ts`) or a web page
 * (`engines/engine-page.contract.browser.ts`): what is said to it, what it says, and how it behaves. Runs in both.
 */

import { toMeshError } from '@cocoon-mesh/protocol';
import type { Carrier } from './carrier.ts';
import type { Engine, PeerConnection } from './engine.ts';

export type ToPeer =
  | { readonly type: 'offer' }
  | { readonly type: 'accept-offer' | 'accept-answer'; readonly sdp: string }
  | { readonly type: 'candidate'; readonly line: string | null }
  | { readonly type: 'echo'; readonly which: 'all' | 'small' }
  | { readonly type: 'send'; readonly bytes: number }
  | { readonly type: 'count' }
  | { readonly type: 'path' }
  | { readonly type: 'close'; readonly reason: string };

export type FromPeer =
  | { readonly type: 'ready' }
  | { readonly type: 'description'; readonly sdp: string }
  | { readonly type: 'candidate'; readonly line: string | null }
  | { readonly type: 'opened' }
  | { readonly type: 'counted'; readonly bytes: number }
  | { readonly type: 'path'; readonly path: string | null }
  | { readonly type: 'closed'; readonly reason: string; readonly bytes: number }
  | { readonly type: 'failed'; readonly code: string; readonly message: string };

const KiB = 1024;
/** With `echo` on `small`, messages up to this size still come back: pings behind bulk. */
const pingBytes = KiB;

/** Returns what takes the messages of the other side. */
export function enginePeer(engine: Engine, tell: (message: FromPeer) => void): (message: ToPeer) => void {
  const never = new AbortController().signal;
  let connection: PeerConnection | null = null;
  let carrier: Carrier | null = null;
  let echo: 'all' | 'small' = 'all';
  let receivedBytes = 0;
  let toSend = 0;

  const failed = (error: unknown): void => {
    const { code, message } = toMeshError(error);
    tell({ type: 'failed', code, message });
  };
  const pump = (): void => {
    if (carrier) sendWhileWritable(carrier);
  };
  const sendWhileWritable = (opened: Carrier): void => {
    while (toSend > 0 && opened.writable) {
      const size = Math.min(toSend, 64 * KiB);
      toSend -= size;
      opened.send(new Uint8Array(size));
    }
  };
  const serve = (opened: Carrier): void => {
    carrier = opened;
    opened.start({
      message(bytes) {
        receivedBytes += bytes.length;
        if (echo === 'all' || bytes.length <= pingBytes) opened.send(bytes);
      },
      writable: pump,
      closed: (reason) => tell({ type: 'closed', reason, bytes: receivedBytes }),
    });
    tell({ type: 'opened' });
  };
  const connect = (): PeerConnection => {
    connection = engine.connect({ iceServers: [], onCandidate: (line) => tell({ type: 'candidate', line }) });
    connection.opened(never).then(serve, failed);
    return connection;
  };
  const handle = async (message: ToPeer): Promise<void> => {
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
      case 'send':
        toSend += message.bytes;
        return pump();
      case 'count':
        return tell({ type: 'counted', bytes: receivedBytes });
      case 'path':
        return tell({ type: 'path', path: (await connection?.path()) ?? null });
      case 'close':
        return carrier?.close(message.reason);
    }
  };
  tell({ type: 'ready' });
  return (message) => void handle(message).catch(failed);
}
