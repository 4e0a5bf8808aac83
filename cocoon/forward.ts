/**
 * A local port for a service of any device. It lives as long as the command that asked for it: the daemon listens
 * while the command's request is open, and the port is free when that ends, however it ends.
 */

import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { createServer } from 'node:net';
import type { Device } from '@cocoon-mesh/mesh';
import type { Clock } from '@cocoon-mesh/protocol';
import { tcpProtocol } from '@cocoon-mesh/protocol';
import { forwardTcp, tcpServerOptions } from '@cocoon-mesh/proxy/index.node.ts';
import { listenOnLoopback } from './loopback.ts';
import type { Reach } from './reach.ts';

export interface ForwardOptions {
  readonly reach: Reach;
  readonly clock: Clock;
  readonly device: Device;
  readonly service: string;
  /** 0 takes a free one. */
  readonly port: number;
}

/** What the command is told, line by line. */
export type ForwardEvent =
  | {
      readonly event: 'listening';
      readonly device: string;
      readonly service: string;
      readonly port: number;
      readonly addresses: readonly string[];
    }
  | { readonly event: 'connection_failed'; readonly code: string; readonly message: string };

/** Until the command ends its request or is gone. @throws MeshError port_in_use | denied */
export async function runForward(
  request: IncomingMessage,
  response: ServerResponse,
  options: ForwardOptions,
): Promise<void> {
  const sockets = new Set<Socket>();
  const tell = (event: ForwardEvent): void => void response.write(`${JSON.stringify(event)}\n`);
  const accept = (socket: Socket): void => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    void passOn(socket, options, tell);
  };
  const { port, servers } = await listenOnLoopback(
    () => createServer(tcpServerOptions, accept),
    options.port,
  );
  try {
    const { device, service } = options;
    response.writeHead(200, { 'content-type': 'application/x-ndjson' });
    const addresses = servers.map((_, i) => `${i === 0 ? '127.0.0.1' : '[::1]'}:${port}`);
    tell({ event: 'listening', device: device.name, service, port, addresses });
    await over(request, response);
  } finally {
    for (const server of servers) server.close();
    for (const socket of sockets) socket.destroy();
    response.end();
  }
}

async function passOn(
  socket: Socket,
  options: ForwardOptions,
  tell: (event: ForwardEvent) => void,
): Promise<void> {
  const { reach, clock, device, service } = options;
  const failure = await forwardTcp(socket, {
    clock,
    openStream: (signal) => reach.open(reach.find(device.peerId, service), service, tcpProtocol, signal),
  });
  if (failure && failure.code !== 'cancelled')
    tell({ event: 'connection_failed', code: failure.code, message: failure.message });
}

function over(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  request.once('end', resolve);
  response.once('close', resolve);
  request.resume();
  return promise;
}
