/** Why something genuine is refused all the same, and how much that is worth telling. */

import { MeshError } from '@cocoon-mesh/protocol';

/** Signed by its owner, with a secret that was replaced since. */
export class Outdated extends MeshError {
  constructor() {
    super('membership_invalid', 'It is of an epoch before the last rotation');
  }
}

/**
 * What has merely ended is shown again and again, by servers and devices that have not heard of it yet. Everything
 * else is a lie of somebody.
 */
export function refusalLevel(thrown: unknown): 'debug' | 'warn' {
  return hasEnded(thrown) ? 'debug' : 'warn';
}

function hasEnded(thrown: unknown): boolean {
  if (!(thrown instanceof MeshError)) return false;
  if (thrown instanceof Outdated || thrown.code === 'revoked') return true;
  // Nothing in common, because the share that was shown has ended.
  return thrown.code === 'denied' && hasEnded(thrown.cause);
}
