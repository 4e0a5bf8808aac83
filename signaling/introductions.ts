/**
 * Introductions: a ticket for two peers of one owner, or for a peer and a cocoon that its owner was given, and the
 * signals between exactly these two while it lasts. That is all that ever passes from one peer to another here.
 */

import type { Clock, DeviceEntry, SignalPayload, SigningKey, Timer } from '@cocoon-mesh/protocol';
import { MeshError, limits, randomBytes, signTicket, toBase64Url } from '@cocoon-mesh/protocol';
import type { SignalingAudit } from './audit.ts';
import type { Metrics } from './metrics.ts';
import type { OnlinePeer, Presence, VisibleShare } from './presence.ts';
import { isVisible } from './presence.ts';
import type { Store } from './store.ts';

/** One side of an introduction. */
interface Side {
  readonly owner: string;
  readonly peerId: string;
}

interface Introduction {
  readonly offerer: Side;
  readonly answerer: Side;
  readonly end: Timer;
  /** Descriptions that have passed. */
  readonly described: Set<'offer' | 'answer'>;
  signals: number;
}

/** Whom somebody may meet, and for a cocoon of another owner why. */
interface Answerer {
  readonly peer: OnlinePeer;
  readonly share: VisibleShare | null;
}

interface IntroductionsOptions {
  readonly presence: Presence;
  readonly store: Store;
  readonly ticketKey: SigningKey;
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly audit: SignalingAudit;
}

export class Introductions {
  readonly #options: IntroductionsOptions;
  readonly #live = new Map<string, Introduction>();

  constructor(options: IntroductionsOptions) {
    this.#options = options;
  }

  /** How many may still be signalled over. */
  get size(): number {
    return this.#live.size;
  }

  /**
   * Makes a ticket and sends it to both, to the asker with its request's id.
   * @throws MeshError self_connect | membership_expired | not_found | device_offline
   */
  async introduce(asker: OnlinePeer, answererId: string, requestId: number): Promise<void> {
    const { presence, metrics, audit } = this.#options;
    const about = { peer: asker.peerId, owner: asker.owner, to: answererId };
    try {
      const found = await this.#answerer(asker, answererId);
      const ticket = await this.#ticket(asker, found.peer);
      // Each may have gone or lost its right while the ticket was signed.
      const { peer, share } = found.share ? await this.#answerer(asker, answererId) : found;
      if (presence.find(peer.owner, answererId) !== peer || !asker.connection.open)
        throw new MeshError('device_offline');
      this.#remember(ticket.jti, asker, peer);
      const entries = this.#entries(asker, peer, share);
      peer.connection.send({ type: 'introduction', ticket: ticket.jws, device: entries.asker });
      asker.connection.send({
        type: 'introduction',
        id: requestId,
        ticket: ticket.jws,
        device: entries.answerer,
      });
      metrics.introduced('ok');
      audit.append('introduction', { ...about, jti: ticket.jti });
    } catch (thrown) {
      const code = thrown instanceof MeshError ? thrown.code : 'internal';
      metrics.introduced(code);
      audit.append('introduction.refused', { ...about, code });
      throw thrown;
    }
  }

  /** Relays between the two of a live introduction; anything else falls silent, like a signal that comes late. */
  signal(from: OnlinePeer, jti: string, payload: SignalPayload, bytesIn: number): void {
    const { presence, metrics } = this.#options;
    const introduction = this.#live.get(jti);
    const to = introduction && otherSide(introduction, from);
    const receiver = to === undefined ? null : presence.find(to.owner, to.peerId);
    const passes =
      introduction &&
      introduction.signals < limits.maxSignalsPerIntroduction &&
      isDue(introduction, from, payload);
    if (!receiver || !passes) {
      metrics.signals.inc({ result: 'dropped' });
      return;
    }
    introduction.signals++;
    if (payload.kind === 'offer' || payload.kind === 'answer') introduction.described.add(payload.kind);
    metrics.relayed(bytesIn, receiver.connection.send({ type: 'signal', jti, payload }));
  }

  /** A cocoon is shared with that owner no more. */
  endShared(cocoon: string, coOwner: string): void {
    for (const [jti, { offerer, answerer, end }] of this.#live) {
      if (answerer.peerId !== cocoon || offerer.owner !== coOwner) continue;
      end.cancel();
      this.#live.delete(jti);
    }
  }

  close(): void {
    for (const { end } of this.#live.values()) end.cancel();
    this.#live.clear();
  }

  /** Unknown and foreign devices take the same way, down to the queries, so that nobody can tell them apart. */
  async #answerer(asker: OnlinePeer, answererId: string): Promise<Answerer> {
    const { presence, store, clock } = this.#options;
    const now = Math.floor(clock.now() / 1000);
    if (answererId === asker.peerId) throw new MeshError('self_connect');
    if (hasEnded(asker, now)) throw new MeshError('membership_expired');
    const online = presence.find(asker.owner, answererId);
    if (online && !hasEnded(online, now)) return { peer: online, share: null };
    const known = await store.device(asker.owner, answererId, now);
    const shared = await store.shares.find(asker.owner, answererId, now);
    if (shared && isVisible(shared.share)) {
      const peer = presence.find(shared.share.owner, answererId);
      if (!peer || hasEnded(peer, now)) throw new MeshError('device_offline');
      return { peer, share: shared.share };
    }
    throw new MeshError(known ? 'device_offline' : 'not_found');
  }

  /** What each is shown of the other. To a cocoon, the share says why a stranger comes. */
  #entries(
    asker: OnlinePeer,
    answerer: OnlinePeer,
    share: VisibleShare | null,
  ): { readonly asker: DeviceEntry; readonly answerer: DeviceEntry } {
    const { presence } = this.#options;
    const entry = presence.entry(asker);
    if (!share) return { asker: entry, answerer: presence.entry(answerer) };
    return { asker: { ...entry, share: share.proof }, answerer: presence.sharedEntry(answerer, share) };
  }

  async #ticket(asker: OnlinePeer, answerer: OnlinePeer): Promise<{ jti: string; jws: string }> {
    const jti = toBase64Url(randomBytes(16));
    const now = Math.floor(this.#options.clock.now() / 1000);
    const jws = await signTicket(this.#options.ticketKey, {
      jti,
      owner: asker.owner,
      offerer: asker.peerId,
      answerer: answerer.peerId,
      nonce: toBase64Url(randomBytes(16)),
      scopes: ['session'],
      iat: now,
      exp: now + limits.ticketLifetimeMs / 1000,
    });
    return { jti, jws };
  }

  #remember(jti: string, asker: OnlinePeer, answerer: OnlinePeer): void {
    const end = this.#options.clock.after(limits.ticketLifetimeMs, () => void this.#live.delete(jti));
    this.#live.set(jti, {
      offerer: { owner: asker.owner, peerId: asker.peerId },
      answerer: { owner: answerer.owner, peerId: answerer.peerId },
      end,
      described: new Set(),
      signals: 0,
    });
  }
}

function hasEnded({ membership: { expires } }: OnlinePeer, nowSeconds: number): boolean {
  return expires !== null && expires <= nowSeconds;
}

/** Descriptions are the large ones: each side makes one, once. Nothing else goes through here in quantity. */
function isDue(introduction: Introduction, from: OnlinePeer, { kind }: SignalPayload): boolean {
  if (kind !== 'offer' && kind !== 'answer') return true;
  const maker = kind === 'offer' ? introduction.offerer : introduction.answerer;
  return from.peerId === maker.peerId && !introduction.described.has(kind);
}

function otherSide({ offerer, answerer }: Introduction, from: OnlinePeer): Side | undefined {
  if (isSide(offerer, from)) return answerer;
  return isSide(answerer, from) ? offerer : undefined;
}

/** A device that has left for another owner is not the one that was introduced. */
function isSide(side: Side, { owner, peerId }: OnlinePeer): boolean {
  return side.peerId === peerId && side.owner === owner;
}
