/** Counts events in windows of one second; what to do above the limit is the caller's decision. */

export class RateLimit {
  readonly #perSecond: number;
  #windowStart = -Infinity;
  #count = 0;

  constructor(perSecond: number) {
    this.#perSecond = perSecond;
  }

  /** Counts one event at `nowMs` (monotonic); false when it is one too many. */
  allow(nowMs: number): boolean {
    if (nowMs - this.#windowStart >= 1000) {
      this.#windowStart = nowMs;
      this.#count = 0;
    }
    this.#count++;
    return this.#count <= this.#perSecond;
  }
}
