/** Counts the numbered frames that came and says when to acknowledge: after many bytes, or a moment later. */

import type { Clock, Timer } from '@cocoon-mesh/protocol';

export interface AcknowledgerLimits {
  readonly ackEveryBytes: number;
  readonly ackDelayMs: number;
}

export class Acknowledger {
  readonly #clock: Clock;
  readonly #limits: AcknowledgerLimits;
  readonly #due: () => void;
  #position = 0;
  #unacknowledgedBytes = 0;
  #atOnce = false;
  #timer: Timer | null = null;

  /** @param due an ACK of `position` should leave now */
  constructor(clock: Clock, limits: AcknowledgerLimits, due: () => void) {
    this.#clock = clock;
    this.#limits = limits;
    this.#due = due;
  }

  /** Numbered frames received. */
  get position(): number {
    return this.#position;
  }

  /** One numbered frame of this many bytes came. */
  received(bytes: number): void {
    this.#position++;
    this.#unacknowledgedBytes += bytes;
    if (this.#atOnce || this.#unacknowledgedBytes >= this.#limits.ackEveryBytes) return this.#now();
    this.#timer ??= this.#clock.after(this.#limits.ackDelayMs, () => this.#now());
  }

  /** From now on nothing is delayed: a closing session waits for its acknowledgements. */
  atOnce(): void {
    this.#atOnce = true;
    if (this.#unacknowledgedBytes > 0) this.#now();
  }

  stop(): void {
    this.#timer?.cancel();
    this.#timer = null;
  }

  #now(): void {
    this.stop();
    this.#unacknowledgedBytes = 0;
    this.#due();
  }
}
