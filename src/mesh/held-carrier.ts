/**
 * A carrier between two owners. While nobody listens it keeps what comes, and hands it over in order: after
 * the last message of a proof, the first frames of the session may already be on their way or in the same
 * packet. Everything else passes straight through.
 */

import type { Carrier, CarrierEvents } from './carrier.ts';

export class HeldCarrier implements Carrier {
  readonly #inner: Carrier;
  readonly #maxHeldBytes: number;
  #events: CarrierEvents | null = null;
  #held: Uint8Array[] = [];
  #heldBytes = 0;
  #delivering = false;
  #closed: string | null = null;
  #told: CarrierEvents | null = null;

  /** Takes the carrier over at once. More than `maxHeldBytes` with nobody listening closes it. */
  constructor(inner: Carrier, maxHeldBytes: number) {
    this.#inner = inner;
    this.#maxHeldBytes = maxHeldBytes;
    inner.start({
      message: (bytes) => this.#message(bytes),
      writable: () => this.#events?.writable(),
      closed: (reason) => this.#close(reason),
    });
  }

  get kind(): Carrier['kind'] {
    return this.#inner.kind;
  }

  get maxMessageBytes(): number {
    return this.#inner.maxMessageBytes;
  }

  get writable(): boolean {
    return this.#inner.writable;
  }

  get bufferedBytes(): number {
    return this.#inner.bufferedBytes;
  }

  send(message: Uint8Array): void {
    this.#inner.send(message);
  }

  start(events: CarrierEvents): void {
    this.#events = events;
    this.#deliver();
  }

  /** From the next message on nobody listens. May be called while a message is being handled. */
  hold(): void {
    this.#events = null;
  }

  close(reason?: string): Promise<void> {
    return this.#inner.close(reason);
  }

  abort(reason: string): void {
    this.#inner.abort(reason);
  }

  #message(bytes: Uint8Array): void {
    this.#held.push(bytes);
    this.#heldBytes += bytes.length;
    this.#deliver();
    if (this.#heldBytes > this.#maxHeldBytes && this.#events === null) {
      this.#held.length = 0;
      this.#heldBytes = 0;
      this.#inner.abort('too many bytes before anyone listened');
    }
  }

  /** Handlers may call `hold` or `start`, and what they send may be answered before they return. */
  #deliver(): void {
    if (this.#delivering) return;
    this.#delivering = true;
    let next = 0;
    try {
      while (this.#events && next < this.#held.length) {
        const bytes = this.#held[next++] as Uint8Array;
        this.#heldBytes -= bytes.length;
        this.#events.message(bytes);
      }
    } finally {
      if (next >= this.#held.length) this.#held.length = 0;
      else this.#held.splice(0, next);
      this.#delivering = false;
    }
    this.#tellClosed();
  }

  /** Last, and to every owner once: the next one learns of a close that the one before was told of. */
  #tellClosed(): void {
    const events = this.#events;
    if (this.#closed === null || !events || this.#told === events) return;
    this.#told = events;
    events.closed(this.#closed);
  }

  #close(reason: string): void {
    this.#closed ??= reason;
    this.#deliver();
  }
}
