/** A clock for tests: time stands still until `step` moves it, and timers run in order of their time. */

import type { Clock, Timer } from './clock.ts';

interface Pending {
  readonly at: number;
  readonly callback: () => void;
}

export class SteppedClock implements Clock {
  #now: number;
  readonly #start: number;
  readonly #pending = new Set<Pending>();

  constructor(now = Date.UTC(2026, 0, 1)) {
    this.#now = now;
    this.#start = now;
  }

  now(): number {
    return this.#now;
  }

  monotonic(): number {
    return this.#now - this.#start;
  }

  after(delayMs: number, callback: () => void): Timer {
    const entry = { at: this.#now + Math.max(0, delayMs), callback };
    this.#pending.add(entry);
    return { cancel: () => void this.#pending.delete(entry) };
  }

  /** Timers that wait; tests assert that a closed part leaves none. */
  get pendingTimers(): number {
    return this.#pending.size;
  }

  /** Moves time forward by `ms` and runs every timer that falls due, earliest first. */
  step(ms: number): void {
    const end = this.#now + ms;
    for (;;) {
      let next: Pending | undefined;
      for (const entry of this.#pending) if (entry.at <= end && (!next || entry.at < next.at)) next = entry;
      if (!next) break;
      this.#pending.delete(next);
      this.#now = Math.max(this.#now, next.at);
      next.callback();
    }
    this.#now = end;
  }
}
