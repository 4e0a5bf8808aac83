/** What an HTTP answer says of an error, at a gateway and at signaling alike: a problem (RFC 9457) with a code. */

import { utf8 } from './bytes.ts';
import type { MeshError } from './errors.ts';

export const problemType = 'application/problem+json';

/** @param more further members */
export function problemBody(error: MeshError, more: Readonly<Record<string, unknown>> = {}): string {
  const { code, message, hint, status } = error;
  return JSON.stringify({
    type: 'about:blank',
    title: message,
    status,
    code,
    ...(hint === '' ? {} : { hint }),
    ...more,
  });
}

/** A whole answer, for a socket whose HTTP has come to its end: a refused upgrade, a request that cannot be read. */
export function problemText(
  error: MeshError,
  headers: Readonly<Record<string, string>> = {},
  body = problemBody(error),
): string {
  const all = {
    ...headers,
    Connection: 'close',
    'Content-Type': problemType,
    'Content-Length': String(utf8(body).length),
  };
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
  return `HTTP/1.1 ${error.status} Refused\r\n${lines.join('')}\r\n${body}`;
}
