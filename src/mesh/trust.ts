/**
 * What this peer knows about owners, and the one place that decides who may come: memberships, shares, first
 * redeemers, revocations, rotations. Signaling and other peers bring proofs; nothing is believed that does not
 * verify, nothing that was revoked comes back, and all of it survives a restart. It knows neither sessions nor
 * signaling.
 */

import type {
  Clock,
  HelloRevocations,
  MembershipProof,
  OwnerRecords,
  ProvenMembership,
  ProvenShare,
  Revocation,
  RevocationMessage,
  Rights,
  ShareProof,
} from '@cocoon-mesh/protocol';
import { MeshError } from '@cocoon-mesh/protocol';

/** JSON; kept by the `MeshStore`. */
export interface TrustState {
  readonly v: 1;
  /** Highest time that an owner of mine has signed, seconds since 1970: a clock set back ends no end. */
  readonly time: number;
  /** Mine, and those I share a cocoon with: their newest records and revocations. */
  readonly owners: Readonly<
    Record<string, { readonly records: OwnerRecords; readonly revocations: readonly string[] }>
  >;
  /** First redeemer (PeerId or owner id) by token. */
  readonly redeemers: Readonly<Record<string, string>>;
  /** Highest serial of a membership by PeerId. */
  readonly serials: Readonly<Record<string, number>>;
  /** Of my owner's cocoons with others, and of others' cocoons with my owner. */
  readonly shares: readonly ShareProof[];
}

/** Who a peer is to this one, and what it may do here. */
export interface Standing {
  readonly peerId: string;
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

/** For the log and the audit; told once each. */
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
  | { readonly kind: 'share'; readonly share: ProvenShare }
  | { readonly kind: 'revocation'; readonly owner: string; readonly entry: Revocation }
  | { readonly kind: 'rotation'; readonly owner: string; readonly epoch: number }
  /** My own membership changed. */
  | { readonly kind: 'membership'; readonly membership: ProvenMembership };

export interface TrustOptions {
  readonly clock: Clock;
  /** PeerId. */
  readonly self: string;
  /** As the store has it, unchecked; null on a new device. */
  readonly state: unknown;
  /** Called after each change. */
  readonly save: (state: TrustState) => void;
  readonly report: (event: TrustEvent) => void;
}

export class Trust {
  readonly #options: TrustOptions;

  /** @throws MeshError database_corrupt when the state is none; nothing is overwritten then */
  static async open(options: TrustOptions): Promise<Trust> {
    return new Trust(options);
  }

  private constructor(options: TrustOptions) {
    this.#options = options;
  }

  /** The own owner's id, null before the first membership. */
  get owner(): string | null {
    throw new MeshError('internal', this.#options.self);
  }

  /** What I show; the newest I have. */
  get membership(): MembershipProof | null {
    throw new MeshError('internal');
  }

  get proven(): ProvenMembership | null {
    throw new MeshError('internal');
  }

  /** Seconds since 1970: the own clock, or an owner's if that is ahead. */
  get now(): number {
    throw new MeshError('internal');
  }

  /** Newest records of an owner that is known. */
  recordsOf(_owner: string): OwnerRecords | null {
    throw new MeshError('internal');
  }

  /**
   * Takes a membership as mine: the first one, or a newer one of the same owner (epoch, then serial, then a signed
   * one in the place of a chain). An older one changes nothing.
   * @returns whether it counts now
   * @throws MeshError membership_invalid | membership_expired | revoked | …
   */
  async adopt(_proof: MembershipProof): Promise<boolean> {
    throw new MeshError('internal');
  }

  /**
   * A peer's own proof, of whichever owner: verified, not revoked, not outdated, of the first redeemer, not rolled
   * back to an older serial.
   * @throws MeshError membership_invalid | membership_expired | revoked | unknown_constraint
   */
  async member(_peerId: string, _proof: MembershipProof): Promise<ProvenMembership> {
    throw new MeshError('internal');
  }

  /** Verifies a share and keeps it when it concerns me. As `member`; a share that its co-owner gave back is revoked. */
  async share(_proof: ShareProof): Promise<ProvenShare> {
    throw new MeshError('internal');
  }

  /**
   * Who is this, to me? Peers of my owner; peers of an owner that this cocoon is shared with (by `share`, or by one
   * that is known); cocoons that are shared with my owner.
   * @throws MeshError denied when we have nothing in common, and as `member`
   */
  async judge(_peerId: string, _membership: MembershipProof, _share?: ShareProof): Promise<Standing> {
    throw new MeshError('internal');
  }

  /** Does what was judged before still stand? Asked at every new stream. */
  objection(_standing: Standing): MeshError | null {
    throw new MeshError('internal');
  }

  /** Shares that stand, of my owner's cocoons or with my owner. */
  get shares(): readonly ProvenShare[] {
    throw new MeshError('internal');
  }

  /** The proof of a share that stands: what a peer of the co-owner shows to the cocoon. */
  shareProof(_cocoon: string, _coOwner: string): ShareProof | null {
    throw new MeshError('internal');
  }

  /** Every revocation of an owner, oldest first. */
  revocations(_owner: string): readonly string[] {
    throw new MeshError('internal');
  }

  /**
   * Takes in revocations, and with `records` a rotation. A list may begin in the middle of what is known.
   * @returns whether anything was new
   * @throws MeshError bad_signature | … ; what was learned before stays
   */
  async learn(
    _owner: string,
    _records: OwnerRecords | undefined,
    _list: readonly string[],
  ): Promise<boolean> {
    throw new MeshError('internal');
  }

  /** For HELLO: of my owner, and of the peer's when that is another. */
  helloRevocations(_peerOwner: string | null): HelloRevocations[] {
    throw new MeshError('internal');
  }

  /** What to ask a peer for, after its HELLO's entries were learned and some in between are missing. */
  missing(_theirs: readonly HelloRevocations[]): (RevocationMessage & { kind: 'ask' })[] {
    throw new MeshError('internal');
  }

  /** The next piece after entry `after`; an empty list when there is none, null for an owner we know nothing of. */
  tell(_owner: string, _epoch: number, _after: number): (RevocationMessage & { kind: 'tell' }) | null {
    throw new MeshError('internal');
  }
}
