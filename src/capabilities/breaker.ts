/**
 * Whether a device that fails is asked. Half of at least 20 requests within 60 s failing opens the breaker; after
 * 10 s one request may try, and its end decides. Being busy or being cancelled is no failure.
 */

import type { Clock } from '@cocoon-mesh/protocol';

const windowMs = 60_000;
const bucketMs = 1_000;
const leastRequests = 20;
const openMs = 10_000;

interface Bucket {
  readonly at: number;
  all: number;
  failed: number;
}

type State =
  | { readonly state: 'closed' }
  | { readonly state: 'open'; readonly untilMs: number }
  /** One request is under way. */
  | { readonly state: 'trying' };

export type Outcome = 'served' | 'failed' | 'neither';

export class Breaker {
  readonly #clock: Clock;
  /** Oldest first. */
  #buckets: Bucket[] = [];
  #state: State = { state: 'closed' };

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** How long until one request may try; 0: one may now. */
  get waitMs(): number {
    if (this.#state.state === 'closed') return 0;
    return this.#state.state === 'trying'
      ? openMs
      : Math.max(0, this.#state.untilMs - this.#clock.monotonic());
  }

  /** @returns tells how the request ended, once; null: not now */
  begin(): ((outcome: Outcome) => void) | null {
    if (this.waitMs > 0) return null;
    const isTry = this.#state.state === 'open';
    if (isTry) this.#state = { state: 'trying' };
    let isUnderWay = true;
    return (outcome) => {
      if (!isUnderWay) return;
      isUnderWay = false;
      if (isTry) this.#tried(outcome);
      else if (outcome !== 'neither') this.#count(outcome === 'failed');
    };
  }

  #tried(outcome: Outcome): void {
    if (outcome === 'served') {
      this.#buckets = [];
      this.#state = { state: 'closed' };
    } else this.#open(outcome === 'failed' ? openMs : 0);
  }

  #count(hasFailed: boolean): void {
    const now = this.#clock.monotonic();
    const at = Math.floor(now / bucketMs);
    while (this.#buckets[0] && this.#buckets[0].at <= at - windowMs / bucketMs) this.#buckets.shift();
    let newest = this.#buckets.at(-1);
    if (newest?.at !== at) this.#buckets.push((newest = { at, all: 0, failed: 0 }));
    newest.all++;
    if (!hasFailed) return;
    newest.failed++;
    const all = this.#buckets.reduce((sum, bucket) => sum + bucket.all, 0);
    const failed = this.#buckets.reduce((sum, bucket) => sum + bucket.failed, 0);
    if (this.#state.state === 'closed' && all >= leastRequests && failed * 2 >= all) this.#open(openMs);
  }

  #open(forMs: number): void {
    this.#state = { state: 'open', untilMs: this.#clock.monotonic() + forMs };
  }
}
