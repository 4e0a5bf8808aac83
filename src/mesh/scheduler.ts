/**
 * When a session sends. `soon` is after the code that runs now, so that what it writes goes out in one
 * message; `later` lets sockets and timers have a turn first, so that bulk starves nobody.
 */

export interface Scheduler {
  soon(callback: () => void): void;
  later(callback: () => void): void;
}

interface MaybeSetImmediate {
  readonly setImmediate?: (callback: () => void) => unknown;
}

/** `later` where there is no `setImmediate`: a message to ourselves, which browsers do not slow down to 4 ms. */
export function laterByMessage(): { later: Scheduler['later']; close: () => void } {
  const waiting: (() => void)[] = [];
  const { port1, port2 } = new MessageChannel();
  port1.addEventListener('message', () => waiting.shift()?.());
  port1.start();
  return {
    later: (callback) => {
      waiting.push(callback);
      port2.postMessage(null);
    },
    close: () => port1.close(),
  };
}

function platformLater(): Scheduler['later'] {
  const { setImmediate } = globalThis as MaybeSetImmediate;
  return setImmediate ? (callback) => void setImmediate(callback) : laterByMessage().later;
}

export const platformScheduler: Scheduler = {
  soon: (callback) => queueMicrotask(callback),
  later: platformLater(),
};
