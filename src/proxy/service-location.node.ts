/**
 * Where a service's answers lead. A service that builds absolute addresses builds them of the Host it was asked
 * with, which names this device's own loopback; for a client elsewhere that would be its own machine. Such
 * addresses become paths here. What a path is relative to is for the client's end to say.
 */

import type { RawHeaders } from '@cocoon-mesh/protocol';
import { hostHeaderOf, type ServiceTarget } from './service-connections.node.ts';

const locations: ReadonlySet<string> = new Set(['location', 'content-location']);

/**
 * An http address: its authority, and the rest. Spaces, tabs and backslashes make it malformed: browsers drop
 * tabs and read backslashes as slashes, so that a path with them could become another host's name. Other control
 * characters do not pass the parser of node:http.
 */
const httpAddress = /^http:\/\/([^ \t/?#\\]+)((?:[/?#][^ \t\\]*)?)$/i;

/** Location and Content-Location that name the service as it was asked, as paths; all else byte for byte. */
export function withOwnPaths(headers: RawHeaders, target: ServiceTarget): string[] {
  return mapLocations(headers, (location) => ownPath(location, target));
}

/** The fields with the values of Location and Content-Location mapped. */
export function mapLocations(headers: RawHeaders, map: (location: string) => string): string[] {
  return headers.map((text, i) => {
    const isLocation = i % 2 === 1 && locations.has(headers[i - 1]?.toLowerCase() ?? '');
    return isLocation ? map(text) : text;
  });
}

function ownPath(location: string, target: ServiceTarget): string {
  const [, authority, rest = ''] = httpAddress.exec(location) ?? [];
  if (authority === undefined || !authorities(target).has(authority.toLowerCase())) return location;
  // Two slashes at the start would make the next segment the name of a host (RFC 3986 section 4.2).
  if (rest.startsWith('//')) return `/.${rest}`;
  return rest.startsWith('/') ? rest : `/${rest}`;
}

/** The Host the service was asked with, and the addresses of this machine when that is where it listens. */
function authorities(target: ServiceTarget): ReadonlySet<string> {
  const names = new Set([hostHeaderOf(target).toLowerCase()]);
  if (target.host !== undefined && !loopback.has(target.host)) return names;
  for (const address of ['127.0.0.1', '[::1]']) {
    names.add(`${address}:${target.port}`);
    if (target.port === 80) names.add(address);
  }
  return names;
}

const loopback: ReadonlySet<string> = new Set(['localhost', '127.0.0.1', '::1']);
