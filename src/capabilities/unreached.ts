/**
 * Devices that are listed as online and to which no connection could be made just now: one that hangs stays listed
 * until signaling misses it. Nobody waits for them again meanwhile where another device is there.
 */

import type { Clock } from '@cocoon-mesh/protocol';
import { limits } from '@cocoon-mesh/protocol';

/** Until signaling is sure whether the device is there. */
const rememberedMs = limits.signalingDeadMs;

export class Unreached {
  readonly #clock: Clock;
  readonly #since = new Map<string, number>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  add(peerId: string): void {
    const now = this.#clock.monotonic();
    for (const [known, since] of this.#since) if (now - since >= rememberedMs) this.#since.delete(known);
    this.#since.set(peerId, now);
  }

  delete(peerId: string): void {
    this.#since.delete(peerId);
  }

  has(peerId: string): boolean {
    const since = this.#since.get(peerId);
    return since !== undefined && this.#clock.monotonic() - since < rememberedMs;
  }
}
