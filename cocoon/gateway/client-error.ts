/**
 * Requests that are none: node:http answers them and closes at once, which resets the connection under whoever
 * still sends, and with it the answer. Here it is read on for a moment.
 */

import type { Server } from 'node:http';
import type { Duplex } from 'node:stream';
import type { Clock } from '@cocoon-mesh/protocol';
import { MeshError, problemText } from '@cocoon-mesh/protocol';
import { Socket } from 'node:net';

const lingerMs = 2_000;

export function answerClientErrors(server: Server, clock: Clock): void {
  const refused = new WeakSet<Duplex>();
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Duplex) => {
    // The parser says it again for whatever still comes.
    if (refused.has(socket)) return;
    refused.add(socket);
    socket.on('error', () => undefined);
    const tooLarge = error.code === 'HPE_HEADER_OVERFLOW';
    // A body that goes wrong comes with an answer under way; nothing can be put into that.
    const answered = socket instanceof Socket && socket.bytesWritten > 0;
    if (!socket.writable || (answered && !tooLarge)) {
      socket.destroy();
      return;
    }
    const limit = clock.after(lingerMs, () => socket.destroy());
    socket.once('close', () => limit.cancel());
    socket.on('data', () => undefined);
    socket.once('end', () => socket.destroy());
    socket.end(
      problemText(
        new MeshError(
          tooLarge ? 'header_too_large' : 'bad_message',
          tooLarge ? undefined : 'That is not an HTTP request',
        ),
      ),
    );
  });
}
