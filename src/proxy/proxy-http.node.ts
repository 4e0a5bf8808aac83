/**
 * The end of `/cocoon/http/1` at the asking gateway: a request of node:http goes out on a stream, and what comes
 * back is the response. Which device and service, who may ask, and which of the gateway's own fields to take out
 * are decided before; this file only passes on.
 */

import { type IncomingMessage, ServerResponse } from 'node:http';
import { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Stream } from '@cocoon-mesh/mesh';
import {
  type Clock,
  encodeRequestHead,
  type InformationalHead,
  limits,
  MeshError,
  problemBody,
  problemType,
  type RawHeaders,
  type RequestHead,
  ResetCode,
  type ResponseHead,
  responseDecoder,
} from '@cocoon-mesh/protocol';
import { BodyLength, hasNoBody, responseBodyLength } from './body-length.ts';
import { HeadLimit } from './head-limit.ts';
import { receiveBody, sendBody } from './http-body.node.ts';
import { contentLength, endToEnd, fieldValues, listsToken, withoutFields } from './raw-headers.ts';
import { lingerMs, RecordReceiver, RecordSender, requestError, settle } from './record-stream.ts';
import { breakSocket, pipeSocket } from './socket-pipe.node.ts';

export interface ProxyOptions {
  /** Path and query for the service, raw as the client wrote them. */
  readonly target: string;
  readonly clock: Clock;
  /** Opens a stream of `httpProtocol`; the signal fires when the client is gone. Rejects with MeshError. */
  readonly openStream: (signal: AbortSignal) => Promise<Stream>;
  /** What the service is to see; default: all that the client sent. Hop-by-hop fields are dropped here. */
  readonly headers?: RawHeaders;
  /** How the client reached this gateway. Default http. */
  readonly scheme?: 'http' | 'https';
  /** Last word on the response's fields, say to add a Content-Security-Policy. Default: as they came. */
  readonly responseHeaders?: (headers: RawHeaders) => RawHeaders;
  /** Answers a request that failed before its response began. Default: `answerError`. */
  readonly answerError?: (response: ServerResponse, error: MeshError) => void;
}

/** How a request ended; for logs and metrics. */
export type ProxyOutcome =
  | { readonly kind: 'answered'; readonly status: number }
  | { readonly kind: 'upgraded' }
  | { readonly kind: 'failed'; readonly error: MeshError };

/**
 * The device gives the service `responseHeadTimeoutMs`; its own answer about that must come in a little more.
 */
const deviceAnswerTimeoutMs = limits.responseHeadTimeoutMs + limits.serviceConnectTimeoutMs;

/** A request with its body, to its response. Resolves when both are over. Never rejects. */
export async function proxyHttp(
  request: IncomingMessage,
  response: ServerResponse,
  options: ProxyOptions,
): Promise<ProxyOutcome> {
  return await new GatewayExchange(request, response, options, null).run();
}

/**
 * A request that asks to change the protocol, as node:http's `upgrade` event gives it. The service decides: after
 * its 101 raw bytes pass both ways, any other answer is passed on as a response. Rejects with
 * TypeError for a socket that is none of node:net, and never else.
 */
export async function proxyUpgrade(
  request: IncomingMessage,
  socket: Duplex,
  early: Uint8Array,
  options: ProxyOptions,
): Promise<ProxyOutcome> {
  // node:http leaves the socket without any handler, and an error without one ends the process.
  socket.on('error', () => undefined);
  if (!(socket instanceof Socket)) throw new TypeError('an upgrade needs the socket of its connection');
  if (early.length > 0) socket.unshift(early);
  const response = new ServerResponse(request);
  response.shouldKeepAlive = false;
  response.once('finish', () => {
    response.detachSocket(socket);
    socket.end(() => socket.destroy());
  });
  response.assignSocket(socket);
  return await new GatewayExchange(request, response, options, socket).run();
}

/** `application/problem+json` with the code, as everywhere in the gateway. */
export function answerError(response: ServerResponse, error: MeshError): void {
  const body = problemBody(error);
  const headers = ['Content-Type', problemType, 'Content-Length', String(Buffer.byteLength(body))];
  if (error.status === 503)
    headers.push('Retry-After', String(Math.max(1, Math.ceil((error.retryAfterMs ?? 0) / 1000))));
  if (error.status === 405) headers.push('Allow', 'GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS');
  response.writeHead(error.status, headers);
  response.end(body);
}

class GatewayExchange {
  readonly #request: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #options: ProxyOptions;
  /** Of an upgrade. */
  readonly #socket: Socket | null;
  readonly #gone = new AbortController();
  /**
   * The client waits for `100 Continue` with its body, and did not get it yet. An answer in place of it ends the
   * connection (node:http sees to that): whether the body still comes cannot be known.
   */
  #awaitsContinue: boolean;
  #passing: Promise<void> = Promise.resolve();
  /** Not the events of request and response: once the response is out, node:http forgets a request's body. */
  readonly #onClose = () => {
    if (this.#response.writableFinished && this.#request.complete) return;
    this.#gone.abort(new MeshError('cancelled'));
  };

  constructor(
    request: IncomingMessage,
    response: ServerResponse,
    options: ProxyOptions,
    socket: Socket | null,
  ) {
    this.#request = request;
    this.#response = response;
    this.#options = options;
    this.#socket = socket;
    this.#awaitsContinue = listsToken(request.rawHeaders, 'expect', '100-continue');
  }

  async run(): Promise<ProxyOutcome> {
    const { socket } = this.#request;
    socket.on('close', this.#onClose);
    try {
      const head = this.#requestHead();
      const stream = await this.#open();
      return await this.#exchange(stream, head);
    } catch (thrown) {
      const error = requestError(thrown);
      this.#fail(error);
      return { kind: 'failed', error };
    } finally {
      socket.off('close', this.#onClose);
      if (!this.#request.complete) await this.#discardRequest();
    }
  }

  #requestHead(): Uint8Array {
    const { method = 'GET', rawHeaders } = this.#request;
    if (method === 'CONNECT' || method === 'TRACE') throw new MeshError('method_not_allowed');
    const head: RequestHead = {
      method,
      target: this.#options.target,
      headers: endToEnd(this.#options.headers ?? rawHeaders),
      scheme: this.#options.scheme ?? 'http',
    };
    if (listsToken(rawHeaders, 'te', 'trailers')) head.trailers = true;
    if (this.#socket) head.upgrade = fieldValues(rawHeaders, 'upgrade').join(', ');
    else if (fieldValues(rawHeaders, 'transfer-encoding').length > 0) head.chunked = true;
    return encodeRequestHead(head);
  }

  async #open(): Promise<Stream> {
    const { signal } = this.#gone;
    const stream = await this.#options.openStream(signal);
    if (signal.aborted) {
      stream.reset(ResetCode.cancel);
      throw new MeshError('cancelled');
    }
    return stream;
  }

  async #exchange(stream: Stream, head: Uint8Array): Promise<ProxyOutcome> {
    const cancel = () => stream.reset(ResetCode.cancel);
    this.#gone.signal.addEventListener('abort', cancel, { once: true });
    const limit = new HeadLimit(this.#options.clock, deviceAnswerTimeoutMs, () =>
      stream.reset(ResetCode.timeout),
    );
    try {
      const sender = new RecordSender(stream);
      sender.send(head);
      this.#passing = this.#passRequest(sender, limit).catch(cancel);
      const outcome = await this.#passAnswer(stream, limit);
      if (this.#awaitsContinue) cancel();
      await settle(stream, this.#options.clock, this.#passing);
      return outcome;
    } catch (thrown) {
      cancel();
      throw thrown;
    } finally {
      limit.stop();
      this.#gone.signal.removeEventListener('abort', cancel);
    }
  }

  /** The body of the request. A client that breaks off closes its connection, so nothing else is worth going on. */
  async #passRequest(sender: RecordSender, limit: HeadLimit): Promise<void> {
    limit.start();
    if (this.#socket) return;
    if (!hasBody(this.#request)) {
      sender.end();
      this.#request.resume();
      return;
    }
    if (!this.#awaitsContinue) limit.pause();
    await sendBody(this.#request, sender, { moved: () => limit.pause(), blocked: () => limit.start() });
    limit.start();
  }

  async #passAnswer(stream: Stream, limit: HeadLimit): Promise<ProxyOutcome> {
    const receiver = new RecordReceiver(stream, responseDecoder());
    for (;;) {
      const record = await receiver.next();
      if (record?.kind === 'informational') {
        if (record.head.status === 100 && this.#awaitsContinue) limit.pause();
        else limit.start();
        this.#inform(record.head);
      } else if (record?.kind === 'head') {
        limit.stop();
        if (record.head.status === 101) return await this.#switch(stream, receiver, record.head);
        if (this.#socket) stream.end();
        await this.#respond(receiver, record.head);
        return { kind: 'answered', status: record.head.status };
      } else if (record?.kind === 'error') {
        throw record.error;
      } else {
        throw new MeshError('protocol_violation', 'A response head was expected');
      }
    }
  }

  #inform({ status, reason, headers }: InformationalHead): void {
    if (status === 100) {
      this.#awaitsContinue = false;
      this.#response.writeContinue();
      return;
    }
    // node:http can write only some interim responses, and only with headers of its own making. A response that
    // is still queued behind another one of its connection (pipelining) has no socket yet: it goes without.
    this.#response.socket?.write(headText(status, reason, headers), 'latin1');
  }

  async #respond(receiver: RecordReceiver<ResponseHead>, head: ResponseHead): Promise<void> {
    const response = this.#response;
    const { method = 'GET' } = this.#request;
    const length = new BodyLength(responseBodyLength(head, method));
    response.sendDate = false;
    response.writeHead(head.status, head.reason, this.#responseHeaders(head, method));
    const next = receiver.ready();
    if (next) return await receiveBody(receiver, response, length, undefined, next);
    // The body is not here yet: an event stream's reader wants to know that it is connected. An empty piece
    // sends the head as Latin-1; `flushHeaders` of node:http would send it as UTF-8.
    if (!hasNoBody(head.status, method)) response.write(new Uint8Array());
    await receiveBody(receiver, response, length);
  }

  #responseHeaders(head: ResponseHead, method: string): string[] {
    let headers = endToEnd(this.#options.responseHeaders?.(head.headers) ?? head.headers);
    const chunked = contentLength(headers) === null && !hasNoBody(head.status, method);
    // node:http refuses to announce trailers that it cannot send.
    if (!chunked || this.#request.httpVersion === '1.0') headers = withoutFields(headers, trailerField);
    return headers;
  }

  async #switch(
    stream: Stream,
    receiver: RecordReceiver<ResponseHead>,
    head: ResponseHead,
  ): Promise<ProxyOutcome> {
    const socket = this.#socket;
    if (!socket || head.upgrade === undefined) {
      throw new MeshError('bad_gateway', 'The service changed the protocol without being asked');
    }
    this.#response.detachSocket(socket);
    // What is still queued on the stream when the socket has closed cleanly must go out.
    socket.off('close', this.#onClose);
    const headers = endToEnd(this.#options.responseHeaders?.(head.headers) ?? head.headers);
    headers.push('Connection', 'Upgrade', 'Upgrade', head.upgrade);
    socket.write(headText(101, head.reason, headers), 'latin1');
    await pipeSocket(socket, stream, async () => {
      const record = await receiver.next();
      return record?.kind === 'raw' ? record.bytes : null;
    });
    return { kind: 'upgraded' };
  }

  #fail(error: MeshError): void {
    const response = this.#response;
    if (this.#gone.signal.aborted || response.writableFinished) return;
    if (!response.headersSent) {
      (this.#options.answerError ?? answerError)(response, error);
      return;
    }
    // Without a length and without chunks the end of the connection is the end of the body: only a reset tells.
    const { socket } = this.#request;
    if (this.#request.httpVersion === '1.0') breakSocket(socket);
    else socket.destroy();
  }

  /** Reads on for a while: closing on a client that still sends would take the answer from it. */
  async #discardRequest(): Promise<void> {
    const request = this.#request;
    const { socket } = request;
    if (this.#socket || socket.destroyed) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const limit = this.#options.clock.after(lingerMs, () => socket.destroy());
    request.once('end', resolve);
    request.on('error', () => undefined);
    socket.once('close', resolve);
    request.resume();
    await promise;
    limit.cancel();
    request.off('end', resolve);
    socket.off('close', resolve);
  }
}

const trailerField: ReadonlySet<string> = new Set(['trailer']);

function hasBody(request: IncomingMessage): boolean {
  const { rawHeaders } = request;
  return fieldValues(rawHeaders, 'transfer-encoding').length > 0 || (contentLength(rawHeaders) ?? 0) > 0;
}

function headText(status: number, reason: string, headers: RawHeaders): string {
  let text = `HTTP/1.1 ${status} ${reason}\r\n`;
  for (let i = 0; i < headers.length; i += 2) text += `${headers[i]}: ${headers[i + 1]}\r\n`;
  return `${text}\r\n`;
}
