/**
 * Refusals can be brought about by strangers as often as they like: so many of a kind are written, of each peer and in
 * all, and the rest counted. One that floods does not hide the others; many that flood together fill nothing.
 */

import type { Clock, Timer } from '@cocoon-mesh/protocol/clock.ts';

/** Of a kind and a peer: enough to see what is going on. */
const maxPerPeer = 30;
/** Of a kind, whoever they are: a flood of each then costs some dozens of kilobytes a minute. */
const maxPerWindow = 300;
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
  /** By peer; no more than were written. */
  readonly written: Map<string, number>;
  total: number;
  left: number;
}

export class RepeatLimit {
  readonly #clock: Clock;
  readonly #suppressed: (repeats: Repeats) => void;
  readonly #windows = new Map<string, Window>();

  constructor(clock: Clock, suppressed: (repeats: Repeats) => void) {
    this.#clock = clock;
    this.#suppressed = suppressed;
  }

  /**
   * Is another one of these to be written?
   * @param peer whom it is about; '' when nobody is known
   */
  admits(event: string, code: string, peer = ''): boolean {
    const key = `${event} ${code}`;
    let window = this.#windows.get(key);
    if (!window) {
      const end = this.#clock.after(windowMs, () => this.#end(key));
      window = { event, code, end, written: new Map(), total: 0, left: 0 };
      this.#windows.set(key, window);
    }
    const ofPeer = window.written.get(peer) ?? 0;
    if (ofPeer >= maxPerPeer || window.total >= maxPerWindow) {
      window.left++;
      return false;
    }
    window.written.set(peer, ofPeer + 1);
    window.total++;
    return true;
  }

  /** Tells what was counted until now. */
  close(): void {
    for (const key of this.#windows.keys()) this.#end(key);
  }

  #end(key: string): void {
    const window = this.#windows.get(key);
    if (!window) return;
    const { event, code, end, left } = window;
    this.#windows.delete(key);
    end.cancel();
    if (left > 0) this.#suppressed({ event, code, count: left });
  }
}
