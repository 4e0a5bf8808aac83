/**
 * HTTP and TCP between two peers, as bytes of a stream. Each direction of `/cocoon/http/1` is a row of records:
 *
 *   0      1              4
 *   +------+--------------+---------
 *   | kind | length (u24) | payload
 *   +------+--------------+---------
 *
 *   request:   head, body…, end          response: informational…, head, body…, end
 *
 * A `head` with `upgrade` ends the records of its direction: raw bytes follow. An `error` may stand wherever a
 * response is not over yet. A direction that ends without `end` was broken off, which is how a truncated body
 * differs from a whole one. `/cocoon/tcp/1` begins, from the service's side only, with `connected` or `error`;
 * raw bytes follow. What a gateway and a device make of these is the proxy's matter.
 */

import * as z from 'zod/mini';
import { type Bytes, concat } from './bytes.ts';
import { decode, encode, type Schema } from './codec.ts';
import { type ErrorCode, isErrorCode, MeshError } from './errors.ts';
import { limits } from './limits.ts';
import { streamProtocols } from './versions.ts';

export const httpProtocol = streamProtocols.http;
export const tcpProtocol = streamProtocols.tcp;

export const recordHeadBytes = 4;
const maxWaitingPieces = 256;

/** Written out and never reused. */
export const RecordKind = {
  head: 1,
  informational: 2,
  body: 3,
  /** Payload: trailers, or nothing when there are none. */
  end: 4,
  error: 5,
  connected: 6,
} as const;
export type RecordKind = (typeof RecordKind)[keyof typeof RecordKind];

/** A body of any length is cut into records of at most this many bytes. */
export const maxBodyRecordBytes = 0xff_ffff;

/**
 * Fields are Latin-1 text and MessagePack is UTF-8, which takes at most two bytes for each; lengths cost less
 * than the colon, space and line end that they stand for.
 */
export const maxHeadRecordBytes = 2 * limits.maxHttpHeadBytes;

/** Name, value, name, value… as they stood on the wire: order, case and repetition kept, values Latin-1. */
export type RawHeaders = readonly string[];

const tokenPattern = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}$/;
const fieldNamePattern = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
/** RFC 9110 section 5.5: no control characters but the tab. */
const fieldValuePattern = /^[\t\x20-\x7e\x80-\xff]*$/;
/** Origin form or `*`, raw: percent signs and bytes above 0x7f pass unchanged. */
const targetPattern = /^(\/[\x21-\x7e\x80-\xff]*|\*)$/;

const headersSchema: Schema<RawHeaders> = z
  .array(z.string())
  .check(z.refine(areRawHeaders, { error: 'not a list of header fields' }));
const reasonSchema = z.string().check(z.maxLength(1024), z.regex(fieldValuePattern));
const upgradeSchema = z.string().check(z.minLength(1), z.maxLength(256), z.regex(fieldValuePattern));

/** The OPEN header of both protocols. Which names exist is the device's to say. */
export const serviceOpenSchema = z.object({ service: z.string().check(z.minLength(1), z.maxLength(64)) });
export type ServiceOpen = z.infer<typeof serviceOpenSchema>;

export const requestHeadSchema = z.object({
  method: z.string().check(z.regex(tokenPattern)),
  /** Path and query as received. */
  target: z.string().check(z.regex(targetPattern)),
  headers: headersSchema,
  /** There is a body whose length no Content-Length tells. */
  chunked: z.optional(z.boolean()),
  /** The client takes trailers (`TE: trailers`, which ends at its hop). */
  trailers: z.optional(z.boolean()),
  /** The value of Upgrade; raw bytes follow in place of a body. */
  upgrade: z.optional(upgradeSchema),
  /** How the client reached the asking gateway. */
  scheme: z.optional(z.enum(['http', 'https'])),
});
export type RequestHead = z.infer<typeof requestHeadSchema>;

export const responseHeadSchema = z
  .object({
    status: z.int().check(z.gte(101), z.lte(999)),
    reason: reasonSchema,
    headers: headersSchema,
    /** With status 101 and only there. */
    upgrade: z.optional(upgradeSchema),
  })
  .check(
    z.refine((head) => (head.status === 101) === (head.upgrade !== undefined) && !isInterim(head.status), {
      error: 'not a final status',
    }),
  );
export type ResponseHead = z.infer<typeof responseHeadSchema>;

export const informationalHeadSchema = z.object({
  status: z.int().check(z.refine(isInterim, { error: 'not an interim status' })),
  reason: reasonSchema,
  headers: headersSchema,
});
export type InformationalHead = z.infer<typeof informationalHeadSchema>;

export const proxyErrorSchema = z.object({
  code: z.string().check(z.maxLength(64)),
  message: z.string().check(z.maxLength(1024)),
});
export type ProxyError = z.infer<typeof proxyErrorSchema>;

export type HttpRecord<Head> =
  | { readonly kind: 'head'; readonly head: Head }
  | { readonly kind: 'informational'; readonly head: InformationalHead }
  /** A piece of the body, not always a whole record: nothing waits for the rest. */
  | { readonly kind: 'body'; readonly bytes: Uint8Array }
  | { readonly kind: 'end'; readonly trailers: RawHeaders }
  | { readonly kind: 'error'; readonly error: MeshError }
  /** After a head with `upgrade`, or after `connected`. */
  | { readonly kind: 'raw'; readonly bytes: Uint8Array }
  | { readonly kind: 'connected' };

/** @throws MeshError bad_message */
export function encodeServiceOpen(open: ServiceOpen): Bytes {
  return encode(serviceOpenSchema, open);
}

/** @throws MeshError message_too_large | bad_message */
export function decodeServiceOpen(bytes: Uint8Array): ServiceOpen {
  return decode(serviceOpenSchema, bytes, limits.maxOpenHeaderBytes);
}

/** @throws MeshError bad_message | header_too_large */
export function encodeRequestHead(head: RequestHead): Bytes {
  return encodeHead(RecordKind.head, requestHeadSchema, head);
}

/** @throws MeshError bad_message | header_too_large */
export function encodeResponseHead(head: ResponseHead): Bytes {
  return encodeHead(RecordKind.head, responseHeadSchema, head);
}

/** @throws MeshError bad_message | header_too_large */
export function encodeInformational(head: InformationalHead): Bytes {
  return encodeHead(RecordKind.informational, informationalHeadSchema, head);
}

/** @throws MeshError bad_message | header_too_large */
export function encodeEnd(trailers: RawHeaders): Bytes {
  return trailers.length === 0
    ? encodeRecord(RecordKind.end, new Uint8Array())
    : encodeHead(RecordKind.end, headersSchema, trailers);
}

export function encodeProxyError(error: MeshError): Bytes {
  const message = error.message.slice(0, 512);
  return encodeRecord(RecordKind.error, encode(proxyErrorSchema, { code: error.code, message }));
}

export function encodeConnected(): Bytes {
  return encodeRecord(RecordKind.connected, new Uint8Array());
}

/** The four bytes before a piece of body of `length` bytes, at most `maxBodyRecordBytes`. */
export function encodeBodyPrefix(length: number): Bytes {
  return writePrefix(new Uint8Array(recordHeadBytes), RecordKind.body, length);
}

/** Prefix and piece in one, for pieces that are cheaper to copy than to send as two. */
export function encodeBody(bytes: Uint8Array): Bytes {
  return encodeRecord(RecordKind.body, bytes);
}

/** What may stand in one direction of a stream. */
type Direction = 'request' | 'response' | 'tcp';
type State = 'head' | 'body' | 'raw' | 'over';

/**
 * Reads the records of one direction as the bytes come: `push` a piece, then `next` until it gives null. Body
 * bytes are views of what was pushed; only heads that arrive in pieces are put together.
 */
export class HttpRecordDecoder<Head extends { readonly upgrade?: string | undefined }> {
  readonly #direction: Direction;
  readonly #headSchema: Schema<Head>;
  #state: State = 'head';
  /** Pieces that were pushed and not yet joined: joining on every push would cost the square of the length. */
  #waiting: Uint8Array[] = [];
  #waitingBytes = 0;
  #input: Uint8Array = new Uint8Array();
  /** What `#input` must hold before the next record can be told. */
  #needed = 1;
  /** Bytes of the current body record still to come. */
  #bodyLeft = 0;

  constructor(direction: Direction, headSchema: Schema<Head>) {
    this.#direction = direction;
    this.#headSchema = headSchema;
  }

  /** True once the direction ended as it should: after `end` or `error`, or any time after an upgrade. */
  get complete(): boolean {
    return this.#state === 'over' || this.#state === 'raw';
  }

  push(bytes: Uint8Array): void {
    this.#waiting.push(bytes);
    this.#waitingBytes += bytes.length;
    // A head that comes byte by byte must not cost an object for each.
    if (this.#waiting.length === maxWaitingPieces) this.#join();
  }

  /**
   * The next record, or null when more bytes are needed.
   * @throws MeshError protocol_violation | bad_message | header_too_large; nothing can be read after it
   */
  next(): HttpRecord<Head> | null {
    if (!this.#has(this.#needed)) return null;
    if (this.#state === 'raw') return { kind: 'raw', bytes: this.#take(this.#input.length) };
    if (this.#state === 'over') throw violation('bytes follow the end of a message');
    if (this.#bodyLeft > 0) return this.#bodyPiece();
    if (!this.#has(recordHeadBytes)) return null;
    const kind = this.#byte(0);
    const length = (this.#byte(1) << 16) | (this.#byte(2) << 8) | this.#byte(3);
    this.#assertFits(kind, length);
    if (kind === RecordKind.body) {
      this.#take(recordHeadBytes);
      this.#bodyLeft = length;
      return this.next();
    }
    if (!this.#has(recordHeadBytes + length)) return null;
    this.#take(recordHeadBytes);
    return this.#control(kind, this.#take(length));
  }

  #bodyPiece(): HttpRecord<Head> {
    const bytes = this.#take(Math.min(this.#input.length, this.#bodyLeft));
    this.#bodyLeft -= bytes.length;
    return { kind: 'body', bytes };
  }

  /** Whether `length` bytes lie in `#input`; joins what waits when that makes it so. */
  #has(length: number): boolean {
    if (this.#input.length >= length) return true;
    if (this.#input.length + this.#waitingBytes < length) {
      this.#needed = length;
      return false;
    }
    this.#join();
    this.#needed = 1;
    return true;
  }

  #join(): void {
    const [first] = this.#waiting;
    const single = this.#input.length === 0 && this.#waiting.length === 1 ? first : undefined;
    this.#input = single ?? concat(this.#input, ...this.#waiting);
    this.#waiting = [];
    this.#waitingBytes = 0;
  }

  #byte(at: number): number {
    return this.#input[at] ?? 0;
  }

  #take(length: number): Uint8Array {
    const bytes = this.#input.subarray(0, length);
    this.#input = this.#input.subarray(length);
    return bytes;
  }

  #assertFits(kind: number, length: number): void {
    if (!isAllowed(this.#direction, this.#state, kind)) throw violation(`record ${kind} may not stand here`);
    // An empty body record would be a way to make the reader work for nothing.
    if (kind === RecordKind.body && length === 0) throw violation('a body record is empty');
    if (kind === RecordKind.connected && length > 0) throw violation('this record has no payload');
    if (kind !== RecordKind.body && length > maxHeadRecordBytes) throw new MeshError('header_too_large');
  }

  #control(kind: number, payload: Uint8Array): HttpRecord<Head> {
    if (kind === RecordKind.head) {
      const head = decode(this.#headSchema, payload, maxHeadRecordBytes);
      this.#state = head.upgrade === undefined ? 'body' : 'raw';
      return { kind: 'head', head };
    }
    if (kind === RecordKind.informational) {
      return { kind: 'informational', head: decode(informationalHeadSchema, payload, maxHeadRecordBytes) };
    }
    if (kind === RecordKind.connected) {
      this.#state = 'raw';
      return { kind: 'connected' };
    }
    this.#state = 'over';
    if (kind === RecordKind.error) return { kind: 'error', error: decodeProxyError(payload) };
    const trailers = payload.length === 0 ? [] : decode(headersSchema, payload, maxHeadRecordBytes);
    return { kind: 'end', trailers };
  }
}

export function requestDecoder(): HttpRecordDecoder<RequestHead> {
  return new HttpRecordDecoder<RequestHead>('request', requestHeadSchema);
}

export function responseDecoder(): HttpRecordDecoder<ResponseHead> {
  return new HttpRecordDecoder<ResponseHead>('response', responseHeadSchema);
}

/** Of the side that has the service; the other side sends raw bytes from the start. */
export function tcpDecoder(): HttpRecordDecoder<never> {
  return new HttpRecordDecoder<never>('tcp', z.never());
}

function isAllowed(direction: Direction, state: State, kind: number): boolean {
  if (kind === RecordKind.error) return direction !== 'request';
  if (direction === 'tcp') return kind === RecordKind.connected;
  if (state === 'body') return kind === RecordKind.body || kind === RecordKind.end;
  return kind === RecordKind.head || (kind === RecordKind.informational && direction === 'response');
}

/** What the other device may say about a request. Anything else from it would speak for this gateway. */
const remoteCodes: ReadonlySet<ErrorCode> = new Set([
  'bad_gateway',
  'bad_message',
  'denied',
  'gateway_timeout',
  'header_too_large',
  'method_not_allowed',
  'not_found',
  'overloaded',
  'service_not_found',
  'service_refused',
  'shutting_down',
  'wrong_service_type',
]);

function decodeProxyError(payload: Uint8Array): MeshError {
  const { code, message } = decode(proxyErrorSchema, payload, limits.maxOpenHeaderBytes);
  return isErrorCode(code) && remoteCodes.has(code)
    ? new MeshError(code, message)
    : new MeshError('bad_gateway');
}

function encodeHead<T>(kind: RecordKind, schema: Schema<T>, value: T): Bytes {
  const payload = encode(schema, value);
  if (payload.length > maxHeadRecordBytes) throw new MeshError('header_too_large');
  return encodeRecord(kind, payload);
}

function encodeRecord(kind: RecordKind, payload: Uint8Array): Bytes {
  const record = new Uint8Array(recordHeadBytes + payload.length);
  writePrefix(record, kind, payload.length);
  record.set(payload, recordHeadBytes);
  return record;
}

function writePrefix(record: Bytes, kind: RecordKind, length: number): Bytes {
  record[0] = kind;
  record[1] = length >>> 16;
  record[2] = length >>> 8;
  record[3] = length;
  return record;
}

function areRawHeaders(list: readonly string[]): boolean {
  if (list.length % 2 !== 0) return false;
  for (let i = 0; i < list.length; i += 2) {
    if (!fieldNamePattern.test(list[i] ?? '') || !fieldValuePattern.test(list[i + 1] ?? '')) return false;
  }
  return true;
}

/** 101 is final for the records: it ends them. */
function isInterim(status: number): boolean {
  return status >= 100 && status < 200 && status !== 101;
}

function violation(message: string): MeshError {
  return new MeshError('protocol_violation', message);
}
