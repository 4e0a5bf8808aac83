/**
 * How a node:http server must be set so that whatever the proxy promises can come in at all. The defaults of
 * node:http cut uploads after five minutes, drop header fields above 2,000, and answer `Expect` by themselves.
 */

import type { IncomingMessage, Server, ServerOptions, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import { limits } from '@cocoon-mesh/protocol';
import { fieldValues } from './raw-headers.ts';

/** Request line and fields; above it node:http answers 431. Also for clients of services and gateways. */
export const maxHttpHeaderSize: number = limits.maxHttpHeadBytes;

/** For `createServer`. */
export const httpServerOptions: ServerOptions = {
  maxHeaderSize: maxHttpHeaderSize,
  // The limit on a whole request would end every long upload; heads keep theirs (`headersTimeout`, 60 s).
  requestTimeout: 0,
  // The default of 5 s ends connections that a client on a busy machine is about to use again.
  keepAliveTimeout: 75_000,
  // Events of a stream leave at once, not when a packet is full.
  noDelay: true,
  insecureHTTPParser: false,
  shouldUpgradeCallback: mayUpgrade,
};

export interface HttpHandlers {
  /** Every request but upgrades and CONNECT; `Expect` is left to whoever serves it. Must not throw. */
  readonly request: (request: IncomingMessage, response: ServerResponse) => void;
  /** As the event of node:http; must take care of the socket. */
  readonly upgrade: (request: IncomingMessage, socket: Duplex, early: Uint8Array) => void;
}

/** Attaches the handlers to a server made with `httpServerOptions`. */
export function serveRequests(server: Server, handlers: HttpHandlers): void {
  server.maxHeadersCount = 0;
  server.on('request', handlers.request);
  // With a listener node:http sends no `100 Continue` of its own: the service decides.
  server.on('checkContinue', handlers.request);
  server.on('checkExpectation', handlers.request);
  server.on('upgrade', handlers.upgrade);
  server.on('connect', (_request: IncomingMessage, socket: Duplex) => {
    socket.on('error', () => undefined);
    socket.end('HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n', () =>
      socket.destroy(),
    );
  });
}

/**
 * An upgrade leaves the rest of its connection unread by node:http, so it must have no body. `h2c` is offered by
 * clients that are as happy without it, and would take the rest of the connection away from this gateway.
 */
function mayUpgrade(request: IncomingMessage): boolean {
  const { rawHeaders } = request;
  if (fieldValues(rawHeaders, 'transfer-encoding').length > 0) return false;
  if (fieldValues(rawHeaders, 'content-length').some((value) => value !== '0')) return false;
  return !fieldValues(rawHeaders, 'upgrade').some((value) => /\bh2c\b/i.test(value));
}
