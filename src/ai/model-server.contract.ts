/** A real HTTP server that does what a test tells it: the double of Ollama, and of servers with OpenAI's API. */

import type { IncomingHttpHeaders, IncomingMessage, Server, ServerResponse } from 'node:http';
import { createServer } from 'node:http';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';

export interface Exchange {
  readonly body: Readonly<Record<string, unknown>>;
  readonly headers: IncomingHttpHeaders;
  readonly response: ServerResponse;
  /** Aborted when the client went away before the answer was complete. */
  readonly gone: AbortSignal;
}

export type Answer = (exchange: Exchange) => void | Promise<void>;

export class ScriptedModelServer {
  /** By `METHOD /path`. */
  readonly routes = new Map<string, Answer>();
  readonly seen: { route: string; body: Readonly<Record<string, unknown>>; headers: IncomingHttpHeaders }[] =
    [];
  #server: Server | null = null;
  #port = 0;

  static async start(routes: Readonly<Record<string, Answer>> = {}): Promise<ScriptedModelServer> {
    const server = new ScriptedModelServer();
    for (const [route, answer] of Object.entries(routes)) server.routes.set(route, answer);
    await server.listen();
    return server;
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  /** Again on the same port, after `stop`. */
  async listen(): Promise<void> {
    const server = createServer((request, response) => void this.#answer(request, response));
    server.listen(this.#port, '127.0.0.1');
    await once(server, 'listening');
    this.#port = (server.address() as AddressInfo).port;
    this.#server = server;
  }

  async stop(): Promise<void> {
    const server = this.#server;
    this.#server = null;
    if (!server) return;
    server.close();
    server.closeAllConnections();
    await once(server, 'close');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  /** The body of the newest request of that route. */
  newest(route: string): Readonly<Record<string, unknown>> {
    const body = this.seen.findLast((each) => each.route === route)?.body;
    if (!body) throw new Error(`nobody asked ${route}`);
    return body;
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.on('error', () => undefined);
    const gone = new AbortController();
    response.on('close', () => {
      if (!response.writableFinished) gone.abort();
    });
    let text = '';
    for await (const bytes of request.setEncoding('utf8') as AsyncIterable<string>) text += bytes;
    const body = (text === '' ? {} : JSON.parse(text)) as Record<string, unknown>;
    const route = `${request.method} ${request.url}`;
    this.seen.push({ route, body, headers: request.headers });
    const answer = this.routes.get(route);
    if (answer) await answer({ body, headers: request.headers, response, gone: gone.signal });
    else answerJson(response, 404, { error: { message: `no ${route}`, type: 'invalid_request_error' } });
  }
}

export function answerJson(response: ServerResponse, status: number, value: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value));
}

/** Starts a stream of server-sent events. @returns writes one */
export function events(response: ServerResponse): (data: unknown) => void {
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  return (data) => void response.write(`data: ${typeof data === 'string' ? data : JSON.stringify(data)}\n\n`);
}

/** Starts NDJSON. @returns writes one line */
export function lines(response: ServerResponse): (value: unknown) => void {
  response.writeHead(200, { 'content-type': 'application/x-ndjson' });
  return (value) => void response.write(`${JSON.stringify(value)}\n`);
}

export function delta(fields: object, reason: string | null = null): object {
  return {
    id: 'chatcmpl-1',
    object: 'chat.completion.chunk',
    created: 1,
    model: 'small',
    choices: [{ index: 0, delta: fields, finish_reason: reason }],
  };
}

export const usage = { prompt_tokens: 7, completion_tokens: 2, total_tokens: 9 };
