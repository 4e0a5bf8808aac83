/**
 * Notices a dead carrier by silence: data channels tell only after 13 to 28 s. Any message counts as life;
 * a ping goes out only when nothing came for a while.
 */

import type { Clock, Timer } from '@cocoon-mesh/protocol';

export interface HeartbeatEvents {
  /** Send a PING now. */
  ping(): void;
  /** Nothing came for `deadAfterMs`. Called once; the heartbeat has stopped. */
  dead(): void;
}

export interface HeartbeatLimits {
  readonly pingAfterMs: number;
  readonly deadAfterMs: number;
}

/** A timer this late means that our own process stood still (a laptop asleep, a debugger), not the other's. */
const stallMs = 1_000;

export class Heartbeat {
  readonly #clock: Clock;
  readonly #limits: HeartbeatLimits;
  readonly #events: HeartbeatEvents;
  #heardAt: number;
  #pingedAt: number;
  #timer: Timer;

  constructor(clock: Clock, limits: HeartbeatLimits, events: HeartbeatEvents) {
    this.#clock = clock;
    this.#limits = limits;
    this.#events = events;
    this.#heardAt = clock.monotonic();
    this.#pingedAt = this.#heardAt;
    this.#timer = this.#wait(limits.pingAfterMs);
  }

  /** Something came at `nowMs` (monotonic). */
  heard(nowMs: number): void {
    this.#heardAt = nowMs;
  }

  /** Milliseconds since something came. */
  get silentMs(): number {
    return this.#clock.monotonic() - this.#heardAt;
  }

  stop(): void {
    this.#timer.cancel();
  }

  #wait(delayMs: number): Timer {
    const dueAt = this.#clock.monotonic() + delayMs;
    return this.#clock.after(delayMs, () => this.#check(dueAt));
  }

  #check(dueAt: number): void {
    const { pingAfterMs, deadAfterMs } = this.#limits;
    const now = this.#clock.monotonic();
    // What came while we stood still is yet to be read: ask again before calling the other side dead.
    if (now - dueAt > stallMs) this.#heardAt = Math.max(this.#heardAt, now - pingAfterMs);
    const silence = now - this.#heardAt;
    if (silence >= deadAfterMs) return this.#events.dead();
    const sinceAsked = now - Math.max(this.#heardAt, this.#pingedAt);
    let wait = pingAfterMs - sinceAsked;
    if (wait <= 0) {
      this.#pingedAt = now;
      wait = pingAfterMs;
      this.#events.ping();
    }
    this.#timer = this.#wait(Math.min(wait, deadAfterMs - silence));
  }
}
