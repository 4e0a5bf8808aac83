/**
 * Cocoons that are shared, while they and those who may use them are here: what comes in is verified and stored, and
 * whoever it concerns is told. What ends is ended here in the same way whatever ended it: the store is asked anew.
 */

import type { MembershipProof, ServerMessage, ShareProof } from '@cocoon-mesh/protocol';
import { MeshError, limits } from '@cocoon-mesh/protocol';
import type { SignalingAudit } from './audit.ts';
import type { Introductions } from './introductions.ts';
import type { SignalingLog } from './log.ts';
import type { Ownership } from './ownership.ts';
import type { OnlinePeer, Presence } from './presence.ts';
import type { OwnerNews } from './revocation-store.ts';
import type { StoredShare, VerifiedShare } from './share-store.ts';
import type { Store, StoredRecord } from './store.ts';

interface SharingParts {
  readonly store: Store;
  readonly ownership: Ownership;
  readonly presence: Presence;
  readonly introductions: Introductions;
  readonly log: SignalingLog;
  readonly audit: SignalingAudit;
}

export class Sharing {
  readonly #parts: SharingParts;
  /** One after the other for each cocoon, so that an older answer of the store never replaces a newer one. */
  readonly #refreshing = new WeakMap<OnlinePeer, Promise<void>>();

  constructor(parts: SharingParts) {
    this.#parts = parts;
  }

  /**
   * A share that a peer brings: of its own owner's cocoon, or one that its owner was given. One that does not count
   * is passed over: a device brings all that it has, and may not have heard yet of what has ended.
   */
  async bring(from: OnlinePeer, proof: ShareProof): Promise<void> {
    const { ownership, log } = this.#parts;
    try {
      const share = await ownership.share(proof, from.owner);
      if (share) await this.stored(share, from.peerId);
    } catch (thrown) {
      if (!isRefusal(thrown)) throw thrown;
      log.info({ peer: from.peerId, owner: from.owner, code: thrown.code }, 'A share was passed over');
    }
  }

  /** A share has been stored. @param from the peer that brought it and knows it */
  async stored(share: VerifiedShare, from: string): Promise<void> {
    const { presence, audit } = this.#parts;
    const { owner, cocoon, coOwner, jti, provisional, proof } = share;
    audit.append('share.stored', { owner, cocoon, co_owner: coOwner, jti, provisional });
    presence.broadcast(owner, { type: 'share', share: proof }, from);
    const online = presence.find(owner, cocoon);
    if (online) await this.refresh(online);
  }

  /** A membership that a peer's owner signed for another of its devices. Passed over as in `bring`. */
  async issue(from: OnlinePeer, peerId: string, proof: MembershipProof): Promise<void> {
    const { ownership, presence, log } = this.#parts;
    try {
      const membership = await ownership.issue(from.owner, peerId, proof);
      const device = membership && presence.find(from.owner, peerId);
      if (!device) return;
      device.membership = membership;
      device.connection.send({ type: 'membership', membership: membership.proof });
      presence.changed(device);
    } catch (thrown) {
      if (!isRefusal(thrown)) throw thrown;
      log.info({ peer: from.peerId, of: peerId, code: thrown.code }, 'A membership was passed over');
    }
  }

  /** What a cocoon says of itself to one it is shared with; to anybody else it is said in vain. */
  async record(cocoon: OnlinePeer, coOwner: string, record: StoredRecord): Promise<void> {
    const key = { owner: cocoon.owner, cocoon: cocoon.peerId, coOwner };
    if (await this.#parts.store.shares.saveRecord(key, record)) await this.refresh(cocoon);
  }

  /** Brings what is known of a cocoon's shares up to date and tells those concerned. */
  async refresh(cocoon: OnlinePeer): Promise<void> {
    const before = this.#refreshing.get(cocoon) ?? Promise.resolve();
    const work = before.catch(() => undefined).then(() => this.#refresh(cocoon));
    this.#refreshing.set(cocoon, work);
    await work;
  }

  /** Of every cocoon here that is this owner's, or shared with it. */
  async refreshOf(owner: string): Promise<void> {
    const { presence } = this.#parts;
    const own = presence.ofOwner(owner).filter(({ shares }) => shares.size > 0);
    for (const cocoon of [...own, ...presence.sharedWith(owner)]) await this.refresh(cocoon);
  }

  /** Shares end by time, too. */
  async endExpired(): Promise<void> {
    const { presence, ownership } = this.#parts;
    const now = ownership.nowSeconds;
    const hasEnded = ({ expires }: StoredShare): boolean => expires !== null && expires <= now;
    for (const peer of presence.all()) if ([...peer.shares.values()].some(hasEnded)) await this.refresh(peer);
  }

  /** Tells an owner's revocations and records to everybody whom they concern: there may be no other way to them. */
  async tellNews(owner: string, except: string): Promise<OwnerNews | null> {
    const { store, presence } = this.#parts;
    const [news] = await store.news([owner]);
    if (!news) return null;
    const { coOwners } = await store.shares.partners(owner);
    const message: ServerMessage = { type: 'revocations', ...news };
    presence.broadcast(owner, message, except);
    for (const cocoon of presence.sharedWith(owner)) cocoon.connection.send(message);
    for (const coOwner of coOwners) presence.broadcast(coOwner, message, except);
    return news;
  }

  /** Whose revocations a peer needs: its own owner's, and of a cocoon those of everybody it is shared with. */
  async newsFor(peer: OnlinePeer): Promise<OwnerNews[]> {
    const { store } = this.#parts;
    const { owners } = await store.shares.partners(peer.owner);
    const concerned = new Set([peer.owner, ...peer.shares.keys(), ...owners]);
    return store.news([...concerned].slice(0, limits.maxRevocationLists));
  }

  async #refresh(cocoon: OnlinePeer): Promise<void> {
    const { store, ownership, presence, introductions } = this.#parts;
    const standing = await store.shares.ofCocoon(cocoon.owner, cocoon.peerId, ownership.nowSeconds);
    const coOwners = new Set(standing.map(({ coOwner }) => coOwner));
    for (const coOwner of cocoon.shares.keys())
      if (!coOwners.has(coOwner)) {
        presence.unshare(cocoon, coOwner);
        introductions.endShared(cocoon.peerId, coOwner);
      }
    for (const share of standing)
      if (!isSame(cocoon.shares.get(share.coOwner), share)) presence.share(cocoon, share);
  }
}

/** What is wrong with what was brought, not with us or with how often. */
function isRefusal(thrown: unknown): thrown is MeshError {
  return thrown instanceof MeshError && refusals.has(thrown.code);
}

const refusals: ReadonlySet<string> = new Set([
  'membership_invalid',
  'membership_expired',
  'unknown_constraint',
  'revoked',
  'overloaded',
]);

function isSame(known: StoredShare | undefined, { proof, record }: StoredShare): boolean {
  if (!known || known.record?.record !== record?.record) return false;
  return JSON.stringify(known.proof) === JSON.stringify(proof);
}
