/** One address out of the urls of an ICE server (RFC 7064, RFC 7065), for engines that take no urls. */

import type { IceServer } from './engine.ts';

export interface IceServerAddress {
  readonly scheme: 'stun' | 'turn' | 'turns';
  readonly hostname: string;
  readonly port: number;
  readonly transport: 'udp' | 'tcp';
}

const urlPattern =
  /^(stun|turn|turns):(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(\d{1,5}))?(?:\?transport=(udp|tcp))?$/i;

/** Urls of other schemes are left out: browsers would refuse them, and a missing server is told by `doctor`. */
export function iceServerAddresses(server: IceServer): readonly IceServerAddress[] {
  return server.urls.flatMap((url) => {
    const [, scheme, host, port, transport] = urlPattern.exec(url) ?? [];
    if (scheme === undefined || host === undefined) return [];
    const secure = scheme.toLowerCase() === 'turns';
    return {
      scheme: scheme.toLowerCase() as IceServerAddress['scheme'],
      hostname: host.replace(/^\[|\]$/g, ''),
      port: port === undefined ? (secure ? 5349 : 3478) : Number(port),
      transport: transport?.toLowerCase() === 'tcp' || secure ? 'tcp' : 'udp',
    };
  });
}
