/**
 * Two carriers joined in memory, for tests and for measuring what is above a carrier. They behave like a
 * wire: bytes are copied, delivery is never inside `send`, order is kept, and sending faster than delivery
 * fills a buffer with the usual high-water mark.
 */

import { limits, systemClock } from '@cocoon-mesh/protocol';
import type { Clock, Timer } from '@cocoon-mesh/protocol';
import type { Carrier, CarrierEvents } from './carrier.ts';
import { Fifo } from './fifo.ts';

export interface MemoryCarrierOptions {
  readonly maxMessageBytes?: number;
  readonly highWaterBytes?: number;
  /** How long one message travels, in ms on `clock`. Without it, a message arrives in the next microtask. */
  readonly delayMs?: () => number;
  readonly clock?: Clock;
  /** Instead of a microtask, for undelayed messages. */
  readonly schedule?: (callback: () => void) => void;
}

export class MemoryCarrier implements Carrier {
  readonly kind = 'memory';
  readonly maxMessageBytes: number;
  readonly #options: MemoryCarrierOptions;
  readonly #clock: Clock;
  readonly #highWaterBytes: number;
  readonly #early = new Fifo<Uint8Array>();
  readonly #flying = new Fifo<Uint8Array>();
  readonly #timers = new Set<Timer>();
  readonly #drained: (() => void)[] = [];
  #peer: MemoryCarrier | null = null;
  #events: CarrierEvents | null = null;
  #bufferedBytes = 0;
  #lastArrival = 0;
  #deliveryDue = false;
  #full = false;
  /** `closing`: sends nothing new, delivers what flies. */
  #state: 'open' | 'closing' | 'closed' = 'open';
  #reason = '';

  constructor(options: MemoryCarrierOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.maxMessageBytes = options.maxMessageBytes ?? limits.maxCarrierMessageBytes;
    this.#highWaterBytes = options.highWaterBytes ?? 256 * 1024;
  }

  get writable(): boolean {
    return this.#state === 'open' && this.#bufferedBytes < this.#highWaterBytes;
  }

  get bufferedBytes(): number {
    return this.#bufferedBytes;
  }

  /** For the pair. */
  join(peer: MemoryCarrier): void {
    this.#peer = peer;
  }

  send(message: Uint8Array): void {
    if (this.#state !== 'open') return;
    if (message.length === 0 || message.length > this.maxMessageBytes) {
      throw new RangeError(`a message of ${message.length} bytes`);
    }
    this.#bufferedBytes += message.length;
    if (!this.writable) this.#full = true;
    this.#flying.push(message.slice());
    this.#scheduleDelivery();
  }

  start(events: CarrierEvents): void {
    this.#events = events;
    for (let message = this.#early.shift(); message && this.#events === events;) {
      events.message(message);
      message = this.#early.shift();
    }
    if (this.#state === 'closed' && this.#events === events) events.closed(this.#reason);
  }

  async close(reason = 'closed'): Promise<void> {
    if (this.#state === 'closed') return;
    this.#state = 'closing';
    this.#reason = reason;
    if (this.#flying.length > 0) await new Promise<void>((resolve) => this.#drained.push(resolve));
    this.#end(reason);
  }

  abort(reason: string): void {
    this.#end(reason);
  }

  #scheduleDelivery(): void {
    const { delayMs, schedule } = this.#options;
    if (delayMs) {
      const now = this.#clock.monotonic();
      this.#lastArrival = Math.max(this.#lastArrival, now + delayMs());
      const timer = this.#clock.after(this.#lastArrival - now, () => {
        this.#timers.delete(timer);
        this.#deliver();
      });
      this.#timers.add(timer);
      return;
    }
    if (this.#deliveryDue) return;
    this.#deliveryDue = true;
    const deliverAll = () => {
      this.#deliveryDue = false;
      for (let count = this.#flying.length; count > 0; count--) this.#deliver();
    };
    if (schedule) schedule(deliverAll);
    else queueMicrotask(deliverAll);
  }

  #deliver(): void {
    const message = this.#flying.shift();
    if (!message) return;
    this.#bufferedBytes -= message.length;
    const peer = this.#peer;
    if (peer) peer.#receive(message);
    if (this.#flying.length === 0) for (const resolve of this.#drained.splice(0)) resolve();
    if (this.#full && this.#state === 'open' && this.#bufferedBytes <= this.#highWaterBytes / 2) {
      this.#full = false;
      this.#events?.writable();
    }
  }

  #receive(message: Uint8Array): void {
    if (this.#state === 'closed') return;
    if (this.#events) this.#events.message(message);
    else this.#early.push(message);
  }

  #end(reason: string): void {
    if (this.#state === 'closed') return;
    this.#state = 'closed';
    this.#reason = reason;
    for (const timer of this.#timers) timer.cancel();
    this.#timers.clear();
    this.#flying.clear();
    this.#bufferedBytes = 0;
    for (const resolve of this.#drained.splice(0)) resolve();
    this.#events?.closed(reason);
    const peer = this.#peer;
    if (peer) peer.#end(reason);
  }
}

/** Two joined ends. Aborting or closing one closes the other. */
export function memoryCarrierPair(options: MemoryCarrierOptions = {}): [MemoryCarrier, MemoryCarrier] {
  const left = new MemoryCarrier(options);
  const right = new MemoryCarrier(options);
  left.join(right);
  right.join(left);
  return [left, right];
}
