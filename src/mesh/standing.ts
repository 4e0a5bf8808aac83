/** Who another peer is to this one, by what both proved. */

import type { ProvenMembership, ProvenShare, Rights } from '@cocoon-mesh/protocol';
import { commonRights, coOwnerRights, includesRights } from '@cocoon-mesh/protocol';

/** Who a peer is to this one, and what it may do here. */
export interface Standing {
  readonly peerId: string;
  /** What counts: not always what was shown, see `member`. */
  readonly membership: ProvenMembership;
  /** Why we may meet although our owners differ; null for a peer of my owner. */
  readonly share: ProvenShare | null;
  /** `shared`: a cocoon of another owner that my owner was given. */
  readonly relation: 'own' | 'co-owner' | 'guest' | 'shared';
  /** What the peer may do at this one: nothing for `shared`. */
  readonly rights: Rights;
  /** Seconds since 1970, or null. */
  readonly expires: number | null;
}

/**
 * @param share by which the peer and I may meet; null for a peer of my owner
 * @param mine my owner
 */
export function standingOf(
  membership: ProvenMembership,
  share: ProvenShare | null,
  mine: string | null,
): Standing {
  const { peerId, rights, expires } = membership;
  if (!share) return { peerId, membership, share, relation: 'own', rights, expires };
  const common = { peerId, membership, share, expires: earlierEnd(expires, share.expires) };
  if (share.owner !== mine) return { ...common, relation: 'shared', rights: [] };
  const relation = includesRights(share.rights, coOwnerRights) ? 'co-owner' : 'guest';
  return { ...common, relation, rights: commonRights(rights, share.rights) };
}

function earlierEnd(one: number | null, other: number | null): number | null {
  return one === null || other === null ? (one ?? other) : Math.min(one, other);
}
