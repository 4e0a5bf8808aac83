/**
 * A request over a stream for programs that have no gateway in between: the CLI, the daemon's own requests, and
 * a browser tab over its session. Bodies are web streams and byte iterables; nothing is collected.
 */

import type { Stream } from '@cocoon-mesh/mesh';
import {
  type Clock,
  encodeRequestHead,
  type InformationalHead,
  limits,
  MeshError,
  type RawHeaders,
  type RequestHead,
  ResetCode,
  type ResponseHead,
  responseDecoder,
} from '@cocoon-mesh/protocol';
import { BodyLength, responseBodyLength } from './body-length.ts';
import { HeadLimit } from './head-limit.ts';
import { contentLength, endToEnd, fieldValues, safeTrailers } from './raw-headers.ts';
import { RecordReceiver, RecordSender, requestError, settle } from './record-stream.ts';

export interface FetchRequest {
  /** Default GET. */
  readonly method?: string;
  /** Path and query, raw. */
  readonly path: string;
  readonly headers?: RawHeaders;
  /** Bytes get a Content-Length; anything else is chunked unless the headers say its length. */
  readonly body?: Uint8Array | AsyncIterable<Uint8Array> | ReadableStream<Uint8Array> | null;
}

export interface FetchOptions {
  readonly clock: Clock;
  /** Ends the request and the response's body. */
  readonly signal?: AbortSignal;
  readonly onInformational?: (head: InformationalHead) => void;
}

export interface FetchResponse {
  readonly status: number;
  readonly reason: string;
  readonly headers: RawHeaders;
  /** Values of one field in order; the name in any case. */
  values(name: string): string[];
  /** Read it to its end or cancel it, also when it is empty: that is what ends the stream. Errors with MeshError when the body broke off. Cancelling it ends the request. */
  readonly body: ReadableStream<Uint8Array>;
  /** Empty until the body was read to its end. */
  readonly trailers: () => RawHeaders;
}

/** As at a gateway: the device's own limit, and the way there and back. */
const answerTimeoutMs = limits.responseHeadTimeoutMs + limits.serviceConnectTimeoutMs;

/**
 * Sends a request on a fresh stream of `httpProtocol` and resolves with the response's head. The stream belongs
 * to the request from here on, also when this throws.
 * @throws MeshError what the device answers (service_not_found, service_refused, gateway_timeout, …), cancelled,
 *   and as the stream
 */
export async function fetchThrough(
  stream: Stream,
  request: FetchRequest,
  options: FetchOptions,
): Promise<FetchResponse> {
  const exchange = new FetchExchange(stream, request, options);
  return await exchange.run();
}

class FetchExchange {
  readonly #stream: Stream;
  readonly #request: FetchRequest;
  readonly #options: FetchOptions;
  readonly #sender: RecordSender;
  readonly #receiver: RecordReceiver<ResponseHead>;
  #sending: Promise<void> = Promise.resolve();
  #trailers: RawHeaders = [];
  /** Why the stream was cut from this side. */
  #failure: MeshError | null = null;
  readonly #cancel = () => this.#cut(new MeshError('cancelled'), ResetCode.cancel);

  constructor(stream: Stream, request: FetchRequest, options: FetchOptions) {
    this.#stream = stream;
    this.#request = request;
    this.#options = options;
    this.#sender = new RecordSender(stream);
    this.#receiver = new RecordReceiver(stream, responseDecoder());
  }

  async run(): Promise<FetchResponse> {
    const { clock, signal } = this.#options;
    signal?.addEventListener('abort', this.#cancel, { once: true });
    if (signal?.aborted) this.#cancel();
    const limit = new HeadLimit(clock, answerTimeoutMs, () =>
      this.#cut(new MeshError('gateway_timeout'), ResetCode.timeout),
    );
    try {
      this.#sender.send(encodeRequestHead(requestHead(this.#request)));
      this.#sending = this.#sendBody(limit).catch((thrown: unknown) => {
        this.#cut(requestError(thrown), ResetCode.cancel);
      });
      return this.#response(await this.#head(limit));
    } catch (thrown) {
      throw this.#over(thrown);
    } finally {
      limit.stop();
    }
  }

  async #sendBody(limit: HeadLimit): Promise<void> {
    const { body } = this.#request;
    if (body instanceof Uint8Array) {
      if (!this.#sender.body(body)) await this.#sender.drained();
    } else if (body) {
      for await (const piece of pieces(body)) {
        if (this.#stream.signal.aborted) return;
        if (!this.#sender.body(piece)) await this.#sender.drained();
      }
    }
    this.#sender.end();
    limit.start();
  }

  async #head(limit: HeadLimit): Promise<ResponseHead> {
    for (;;) {
      const record = await this.#receiver.next();
      if (record?.kind === 'head' && record.head.status !== 101) return record.head;
      if (record?.kind === 'error') throw record.error;
      if (record?.kind !== 'informational') {
        throw new MeshError('protocol_violation', 'A response head was expected');
      }
      limit.start();
      this.#options.onInformational?.(record.head);
    }
  }

  #response(head: ResponseHead): FetchResponse {
    const headers = endToEnd(head.headers);
    const length = new BodyLength(responseBodyLength(head, this.#request.method ?? 'GET'));
    const body = new ReadableStream<Uint8Array>(
      { pull: (controller) => this.#pull(controller, length), cancel: this.#cancel },
      // Nothing is read ahead: a reader that stops stops the sender.
      { highWaterMark: 0 },
    );
    return {
      status: head.status,
      reason: head.reason,
      headers,
      values: (name) => fieldValues(headers, name.toLowerCase()),
      body,
      trailers: () => this.#trailers,
    };
  }

  async #pull(controller: ReadableStreamDefaultController<Uint8Array>, length: BodyLength): Promise<void> {
    try {
      const record = await this.#receiver.next();
      if (record?.kind === 'body') {
        length.add(record.bytes.length);
        controller.enqueue(record.bytes);
      } else if (record?.kind === 'end') {
        length.finish();
        this.#trailers = safeTrailers(record.trailers);
        this.#options.signal?.removeEventListener('abort', this.#cancel);
        controller.close();
        await settle(this.#stream, this.#options.clock, this.#sending);
      } else {
        throw record?.kind === 'error' ? record.error : new MeshError('bad_gateway');
      }
    } catch (thrown) {
      throw this.#over(thrown);
    }
  }

  #cut(error: MeshError, code: ResetCode): void {
    this.#failure ??= error;
    this.#stream.reset(code);
  }

  /** Frees everything; gives the error to throw. */
  #over(thrown: unknown): MeshError {
    const error = this.#failure ?? requestError(thrown);
    this.#options.signal?.removeEventListener('abort', this.#cancel);
    this.#stream.reset(ResetCode.cancel);
    return error;
  }
}

function requestHead({ method = 'GET', path, headers = [], body }: FetchRequest): RequestHead {
  const passed = endToEnd(headers);
  const known = contentLength(passed) !== null;
  if (body instanceof Uint8Array && !known) passed.push('Content-Length', String(body.length));
  const chunked = body !== undefined && body !== null && !(body instanceof Uint8Array) && !known;
  return { method, target: path, headers: passed, trailers: true, ...(chunked ? { chunked } : {}) };
}

/** Not every browser iterates over a ReadableStream. */
async function* pieces(
  body: AsyncIterable<Uint8Array> | ReadableStream<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  if (!(body instanceof ReadableStream)) {
    yield* body;
    return;
  }
  const reader = body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}
