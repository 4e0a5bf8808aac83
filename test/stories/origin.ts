/**
 * The service that the HTTP stories use: a plain node:http server with every shape of answer, which remembers
 * what reached it. Bodies are made from their offset, so that any size and any range has a known hash.
 */

import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { pipeline } from 'node:stream/promises';
import { WebSocketServer } from 'ws';

/** One MiB that repeats, shifted by its own number so that no two blocks are alike. */
const blockBytes = 1 << 20;
const block = Buffer.alloc(blockBytes);
for (let i = 0; i < blockBytes; i++) block[i] = (i * 31 + (i >>> 8) * 7) & 255;

export function* bytesOf(from: number, to: number): Generator<Buffer> {
  for (let offset = from; offset < to;) {
    const number = Math.floor(offset / blockBytes);
    const start = offset % blockBytes;
    const length = Math.min(blockBytes - start, to - offset);
    const part = Buffer.from(block.subarray(start, start + length));
    if (start === 0 && length >= 4) part.writeUInt32BE(number);
    yield part;
    offset += length;
  }
}

export function sha256Of(from: number, to: number): string {
  const hash = createHash('sha256');
  for (const part of bytesOf(from, to)) hash.update(part);
  return hash.digest('hex');
}

export interface Seen {
  readonly method: string;
  readonly url: string;
  readonly rawHeaders: readonly string[];
}

export class Origin implements AsyncDisposable {
  readonly #http: Server;
  readonly #sockets = new WebSocketServer({ noServer: true });
  /** Every request that came, in order. */
  readonly seen: Seen[] = [];
  /** Resolves when a request to /hang or /endless was ended by the other side. */
  ended = Promise.withResolvers<void>();
  /** Bytes of the last upload that were read. */
  uploaded = 0;
  /** Answers waiting for `release`. */
  readonly #held: (() => void)[] = [];

  private constructor() {
    this.#http = createServer({ maxHeaderSize: 256 * 1024 }, (request, response) => {
      this.#note(request);
      this.#answer(request, response).catch(() => response.destroy());
    });
    this.#http.on('checkContinue', (request, response: ServerResponse) => {
      this.#note(request);
      if (request.url === '/refuse-body') {
        response.writeHead(417, { connection: 'close' }).end();
        return;
      }
      response.writeContinue();
      this.#answer(request, response).catch(() => response.destroy());
    });
    this.#http.on('upgrade', (request, socket, head) => {
      this.#note(request);
      this.#sockets.handleUpgrade(request, socket, head, (ws) => {
        ws.on('message', (data: Buffer, binary) => {
          const text = data.toString();
          const close = binary ? null : /^close (\d+) (.*)$/.exec(text);
          if (close) ws.close(Number(close[1]), close[2]);
          else ws.send(data, { binary });
        });
      });
    });
  }

  static async start(): Promise<Origin> {
    const origin = new Origin();
    origin.#http.listen(0, '127.0.0.1');
    await once(origin.#http, 'listening');
    return origin;
  }

  get port(): number {
    return (this.#http.address() as AddressInfo).port;
  }

  /** Lets one held answer go on. */
  release(): void {
    this.#held.shift()?.();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets.clients) socket.terminate();
    this.#http.closeAllConnections();
    this.#http.close();
    await once(this.#http, 'close');
  }

  #note(request: IncomingMessage): void {
    this.seen.push({
      method: request.method ?? '',
      url: request.url ?? '',
      rawHeaders: request.rawHeaders,
    });
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', 'http://origin');
    switch (url.pathname) {
      case '/big':
        return this.#big(request, response, Number(url.searchParams.get('bytes')));
      case '/upload':
        return this.#upload(request, response);
      case '/echo-head':
        return void response
          .writeHead(200, { 'content-type': 'application/json' })
          .end(JSON.stringify({ method: request.method, url: request.url, rawHeaders: request.rawHeaders }));
      case '/sse':
        return this.#events(response, Number(url.searchParams.get('count')));
      case '/no-content':
        return void response.writeHead(204).end();
      case '/not-modified':
        return void response.writeHead(304, { etag: '"x"', 'content-length': '12' }).end();
      case '/duplicates':
        return void response
          .writeHead(200, ['Set-Cookie', 'a=1', 'set-cookie', 'b=2', 'X-Mixed-Case', 'Kept'])
          .end('ok');
      case '/trailers':
        response.writeHead(200, { trailer: 'x-sum' });
        for await (const _ of request) void _;
        response.addTrailers({ 'x-sum': request.trailers['x-in'] ?? 'none' });
        return void response.end('body');
      case '/early-hints':
        response.writeEarlyHints({ link: '</style.css>; rel=preload' });
        return void response.end('after hints');
      case '/hang':
        response.on('close', () => this.ended.resolve());
        return;
      case '/endless':
        response.on('close', () => this.ended.resolve());
        response.writeHead(200);
        await pipeline(bytesOf(0, Number.MAX_SAFE_INTEGER), response);
        return;
      case '/break':
        response.writeHead(200, { 'content-length': '1000000' });
        response.write(Buffer.alloc(1000));
        return void setImmediate(() => response.destroy());
      default:
        return void response
          .writeHead(200, { 'content-type': 'text/plain' })
          .end(`hello from ${url.pathname}`);
    }
  }

  async #big(request: IncomingMessage, response: ServerResponse, bytes: number): Promise<void> {
    const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '');
    const [from, to] = range ? [Number(range[1]), Number(range[2]) + 1] : [0, bytes];
    response.writeHead(range ? 206 : 200, {
      'content-length': String(to - from),
      'accept-ranges': 'bytes',
      ...(range ? { 'content-range': `bytes ${from}-${to - 1}/${bytes}` } : {}),
    });
    if (request.method === 'HEAD') return void response.end();
    await pipeline(bytesOf(from, to), response);
  }

  async #upload(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const hash = createHash('sha256');
    this.uploaded = 0;
    for await (const chunk of request) {
      hash.update(chunk as Buffer);
      this.uploaded += (chunk as Buffer).length;
    }
    response.end(JSON.stringify({ bytes: this.uploaded, sha256: hash.digest('hex') }));
  }

  /** Each event waits for `release`: the reader decides when the next one may come. */
  async #events(response: ServerResponse, count: number): Promise<void> {
    response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
    response.flushHeaders();
    for (let i = 1; i <= count; i++) {
      await new Promise<void>((resolve) => this.#held.push(resolve));
      response.write(`data: ${i}\n\n`);
    }
    response.end();
  }
}
