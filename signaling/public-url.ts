/**
 * Which URL a peer dialled. The sign-in signature covers it, so this decides whose signatures count here: one made
 * for another server must never do, or that server could sign in with it in the peer's name.
 */

import type { IncomingMessage } from 'node:http';
import { isIP } from 'node:net';
import { MeshError } from '@cocoon-mesh/protocol';

/** @throws MeshError bad_signaling_url */
export function parsePublicUrl(text: string): string {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    throw new MeshError('bad_signaling_url', `SIGNALING_PUBLIC_URL is not a URL: ${text}`);
  }
  if (url.protocol !== 'ws:' && url.protocol !== 'wss:')
    throw new MeshError('bad_signaling_url', 'SIGNALING_PUBLIC_URL starts with ws:// or wss://');
  if (url.username || url.password || url.search || url.hash)
    throw new MeshError('bad_signaling_url', 'SIGNALING_PUBLIC_URL has no user, query or fragment');
  if (url.pathname === '/') url.pathname = '/ws';
  return url.href;
}

/**
 * The WebSocket URL under which this request reached us. Without a configured address only those count that lead
 * to this very machine: the address the connection arrived at, and loopback names on connections from here. A
 * name that others control would be as good as none.
 * @param configured by `parsePublicUrl`, or null
 * @throws MeshError sign_in_failed saying what to set
 */
export function dialledUrl(request: IncomingMessage, configured: string | null, secure: boolean): string {
  if (configured !== null) return configured;
  const host = request.headers.host ?? '';
  const { localAddress, localPort, remoteAddress } = request.socket;
  const url = parseHost(host, secure);
  const port = url && Number(url.port || (secure ? 443 : 80));
  if (url && port === localPort && isThisMachine(url.hostname, localAddress ?? '', remoteAddress ?? ''))
    return `${secure ? 'wss' : 'ws'}://${host}/ws`;
  throw new MeshError('sign_in_failed', `This server does not know itself as ${host.slice(0, 128)}`, {
    hint: 'Set SIGNALING_PUBLIC_URL to the address that devices dial.',
  });
}

function parseHost(host: string, secure: boolean): URL | null {
  if (!/^[A-Za-z0-9.:[\]-]{1,255}$/.test(host)) return null;
  try {
    return new URL(`${secure ? 'https' : 'http'}://${host}`);
  } catch {
    return null;
  }
}

function isThisMachine(hostname: string, localAddress: string, remoteAddress: string): boolean {
  const name = hostname.replace(/^\[|\]$/g, '');
  if (name === 'localhost' || name === 'mesh.localhost' || name === '127.0.0.1' || name === '::1')
    return isLoopback(remoteAddress);
  return isIP(name) !== 0 && name === canonicalAddress(localAddress);
}

export function isLoopback(address: string): boolean {
  return address === '::1' || /^(::ffff:)?127\./.test(address);
}

/** As `URL` writes it: IPv4 without its IPv6 cover, IPv6 shortened, no zone. */
function canonicalAddress(address: string): string {
  const bare = address.replace(/^::ffff:(?=\d+\.)/, '').replace(/%.*$/, '');
  if (isIP(bare) !== 6) return bare;
  return new URL(`http://[${bare}]`).hostname.replace(/^\[|\]$/g, '');
}
