/**
 * Time as a value that is passed in. Only `systemClock` calls the platform's timers; everything else
 * takes a `Clock`, so that tests step time instead of sleeping (`stepped-clock.ts`).
 */

export interface Timer {
  /** Idempotent. */
  cancel(): void;
}

export interface Clock {
  /** Milliseconds since 1970, UTC. */
  now(): number;
  /** Milliseconds that never go back; for measuring durations. */
  monotonic(): number;
  /** Runs `callback` once after `delayMs`. Timers never keep a process alive. */
  after(delayMs: number, callback: () => void): Timer;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  after(delayMs, callback) {
    let handle: unknown;
    function wait(leftMs: number): void {
      const stepMs = Math.min(leftMs, longestTimerMs);
      handle = setTimeout(() => (leftMs > stepMs ? wait(leftMs - stepMs) : callback()), stepMs);
      // Node's timers hold the process; the browser's are numbers and cannot.
      if (typeof handle === 'object' && handle !== null && 'unref' in handle) {
        (handle as { unref(): void }).unref();
      }
    }
    wait(delayMs);
    return { cancel: () => clearTimeout(handle as number) };
  },
};

/** The platforms keep delays in 32 bits and fire at once when they are longer: 24.8 days. */
const longestTimerMs = 2 ** 31 - 1;

/** Repeats `callback` every `intervalMs` until cancelled. */
export function every(clock: Clock, intervalMs: number, callback: () => void): Timer {
  let timer = clock.after(intervalMs, tick);
  let cancelled = false;
  function tick() {
    if (cancelled) return;
    timer = clock.after(intervalMs, tick);
    callback();
  }
  return {
    cancel() {
      cancelled = true;
      timer.cancel();
    },
  };
}

/** An `AbortSignal` that fires `TimeoutError` after `delayMs` on this clock. Cancel it when done. */
export function deadline(clock: Clock, delayMs: number): { signal: AbortSignal; cancel(): void } {
  const controller = new AbortController();
  const timer = clock.after(delayMs, () =>
    controller.abort(new DOMException(`timed out after ${delayMs} ms`, 'TimeoutError')),
  );
  return { signal: controller.signal, cancel: () => timer.cancel() };
}
