/**
 * The shares that concern a peer: for each cocoon and owner it is shared with the newest that was signed, and the
 * chain of a later token until that is signed as well. Those that ended stay while there is room, so that nothing
 * that ended is taken for new.
 */

import type { ProvenShare, ShareProof } from '@cocoon-mesh/protocol';
import { limits, MeshError } from '@cocoon-mesh/protocol';
import { supersedes } from './supersedes.ts';

export interface KnownShare {
  readonly proof: ShareProof;
  readonly proven: ProvenShare;
}

interface Between {
  readonly signed?: KnownShare;
  /** Only one that supersedes the signed one. */
  readonly claim?: KnownShare;
}

export class KnownShares {
  /** Oldest first. */
  readonly #byParties = new Map<string, Between>();

  /** What counts first is first; the others count when it does not stand. */
  between(owner: string, cocoon: string, coOwner: string): readonly KnownShare[] {
    return inOrder(this.#byParties.get(keyOf({ owner, cocoon, coOwner })));
  }

  /** Those between the same parties together, as in `between`. */
  all(): readonly (readonly KnownShare[])[] {
    return [...this.#byParties.values()].map(inOrder);
  }

  /** Is the owner a party of any? */
  involves(owner: string): boolean {
    return this.all().some(([share]) => share?.proven.owner === owner || share?.proven.coOwner === owner);
  }

  /**
   * @param stands tells whether a share that is known has not ended
   * @returns whether it was new
   * @throws MeshError membership_invalid when a newer one is known, overloaded when there are too many
   */
  add(share: KnownShare, stands: (known: ProvenShare) => boolean): boolean {
    const key = keyOf(share.proven);
    const { signed, claim } = this.#byParties.get(key) ?? {};
    const same = share.proven.provisional ? claim : signed;
    if (same && isSame(same.proven, share.proven)) return false;
    const rivals = [signed, claim && stands(claim.proven) ? claim : undefined];
    if (rivals.some((known) => known && !supersedes(share.proven, known.proven)))
      throw new MeshError('membership_invalid', 'A newer share is known');
    if (!signed && !claim) this.#makeRoom(stands);
    if (!share.proven.provisional) this.#byParties.set(key, { signed: share });
    else this.#byParties.set(key, { ...(signed ? { signed } : {}), claim: share });
    return true;
  }

  /** Drops those for which `keep` is false. */
  prune(keep: (share: ProvenShare) => boolean): void {
    for (const [key, between] of this.#byParties)
      if (!inOrder(between).every(({ proven }) => keep(proven))) this.#byParties.delete(key);
  }

  #makeRoom(stands: (known: ProvenShare) => boolean): void {
    if (this.#byParties.size < limits.maxShares) return;
    for (const [key, between] of this.#byParties) {
      if (inOrder(between).some(({ proven }) => stands(proven))) continue;
      this.#byParties.delete(key);
      return;
    }
    throw new MeshError('overloaded', `A peer knows at most ${limits.maxShares} shares`);
  }
}

function keyOf({ owner, cocoon, coOwner }: Pick<ProvenShare, 'owner' | 'cocoon' | 'coOwner'>): string {
  return `${owner} ${cocoon} ${coOwner}`;
}

function inOrder({ signed, claim }: Between = {}): KnownShare[] {
  return [claim, signed].filter((share) => share !== undefined);
}

/** Of one token and serial nothing different is signed; a receipt that is shown again changes the end. */
function isSame(one: ProvenShare, other: ProvenShare): boolean {
  return (
    one.epoch === other.epoch &&
    one.serial === other.serial &&
    one.jti === other.jti &&
    one.expires === other.expires
  );
}
