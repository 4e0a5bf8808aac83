/** Small services to try the mesh on: files with an API, a clock as events, a WebSocket that echoes. */

import { once } from 'node:events';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { every, systemClock } from '@cocoon-mesh/protocol';
import { WebSocketServer } from 'ws';

export class DemoService implements AsyncDisposable {
  readonly port: number;
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
    this.port = (server.address() as AddressInfo).port;
  }

  static async start(server: Server): Promise<DemoService> {
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return new DemoService(server);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }
}

const tickMs = 1_000;
const noteLimitBytes = 100_000;

/** Notes by name: PUT, GET, DELETE; the list at `/`. */
export function notesServer(): Server {
  const notes = new Map<string, Buffer>([['/hello.txt', Buffer.from('Hello from the server.\n')]]);
  return createServer((request, response) => {
    const { method = 'GET', url = '/' } = request;
    if (method === 'PUT') void receiveNote(request, response, (body) => notes.set(url, body));
    else if (method === 'DELETE') response.writeHead(notes.delete(url) ? 204 : 404).end();
    else if (url === '/') answerJson(response, [...notes.keys()]);
    else answerNote(response, notes.get(url));
  });
}

/** Server-sent events: the time, every second. */
export function clockServer(): Server {
  return createServer((_request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
    const tell = (): unknown => response.write(`data: ${new Date(systemClock.now()).toISOString()}\n\n`);
    tell();
    const ticks = every(systemClock, tickMs, tell);
    response.on('close', () => ticks.cancel());
  });
}

/** A page with a WebSocket that says everything back, and what a request looked like to the service. */
export function echoServer(): Server {
  const sockets = new WebSocketServer({ noServer: true });
  const server = createServer((request, response) => {
    if (request.url === '/') response.writeHead(200, { 'content-type': 'text/html' }).end(echoPage);
    else answerJson(response, { method: request.method, url: request.url, headers: request.headers });
  });
  server.on('upgrade', (request, socket, head) => {
    sockets.handleUpgrade(request, socket, head, (webSocket) => {
      webSocket.on('message', (data, isBinary) => webSocket.send(data as Buffer, { binary: isBinary }));
    });
  });
  return server;
}

const echoPage = `<!doctype html><meta charset="utf-8"><title>Echo</title>
<h1>Echo</h1><p>Type; it comes back through the mesh.</p><input id="said" autofocus><pre id="heard"></pre>
<script>
  const socket = new WebSocket(location.href.replace('http', 'ws'));
  socket.onmessage = ({ data }) => (heard.textContent += data + '\\n');
  said.onchange = () => { socket.send(said.value); said.value = ''; };
</script>`;

async function receiveNote(
  request: IncomingMessage,
  response: ServerResponse,
  keep: (body: Buffer) => void,
): Promise<void> {
  const parts: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const part of request) {
      bytes += (part as Buffer).length;
      if (bytes <= noteLimitBytes) parts.push(part as Buffer);
    }
  } catch {
    return;
  }
  if (bytes > noteLimitBytes) {
    response.writeHead(413).end('A note is small.\n');
    return;
  }
  keep(Buffer.concat(parts));
  response.writeHead(201).end();
}

function answerNote(response: ServerResponse, note: Buffer | undefined): void {
  if (note) response.writeHead(200, { 'content-type': 'text/plain; charset=utf-8' }).end(note);
  else response.writeHead(404).end('There is no such note.\n');
}

function answerJson(response: ServerResponse, value: unknown): void {
  response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(value));
}
