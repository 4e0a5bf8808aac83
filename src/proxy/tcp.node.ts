/**
 * `/cocoon/tcp/1`: one stream is one connection to a local port. The device says first whether the service took
 * the connection; the asking side may send from the start, so a protocol in which the client speaks first loses
 * no round trip.
 */

import { connect, type ServerOpts, type Socket } from 'node:net';
import type { Stream } from '@cocoon-mesh/mesh';
import {
  type Clock,
  decodeServiceOpen,
  encodeConnected,
  limits,
  MeshError,
  tcpDecoder,
  toMeshError,
} from '@cocoon-mesh/protocol';
import { RecordReceiver, RecordSender, requestError, settle } from './record-stream.ts';
import { addressOf, connectError, connectTimeout, type ServiceTarget } from './service-connections.node.ts';
import { breakSocket, pipeSocket } from './socket-pipe.node.ts';

/** For `createServer` of node:net in front of `forwardTcp`. */
export const tcpServerOptions: ServerOpts = { allowHalfOpen: true, noDelay: true, pauseOnConnect: true };

/** Opening a stream, connecting at the device, and the way there and back. */
const connectedTimeoutMs = limits.openTimeoutMs + limits.serviceConnectTimeoutMs;

export interface ServeTcpOptions {
  /** The service of that name for this peer, or null when there is none or it may not know. May throw MeshError. */
  readonly resolveService: (name: string) => ServiceTarget | null;
  readonly clock: Clock;
}

/** The end at the device that has the service. Resolves when both directions are over. Never rejects. */
export async function serveTcp(stream: Stream, options: ServeTcpOptions): Promise<void> {
  const { clock } = options;
  try {
    const target = options.resolveService(decodeServiceOpen(stream.header).service);
    if (!target) throw new MeshError('service_not_found');
    const socket = await connected(target, stream.signal, clock);
    stream.write(encodeConnected());
    await pipeSocket(socket, stream, () => stream.read());
  } catch (thrown) {
    new RecordSender(stream).fail(toMeshError(thrown, 'bad_gateway'));
    await settle(stream, clock);
  }
}

export interface ForwardTcpOptions {
  /** Opens a stream of `tcpProtocol`; the signal fires when the client is gone. Rejects with MeshError. */
  readonly openStream: (signal: AbortSignal) => Promise<Stream>;
  readonly clock: Clock;
}

/**
 * The end at the asking device, for one accepted connection. Resolves when both directions are over: with null,
 * or with why there was no connection; the client's is reset then. Never rejects.
 */
export async function forwardTcp(socket: Socket, options: ForwardTcpOptions): Promise<MeshError | null> {
  socket.on('error', () => undefined);
  const gone = new AbortController();
  const onClose = () => gone.abort(new MeshError('cancelled'));
  socket.once('close', onClose);
  try {
    const stream = await options.openStream(gone.signal);
    return await forward(socket, stream, options.clock);
  } catch (thrown) {
    breakSocket(socket);
    return requestError(thrown);
  } finally {
    socket.off('close', onClose);
  }
}

async function forward(socket: Socket, stream: Stream, clock: Clock): Promise<MeshError | null> {
  const receiver = new RecordReceiver<never>(stream, tcpDecoder());
  let failure: MeshError | null = null;
  let state: 'connecting' | 'connected' = 'connecting';
  const limit = clock.after(connectedTimeoutMs, () => {
    failure = new MeshError('gateway_timeout');
    breakSocket(socket);
  });
  await pipeSocket(socket, stream, async () => {
    for (;;) {
      const record = await receiver.next().catch((thrown: unknown) => {
        if (state === 'connecting') failure ??= requestError(thrown);
        throw thrown;
      });
      if (record?.kind === 'raw') return record.bytes;
      if (record?.kind === 'connected') {
        state = 'connected';
        limit.cancel();
      } else if (record?.kind === 'error') {
        failure = record.error;
        throw record.error;
      } else {
        return null;
      }
    }
  });
  limit.cancel();
  return failure;
}

/** @throws MeshError service_refused | gateway_timeout | cancelled */
async function connected(target: ServiceTarget, signal: AbortSignal, clock: Clock): Promise<Socket> {
  const socket = connect({ ...addressOf(target), allowHalfOpen: true, noDelay: true });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const cancel = () => reject(new MeshError('cancelled'));
  const limit = clock.after(limits.serviceConnectTimeoutMs, () => reject(connectTimeout()));
  signal.addEventListener('abort', cancel, { once: true });
  if (signal.aborted) cancel();
  socket.once('connect', resolve);
  socket.on('error', (cause) => reject(connectError(cause)));
  try {
    await promise;
    return socket;
  } catch (thrown) {
    socket.destroy();
    throw thrown;
  } finally {
    limit.cancel();
    signal.removeEventListener('abort', cancel);
  }
}
