/**
 * A data channel as a carrier: what every engine does the same. Messages before `start` are kept, `closed`
 * comes once, back-pressure has two marks, and an ending is agreed in band: engines report a closed channel
 * on another path than its messages, so a native close can overtake bytes that have arrived already.
 *
 * Sessions only send binary messages. A text message is ours:
 *   `close <reason>`  nothing follows; the sender waits for
 *   `closed`          everything before your `close` has been read
 * How a channel comes to be, and what lies below it, is each engine's matter.
 */

import type { Clock, Timer } from '@cocoon-mesh/protocol';
import { limits, systemClock } from '@cocoon-mesh/protocol';
import type { Carrier, CarrierEvents } from './carrier.ts';

const KiB = 1024;

/** What an engine lends: one open, ordered, reliable channel. */
export interface Channel {
  /** Bytes queued above the network. */
  readonly bufferedBytes: number;
  /** Never called with an empty message. May throw when the channel is gone. */
  sendBytes(message: Uint8Array): void;
  sendText(message: string): void;
  /** Ends channel and connection at once. Called once; the engine need not report the close it causes. */
  destroy(): Promise<void>;
}

/**
 * `writable` turns false at `high` bytes and true again at `low` (the engine's buffered-amount-low threshold).
 * More in the queue only makes small messages wait behind bulk; less lets it run dry between two wake-ups.
 */
export const channelMarks = { high: 64 * KiB, low: 16 * KiB } as const;

/** What an unproven peer can make us hold before anybody listens: proof and HELLO are below 100 KiB. */
const maxHeldBytes = 1024 * KiB;
/** Reasons are for logs. */
const maxReasonLength = 120;

type State =
  | { readonly name: 'open' }
  | { readonly name: 'draining'; readonly reason: string; readonly timer: Timer }
  | { readonly name: 'closed'; readonly reason: string };

export class ChannelCarrier implements Carrier {
  readonly kind = 'webrtc';
  readonly maxMessageBytes = limits.maxCarrierMessageBytes;
  readonly #channel: Channel;
  readonly #clock: Clock;
  #state: State = { name: 'open' };
  #events: CarrierEvents | null = null;
  /** Whether `#events` has been told of the close. */
  #told = false;
  #held: Uint8Array[] = [];
  #heldBytes = 0;
  #delivering = false;
  #writable = true;
  readonly #ended = Promise.withResolvers<void>();

  constructor(channel: Channel, clock: Clock = systemClock) {
    this.#channel = channel;
    this.#clock = clock;
  }

  get writable(): boolean {
    return this.#writable && this.#state.name === 'open';
  }

  get bufferedBytes(): number {
    return this.#state.name === 'closed' ? 0 : this.#channel.bufferedBytes;
  }

  send(message: Uint8Array): void {
    if (this.#state.name !== 'open') return;
    if (message.length === 0 || message.length > this.maxMessageBytes)
      throw new RangeError(`A message has 1 to ${this.maxMessageBytes} bytes, not ${message.length}`);
    if (!this.#trySend(() => this.#channel.sendBytes(message))) return;
    if (this.#channel.bufferedBytes >= channelMarks.high) this.#writable = false;
  }

  start(events: CarrierEvents): void {
    this.#events = events;
    this.#told = false;
    this.#deliver();
  }

  close(reason = 'closed here'): Promise<void> {
    if (this.#state.name === 'open') {
      const timer = this.#clock.after(limits.closeDrainMs, () => this.#end(reason));
      this.#state = { name: 'draining', reason, timer };
      this.#trySend(() => this.#channel.sendText(`close ${reason.slice(0, maxReasonLength)}`));
    }
    return this.#ended.promise;
  }

  abort(reason: string): void {
    this.#held = [];
    this.#end(reason);
  }

  /** The engine hands in each message, in order. The bytes belong to the carrier from here on. */
  received(message: Uint8Array | string): void {
    if (typeof message === 'string') this.#receivedText(message);
    else if (this.#state.name !== 'closed' && message.length > 0) this.#receivedBytes(message);
  }

  /** The engine's queue has fallen to the low mark. */
  drained(): void {
    if (this.#writable) return;
    this.#writable = true;
    if (this.#state.name === 'open') this.#events?.writable();
  }

  /** The engine lost the channel or the connection, for whatever reason. */
  lost(reason: string): void {
    this.#end(reason);
  }

  #receivedText(text: string): void {
    if (text === 'closed') {
      if (this.#state.name === 'draining') this.#end(this.#state.reason);
      return;
    }
    if (this.#state.name === 'closed') return;
    this.#trySend(() => this.#channel.sendText('closed'));
    // When both close at once, each waits for the other's `closed`, so that both queues arrive.
    if (this.#state.name === 'open') this.#end(closeReason(text));
  }

  #receivedBytes(message: Uint8Array): void {
    if (message.length > this.maxMessageBytes) return this.abort('the other side sent too large a message');
    this.#held.push(message);
    this.#heldBytes += message.length;
    this.#deliver();
    if (this.#heldBytes > maxHeldBytes) this.abort('too much came before anybody listened');
  }

  /** One loop, however handlers call back into it: order holds, also when one hands the carrier on. */
  #deliver(): void {
    if (this.#delivering) return;
    this.#delivering = true;
    try {
      while (this.#events) {
        const message = this.#held.shift();
        if (!message) break;
        this.#heldBytes -= message.length;
        this.#events.message(message);
      }
    } finally {
      this.#delivering = false;
    }
    if (this.#state.name !== 'closed' || !this.#events || this.#told) return;
    this.#told = true;
    this.#events.closed(this.#state.reason);
  }

  #trySend(send: () => void): boolean {
    try {
      send();
      return true;
    } catch (error) {
      const reason = error instanceof Error ? error.message : 'the channel refused a message';
      // Later, so that no handler hears of the close from inside its own `send`.
      queueMicrotask(() => this.#end(reason));
      return false;
    }
  }

  #end(reason: string): void {
    if (this.#state.name === 'closed') return;
    if (this.#state.name === 'draining') this.#state.timer.cancel();
    // What ends a close that is under way is its end, not its reason.
    const why = this.#state.name === 'draining' ? this.#state.reason : reason;
    this.#state = { name: 'closed', reason: why };
    void this.#channel.destroy().then(this.#ended.resolve, this.#ended.reject);
    this.#deliver();
  }
}

/** Text of the other side goes into logs: printable, short. */
function closeReason(text: string): string {
  const given = text.startsWith('close ') ? text.slice(6) : '';
  return `closed by the other side: ${given.replaceAll(/[^\x20-\x7e]/g, '?').slice(0, maxReasonLength)}`;
}
