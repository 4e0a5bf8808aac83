/**
 * What this peer knows about owners, and the one place that decides who may come: memberships, shares, first
 * redeemers, revocations, rotations. Signaling and other peers bring proofs; nothing is believed that does not
 * verify, nothing that was revoked comes back, and all of it survives a restart. It knows neither sessions nor
 * signaling.
 *
 * Only owners that matter are remembered: mine, and those I share a cocoon with. What strangers show is verified and
 * forgotten, so that they cannot fill anything. Signatures are checked first, which takes time; what follows from
 * them is then judged and noted in one go, so that nothing is decided on what has changed meanwhile.
 */

import type {
  Clock,
  HelloRevocations,
  MembershipProof,
  Owner,
  OwnerRecords,
  ProvenMembership,
  ProvenShare,
  RevocationMessage,
  ShareProof,
} from '@cocoon-mesh/protocol';
import {
  limits,
  MeshError,
  peekMembership,
  shareRecords,
  verifyMembership,
  verifyOwnerRecords,
  verifyShare,
} from '@cocoon-mesh/protocol';
import type { GivenRight } from './known-owner.ts';
import { KnownOwner } from './known-owner.ts';
import type { KnownShare } from './known-shares.ts';
import { KnownShares } from './known-shares.ts';
import type { Standing } from './standing.ts';
import { standingOf } from './standing.ts';
import { supersedes } from './supersedes.ts';
import type { TrustEvent, TrustListener } from './trust-event.ts';
import type { TrustState } from './trust-state.ts';
import { damaged, parseTrustState } from './trust-state.ts';

export type { Standing } from './standing.ts';
export type { TrustEvent } from './trust-event.ts';
export type { TrustState } from './trust-state.ts';

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

interface OwnMembership {
  readonly proof: MembershipProof;
  readonly proven: ProvenMembership;
}

export class Trust {
  readonly #options: TrustOptions;
  readonly #listener: TrustListener;
  /** By owner id: mine, and every party of a share that is known. */
  readonly #owners = new Map<string, KnownOwner>();
  readonly #shares = new KnownShares();
  #mine: OwnMembership | null = null;
  /** Seconds since 1970. */
  #time = 0;
  #unsaved = false;

  /** @throws MeshError database_corrupt when the state is none, database_newer; nothing is overwritten then */
  static async open(options: TrustOptions): Promise<Trust> {
    const trust = new Trust(options);
    if (options.state === null || options.state === undefined) return trust;
    const state = parseTrustState(options.state);
    try {
      await trust.#load(state);
    } catch (cause) {
      throw damaged(cause);
    }
    return trust;
  }

  private constructor(options: TrustOptions) {
    this.#options = options;
    this.#listener = {
      report: options.report,
      changed: () => (this.#unsaved = true),
      // What is stored was within its limit.
      maxRevocations: (owner) =>
        this.owner === null || owner === this.owner ? limits.maxRevocations : limits.maxForeignRevocations,
    };
  }

  /** What my owner signed last for a device of its own, whether it stands or was revoked since; null when unknown. */
  signedMembership(peerId: string): ProvenMembership | null {
    return (this.owner && this.#owners.get(this.owner)?.signedMembership(peerId)?.proven) || null;
  }

  /** The own owner's id, null before the first membership. */
  get owner(): string | null {
    return this.#mine?.proven.owner ?? null;
  }

  /** What I show; the newest I have. */
  get membership(): MembershipProof | null {
    return this.#mine?.proof ?? null;
  }

  get proven(): ProvenMembership | null {
    return this.#mine?.proven ?? null;
  }

  /** Why my own membership does not stand any more, or null. */
  get problem(): MeshError | null {
    return this.#mine && this.#objectionTo(this.#mine.proven);
  }

  /**
   * Seconds since 1970: the own clock, or my owner's if that is ahead, so that a clock that is set back gives
   * nobody more time. Other owners have no say in it: they could end the rights of my owner's guests. Nor has my own
   * owner more than a day's: one wrong clock among its devices would end everything, and for good.
   */
  get now(): number {
    return Math.max(this.#clock, this.#time);
  }

  /** Newest records of an owner that is known. */
  recordsOf(owner: string): OwnerRecords | null {
    return this.#owners.get(owner)?.records ?? null;
  }

  /**
   * Takes a membership as mine: the first one, or a newer one of the same owner (epoch, then serial, then a signed
   * one in the place of a chain). An older one changes nothing. When the first one is older than what was known of
   * me before, that counts.
   * @param stored it was mine before: one that was revoked since is still who I am, until another takes its place
   * @returns whether something counts now that did not
   * @throws MeshError membership_invalid | membership_expired | revoked | unknown_constraint | already_owned
   */
  async adopt(proof: MembershipProof, stored = false): Promise<boolean> {
    const shown = await verifyMembership(proof, this.#options.self, this.now);
    const records = await verifyOwnerRecords(membershipRecords(proof));
    return this.#noting(() => this.#adopt({ proof, proven: shown }, records, stored));
  }

  /**
   * A peer's own proof, of whichever owner: verified, not revoked, not outdated, of the first redeemer, not rolled
   * back to an older serial.
   * @returns what counts of it. A device that has not received what its owner signed for it still shows its chain:
   * then rights and dates are those of the signed one, where that is known.
   * @throws MeshError membership_invalid | membership_expired | revoked | unknown_constraint
   */
  async member(peerId: string, proof: MembershipProof): Promise<ProvenMembership> {
    const shown = await verifyMembership(proof, peerId, this.now);
    const records = membershipRecords(proof);
    const longer = this.#isParty(shown.owner) ? await this.#verifyLonger(shown.owner, records) : null;
    return this.#noting(() => {
      const known = this.#follow(shown.owner, records, longer);
      return known ? this.#admit(known, { proof, proven: shown }) : shown;
    });
  }

  /** Verifies a share and keeps it when it concerns me. As `member`; a share that its co-owner gave back is revoked. */
  async share(proof: ShareProof): Promise<ProvenShare> {
    const proven = await verifyShare(proof, this.now);
    if (!this.#concerns(proven)) return proven;
    const { redeemer_records: accepting = [] } = proven.redemption;
    const owner = await this.#verifyLonger(proven.owner, shareRecords(proof));
    const coOwner = await this.#verifyLonger(proven.coOwner, accepting);
    return this.#noting(() => {
      if (!this.#concerns(proven)) return proven;
      this.#keepShare({ proof, proven }, owner, coOwner);
      return proven;
    });
  }

  /**
   * Who is this, to me? Peers of my owner; peers of an owner that this cocoon is shared with (by `share`, or by one
   * that is known); cocoons that are shared with my owner.
   * @throws MeshError denied when we have nothing in common, and as `member`
   */
  async judge(peerId: string, membership: MembershipProof, share?: ShareProof): Promise<Standing> {
    // What is wrong with a share does not matter where a better one is known.
    const refusal = share && (await this.share(share).then(noRefusal, (thrown: unknown) => thrown));
    const proven = await this.member(peerId, membership);
    if (proven.owner === this.owner) return standingOf(proven, null, this.owner);
    const found = this.#shareWith(proven);
    if (!found)
      throw new MeshError('denied', 'The device belongs to another owner', { cause: refusal ?? undefined });
    const objection = this.#objectionToShare(found);
    if (objection) throw objection;
    return standingOf(proven, found, this.owner);
  }

  /** Does what was judged before still stand? Asked at every new stream. */
  objection({ membership, share }: Standing): MeshError | null {
    return this.#objectionTo(membership) ?? (share && this.#objectionToShare(share));
  }

  /** Shares that stand, of my owner's cocoons or with my owner. */
  get shares(): readonly ProvenShare[] {
    return this.#standing.map(({ proven }) => proven);
  }

  /**
   * The proof of a share that stands: what a peer of the co-owner shows to the cocoon.
   * @param owner of the cocoon; without it my own owner's share comes first, for anybody can claim a cocoon
   */
  shareProof(cocoon: string, coOwner: string, owner?: string): ShareProof | null {
    const fitting = this.#standing.filter(
      ({ proven }) =>
        proven.cocoon === cocoon &&
        proven.coOwner === coOwner &&
        (owner === undefined || proven.owner === owner),
    );
    const mine = fitting.find(({ proven }) => proven.owner === this.owner);
    return (mine ?? fitting[0])?.proof ?? null;
  }

  /** Every revocation of an owner, oldest first. */
  revocations(owner: string): readonly string[] {
    return this.#owners.get(owner)?.revocations.list ?? [];
  }

  /**
   * Takes in revocations, and with `records` a rotation. A list may begin in the middle of what is known, overlap
   * it, or leave a gap: every entry counts at once, and what lies between is `missing`. Of an owner that does not
   * matter here nothing is taken.
   * @returns whether anything was new
   * @throws MeshError bad_signature | … ; what was learned before stays
   */
  async learn(owner: string, records: OwnerRecords | undefined, list: readonly string[]): Promise<boolean> {
    if (!this.#isParty(owner)) return false;
    const longer = await this.#verifyLonger(owner, records ?? []);
    if (longer && longer.id !== owner)
      throw new MeshError('membership_invalid', 'The records are of another owner');
    const before = this.#owners.get(owner)?.epoch;
    const known = this.#noting(() => this.#follow(owner, records ?? [], longer));
    if (!known) return false;
    const learned = await this.#learnList(known, list);
    return learned || known.epoch !== before;
  }

  /** For HELLO: of my owner, and of the peer's when that is another. */
  helloRevocations(peerOwner: string | null): HelloRevocations[] {
    const ids = new Set([this.owner, peerOwner].filter((id) => id !== null));
    return [...ids].flatMap((id) => this.#owners.get(id)?.revocations.hello() ?? []);
  }

  /**
   * What to ask a peer for, after its HELLO's entries were learned and some in between are missing. Asked again
   * after each answer that was new, it ends when nothing is missing; after one that was not, the peer has no more.
   */
  missing(theirs: readonly HelloRevocations[]): (RevocationMessage & { kind: 'ask' })[] {
    return theirs.flatMap((head) => {
      const known = this.#owners.get(head.owner);
      if (!known || head.epoch < known.epoch) return [];
      const after = head.epoch > known.epoch ? 0 : known.revocations.gap(head);
      return after === null ? [] : [{ kind: 'ask', owner: head.owner, epoch: head.epoch, after }];
    });
  }

  /**
   * The next piece after entry `after`; an empty list when there is none, null for an owner we know nothing of. Who
   * asks for an older epoch is told of the rotation, and the newest list from its beginning.
   */
  tell(owner: string, epoch: number, after: number): (RevocationMessage & { kind: 'tell' }) | null {
    const known = this.#owners.get(owner);
    if (!known) return null;
    const start = epoch === known.epoch ? after : 0;
    const list = known.revocations.piece(start);
    return { kind: 'tell', owner, records: [...known.records], after: start, list };
  }

  get #clock(): number {
    return Math.floor(this.#options.clock.now() / 1000);
  }

  get #standing(): KnownShare[] {
    return this.#shares.all().flatMap((between) => between.find(this.#stands) ?? []);
  }

  async #load(state: TrustState): Promise<void> {
    for (const [id, owner] of Object.entries(state.owners))
      this.#owners.set(id, await KnownOwner.open(id, owner, this.#listener));
    // Ended ones are kept as well.
    for (const proof of state.shares)
      this.#shares.add({ proof, proven: await verifyShare(proof, null) }, () => true);
    this.#time = state.time;
  }

  #state(): TrustState {
    return {
      v: 1,
      time: this.#time,
      owners: Object.fromEntries([...this.#owners].map(([id, known]) => [id, known.state()])),
      // As they are added again: what was signed comes before the chain that supersedes it.
      shares: this.#shares.all().flatMap((between) => between.map(({ proof }) => proof).toReversed()),
    };
  }

  /** Runs what changes something, to the end and at once; what it changed before it failed is kept as well. */
  #noting<T>(step: () => T): T {
    try {
      return step();
    } finally {
      this.#save();
    }
  }

  #save(): void {
    if (!this.#unsaved) return;
    this.#unsaved = false;
    this.#dropParted();
    this.#options.save(this.#state());
  }

  #adopt(offered: OwnMembership, records: Owner, stored: boolean): boolean {
    const mine = this.#mine;
    if (mine && mine.proven.owner !== records.id) throw new MeshError('already_owned');
    const known = this.#owners.get(records.id) ?? new KnownOwner(records, this.#listener);
    known.follow(records);
    const newest = newestOf(offered, known);
    // What a rotation ended is still who I am, until I am given what replaces it; others judge it by themselves.
    const isRevoked = stored && known.objection(newest.proven, this.now)?.code === 'revoked';
    const ended = isRevoked || known.outdates(newest.proven);
    if (!ended) known.assertStands(newest.proven, this.now);
    if (mine && !supersedes(newest.proven, mine.proven)) return false;
    if (!mine) this.#begin(known);
    this.#mine = newest;
    if (!ended) this.#admit(known, newest);
    this.#listener.report({ kind: 'membership', membership: newest.proven });
    return true;
  }

  /** The first membership says what the rest is about: what concerns an owner that I had before is dropped. */
  #begin(known: KnownOwner): void {
    const { id } = known;
    this.#owners.set(id, known);
    this.#shares.prune(({ owner, coOwner }) => owner === id || coOwner === id);
    for (const other of this.#owners.keys())
      if (other !== id && !this.#shares.involves(other)) this.#owners.delete(other);
    this.#listener.changed();
  }

  #admit(known: KnownOwner, { proof, proven }: OwnMembership): ProvenMembership {
    const jws = proof.kind === 'membership' ? proof.membership : null;
    const counts = known.admit(proven, jws, this.now);
    this.#hear(known.id, jws === null ? proven.granted : peekMembership(jws).iat);
    return counts;
  }

  #keepShare(share: KnownShare, owner: Owner | null, coOwner: Owner | null): void {
    const { proven } = share;
    const granting = this.#owners.get(proven.owner) ?? (owner && new KnownOwner(owner, this.#listener));
    const accepting =
      this.#owners.get(proven.coOwner) ?? (coOwner && new KnownOwner(coOwner, this.#listener));
    if (!granting || !accepting) throw new MeshError('membership_invalid', 'A share names both owners');
    granting.assertFits(shareRecords(share.proof));
    accepting.assertFits(proven.redemption.redeemer_records ?? []);
    if (owner) granting.follow(owner);
    if (coOwner) accepting.follow(coOwner);
    const right = rightOf(proven);
    granting.assertStands(right, this.now);
    if (accepting.revocations.givesBack(right)) throw new MeshError('revoked');
    if (!this.#shares.add(share, (known) => !this.#objectionToShare(known))) return;
    this.#owners.set(proven.owner, granting);
    this.#owners.set(proven.coOwner, accepting);
    granting.note(right, proven.cocoon);
    this.#hear(proven.owner, proven.granted);
    this.#listener.changed();
    this.#listener.report({ kind: 'share', share: proven });
  }

  async #learnList(known: KnownOwner, list: readonly string[]): Promise<boolean> {
    let isNews = false;
    try {
      await known.learn(list, (entry) => {
        this.#hear(known.id, entry.iat);
        isNews = true;
      });
    } finally {
      this.#save();
    }
    return isNews;
  }

  /** Mine, one that shares with it, or one that it shares with and that it has not ended itself. */
  #isParty(owner: string): boolean {
    if (owner === this.owner) return true;
    const hasEnded = (share: ProvenShare): boolean =>
      Boolean(this.#owners.get(share.owner)?.objection(rightOf(share), this.now));
    return this.#shares
      .all()
      .flat()
      .some(({ proven }) => proven.owner === owner || (proven.coOwner === owner && !hasEnded(proven)));
  }

  /** Of an owner with whom my owner has ended everything nothing needs to be remembered. */
  #dropParted(): void {
    if (this.owner === null) return;
    for (const id of this.#owners.keys()) if (!this.#isParty(id)) this.#owners.delete(id);
  }

  #concerns({ owner, coOwner }: ProvenShare): boolean {
    return this.owner !== null && (owner === this.owner || coOwner === this.owner);
  }

  /** Verified, where they say more than is known; otherwise null. @throws MeshError membership_invalid | … */
  async #verifyLonger(owner: string, records: readonly string[]): Promise<Owner | null> {
    if (records.length <= (this.#owners.get(owner)?.records.length ?? 0)) return null;
    return verifyOwnerRecords([...records]);
  }

  /** The owner, up to these records; null for one that does not matter here. */
  #follow(id: string, records: readonly string[], longer: Owner | null): KnownOwner | null {
    const known = this.#owners.get(id);
    if (known) {
      known.assertFits(records);
      if (longer) known.follow(longer);
      return known;
    }
    if (!longer || !this.#isParty(id)) return null;
    const added = new KnownOwner(longer, this.#listener);
    this.#owners.set(id, added);
    this.#listener.changed();
    return added;
  }

  /**
   * Notes a time that an owner signed. A clock that is far behind what was noted before is wrong itself, and says
   * nothing about others.
   */
  #hear(owner: string, seconds: number): void {
    if (owner !== this.owner || seconds <= this.#time) return;
    const ahead = limits.maxOwnerClockAheadMs / 1000;
    if (seconds > this.#clock + ahead && this.#clock >= this.#time - ahead) return;
    this.#time = seconds;
    this.#listener.changed();
  }

  readonly #stands = ({ proven }: KnownShare): boolean => this.#objectionToShare(proven) === null;

  #objectionTo(membership: ProvenMembership): MeshError | null {
    return this.#owners.get(membership.owner)?.objection(membership, this.now) ?? null;
  }

  #objectionToShare(share: ProvenShare): MeshError | null {
    const right = rightOf(share);
    const granting = this.#owners.get(share.owner);
    if (!granting) return new MeshError('denied');
    const givenBack = this.#owners.get(share.coOwner)?.revocations.givesBack(right);
    return granting.objection(right, this.now) ?? (givenBack ? new MeshError('revoked') : null);
  }

  /** The share by which a peer of another owner and I may meet: the one that counts, even if it has ended. */
  #shareWith({ peerId, owner }: ProvenMembership): ProvenShare | null {
    const mine = this.owner;
    if (mine === null) return null;
    for (const between of [
      this.#shares.between(mine, this.#options.self, owner),
      this.#shares.between(owner, peerId, mine),
    ]) {
      const found = between.find(this.#stands) ?? between[0];
      if (found) return found.proven;
    }
    return null;
  }
}

function membershipRecords(proof: MembershipProof): OwnerRecords {
  return proof.kind === 'membership' ? proof.records : proof.redemption.records;
}

/** What is offered, or what the owner signed for the same device since. */
function newestOf(offered: OwnMembership, known: KnownOwner): OwnMembership {
  const signed = known.signedMembership(offered.proven.peerId);
  if (!signed || supersedes(offered.proven, signed.proven)) return offered;
  const { jws, proven } = signed;
  return { proof: { kind: 'membership', records: [...known.records], membership: jws }, proven };
}

function rightOf(share: ProvenShare): GivenRight {
  return { ...share, peerId: share.cocoon };
}

function noRefusal(): null {
  return null;
}
