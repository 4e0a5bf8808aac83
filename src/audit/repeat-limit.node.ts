/** Refusals can be brought about by strangers as often as they like: so many of a kind are written, the rest counted. */

import type { Clock, Timer } from '@cocoon-mesh/protocol/clock.ts';

/** Enough to see what is going on; a flood of each kind then costs some kilobytes a minute. */
const maxPerWindow = 30;
const windowMs = 60_000;

export interface Repeats {
  readonly event: string;
  readonly code: string;
  /** How many were not written. */
  readonly count: number;
}

interface Window {
  readonly event: string;
  readonly code: string;
  readonly end: Timer;
  seen: number;
}

export class RepeatLimit {
  readonly #clock: Clock;
  readonly #suppressed: (repeats: Repeats) => void;
  readonly #windows = new Map<string, Window>();

  constructor(clock: Clock, suppressed: (repeats: Repeats) => void) {
    this.#clock = clock;
    this.#suppressed = suppressed;
  }

  /** Is another one of these to be written? */
  admits(event: string, code: string): boolean {
    const key = `${event} ${code}`;
    let window = this.#windows.get(key);
    if (!window) {
      window = { event, code, end: this.#clock.after(windowMs, () => this.#end(key)), seen: 0 };
      this.#windows.set(key, window);
    }
    window.seen++;
    return window.seen <= maxPerWindow;
  }

  /** Tells what was counted until now. */
  close(): void {
    for (const key of this.#windows.keys()) this.#end(key);
  }

  #end(key: string): void {
    const window = this.#windows.get(key);
    if (!window) return;
    const { event, code, end, seen } = window;
    this.#windows.delete(key);
    end.cancel();
    if (seen > maxPerWindow) this.#suppressed({ event, code, count: seen - maxPerWindow });
  }
}
