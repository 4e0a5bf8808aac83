/**
 * Introductions: a ticket for two peers that share an owner, and the signals between exactly these two while it
 * lasts. That is all that ever passes from one peer to another here.
 */

import type { Clock, SignalPayload, SigningKey, Timer } from '@cocoon-mesh/protocol';
import { MeshError, limits, randomBytes, signTicket, toBase64Url } from '@cocoon-mesh/protocol';
import type { SignalingAudit } from './audit.ts';
import type { Metrics } from './metrics.ts';
import type { OnlinePeer, Presence } from './presence.ts';
import type { Store } from './store.ts';

interface Introduction {
  readonly offerer: string;
  readonly answerer: string;
  readonly end: Timer;
  /** Descriptions that have passed. */
  readonly described: Set<'offer' | 'answer'>;
  signals: number;
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
      const answerer = await this.#answerer(asker, answererId);
      const ticket = await this.#ticket(asker, answerer);
      // Each may have gone or lost its right while the ticket was signed.
      if (presence.find(asker.owner, answererId) !== answerer || !asker.connection.open)
        throw new MeshError('device_offline');
      this.#remember(ticket.jti, asker, answerer);
      answerer.connection.send({
        type: 'introduction',
        ticket: ticket.jws,
        device: presence.entry(asker),
      });
      asker.connection.send({
        type: 'introduction',
        id: requestId,
        ticket: ticket.jws,
        device: presence.entry(answerer),
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
    const receiver = to === undefined ? null : presence.find(from.owner, to);
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

  close(): void {
    for (const { end } of this.#live.values()) end.cancel();
    this.#live.clear();
  }

  /** Unknown and foreign devices take the same way, down to the query, so that nobody can tell them apart. */
  async #answerer(asker: OnlinePeer, answererId: string): Promise<OnlinePeer> {
    const { presence, store, clock } = this.#options;
    const now = Math.floor(clock.now() / 1000);
    if (answererId === asker.peerId) throw new MeshError('self_connect');
    if (hasEnded(asker, now)) throw new MeshError('membership_expired');
    const online = presence.find(asker.owner, answererId);
    if (online && !hasEnded(online, now)) return online;
    const known = await store.device(asker.owner, answererId, now);
    throw new MeshError(known ? 'device_offline' : 'not_found');
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
      offerer: asker.peerId,
      answerer: answerer.peerId,
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
  return from.peerId === maker && !introduction.described.has(kind);
}

function otherSide({ offerer, answerer }: Introduction, from: OnlinePeer): string | undefined {
  if (from.peerId === offerer) return answerer;
  return from.peerId === answerer ? offerer : undefined;
}
