/**
 * The limit on waiting for a response head. It runs only while the service is the one awaited: a client that
 * uploads slowly does not use up the service's time.
 */

import type { Clock, Timer } from '@cocoon-mesh/protocol';

export class HeadLimit {
  readonly #clock: Clock;
  readonly #limitMs: number;
  readonly #expired: () => void;
  #timer: Timer | null = null;
  #over = false;

  constructor(clock: Clock, limitMs: number, expired: () => void) {
    this.#clock = clock;
    this.#limitMs = limitMs;
    this.#expired = expired;
  }

  /** Starts the whole limit anew. */
  start(): void {
    this.pause();
    if (!this.#over) this.#timer = this.#clock.after(this.#limitMs, this.#expired);
  }

  /** Somebody else is awaited. */
  pause(): void {
    this.#timer?.cancel();
    this.#timer = null;
  }

  /** The head came, or nobody waits any more. */
  stop(): void {
    this.pause();
    this.#over = true;
  }
}
