/**
 * The verified revocations of one owner in one epoch: the list itself, and loose entries, which the owner signed as
 * well but which have no place in the list, because entries before them are missing or because two devices with
 * the secret signed the same number. Every entry that was ever verified counts, wherever it stands.
 */

import type { HelloRevocations, Owner, Revocable, Revocation, RevocationHead } from '@cocoon-mesh/protocol';
import {
  ends,
  givesBack,
  hashObject,
  limits,
  MeshError,
  peekRevocation,
  toBase64Url,
  verifyRevocations,
} from '@cocoon-mesh/protocol';

const pieceLength = limits.maxRevocationsPerMessage;

interface Verified {
  readonly jws: string;
  readonly hash: string;
  readonly entry: Revocation;
}

export class RevocationList {
  readonly #owner: Owner;
  readonly #most: () => number;
  readonly #list: string[] = [];
  /** Of the entries of the list. */
  readonly #hashes: string[] = [];
  /** By number. */
  readonly #loose = new Map<number, Verified[]>();
  #looseCount = 0;
  readonly #bySubject = new Map<string, Revocation[]>();

  /**
   * @param owner whose epoch is the one of the list
   * @param most how many entries it may have
   */
  constructor(owner: Owner, most: () => number) {
    this.#owner = owner;
    this.#most = most;
  }

  /**
   * Of what was stored. Only the last signature of the list is checked: it is over the hash of the entry before,
   * signature included, and so on to the first.
   * @throws MeshError bad_signature and those of verifyRevocations
   */
  static async open(
    owner: Owner,
    most: () => number,
    list: readonly string[],
    loose: readonly string[],
  ): Promise<RevocationList> {
    const revocations = new RevocationList(owner, most);
    const entries = await Promise.all(
      list.map(async (jws) => ({ jws, hash: await hashOf(jws), entry: peekRevocation(jws) })),
    );
    const [before, last] = [entries.at(-2), list.at(-1)];
    if (last !== undefined)
      await verifyRevocations([last], owner, before ? { n: list.length - 1, hash: before.hash } : null);
    for (const verified of entries) revocations.#reopen(verified);
    await revocations.learn(loose, () => {});
    return revocations;
  }

  /** Oldest first. */
  get list(): readonly string[] {
    return this.#list;
  }

  get loose(): readonly string[] {
    return [...this.#loose.values()].flat().map(({ jws }) => jws);
  }

  /**
   * After which entry to ask whoever has a list with this end; null when all that leads to it is known. Links are
   * followed backwards, so that it tells as well where that list and ours parted. With each answer the gap gets
   * smaller, and with an empty one the end was no true one.
   */
  gap({ n, hash }: Pick<RevocationHead, 'n' | 'hash'>): number | null {
    for (let link = hash; n > 0 && link !== undefined && this.#hashes[n - 1] !== link; n--) {
      const known = this.#loose.get(n)?.find((verified) => verified.hash === link);
      if (!known) return Math.max(n > this.#list.length ? this.#list.length : 0, n - pieceLength);
      link = known.entry.previous;
    }
    return null;
  }

  /** With its newest entries, loose ones first to be told. */
  hello(): HelloRevocations {
    const hash = this.#hashes.at(-1);
    const newest = [...this.#list.slice(-limits.maxHelloRevocations), ...this.loose];
    return {
      owner: this.#owner.id,
      epoch: this.#owner.epoch,
      n: this.#list.length,
      ...(hash === undefined ? {} : { hash }),
      entries: newest.slice(-limits.maxHelloRevocations),
    };
  }

  /** The piece after entry `after`; where it reaches the end, loose entries follow as far as they fit. */
  piece(after: number): string[] {
    const list = this.#list.slice(after, after + pieceLength);
    if (after + list.length < this.#list.length) return list;
    return [...list, ...this.loose].slice(0, pieceLength);
  }

  /** Does an entry of this owner end a right that it gave? */
  ends(right: Revocable): boolean {
    return this.#about(right.peerId, right.jti, right.coOwner).some((entry) => ends(entry, right));
  }

  /** Does an entry of this owner give back what it was given? */
  givesBack(share: Revocable): boolean {
    return this.#about(share.peerId).some((entry) => givesBack(entry, share));
  }

  /**
   * Takes in entries in any order; those of another epoch are passed over.
   * @param news called for each entry that was not known
   * @throws MeshError bad_signature | bad_message | wrong_type | unknown_constraint | message_too_large; what came
   * before stays
   */
  async learn(list: readonly string[], news: (entry: Revocation) => void): Promise<void> {
    for (const jws of list) {
      const { epoch, n, previous } = peekRevocation(jws);
      if (epoch !== this.#owner.epoch || this.#has(n, jws)) continue;
      const before = n === 1 ? null : { n: n - 1, hash: previous ?? '' };
      const [entry] = await verifyRevocations([jws], this.#owner, before);
      const hash = await hashOf(jws);
      // While we waited another call may have brought it.
      if (!entry || this.#has(n, jws)) continue;
      this.#take({ jws, hash, entry });
      news(entry);
    }
  }

  #has(n: number, jws: string): boolean {
    return this.#list[n - 1] === jws || (this.#loose.get(n)?.some((known) => known.jws === jws) ?? false);
  }

  /** @throws MeshError bad_signature when it does not follow the entry before */
  #reopen(verified: Verified): void {
    if (!this.#follows(verified))
      throw new MeshError('bad_signature', 'A stored list of revocations has a gap');
    this.#append(verified);
    this.#index(verified.entry);
  }

  #take(verified: Verified): void {
    const most = this.#most();
    if (this.#list.length + this.#looseCount >= most)
      throw new MeshError('message_too_large', `Of this owner ${most} revocations are kept`);
    this.#index(verified.entry);
    if (this.#follows(verified)) {
      this.#append(verified);
      this.#appendLoose();
      return;
    }
    const { n } = verified.entry;
    this.#loose.set(n, [...(this.#loose.get(n) ?? []), verified]);
    this.#looseCount++;
  }

  #follows({ entry }: Verified): boolean {
    return entry.n === this.#list.length + 1 && entry.previous === this.#hashes.at(-1);
  }

  #append({ jws, hash }: Verified): void {
    this.#list.push(jws);
    this.#hashes.push(hash);
  }

  /** Loose entries that the last one was missing for. */
  #appendLoose(): void {
    for (;;) {
      const n = this.#list.length + 1;
      const candidates = this.#loose.get(n) ?? [];
      const next = candidates.find((verified) => this.#follows(verified));
      if (!next) return;
      this.#append(next);
      this.#looseCount--;
      const left = candidates.filter((verified) => verified !== next);
      if (left.length > 0) this.#loose.set(n, left);
      else this.#loose.delete(n);
    }
  }

  #index(entry: Revocation): void {
    const entries = this.#bySubject.get(entry.subject);
    if (entries) entries.push(entry);
    else this.#bySubject.set(entry.subject, [entry]);
  }

  #about(...subjects: readonly (string | null | undefined)[]): Revocation[] {
    return subjects.flatMap((subject) => this.#bySubject.get(subject ?? '') ?? []);
  }
}

async function hashOf(jws: string): Promise<string> {
  return toBase64Url(await hashObject(jws));
}
