/**
 * Who else may run tasks on this device. Its own devices always; browsers, co-owners and guests only when they were
 * switched on here (`remote_tasks` in config.toml), whatever their rights say: a command that runs is more than a
 * service that answers, and a stolen tab must not be one.
 */

import type { Device, ProvenPeer } from '@cocoon-mesh/mesh';
import type { NeededRight } from '@cocoon-mesh/protocol';
import { allows } from '@cocoon-mesh/protocol';
import type { RemoteTaskRunner } from './config.ts';

/** For `MeshOptions.policy`. @param kindOf of a peer of my owner; null when it is not known */
export function remoteTasksPolicy(
  allowed: readonly RemoteTaskRunner[],
  kindOf: (peerId: string) => Device['kind'] | null,
): (peer: ProvenPeer, right: NeededRight) => boolean {
  return (peer, { protocol, verb }) => {
    if (protocol !== 'tasks' || verb !== 'run') return true;
    const caller = callerOf(peer, kindOf);
    return caller === null || allowed.includes(caller);
  };
}

/** Null: one of this owner's own that needs no switch. */
function callerOf(
  { peerId, relation, rights }: ProvenPeer,
  kindOf: (peerId: string) => Device['kind'] | null,
): RemoteTaskRunner | null {
  // Of another owner's cocoon nothing is run at all, which its rights say; this is for the day they do not.
  if (relation !== 'own') return relation === 'co-owner' ? 'co-owner' : 'guest';
  // What did not say what it is counts as a browser.
  if (kindOf(peerId) === 'cocoon' || allows(rights, 'owner', 'admin', null)) return null;
  return 'browser';
}
