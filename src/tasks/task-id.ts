/** Ids of tasks: UUIDv7 (RFC 9562), whose order is the order in which this device made them. */

import type { Clock } from '@cocoon-mesh/protocol';

/** Of the 74 random bits, those that count within a millisecond. */
const counterBits = 12;

export class TaskIds {
  readonly #clock: Clock;
  #lastMs = 0;
  #counter = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** `ms` is the time that the id holds; it never goes back, so that newer tasks are listed before older ones. */
  next(): { readonly id: string; readonly ms: number } {
    const random = crypto.getRandomValues(new Uint8Array(10));
    const now = this.#clock.now();
    if (now > this.#lastMs) {
      this.#lastMs = now;
      // Half of the room is left to count in.
      this.#counter = ((random[0] ?? 0) << 3) | ((random[1] ?? 0) >> 5);
    } else if (++this.#counter >= 1 << counterBits) {
      this.#lastMs++;
      this.#counter = 0;
    }
    const time = this.#lastMs.toString(16).padStart(12, '0');
    const counter = this.#counter.toString(16).padStart(3, '0');
    const rest = [...random.subarray(2)].map((byte) => byte.toString(16).padStart(2, '0')).join('');
    const variant = (((random[2] ?? 0) & 0x3f) | 0x80).toString(16);
    const tail = variant + rest.slice(2);
    return {
      id: `${time.slice(0, 8)}-${time.slice(8)}-7${counter}-${tail.slice(0, 4)}-${tail.slice(4)}`,
      ms: this.#lastMs,
    };
  }
}
