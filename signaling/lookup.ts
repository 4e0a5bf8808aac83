/** Who offers a capability: protocol exact, version by a semver range, least loaded first. */

import { badRange } from '@cocoon-mesh/protocol';
import { Range, maxSatisfying } from 'semver';
import type { OnlinePeer } from './presence.ts';

export interface Match {
  readonly peer: OnlinePeer;
  /** The highest version of the device that fits. */
  readonly version: string;
}

/** @throws MeshError bad_message when `range` is not a semver range */
export function matching(peers: readonly OnlinePeer[], protocol: string, range: string): Match[] {
  const parsed = parseRange(range);
  return peers
    .flatMap((peer) => {
      const versions = peer.record.capabilities
        .filter((capability) => capability.protocol === protocol)
        .map((capability) => capability.version);
      const version = maxSatisfying(versions, parsed);
      return version === null ? [] : { peer, version };
    })
    .toSorted((a, b) => a.peer.load - b.peer.load || (a.peer.peerId < b.peer.peerId ? -1 : 1));
}

function parseRange(range: string): Range {
  try {
    return new Range(range);
  } catch (cause) {
    throw badRange(cause);
  }
}
