/**
 * The way into one provider: so many at once, so many waiting, one more is told when to come back. What it tells is
 * measured: the mean time that requests of late took.
 */

import type { Clock, ProviderLoad } from '@cocoon-mesh/protocol';
import { MeshError } from '@cocoon-mesh/protocol';
import type { Provider } from './provider.ts';

/** How much the newest request counts in the mean. */
const newestShare = 0.2;
/** Told as long as nothing was measured. */
const firstRetryMs = 1_000;
const leastRetryMs = 50;
const mostRetryMs = 60_000;

interface Waiting {
  readonly enter: () => void;
}

export interface Place {
  readonly queueMs: number;
  /** Idempotent. @param served its time counts in the mean */
  leave(served: boolean): void;
}

export class ProviderLane {
  readonly provider: Provider;
  readonly #clock: Clock;
  readonly #changed: () => void;
  /** In the order in which they came. */
  readonly #queue = new Set<Waiting>();
  #inFlight = 0;
  #meanMs: number | null = null;

  constructor(provider: Provider, clock: Clock, changed: () => void) {
    this.provider = provider;
    this.#clock = clock;
    this.#changed = changed;
  }

  get load(): ProviderLoad {
    return { in_flight: this.#inFlight, queued: this.#queue.size, limit: this.provider.limit };
  }

  get isFull(): boolean {
    const { limit, maxQueued } = this.provider;
    return this.#inFlight >= limit && this.#queue.size >= maxQueued;
  }

  /** @throws MeshError overloaded with `retryAfterMs`; the reason of the signal while it waits */
  async enter(signal: AbortSignal): Promise<Place> {
    signal.throwIfAborted();
    const came = this.#clock.monotonic();
    if (this.#inFlight < this.provider.limit) this.#inFlight++;
    else if (this.isFull) throw this.#overloaded();
    else await this.#wait(signal);
    this.#changed();
    const began = this.#clock.monotonic();
    let isIn = true;
    return {
      queueMs: Math.round(began - came),
      leave: (served) => {
        if (!isIn) return;
        isIn = false;
        if (served) this.#measure(this.#clock.monotonic() - began);
        this.#passOn();
        this.#changed();
      },
    };
  }

  /** Its place is that of one who leaves: nobody comes in between. */
  async #wait(signal: AbortSignal): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const waiting: Waiting = { enter: resolve };
    const leave = (): void => {
      if (this.#queue.delete(waiting)) reject(signal.reason);
      this.#changed();
    };
    this.#queue.add(waiting);
    this.#changed();
    signal.addEventListener('abort', leave, { once: true });
    try {
      await promise;
    } finally {
      signal.removeEventListener('abort', leave);
    }
  }

  #passOn(): void {
    const [next] = this.#queue;
    if (!next) {
      this.#inFlight--;
      return;
    }
    this.#queue.delete(next);
    next.enter();
  }

  #measure(tookMs: number): void {
    this.#meanMs = this.#meanMs === null ? tookMs : this.#meanMs + newestShare * (tookMs - this.#meanMs);
  }

  /** Until those before it would have been served. */
  #overloaded(): MeshError {
    const { protocol, limit } = this.provider;
    const needMs =
      this.#meanMs === null ? firstRetryMs : (this.#meanMs * (this.#queue.size + 1)) / Math.max(1, limit);
    const retryAfterMs = Math.ceil(Math.min(mostRetryMs, Math.max(leastRetryMs, needMs)));
    return new MeshError('overloaded', `All places of ${protocol} are taken, and so is its queue`, {
      retryAfterMs,
      hint: `Try again in ${Math.ceil(retryAfterMs / 1000)} s.`,
    });
  }
}
