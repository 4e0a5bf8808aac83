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
function laterByMessage(): (callback: () => void) => void {
  const waiting: (() => void)[] = [];
  const { port1, port2 } = new MessageChannel();
  port1.addEventListener('message', () => waiting.shift()?.());
  port1.start();
  return (callback) => {
    waiting.push(callback);
    port2.postMessage(null);
  };
}

function platformLater(): (callback: () => void) => void {
  const { setImmediate } = globalThis as MaybeSetImmediate;
  return setImmediate ? (callback) => void setImmediate(callback) : laterByMessage();
}

export const platformScheduler: Scheduler = {
  soon: (callback) => queueMicrotask(callback),
  later: platformLater(),
};
