/** What the HTTP routes answer with: JSON, problems (RFC 9457) with a code of the table, and the headers of both. */

import type { IncomingMessage, ServerResponse } from 'node:http';
import type { MeshError } from '@cocoon-mesh/protocol';
import { problemBody, problemText, problemType } from '@cocoon-mesh/protocol';
import { RateLimited } from './rate-limits.ts';

/** For answers that no browser shows: nothing may be loaded, nobody may frame them or guess their type. */
export const answerHeaders: Readonly<Record<string, string>> = {
  'Content-Security-Policy': "default-src 'none'; frame-ancestors 'none'",
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'no-referrer',
  'Cache-Control': 'no-store',
};

export function answerJson(response: ServerResponse, value: unknown): void {
  answer(response, 200, 'application/json', JSON.stringify(value));
}

export function answer(response: ServerResponse, status: number, type: string, body: string): void {
  response.writeHead(status, {
    ...answerHeaders,
    'Content-Type': type,
    'Content-Length': Buffer.byteLength(body),
  });
  response.end(body);
}

export function answerProblem(
  request: IncomingMessage,
  response: ServerResponse,
  error: MeshError,
  headers: Readonly<Record<string, string>> = {},
): void {
  if (response.headersSent) {
    response.destroy();
    return;
  }
  for (const [name, value] of Object.entries({ ...headers, ...problemHeaders(error) }))
    response.setHeader(name, value);
  // A body that nobody will read must not be taken for the next request.
  if (!request.complete) response.setHeader('Connection', 'close');
  answer(response, error.status, problemType, bodyOf(error));
}

/** The same for a socket that speaks no more HTTP: an upgrade that is refused, a request that cannot be read. */
export function rawProblem(error: MeshError): string {
  return problemText(error, { ...answerHeaders, ...problemHeaders(error) }, bodyOf(error));
}

function bodyOf(error: MeshError): string {
  const wait = error instanceof RateLimited ? { retry_after_ms: Math.ceil(error.retryAfterMs) } : {};
  return problemBody(error, wait);
}

function problemHeaders(error: MeshError): Record<string, string> {
  if (error instanceof RateLimited) return { 'Retry-After': String(Math.ceil(error.retryAfterMs / 1000)) };
  if (error.code === 'unauthorized') return { 'WWW-Authenticate': 'Bearer' };
  return {};
}
