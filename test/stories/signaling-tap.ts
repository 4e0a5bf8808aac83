/** Stands between devices and their signaling server, passes everything on and keeps what was said. */

import { EventEmitter, once } from 'node:events';
import type { AddressInfo } from 'node:net';
import type { RawData } from 'ws';
import { WebSocket, WebSocketServer } from 'ws';

const patienceMs = 20_000;

export class SignalingTap implements AsyncDisposable {
  /** To the server, and from it. */
  readonly said: Buffer[] = [];
  readonly heard: Buffer[] = [];
  /** The server, `ws://…/ws`. */
  target = '';
  readonly #server: WebSocketServer;
  readonly #passed = new EventEmitter();

  private constructor(server: WebSocketServer) {
    this.#server = server;
    server.on('connection', (device) => {
      const upstream = new WebSocket(this.target, [device.protocol], { perMessageDeflate: false });
      const opened = once(upstream, 'open');
      const pass =
        (to: WebSocket, kept: Buffer[], ready?: Promise<unknown>) =>
        async (data: RawData, isBinary: boolean): Promise<void> => {
          await ready;
          kept.push(data as Buffer);
          to.send(data, { binary: isBinary });
          this.#passed.emit('message');
        };
      opened.catch(() => device.terminate());
      device.on('message', (...message) => void pass(upstream, this.said, opened)(...message));
      upstream.on('message', (...message) => void pass(device, this.heard)(...message));
      device.on('close', () => upstream.terminate());
      upstream.on('close', () => device.terminate());
      upstream.on('error', () => device.terminate());
    });
  }

  static async start(): Promise<SignalingTap> {
    const server = new WebSocketServer({ host: '127.0.0.1', port: 0, perMessageDeflate: false });
    await once(server, 'listening');
    return new SignalingTap(server);
  }

  /** What the server has to know as its own, since devices sign in at the address that they dial. */
  get url(): string {
    return `ws://127.0.0.1:${(this.#server.address() as AddressInfo).port}/ws`;
  }

  /** Resolves when it holds, looked at with each message. */
  async until(holds: () => boolean): Promise<void> {
    const limit = AbortSignal.timeout(patienceMs);
    while (!holds()) await once(this.#passed, 'message', { signal: limit });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#server.clients) client.terminate();
    this.#server.close();
  }
}
