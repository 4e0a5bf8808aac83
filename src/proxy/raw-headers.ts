/**
 * Header fields as flat lists of names and values, as they stood on the wire: which of them end at a hop, what
 * they say about the body. Nothing here knows sockets or streams.
 */

import { MeshError, type RawHeaders } from '@cocoon-mesh/protocol';

/** RFC 9110 section 7.6.1, and the two Proxy fields, which speak to this hop alone. */
const hopByHop: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'transfer-encoding',
  'upgrade',
]);

/** Listing these in Connection would take the body's frame or the name of the site away from the next hop. */
const neverHopByHop: ReadonlySet<string> = new Set(['content-length', 'host']);

/** Fields that would change the frame or the routing when they come after the body. RFC 9110 section 6.5.1. */
const notInTrailers: ReadonlySet<string> = new Set([
  ...hopByHop,
  'content-encoding',
  'content-length',
  'content-range',
  'content-type',
  'host',
  'trailer',
]);

/** Every value of a field, in order. `name` is lower-case. */
export function fieldValues(headers: RawHeaders, name: string): string[] {
  const values: string[] = [];
  for (let i = 0; i < headers.length; i += 2) {
    // Comparing lengths first: almost every field is another one.
    if (headers[i]?.length === name.length && headers[i]?.toLowerCase() === name) {
      values.push(headers[i + 1] ?? '');
    }
  }
  return values;
}

/** Without the fields of these lower-case names. */
export function withoutFields(headers: RawHeaders, names: ReadonlySet<string>): string[] {
  const kept: string[] = [];
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i] ?? '';
    if (!names.has(name.toLowerCase())) kept.push(name, headers[i + 1] ?? '');
  }
  return kept;
}

/** What goes on to the next hop: the list without hop-by-hop fields, those named by Connection included. */
export function endToEnd(headers: RawHeaders): string[] {
  const listed = listedTokens(fieldValues(headers, 'connection')).filter((name) => !neverHopByHop.has(name));
  return withoutFields(
    headers,
    listed.every((name) => hopByHop.has(name)) ? hopByHop : new Set([...hopByHop, ...listed]),
  );
}

export function safeTrailers(trailers: RawHeaders): string[] {
  return withoutFields(trailers, notInTrailers);
}

/** Whether a comma-separated field lists this lower-case token. */
export function listsToken(headers: RawHeaders, name: string, token: string): boolean {
  return listedTokens(fieldValues(headers, name)).some((item) => item.replace(/;.*/, '').trim() === token);
}

/**
 * Bytes the Content-Length promises, or null without one. Two ends that read a length differently are how
 * requests are smuggled, so anything but one plain number is refused. RFC 9112 section 6.3.
 * @throws MeshError bad_message
 */
export function contentLength(headers: RawHeaders): number | null {
  const values = fieldValues(headers, 'content-length');
  const [value] = values;
  if (value === undefined) return null;
  if (values.length > 1 || !/^\d{1,15}$/.test(value)) {
    throw new MeshError('bad_message', 'A message needs exactly one Content-Length, a plain number');
  }
  return Number(value);
}

/** Flat list as pairs, which is what `addTrailers` of node:http and browsers take. */
export function fieldPairs(headers: RawHeaders): [string, string][] {
  const pairs: [string, string][] = [];
  for (let i = 0; i < headers.length; i += 2) pairs.push([headers[i] ?? '', headers[i + 1] ?? '']);
  return pairs;
}

function listedTokens(values: readonly string[]): string[] {
  return values.flatMap((value) => value.toLowerCase().split(',')).map((token) => token.trim());
}
