/** The WebSocket to signaling on Node, by `ws`. */

import { WebSocket } from 'ws';
import type { SignalingSocketFactory } from './signaling-socket.ts';

/** As large as the largest welcome. */
const maxPayloadBytes = 8 * 1024 * 1024;

export const nodeSignalingSocket: SignalingSocketFactory = (url, protocols, events) => {
  const socket = new WebSocket(url, [...protocols], {
    perMessageDeflate: false,
    maxPayload: maxPayloadBytes,
    handshakeTimeout: 10_000,
  });
  socket.on('open', () => events.open(socket.protocol));
  socket.on('message', (data, isBinary) => {
    const bytes = Array.isArray(data) ? Buffer.concat(data) : Buffer.from(data as Buffer);
    events.message(isBinary ? bytes : bytes.toString('utf8'));
  });
  // `close` always follows `error` and is the one that is reported.
  let failure = '';
  socket.on('error', (error: NodeJS.ErrnoException) => {
    failure = error.code ?? error.message;
  });
  socket.on('close', (code, reason) => events.closed(code, failure || reason.toString('utf8')));
  return {
    send: (data) => {
      if (socket.readyState === WebSocket.OPEN) socket.send(data);
    },
    close: (code, reason) => socket.close(code, reason),
    abort: () => socket.terminate(),
  };
};
