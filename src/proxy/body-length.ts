/**
 * Holds a body to the length its head promised. Bytes beyond it would be read as the next message of the
 * connection (request and response smuggling), and a shorter body would leave the next message eaten.
 */

import { MeshError, type RequestHead, type ResponseHead } from '@cocoon-mesh/protocol';
import { contentLength, fieldValues } from './raw-headers.ts';

export class BodyLength {
  #left: number | null;

  /** `expected` bytes, or null when the end of the body is told otherwise. */
  constructor(expected: number | null) {
    this.#left = expected;
  }

  /** @throws MeshError protocol_violation */
  add(bytes: number): void {
    if (this.#left === null) return;
    this.#left -= bytes;
    if (this.#left < 0) throw new MeshError('protocol_violation', 'A body is longer than its head says');
  }

  /** @throws MeshError protocol_violation */
  finish(): void {
    if (this.#left !== null && this.#left > 0) {
      throw new MeshError('protocol_violation', 'A body is shorter than its head says');
    }
  }
}

/** What the body of a request must be; also refuses heads that two servers could read differently. */
export function requestBodyLength(head: RequestHead): number | null {
  assertNoTransferEncoding(head.headers);
  const length = contentLength(head.headers);
  if (head.chunked !== true) return length ?? 0;
  if (length !== null) throw new MeshError('bad_message', 'A body has a length or is chunked, not both');
  return null;
}

/** RFC 9112 section 6.3: answers to HEAD, and 204 and 304, have no body whatever their head says. */
export function responseBodyLength(head: ResponseHead, method: string): number | null {
  assertNoTransferEncoding(head.headers);
  const length = contentLength(head.headers);
  return hasNoBody(head.status, method) ? 0 : length;
}

export function hasNoBody(status: number, method: string): boolean {
  return method === 'HEAD' || status === 204 || status === 304;
}

function assertNoTransferEncoding(headers: readonly string[]): void {
  if (fieldValues(headers, 'transfer-encoding').length > 0) {
    throw new MeshError('bad_message', 'Transfer-Encoding ends at a hop and may not be passed on');
  }
}
