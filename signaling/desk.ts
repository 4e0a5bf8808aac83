/**
 * The parts that conversations and HTTP routes share, and what concerns several of them at once: a peer that signs
 * in, and revocations and rotations that end what others have under way.
 */

import type { Clock, Redemption, SigningKey } from '@cocoon-mesh/protocol';
import { MeshError, toBase64Url, toMeshError } from '@cocoon-mesh/protocol';
import type { SignalingAudit } from './audit.ts';
import type { AccessTokens } from './access-token.ts';
import type { Introductions } from './introductions.ts';
import type { SignalingLog } from './log.ts';
import type { Metrics } from './metrics.ts';
import type { Newcomers } from './newcomers.ts';
import type { OidcGate } from './oidc.ts';
import type { Admitted, Ownership, Redeemer } from './ownership.ts';
import type { OnlinePeer, Presence } from './presence.ts';
import type { RateLimits } from './rate-limits.ts';
import type { ServerKeys } from './server-keys.ts';
import { Sharing } from './sharing.ts';
import type { Store } from './store.ts';
import type { Known } from './welcome.ts';
import { welcomeContent } from './welcome.ts';

export interface DeskParts {
  readonly clock: Clock;
  readonly log: SignalingLog;
  readonly audit: SignalingAudit;
  readonly metrics: Metrics;
  readonly store: Store;
  readonly keys: ServerKeys;
  readonly ownership: Ownership;
  readonly presence: Presence;
  readonly introductions: Introductions;
  readonly accessTokens: AccessTokens;
  readonly rates: RateLimits;
  readonly newcomers: Newcomers;
  /** Null: the server asks for no ID tokens. */
  readonly oidc: OidcGate | null;
}

export class Desk {
  readonly parts: DeskParts;
  readonly sharing: Sharing;

  constructor(parts: DeskParts) {
    this.parts = parts;
    this.sharing = new Sharing(parts);
  }

  /** Makes a peer known to be online and tells it what it missed. @param missing what it did not show itself */
  async welcome(
    peer: OnlinePeer,
    missing: { readonly receipt: string | null; readonly newer: Admitted['newer'] },
  ): Promise<void> {
    const { presence, accessTokens, log } = this.parts;
    const { owner, peerId, connection } = peer;
    const { token } = await accessTokens.signForMember(peer.membership);
    const arrival = presence.expect(owner);
    try {
      let known = await this.#knownTo(peer);
      for (let turn = 1; arrival.missed && turn < maxTurns; turn++) {
        arrival.missed = false;
        known = await this.#knownTo(peer);
      }
      if (!connection.open) return;
      // From here to the end nothing waits: no change falls between the list and the pushes that follow it.
      const older = presence.come(peer);
      connection.send({
        type: 'welcome',
        ...this.#ownWords,
        access_token: token,
        ...(missing.receipt === null ? {} : { receipt: missing.receipt }),
        ...(missing.newer === null ? {} : { membership: missing.newer }),
        ...welcomeContent(presence, known),
      });
      older?.connection.fail(new MeshError('replaced', 'The device has signed in again'));
      log.info({ peer: peerId, owner }, 'A peer signed in');
    } finally {
      presence.arrived(owner, arrival);
    }
  }

  /** What may have happened while the welcome was written, and what its coming changes for others. */
  async entered(peer: OnlinePeer, rotated: boolean): Promise<void> {
    if (!(await this.dismissUnlessStanding(peer))) return;
    await this.endOlderEpochs(peer);
    if (rotated) await this.rotated(peer);
    else if (peer.record.kind === 'cocoon') await this.sharing.refresh(peer);
  }

  async gone(peer: OnlinePeer): Promise<void> {
    const { presence, store, ownership, log } = this.parts;
    if (!presence.go(peer)) return;
    log.info({ peer: peer.peerId, owner: peer.owner }, 'A peer left');
    try {
      await store.seen(peer.peerId, ownership.nowSeconds);
    } catch (thrown) {
      log.error({ error: String(thrown) }, 'When a peer was last seen could not be stored');
    }
  }

  /** @throws MeshError as `Ownership.redeem`; RateLimited */
  async redeem(redeemer: Redeemer, redemption: Redemption, address: string): Promise<string> {
    const { peerId } = redeemer;
    const { ownership, rates, newcomers, metrics, log, audit } = this.parts;
    await rates.countIdentity('redemption', peerId);
    await newcomers.admitRedemption(redemption, address);
    try {
      const { receipt, share } = await newcomers.judge(redemption, address, () =>
        ownership.redeem(redeemer, redemption),
      );
      metrics.redemptions.inc({ result: 'ok' });
      log.info({ peer: peerId }, 'A setup token was redeemed');
      if (share) await this.sharing.stored(share, peerId);
      return receipt;
    } catch (thrown) {
      const code = toMeshError(thrown).code;
      metrics.redemptions.inc({ result: code });
      log.warn({ peer: peerId, address, code }, 'A setup token was refused');
      audit.append('redemption.refused', { peer: peerId, address, code });
      throw thrown;
    }
  }

  /** Ends what an owner's peers have under way and no longer stands: connections, and use of shared cocoons. */
  async sweep(owner: string): Promise<void> {
    for (const peer of this.parts.presence.ofOwner(owner)) await this.dismissUnlessStanding(peer);
    await this.sharing.refreshOf(owner);
  }

  /** An owner has a new secret: what was signed with the old one is void, here and for everybody concerned. */
  async rotated(by: OnlinePeer): Promise<void> {
    const { audit } = this.parts;
    audit.append('owner.rotated', { peer: by.peerId, owner: by.owner, epoch: by.membership.epoch });
    await this.endOlderEpochs(by);
    await this.sharing.tellNews(by.owner, by.peerId);
    await this.sharing.refreshOf(by.owner);
  }

  /** The first membership of a new epoch ends those of the old one. */
  async endOlderEpochs({ owner, membership: { epoch } }: OnlinePeer): Promise<void> {
    for (const other of this.parts.presence.ofOwner(owner))
      if (other.membership.epoch < epoch) await this.dismissUnlessStanding(other);
  }

  /** Memberships end by time, too. */
  async endExpired(): Promise<void> {
    const now = this.parts.ownership.nowSeconds;
    for (const peer of this.parts.presence.all())
      if ((peer.membership.expires ?? Infinity) <= now) await this.dismissUnlessStanding(peer);
    await this.sharing.endExpired();
  }

  /** @returns whether it stands */
  async dismissUnlessStanding(peer: OnlinePeer): Promise<boolean> {
    const { ownership, presence, log } = this.parts;
    try {
      const counts = await ownership.standing(peer.membership);
      this.#renew(peer, counts);
      return true;
    } catch (thrown) {
      // A store that fails says nothing about the membership.
      if (!(thrown instanceof MeshError) || storeFailures.has(thrown.code)) throw thrown;
      peer.connection.fail(thrown);
      // Not left to the closing handshake, which the other side may delay.
      presence.go(peer);
      log.info({ peer: peer.peerId, owner: peer.owner, code: thrown.code }, 'A peer was dismissed');
      return false;
    }
  }

  /** Takes in a list that a member brought. */
  async revocations(from: OnlinePeer, list: readonly string[]): Promise<void> {
    const { ownership, store, audit } = this.parts;
    const { owner, peerId } = from;
    if (await ownership.addRevocations(owner, list)) {
      // Before the sweep: whom it ends something for is told why.
      const news = await this.sharing.tellNews(owner, peerId);
      audit.append('revocations.learned', { peer: peerId, owner, entries: news?.list.length ?? 0 });
      await this.sweep(owner);
      return;
    }
    const [known] = await store.news([owner]);
    if (known && known.list.length > list.length) from.connection.send({ type: 'revocations', ...known });
  }

  get #ownWords(): { readonly time_ms: number; readonly ticket_key: string; readonly receipt_key: string } {
    const { clock, keys } = this.parts;
    return {
      time_ms: clock.now(),
      ticket_key: publicText(keys.ticket),
      receipt_key: publicText(keys.receipt),
    };
  }

  async #knownTo(peer: OnlinePeer): Promise<Known> {
    const { store, ownership } = this.parts;
    const { owner, peerId } = peer;
    const [devices, shared, shares] = await Promise.all([
      store.devices(owner, ownership.nowSeconds),
      store.shares.withCoOwner(owner, ownership.nowSeconds),
      store.shares.ofOwner(owner, ownership.nowSeconds),
    ]);
    peer.shares.clear();
    for (const share of shares) if (share.cocoon === peerId) peer.shares.set(share.coOwner, share);
    return { devices, shared, shares, news: await this.sharing.newsFor(peer) };
  }

  /** Its owner has signed a newer membership, perhaps by way of another server. */
  #renew(peer: OnlinePeer, counts: OnlinePeer['membership']): void {
    const { epoch, serial } = peer.membership;
    if (counts.provisional || (counts.epoch === epoch && counts.serial === serial)) return;
    peer.membership = counts;
    peer.connection.send({ type: 'membership', membership: counts.proof });
    this.parts.presence.changed(peer);
  }
}

const storeFailures: ReadonlySet<string> = new Set(['storage_failed', 'database_corrupt']);

/** A household is quiet within one; where hundreds of devices come and go, one more is told of soon. */
const maxTurns = 3;

function publicText(key: SigningKey): string {
  return toBase64Url(key.publicKey);
}
