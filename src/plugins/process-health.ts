/** Whether a plugin's process still answers, and how much memory it holds. */

import type { Clock, Timer } from '@cocoon-mesh/protocol';
import { every } from '@cocoon-mesh/protocol';

export interface ProcessHealthOptions {
  readonly clock: Clock;
  readonly maxRssBytes: number;
  readonly ping: (id: number) => void;
  /** Once; why it has to end. */
  readonly onProblem: (problem: string) => void;
}

const pingMs = 3_000;
/** In a row. Counted, not timed: when the daemon itself was held up, that is not the plugin's fault. */
const maxUnanswered = 5;

export class ProcessHealth {
  readonly #options: ProcessHealthOptions;
  readonly #timer: Timer;
  #unanswered = 0;
  #lastPing = 0;

  constructor(options: ProcessHealthOptions) {
    this.#options = options;
    this.#timer = every(options.clock, pingMs, () => this.#tick());
  }

  pong(id: number, rssBytes: number): void {
    if (id <= this.#lastPing) this.#unanswered = 0;
    const { maxRssBytes, onProblem } = this.#options;
    if (rssBytes <= maxRssBytes) return;
    this.close();
    onProblem(`It held ${toMiB(rssBytes)} MiB of memory, more than ${toMiB(maxRssBytes)}`);
  }

  /** Idempotent. */
  close(): void {
    this.#timer.cancel();
  }

  #tick(): void {
    const { ping, onProblem } = this.#options;
    if (this.#unanswered < maxUnanswered) {
      this.#unanswered++;
      ping(++this.#lastPing);
      return;
    }
    this.close();
    onProblem(`It did not answer for ${(maxUnanswered * pingMs) / 1000} s: its event loop was blocked`);
  }
}

function toMiB(bytes: number): number {
  return Math.round(bytes / 1024 / 1024);
}
