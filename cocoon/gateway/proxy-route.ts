/**
 * `/proxy/{device}/{service}/{path…}` for the gateway and the control socket: which device and service a path
 * names, and the request passed on to it. Who may ask was decided before.
 */

import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import type { Device } from '@cocoon-mesh/mesh';
import type { Clock, RawHeaders } from '@cocoon-mesh/protocol';
import { MeshError, httpProtocol, toMeshError } from '@cocoon-mesh/protocol';
import type { ProxyOptions, ProxyOutcome } from '@cocoon-mesh/proxy/index.node.ts';
import { answerError, mapLocations, proxyHttp, proxyUpgrade } from '@cocoon-mesh/proxy/index.node.ts';
import type { Reach } from '../reach.ts';

export interface ProxyTarget {
  readonly device: string;
  readonly service: string;
  /** Path and query for the service, raw. */
  readonly target: string;
}

const pattern = /^\/proxy\/([^/?]+)\/([^/?]+)(\/[^?]*)?(\?.*)?$/;

/** Null for any other path. The device alone may be escaped (`name%40owner`); the rest is the service's. */
export function proxyTarget(url: string): ProxyTarget | null {
  const [, device, service, path = '/', query = ''] = pattern.exec(url) ?? [];
  if (device === undefined || service === undefined) return null;
  return { device: deviceInPath(device), service, target: path + query };
}

/** What a segment of a path names. An escape that is none names nothing that could be found. */
export function deviceInPath(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}

/**
 * A service's own paths as paths of this route, so that a client that follows one stays at the service. For the
 * route alone: on an origin of its own a service's paths are right as they are.
 */
export function withRoutePrefix(headers: RawHeaders, { device, service }: ProxyTarget): string[] {
  return mapLocations(headers, (location) =>
    /^\/(?!\/)/.test(location) ? `/proxy/${device}/${service}${withoutDotSegments(location)}` : location,
  );
}

/** What clients read as a dot segment, or read as other than it is written: tabs vanish, backslashes are slashes. */
const dotSegment = /^[^?#]*(?:\/(?:\.|%2e){1,2}(?:[/?#]|$)|[\t\\])/i;

/** `..` stops at the root of a service; behind the prefix it would lead out of it. Other paths stay byte for byte. */
function withoutDotSegments(path: string): string {
  if (!dotSegment.test(path)) return path;
  const { pathname, search, hash } = new URL(`http://service.invalid${path}`);
  return pathname + search + hash;
}

export interface PassOptions {
  readonly reach: Reach;
  readonly clock: Clock;
  readonly headers: RawHeaders;
  readonly responseHeaders?: (headers: RawHeaders) => RawHeaders;
  readonly answerError?: (response: ServerResponse, error: MeshError) => void;
}

/** Never rejects. */
export async function passRequest(
  request: IncomingMessage,
  response: ServerResponse,
  target: ProxyTarget,
  options: PassOptions,
): Promise<ProxyOutcome> {
  return proxyHttp(request, response, proxyOptions(target, options));
}

/** Never rejects. */
export async function passUpgrade(
  request: IncomingMessage,
  socket: Duplex,
  early: Uint8Array,
  target: ProxyTarget,
  options: PassOptions,
): Promise<ProxyOutcome> {
  try {
    return await proxyUpgrade(request, socket, early, proxyOptions(target, options));
  } catch (thrown) {
    socket.destroy();
    return { kind: 'failed', error: toMeshError(thrown) };
  }
}

function proxyOptions({ device, service, target }: ProxyTarget, options: PassOptions): ProxyOptions {
  const { reach, clock, headers, responseHeaders } = options;
  return {
    target,
    clock,
    headers,
    openStream: async (signal) => {
      const found: Device = reach.find(device, service);
      return reach.open(found, service, httpProtocol, signal);
    },
    answerError: options.answerError ?? answerError,
    ...(responseHeaders ? { responseHeaders } : {}),
  };
}
