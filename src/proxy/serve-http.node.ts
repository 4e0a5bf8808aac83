/**
 * The end of `/cocoon/http/1` at the device that has the service: one stream is one request to a local port.
 * Who may use which service is decided by `resolveService`; this file decides how a request is passed on.
 */

import { type ClientRequest, type IncomingMessage, request as openRequest } from 'node:http';
import type { Duplex } from 'node:stream';
import type { Stream } from '@cocoon-mesh/mesh';
import {
  type Clock,
  decodeServiceOpen,
  encodeInformational,
  encodeResponseHead,
  limits,
  MeshError,
  type RawHeaders,
  type RequestHead,
  requestDecoder,
  type ResponseHead,
  ResetCode,
  toMeshError,
} from '@cocoon-mesh/protocol';
import { BodyLength, requestBodyLength } from './body-length.ts';
import { HeadLimit } from './head-limit.ts';
import { receiveBody, sendBody } from './http-body.node.ts';
import { endToEnd, fieldValues, listsToken } from './raw-headers.ts';
import { RecordReceiver, RecordSender, settle } from './record-stream.ts';
import {
  addressOf,
  connectError,
  connectTimeout,
  hostHeaderOf,
  type ServiceConnections,
  type ServiceTarget,
} from './service-connections.node.ts';
import { serviceHeaders } from './service-headers.ts';
import { withOwnPaths } from './service-location.node.ts';
import { pipeSocket } from './socket-pipe.node.ts';

export interface ServeHttpOptions {
  /** The service of that name for this peer, or null when there is none or it may not know. May throw MeshError. */
  readonly resolveService: (name: string) => ServiceTarget | null;
  readonly connections: ServiceConnections;
  readonly clock: Clock;
  /** Added to what the service sees, say who asks. */
  readonly requestHeaders?: RawHeaders;
}

/** What came back: an ordinary response, or a connection that changed its protocol. */
type Answer =
  | { readonly kind: 'response'; readonly message: IncomingMessage }
  | {
      readonly kind: 'upgrade';
      readonly message: IncomingMessage;
      readonly socket: Duplex;
      readonly early: Uint8Array;
    };

type Requests = RecordReceiver<RequestHead>;

/** Resolves when the exchange is over and the stream done. Never rejects: failures are answers on the stream. */
export async function serveHttp(stream: Stream, options: ServeHttpOptions): Promise<void> {
  const sender = new RecordSender(stream);
  const requests: Requests = new RecordReceiver(stream, requestDecoder());
  try {
    const head = await requestHead(stream, requests, options.clock);
    const target = resolve(stream, options);
    await new ServiceExchange(stream, sender, requests, head, target, options).run();
  } catch (thrown) {
    sender.fail(toMeshError(thrown, 'bad_gateway'));
    await settle(stream, options.clock);
  }
}

function resolve(stream: Stream, options: ServeHttpOptions): ServiceTarget {
  const target = options.resolveService(decodeServiceOpen(stream.header).service);
  if (!target) throw new MeshError('service_not_found');
  return target;
}

async function requestHead(stream: Stream, requests: Requests, clock: Clock): Promise<RequestHead> {
  const limit = clock.after(limits.openTimeoutMs, () => stream.reset(ResetCode.timeout));
  try {
    const record = await requests.next();
    if (record?.kind !== 'head') throw new MeshError('protocol_violation', 'A request head was expected');
    const { method } = record.head;
    if (method === 'CONNECT' || method === 'TRACE') throw new MeshError('method_not_allowed');
    return record.head;
  } finally {
    limit.cancel();
  }
}

class ServiceExchange {
  readonly #stream: Stream;
  readonly #sender: RecordSender;
  readonly #requests: Requests;
  readonly #head: RequestHead;
  readonly #target: ServiceTarget;
  readonly #options: ServeHttpOptions;
  readonly #bodyLength: number | null;
  readonly #limit: HeadLimit;
  #outgoing: ClientRequest | null = null;

  constructor(
    stream: Stream,
    sender: RecordSender,
    requests: Requests,
    head: RequestHead,
    target: ServiceTarget,
    options: ServeHttpOptions,
  ) {
    this.#stream = stream;
    this.#sender = sender;
    this.#requests = requests;
    this.#head = head;
    this.#target = target;
    this.#options = options;
    this.#bodyLength = requestBodyLength(head);
    this.#limit = new HeadLimit(options.clock, limits.responseHeadTimeoutMs, () =>
      this.#outgoing?.destroy(new MeshError('gateway_timeout')),
    );
  }

  async run(): Promise<void> {
    const cancel = () => this.#outgoing?.destroy();
    this.#stream.signal.addEventListener('abort', cancel, { once: true });
    try {
      const answering = this.#answer();
      const passing = this.#passRequest().catch((thrown: unknown) => {
        this.#outgoing?.destroy(toMeshError(thrown));
      });
      await this.#pass(answering);
      // An early answer is no reason to lose the rest of the request: the service may want it.
      await settle(this.#stream, this.#options.clock, passing);
    } finally {
      this.#stream.signal.removeEventListener('abort', cancel);
    }
  }

  async #pass(answering: Promise<Answer>): Promise<void> {
    try {
      const answer = await answering;
      this.#limit.stop();
      if (answer.kind === 'upgrade') await this.#passUpgrade(answer.message, answer.socket, answer.early);
      else await this.#passResponse(answer.message);
    } catch (thrown) {
      const error = toMeshError(thrown, 'bad_gateway');
      this.#sender.fail(error);
      this.#outgoing?.destroy();
    } finally {
      this.#limit.stop();
    }
  }

  async #answer(): Promise<Answer> {
    if (!this.#repeatable) return this.#attempt(false);
    try {
      return await this.#attempt(true);
    } catch (thrown) {
      if (!this.#outgoing?.reusedSocket || !isStale(thrown) || this.#stream.signal.aborted) throw thrown;
      return await this.#attempt(false);
    }
  }

  /** Safe by RFC 9110 section 9.2.1 and without a body, so that sending it twice does nothing twice. */
  get #repeatable(): boolean {
    const { method, upgrade } = this.#head;
    const safe = method === 'GET' || method === 'HEAD' || method === 'OPTIONS';
    return safe && !this.#hasBody && upgrade === undefined;
  }

  #attempt(kept: boolean): Promise<Answer> {
    const { promise, resolve, reject } = Promise.withResolvers<Answer>();
    const outgoing = this.#open(kept);
    this.#outgoing = outgoing;
    outgoing.on('error', (cause) => reject(connectError(cause)));
    outgoing.on('close', () => reject(new MeshError('bad_gateway')));
    outgoing.on('response', (message) => resolve({ kind: 'response', message }));
    outgoing.on('upgrade', (message, socket, early) => resolve({ kind: 'upgrade', message, socket, early }));
    outgoing.on('information', ({ statusCode, statusMessage, rawHeaders }) => {
      // After 100 it is the client that is awaited, until it has sent its body.
      if (statusCode === 100 && this.#hasBody) this.#limit.pause();
      else this.#limit.start();
      const informational = { status: statusCode, reason: statusMessage, headers: endToEnd(rawHeaders) };
      try {
        this.#sender.send(encodeInformational(informational));
      } catch (thrown) {
        reject(thrown);
      }
    });
    if (!this.#hasBody) outgoing.end();
    this.#limit.start();
    return promise;
  }

  #open(kept: boolean): ClientRequest {
    const { connections, requestHeaders } = this.#options;
    const outgoing = openRequest({
      ...addressOf(this.#target),
      agent: kept ? connections.kept : connections.fresh,
      method: this.#head.method,
      path: this.#head.target,
      headers: serviceHeaders(this.#head, hostHeaderOf(this.#target), requestHeaders ?? []),
      setHost: false,
      maxHeaderSize: limits.maxHttpHeadBytes,
      ...(this.#head.upgrade === undefined ? {} : { allowHalfOpen: true }),
    });
    // 0: as many as fit in the size. The default drops fields above 2,000 without a word.
    outgoing.maxHeadersCount = 0;
    this.#limitConnect(outgoing);
    return outgoing;
  }

  #limitConnect(outgoing: ClientRequest): void {
    outgoing.once('socket', (socket) => {
      if (!socket.connecting) return;
      const timer = this.#options.clock.after(limits.serviceConnectTimeoutMs, () =>
        outgoing.destroy(connectTimeout()),
      );
      const done = () => timer.cancel();
      socket.once('connect', done);
      outgoing.once('close', done);
    });
  }

  get #hasBody(): boolean {
    return this.#bodyLength !== 0;
  }

  async #passRequest(): Promise<void> {
    const outgoing = this.#outgoing;
    if (!outgoing || this.#head.upgrade !== undefined) return;
    if (!this.#hasBody) return this.#expectNoBody();
    // With Expect the service speaks first; otherwise the client is awaited until its body is whole.
    if (!listsToken(this.#head.headers, 'expect', '100-continue')) this.#limit.pause();
    const first = this.#requests.ready() ?? undefined;
    // The service may answer before any of the body comes, so it must see the head. An empty piece sends it.
    if (!first) outgoing.write(new Uint8Array());
    const progress = { moved: () => this.#limit.pause(), blocked: () => this.#limit.start() };
    await receiveBody(this.#requests, outgoing, new BodyLength(this.#bodyLength), progress, first);
    this.#limit.start();
  }

  async #expectNoBody(): Promise<void> {
    const record = await this.#requests.next();
    if (record?.kind !== 'end') throw new MeshError('protocol_violation', 'This request has no body');
  }

  async #passResponse(message: IncomingMessage): Promise<void> {
    this.#sendHead({
      status: message.statusCode ?? 0,
      reason: message.statusMessage ?? '',
      headers: this.#headers(message),
    });
    await sendBody(message, this.#sender);
  }

  async #passUpgrade(message: IncomingMessage, socket: Duplex, early: Uint8Array): Promise<void> {
    // From here on the socket is ours alone: node:http has let go of it.
    socket.on('error', () => undefined);
    try {
      if (this.#head.upgrade === undefined) throw new MeshError('bad_gateway');
      const upgrade = fieldValues(message.rawHeaders, 'upgrade')[0] ?? this.#head.upgrade;
      const headers = this.#headers(message);
      this.#sendHead({ status: 101, reason: message.statusMessage ?? '', headers, upgrade });
    } catch (thrown) {
      socket.destroy();
      throw thrown;
    }
    if (early.length > 0) socket.unshift(early);
    await pipeSocket(socket, this.#stream, async () => {
      const record = await this.#requests.next();
      return record?.kind === 'raw' ? record.bytes : null;
    });
  }

  #headers(message: IncomingMessage): string[] {
    return withOwnPaths(endToEnd(message.rawHeaders), this.#target);
  }

  #sendHead(head: ResponseHead): void {
    let record: Uint8Array;
    try {
      record = encodeResponseHead(head);
    } catch (cause) {
      throw new MeshError('bad_gateway', 'The service sent a head that cannot be passed on', { cause });
    }
    this.#sender.send(record);
  }
}

/** The kept connection was closed by the service before it read the request. */
function isStale(thrown: unknown): boolean {
  const cause = thrown instanceof Error ? thrown.cause : undefined;
  const code = cause instanceof Error && 'code' in cause ? cause.code : undefined;
  return code === 'ECONNRESET' || code === 'EPIPE';
}
