/**
 * The parts that conversations and HTTP routes share, and the two things that concern several of them at once: a
 * peer that signs in, and revocations that end what others have under way.
 */

import type { Clock, Redemption, ServerMessage, SigningKey } from '@cocoon-mesh/protocol';
import { MeshError, toBase64Url, toMeshError } from '@cocoon-mesh/protocol';
import type { SignalingAudit } from './audit.ts';
import type { AccessTokens } from './access-token.ts';
import type { Introductions } from './introductions.ts';
import type { SignalingLog } from './log.ts';
import type { Metrics } from './metrics.ts';
import type { OidcGate } from './oidc.ts';
import type { Newcomers } from './newcomers.ts';
import type { Ownership } from './ownership.ts';
import type { OnlinePeer, Presence } from './presence.ts';
import type { RateLimits } from './rate-limits.ts';
import type { ServerKeys } from './server-keys.ts';
import type { Store } from './store.ts';

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

  constructor(parts: DeskParts) {
    this.parts = parts;
  }

  /** Makes a peer known to be online and tells it what it missed. */
  async welcome(peer: OnlinePeer, receipt: string | null): Promise<void> {
    const { clock, store, keys, ownership, presence, accessTokens, log } = this.parts;
    const { owner, peerId, connection } = peer;
    const [{ token }, devices, revocations] = await Promise.all([
      accessTokens.signForMember(peer.membership),
      store.devices(owner, ownership.nowSeconds),
      store.revocations(owner),
    ]);
    if (!connection.open) return;
    // From here to the end nothing waits: no change falls between the list and the pushes that follow it.
    const older = presence.come(peer);
    connection.send({
      type: 'welcome',
      time_ms: clock.now(),
      ticket_key: publicText(keys.ticket),
      receipt_key: publicText(keys.receipt),
      access_token: token,
      ...(receipt === null ? {} : { receipt }),
      devices: devices.slice(0, maxListedDevices).map((device) => presence.describe(device)),
      revocations: revocations ? [{ owner, list: [...revocations.list] }] : [],
    });
    older?.connection.fail(new MeshError('replaced', 'The device has signed in again'));
    log.info({ peer: peerId, owner }, 'A peer signed in');
  }

  async gone(peer: OnlinePeer): Promise<void> {
    const { presence, store, ownership, log } = this.parts;
    if (!presence.go(peer)) return;
    log.info({ peer: peer.peerId, owner: peer.owner }, 'A peer left');
    try {
      await store.seen([peer.peerId], ownership.nowSeconds);
    } catch (thrown) {
      log.error({ error: String(thrown) }, 'When a peer was last seen could not be stored');
    }
  }

  /** @throws MeshError as `Ownership.redeem`; RateLimited */
  async redeem(peerId: string, redemption: Redemption, address: string): Promise<string> {
    const { ownership, rates, newcomers, metrics, log, audit } = this.parts;
    await rates.countIdentity('redemption', peerId);
    await newcomers.admitRedemption(redemption, address);
    try {
      const receipt = await newcomers.judge(redemption, address, () => ownership.redeem(peerId, redemption));
      metrics.redemptions.inc({ result: 'ok' });
      log.info({ peer: peerId }, 'A setup token was redeemed');
      return receipt;
    } catch (thrown) {
      const code = toMeshError(thrown).code;
      metrics.redemptions.inc({ result: code });
      log.warn({ peer: peerId, address, code }, 'A setup token was refused');
      audit.append('redemption.refused', { peer: peerId, address, code });
      throw thrown;
    }
  }

  /** Ends the connections of an owner's peers whose membership no longer stands. */
  async sweep(owner: string): Promise<void> {
    for (const peer of this.parts.presence.ofOwner(owner)) await this.dismissUnlessStanding(peer);
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
  }

  /** @returns whether it stands */
  async dismissUnlessStanding(peer: OnlinePeer): Promise<boolean> {
    const { ownership, presence, log } = this.parts;
    try {
      await ownership.assertStanding(peer.membership);
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
    const { ownership, presence, store, audit } = this.parts;
    const { owner } = from;
    const isNews = await ownership.addRevocations(owner, list);
    const known = (await store.revocations(owner))?.list ?? [];
    const message: ServerMessage = { type: 'revocations', owner, list: [...known] };
    if (isNews) {
      audit.append('revocations.learned', { peer: from.peerId, owner, entries: known.length });
      presence.broadcast(owner, message, from.peerId);
      await this.sweep(owner);
    } else if (known.length > list.length) {
      from.connection.send(message);
    }
  }
}

const storeFailures: ReadonlySet<string> = new Set(['storage_failed', 'database_corrupt']);

/** As the schema of `welcome` has it. */
const maxListedDevices = 1000;

function publicText(key: SigningKey): string {
  return toBase64Url(key.publicKey);
}
