/** How two ends reach each other, told from the selected pair of candidates. For display, never for trust. */

import type { Path } from './engine.ts';

export interface PathEnd {
  /** `host`, `srflx`, `prflx` or `relay`. */
  readonly type: string;
  /** Empty where the engine hides it. */
  readonly address: string;
}

/** 10/8, 172.16/12, 192.168/16, link-local, loopback, ULA (RFC 1918, 3927, 4193). */
const privatePattern =
  /^(10\.|127\.|192\.168\.|169\.254\.|172\.(1[6-9]|2\d|3[01])\.|::1$|f[cd][0-9a-f]{2}:|fe[89ab][0-9a-f]:)/i;

export function pathBetween(local: PathEnd, remote: PathEnd): Path {
  if (local.type === 'relay' || remote.type === 'relay') return 'turn';
  const hidden = remote.address === '' || remote.address.endsWith('.local');
  const near = (end: PathEnd): boolean => privatePattern.test(end.address);
  if (
    near(remote) ||
    (remote.address !== '' && remote.address === local.address) ||
    (hidden && local.type === 'host' && remote.type === 'host')
  )
    return 'lan';
  return 'direct';
}
