/** COCOON_ICE_SERVERS: `stun:host:port, turn:…`, or as JSON where a TURN server needs a user and a credential. */

import type { IceServer } from '@cocoon-mesh/mesh';
import { MeshError } from '@cocoon-mesh/protocol/errors.ts';

const urlPattern = /^(stun|turn|turns):(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:\d{1,5})?(\?transport=(udp|tcp))?$/i;

/** @throws MeshError bad_ice_servers */
export function parseIceServers(value: string | readonly string[] | undefined): IceServer[] {
  if (value === undefined) return [];
  if (typeof value !== 'string') return value.map((url) => server([url]));
  if (value.trim().startsWith('[')) return parseJson(value);
  return value
    .split(',')
    .map((url) => url.trim())
    .filter((url) => url !== '')
    .map((url) => server([url]));
}

function parseJson(text: string): IceServer[] {
  let list: unknown;
  try {
    list = JSON.parse(text);
  } catch (cause) {
    throw new MeshError('bad_ice_servers', 'COCOON_ICE_SERVERS is not JSON', { cause });
  }
  if (!Array.isArray(list)) throw new MeshError('bad_ice_servers');
  return list.map((entry: unknown) => {
    if (typeof entry === 'string') return server([entry]);
    if (typeof entry !== 'object' || entry === null) throw new MeshError('bad_ice_servers');
    const { urls, username, credential } = entry as Record<string, unknown>;
    return server(Array.isArray(urls) ? urls : [urls], username, credential);
  });
}

function server(urls: readonly unknown[], username?: unknown, credential?: unknown): IceServer {
  const checked = urls.map((url) => {
    if (typeof url !== 'string' || !urlPattern.test(url))
      throw new MeshError('bad_ice_servers', `${JSON.stringify(url)} is not a stun:, turn: or turns: URL`);
    return url;
  });
  return {
    urls: checked,
    ...(typeof username === 'string' ? { username } : {}),
    ...(typeof credential === 'string' ? { credential } : {}),
  };
}
