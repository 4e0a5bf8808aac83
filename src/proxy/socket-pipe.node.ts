/**
 * Raw bytes between a socket of this machine and a stream, both ways, with half-close and back-pressure. A clean
 * end stays a clean end; anything else breaks the other side too, so that a cut never looks like the end.
 */

import type { Duplex } from 'node:stream';
import { Socket } from 'node:net';
import type { Stream } from '@cocoon-mesh/mesh';
import { MeshError, ResetCode } from '@cocoon-mesh/protocol';

/**
 * Resolves when both directions are over; the socket is closed then and the stream is done. Never rejects.
 * `read` gives what the stream brings after its records, null at its end.
 */
export async function pipeSocket(
  socket: Duplex,
  stream: Stream,
  read: () => Promise<Uint8Array | null>,
): Promise<void> {
  const cut = () => breakSocket(socket);
  stream.signal.addEventListener('abort', cut, { once: true });
  const outcomes = await Promise.allSettled([toStream(socket, stream), toSocket(socket, stream, read)]);
  stream.signal.removeEventListener('abort', cut);
  if (outcomes.some((outcome) => outcome.status === 'rejected')) {
    stream.reset(ResetCode.cancel);
    breakSocket(socket);
  }
}

/** Ends a connection so that its reader cannot take it for a clean end. */
export function breakSocket(socket: Duplex): void {
  // Only TCP can reset; a Unix socket has no address, and throws.
  if (socket instanceof Socket && socket.remoteAddress !== undefined) socket.resetAndDestroy();
  else socket.destroy();
}

/** Ends the stream after the socket's end. @throws when the socket or the stream broke */
async function toStream(socket: Duplex, stream: Stream): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const onData = (bytes: Uint8Array) => {
    try {
      if (stream.write(bytes)) return;
      socket.pause();
      stream.drained().then(() => socket.resume(), reject);
    } catch (thrown) {
      reject(thrown);
    }
  };
  const onClose = () => (socket.readableEnded ? resolve() : reject(closed()));
  socket.on('data', onData);
  socket.on('end', resolve);
  socket.on('error', reject);
  socket.on('close', onClose);
  if (socket.readableEnded) resolve();
  else if (socket.destroyed) reject(closed());
  // Whoever accepted it may have paused it until somebody listens.
  socket.resume();
  try {
    await promise;
    stream.end();
  } catch (thrown) {
    // The other direction waits on the stream: it must learn of this one's end.
    stream.reset(ResetCode.cancel);
    throw thrown;
  } finally {
    socket.off('data', onData);
    socket.off('end', resolve);
    socket.off('close', onClose);
  }
}

/** Ends the socket after the stream's end. @throws when the socket or the stream broke */
async function toSocket(
  socket: Duplex,
  stream: Stream,
  read: () => Promise<Uint8Array | null>,
): Promise<void> {
  try {
    for (;;) {
      const bytes = await read();
      if (bytes === null) break;
      if (socket.destroyed) throw closed();
      if (!socket.write(bytes)) await drained(socket);
    }
    await finished(socket);
  } catch (thrown) {
    stream.reset(ResetCode.cancel);
    breakSocket(socket);
    throw thrown;
  }
}

function drained(socket: Duplex): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const onClose = () => reject(closed());
  if (socket.destroyed) onClose();
  socket.once('drain', resolve);
  socket.once('close', onClose);
  return promise.finally(() => {
    socket.off('drain', resolve);
    socket.off('close', onClose);
  });
}

/** Writes the end and waits until what was queued is out. */
function finished(socket: Duplex): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const onClose = () => (socket.writableFinished ? resolve() : reject(closed()));
  socket.once('close', onClose);
  if (socket.destroyed) onClose();
  else socket.end(resolve);
  return promise.finally(() => socket.off('close', onClose));
}

function closed(): MeshError {
  return new MeshError('stream_reset', 'The connection was closed');
}
