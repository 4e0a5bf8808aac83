/** How long a plugin that ended waits before it is started again. */

const firstMs = 1_000;
const longestMs = 60_000;
/** One that ran this long was well. */
const wellMs = 60_000;

export class RestartDelay {
  #next = firstMs;

  /** @param ranMs how long it ran, from when it was ready; 0: it never was */
  next(ranMs: number): number {
    if (ranMs >= wellMs) this.#next = firstMs;
    const delay = this.#next;
    this.#next = Math.min(delay * 2, longestMs);
    return delay;
  }
}
