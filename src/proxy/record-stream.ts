/**
 * Records over a stream of a session: writing with back-pressure, reading one by one, and ending an exchange so
 * that neither side keeps the stream. What the records mean is `http-messages.ts` and its users.
 */

import type { Stream } from '@cocoon-mesh/mesh';
import {
  type Clock,
  encodeBody,
  encodeBodyPrefix,
  encodeEnd,
  encodeProxyError,
  type ErrorCode,
  type HttpRecord,
  type HttpRecordDecoder,
  maxBodyRecordBytes,
  MeshError,
  type RawHeaders,
  ResetCode,
  toMeshError,
} from '@cocoon-mesh/protocol';

/** Up to here copying a piece of body is cheaper than sending its prefix as a frame of its own. */
const copyLimitBytes = 8 * 1024;

/** How long the other side may take to end its direction after ours is over. */
export const lingerMs = 5_000;

export class RecordSender {
  readonly #stream: Stream;

  constructor(stream: Stream) {
    this.#stream = stream;
  }

  /** As `Stream.signal`. */
  get signal(): AbortSignal {
    return this.#stream.signal;
  }

  /** False: wait for `drained` before more. @throws MeshError when the stream is over */
  send(record: Uint8Array): boolean {
    return this.#stream.write(record);
  }

  /** As `send`; the bytes are the stream's from here on. */
  body(bytes: Uint8Array): boolean {
    if (bytes.length <= copyLimitBytes) return bytes.length === 0 || this.#stream.write(encodeBody(bytes));
    if (bytes.length > maxBodyRecordBytes) {
      this.body(bytes.subarray(0, maxBodyRecordBytes));
      return this.body(bytes.subarray(maxBodyRecordBytes));
    }
    this.#stream.write(encodeBodyPrefix(bytes.length));
    return this.#stream.write(bytes);
  }

  /** The body was whole. */
  end(trailers: RawHeaders = []): void {
    this.#stream.write(encodeEnd(trailers));
    this.#stream.end();
  }

  /** The answer is this error, or, after a head, broken off by it. Quiet when the stream is over already. */
  fail(error: MeshError): void {
    try {
      this.#stream.write(encodeProxyError(error));
      this.#stream.end();
    } catch {
      this.#stream.reset(ResetCode.internal);
    }
  }

  drained(): Promise<void> {
    return this.#stream.drained();
  }
}

export class RecordReceiver<Head extends { readonly upgrade?: string | undefined }> {
  readonly #stream: Stream;
  readonly #decoder: HttpRecordDecoder<Head>;

  constructor(stream: Stream, decoder: HttpRecordDecoder<Head>) {
    this.#stream = stream;
    this.#decoder = decoder;
  }

  /** As `Stream.signal`. */
  get signal(): AbortSignal {
    return this.#stream.signal;
  }

  /** A record that is here already, or null. @throws as `HttpRecordDecoder.next` */
  ready(): HttpRecord<Head> | null {
    return this.#decoder.next();
  }

  /**
   * The next record, or null after a direction that ended as it should.
   * @throws MeshError stream_reset when it was broken off, as `HttpRecordDecoder.next`, and as `Stream.read`
   */
  async next(): Promise<HttpRecord<Head> | null> {
    for (;;) {
      const record = this.#decoder.next();
      if (record) return record;
      const bytes = await this.#stream.read();
      if (bytes !== null) this.#decoder.push(bytes);
      else if (this.#decoder.complete) return null;
      else throw new MeshError('stream_reset', 'The other side broke off in the middle');
    }
  }
}

/**
 * The end of an exchange: waits for `pending` (whoever still reads the stream; must not reject), then reads what
 * remains of the other direction and throws it away. Cuts the stream when that takes longer than five seconds.
 */
export async function settle(stream: Stream, clock: Clock, pending?: Promise<void>): Promise<void> {
  const limit = clock.after(lingerMs, () => stream.reset(ResetCode.timeout));
  try {
    await pending;
    while ((await stream.read()) !== null);
  } catch {
    // Reset or gone: it is over, which is all that was wanted.
  } finally {
    limit.cancel();
  }
}

/** What a reset says about the request that used the stream. */
const requestErrorOfReset: ReadonlyMap<unknown, ErrorCode> = new Map<unknown, ErrorCode>([
  [ResetCode.denied, 'denied'],
  [ResetCode.notFound, 'service_not_found'],
  [ResetCode.tooManyStreams, 'overloaded'],
  [ResetCode.timeout, 'gateway_timeout'],
  [ResetCode.refused, 'service_refused'],
  [ResetCode.shuttingDown, 'shutting_down'],
  [ResetCode.revoked, 'revoked'],
]);

/** The error of a stream as the answer to its request. */
export function requestError(thrown: unknown): MeshError {
  const error = toMeshError(thrown);
  const code = error.code === 'stream_reset' ? requestErrorOfReset.get(error.cause) : undefined;
  return code === undefined ? error : new MeshError(code, undefined, { cause: error });
}
