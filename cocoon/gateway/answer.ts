/** Answers of the gateway's own: JSON, and errors where there is only a socket. */

import type { IncomingMessage, ServerResponse } from 'node:http';
import { ServerResponse as Response } from 'node:http';
import { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { MeshError } from '@cocoon-mesh/protocol';
import { answerError } from '@cocoon-mesh/proxy/index.node.ts';

export function answerJson(response: ServerResponse, value: unknown, status = 200): void {
  const body = JSON.stringify(value);
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
  });
  response.end(body);
}

/** One that is too large to be written at once. @throws when the client goes away */
export async function answerJsonPieces(
  response: ServerResponse,
  pieces: AsyncIterable<string>,
  gone: AbortSignal,
): Promise<void> {
  response.writeHead(200, {
    'content-type': 'application/json',
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
  });
  for await (const piece of pieces) await writeChunk(response, piece, gone);
  response.end();
}

/** Waits as long as the client does not read. @throws when it goes away */
export async function writeChunk(response: ServerResponse, text: string, gone: AbortSignal): Promise<void> {
  gone.throwIfAborted();
  if (response.write(text)) return;
  const { promise, resolve } = Promise.withResolvers<void>();
  response.once('drain', resolve);
  gone.addEventListener('abort', () => resolve(), { once: true });
  await promise;
  response.off('drain', resolve);
  gone.throwIfAborted();
}

/** Refuses an upgrade before it began. */
export function refuseUpgrade(request: IncomingMessage, socket: Duplex, error: MeshError): void {
  socket.on('error', () => undefined);
  if (!(socket instanceof Socket)) {
    socket.destroy();
    return;
  }
  const response = new Response(request);
  response.shouldKeepAlive = false;
  response.assignSocket(socket);
  response.once('finish', () => {
    response.detachSocket(socket);
    socket.end(() => socket.destroy());
  });
  answerError(response, error);
}
