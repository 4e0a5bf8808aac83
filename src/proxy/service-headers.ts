/**
 * What a service sees of a request: the client's fields as they were, the service's own Host, and who was
 * asked in X-Forwarded-Host and -Proto, as from any reverse proxy.
 */

import type { RawHeaders, RequestHead } from '@cocoon-mesh/protocol';
import { endToEnd, fieldValues, withoutFields } from './raw-headers.ts';

/** Said by this hop anew: a client's own word about who forwarded its request is no evidence. */
const forwarding: ReadonlySet<string> = new Set([
  'forwarded',
  'x-forwarded-for',
  'x-forwarded-host',
  'x-forwarded-proto',
]);
const host: ReadonlySet<string> = new Set(['host']);

export function serviceHeaders(head: RequestHead, hostHeader: string, extra: RawHeaders): string[] {
  const asked = fieldValues(head.headers, 'host')[0];
  const scheme = head.scheme ?? 'http';
  const rest = withoutFields(withoutFields(endToEnd(head.headers), host), forwarding);
  const headers = ['Host', hostHeader, ...withSameOrigin(rest, asked, scheme, hostHeader), ...extra];
  if (asked !== undefined) headers.push('X-Forwarded-Host', asked, 'X-Forwarded-Proto', scheme);
  return [...headers, ...framing(head)];
}

/**
 * A page of the service that calls its own service is same-origin, and must stay so for services that compare
 * Origin with Host (WebSockets of Grafana, Jupyter and others). Any other origin passes as it is: the service's
 * own guard against foreign pages keeps its meaning.
 */
function withSameOrigin(
  headers: string[],
  asked: string | undefined,
  scheme: string,
  hostHeader: string,
): string[] {
  if (asked === undefined) return headers;
  const own = `${scheme}://${asked}`.toLowerCase();
  return headers.map((text, i) => {
    const isOrigin = i % 2 === 1 && headers[i - 1]?.toLowerCase() === 'origin';
    return isOrigin && text.toLowerCase() === own ? `http://${hostHeader}` : text;
  });
}

/** The hop-by-hop fields of this hop, made anew. */
function framing(head: RequestHead): string[] {
  const headers: string[] = [];
  if (head.chunked === true) headers.push('Transfer-Encoding', 'chunked');
  // Without a word about the body node:http would announce a chunked one.
  else if (fieldValues(head.headers, 'content-length').length === 0 && expectsBody(head)) {
    headers.push('Content-Length', '0');
  }
  if (head.upgrade !== undefined) headers.push('Connection', 'Upgrade', 'Upgrade', head.upgrade);
  // Trailers pass at every hop, so the promise to take them can be made again (RFC 9110 section 10.1.4).
  else if (head.trailers === true) headers.push('Connection', 'keep-alive, TE', 'TE', 'trailers');
  return headers;
}

function expectsBody(head: RequestHead): boolean {
  return head.upgrade === undefined && !bodyless.has(head.method);
}

/** Methods for which node:http announces no body by itself. */
const bodyless: ReadonlySet<string> = new Set(['GET', 'HEAD', 'DELETE', 'OPTIONS', 'TRACE', 'CONNECT']);
