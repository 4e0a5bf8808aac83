/** What a peer learned about owners: for the log and the audit, told once each. */

import type { ProvenMembership, ProvenShare, Revocation } from '@cocoon-mesh/protocol';

export type TrustEvent =
  /** A token's first redeemer was noted. */
  | {
      readonly kind: 'claim';
      readonly owner: string;
      readonly jti: string;
      readonly redeemer: string;
      readonly scope: 'enroll' | 'co-own';
      readonly cocoon?: string;
    }
  /** Somebody else shows the same token: refused. */
  | {
      readonly kind: 'second_redeemer';
      readonly owner: string;
      readonly jti: string;
      readonly first: string;
      readonly second: string;
    }
  /** A share is new, or was signed anew. */
  | { readonly kind: 'share'; readonly share: ProvenShare }
  | { readonly kind: 'revocation'; readonly owner: string; readonly entry: Revocation }
  | { readonly kind: 'rotation'; readonly owner: string; readonly epoch: number }
  /** My own membership changed. */
  | { readonly kind: 'membership'; readonly membership: ProvenMembership };

/** Where the parts of what a peer knows tell what changed. */
export interface TrustListener {
  readonly report: (event: TrustEvent) => void;
  /** Something must be saved. */
  readonly changed: () => void;
  /** How many revocations of an owner are kept. */
  readonly maxRevocations: (owner: string) => number;
}
