/**
 * All that a peer knows of one owner: its newest records, its revocations, the newest membership it signed for each
 * device, and who redeemed its tokens first. What is handed in here was verified; this decides whether it still
 * counts beside what is known, and notes it. Nothing here waits, but for `learn`.
 */

import type { Owner, OwnerRecords, ProvenMembership, Revocable, Revocation } from '@cocoon-mesh/protocol';
import {
  isOutdated,
  limits,
  MeshError,
  peekMembership,
  verifyMembership,
  verifyOwnerRecords,
} from '@cocoon-mesh/protocol';
import { FirstRedeemers } from './first-redeemers.ts';
import { Outdated } from './refusal.ts';
import { RevocationList } from './revocation-list.ts';
import { supersedes } from './supersedes.ts';
import type { TrustListener } from './trust-event.ts';
import type { OwnerState } from './trust-state.ts';

/** A membership or a share, as an owner gave it. */
export interface GivenRight extends Revocable {
  readonly epoch: number;
  readonly grantHash: string | null;
  readonly provisional: boolean;
  readonly expires: number | null;
}

/** A membership that the owner signed itself. */
export interface SignedMembership {
  readonly jws: string;
  readonly proven: ProvenMembership;
}

export class KnownOwner {
  #owner: Owner;
  #revocations: RevocationList;
  /** Of the epoch before: it goes on ending what is of that epoch, while the new list is on its way. */
  #before: RevocationList | null = null;
  /** By PeerId, of the newest epoch only; oldest first. */
  readonly #memberships = new Map<string, SignedMembership>();
  readonly #redeemers: FirstRedeemers;
  readonly #listener: TrustListener;
  readonly #most: () => number;

  constructor(
    owner: Owner,
    listener: TrustListener,
    revocations?: RevocationList,
    redeemers = new FirstRedeemers(),
  ) {
    this.#owner = owner;
    this.#listener = listener;
    this.#most = () => listener.maxRevocations(owner.id);
    this.#revocations = revocations ?? new RevocationList(owner, this.#most);
    this.#redeemers = redeemers;
  }

  /** @throws MeshError of whichever signature does not fit */
  static async open(id: string, state: OwnerState, listener: TrustListener): Promise<KnownOwner> {
    const owner = await verifyOwnerRecords(state.records);
    if (owner.id !== id) throw new MeshError('membership_invalid', 'The records are of another owner');
    const revocations = await RevocationList.open(
      owner,
      () => listener.maxRevocations(id),
      state.revocations,
      state.loose,
    );
    const known = new KnownOwner(owner, listener, revocations, new FirstRedeemers(state.redeemers));
    for (const jws of state.memberships) {
      const proof = { kind: 'membership', records: state.records, membership: jws } as const;
      const peerId = peekMembership(jws).sub;
      known.#memberships.set(peerId, { jws, proven: await verifyMembership(proof, peerId, null) });
    }
    return known;
  }

  get id(): string {
    return this.#owner.id;
  }

  get records(): OwnerRecords {
    return this.#owner.records;
  }

  get revocations(): RevocationList {
    return this.#revocations;
  }

  get epoch(): number {
    return this.#owner.epoch;
  }

  state(): OwnerState {
    return {
      records: [...this.records],
      revocations: [...this.#revocations.list],
      loose: [...this.#revocations.loose],
      memberships: [...this.#memberships.values()].map(({ jws }) => jws),
      redeemers: this.#redeemers.state(),
    };
  }

  signedMembership(peerId: string): SignedMembership | undefined {
    return this.#memberships.get(peerId);
  }

  /**
   * Are these records the beginning of the ones that are known, or do they go on from them? A record is named by its
   * payload, as its owner is.
   * @throws MeshError membership_invalid: of two records of one epoch the first that was seen counts
   */
  assertFits(records: readonly string[]): void {
    const known = this.records;
    if (records.every((jws, epoch) => epoch >= known.length || payloadOf(jws) === payloadOf(known[epoch])))
      return;
    throw new MeshError('membership_invalid', 'Another record of the same owner and epoch is known');
  }

  /**
   * Takes verified records, and when they go further, a rotation: the list of revocations begins anew.
   * @throws MeshError membership_invalid as `assertFits`
   */
  follow(owner: Owner): void {
    this.assertFits(owner.records);
    if (owner.epoch <= this.#owner.epoch) return;
    this.#owner = owner;
    this.#before = this.#revocations;
    this.#revocations = new RevocationList(owner, this.#most);
    this.#memberships.clear();
    this.#listener.changed();
    this.#listener.report({ kind: 'rotation', owner: this.id, epoch: owner.epoch });
  }

  /** Was it signed before the last rotation, and not kept by it? */
  outdates(right: GivenRight): boolean {
    return isOutdated(right, this.#owner);
  }

  /** Why a right that this owner gave does not stand, or null. `now` in seconds. */
  objection(right: GivenRight, now: number): MeshError | null {
    if (this.outdates(right)) return new Outdated();
    if (this.#isRevoked(right)) return new MeshError('revoked');
    if (this.#firstBefore(right) !== null)
      return new MeshError('membership_invalid', 'The setup token was redeemed by another device first');
    if (right.expires !== null && right.expires <= now) return new MeshError('membership_expired');
    return null;
  }

  /** As `objection`, when somebody shows the right: a second redeemer of its token is told of. */
  assertStands(right: GivenRight, now: number): void {
    const { jti } = right;
    const first = this.#firstBefore(right);
    if (first !== null && jti !== null) this.#tellSecond(jti, first, redeemerOf(right));
    const objection = this.objection(right, now);
    if (objection) throw objection;
  }

  /**
   * Judges and notes a membership that a peer shows.
   * @param jws when the owner signed it itself
   * @returns what counts: for an old chain the membership that the owner signed for the device since
   * @throws MeshError membership_invalid | membership_expired | revoked
   */
  admit(shown: ProvenMembership, jws: string | null, now: number): ProvenMembership {
    this.assertStands(shown, now);
    const signed = this.#memberships.get(shown.peerId)?.proven;
    if (jws === null) {
      const counts = signed && !supersedes(shown, signed) ? signed : shown;
      this.assertStands(counts, now);
      this.note(shown);
      return counts;
    }
    if (signed && supersedes(signed, shown))
      throw new MeshError('membership_invalid', 'A newer membership of the device is known');
    if (!signed || supersedes(shown, signed)) this.#keep({ jws, proven: shown }, now);
    this.note(shown);
    return shown;
  }

  /**
   * Notes the first redeemer of a right's token. Whom the owner signed it for is the redeemer, whoever was noted
   * before: only the owner's word is above what was seen.
   * @param cocoon for a share
   */
  note(right: GivenRight, cocoon?: string): void {
    const { jti } = right;
    const redeemer = redeemerOf(right);
    if (jti === null) return;
    const first = this.#redeemers.get(jti);
    if (first === redeemer || (first !== undefined && right.provisional)) return;
    if (first !== undefined && this.#memberships.get(first)?.proven.jti === jti) return;
    this.#redeemers.set(jti, redeemer);
    this.#listener.changed();
    const scope = right.coOwner === undefined ? 'enroll' : 'co-own';
    this.#listener.report({
      kind: 'claim',
      owner: this.id,
      jti,
      redeemer,
      scope,
      ...(cocoon === undefined ? {} : { cocoon }),
    });
    if (first !== undefined) this.#tellSecond(jti, redeemer, first);
  }

  /**
   * Takes in revocations of the present epoch; see `RevocationList.learn`.
   * @param news called for each one that counts since
   */
  async learn(list: readonly string[], news: (entry: Revocation) => void): Promise<void> {
    const revocations = this.#revocations;
    await revocations.learn(list, (entry) => {
      // A rotation came in between: what belongs to the old list does not count.
      if (revocations !== this.#revocations) return;
      this.#listener.changed();
      this.#listener.report({ kind: 'revocation', owner: this.id, entry });
      news(entry);
    });
  }

  /** What the owner gave with a newer secret, only what it revoked with that one ends. */
  #isRevoked(right: GivenRight): boolean {
    if (this.#revocations.ends(right)) return true;
    return right.epoch < this.epoch && this.#before?.ends(right) === true;
  }

  #firstBefore(right: GivenRight): string | null {
    if (!right.provisional || right.jti === null) return null;
    const first = this.#redeemers.get(right.jti);
    return first === undefined || first === redeemerOf(right) ? null : first;
  }

  #tellSecond(jti: string, first: string, second: string): void {
    if (!this.#redeemers.isNews(jti, second)) return;
    this.#listener.report({ kind: 'second_redeemer', owner: this.id, jti, first, second });
  }

  #keep(signed: SignedMembership, now: number): void {
    const { peerId } = signed.proven;
    this.#memberships.delete(peerId);
    if (this.#memberships.size >= limits.maxKnownMemberships) this.#forgetOne(now);
    this.#memberships.set(peerId, signed);
    this.#listener.changed();
  }

  /** One that does not stand, else the oldest. */
  #forgetOne(now: number): void {
    const all = [...this.#memberships.keys()];
    const ended = [...this.#memberships.values()].find(({ proven }) => this.objection(proven, now));
    const forgotten = ended?.proven.peerId ?? all[0];
    if (forgotten !== undefined) this.#memberships.delete(forgotten);
  }
}

/** For `enroll` a device, for `co-own` an owner. */
function redeemerOf({ peerId, coOwner }: GivenRight): string {
  return coOwner ?? peerId;
}

function payloadOf(jws: string | undefined): string | undefined {
  return jws?.split('.')[1];
}
