/** The WebSocket to signaling in a browser. */

import type { SignalingSocketFactory } from './signaling-socket.ts';

export const browserSignalingSocket: SignalingSocketFactory = (url, protocols, events) => {
  const socket = new WebSocket(url, [...protocols]);
  socket.binaryType = 'arraybuffer';
  socket.addEventListener('open', () => events.open(socket.protocol));
  socket.addEventListener('message', (event: MessageEvent<string | ArrayBuffer>) =>
    events.message(typeof event.data === 'string' ? event.data : new Uint8Array(event.data)),
  );
  let reported = false;
  const report = (code: number, reason: string) => {
    if (reported) return;
    reported = true;
    events.closed(code, reason);
  };
  socket.addEventListener('close', (event) => report(event.code, event.reason));
  return {
    send: (data) => {
      if (socket.readyState !== WebSocket.OPEN) return;
      // The DOM types exclude views of shared memory, which nobody here makes.
      socket.send(data as string | Uint8Array<ArrayBuffer>);
    },
    close: (code, reason) => socket.close(code, reason),
    abort: () => {
      // A browser waits for the closing handshake, for up to a minute on a dead line.
      report(1006, 'aborted');
      socket.close();
    },
  };
};
