/** The life of a command that runs until somebody ends it: SIGINT and SIGTERM close it cleanly, in limited time. */

import { MessageChannel } from 'node:worker_threads';
import { systemClock } from '@cocoon-mesh/protocol/clock.ts';

/**
 * Five seconds are promised to service managers, and a busy machine needs some of them to end a process. What is not
 * closed by then is cut by the end.
 */
const closeLimitMs = 4_000;

/**
 * Runs until a signal comes. `run` gets a signal that fires then, and must end soon after. The second SIGINT does
 * not wait.
 */
export async function untilEnded(run: (ended: AbortSignal) => Promise<void>): Promise<void> {
  const ended = new AbortController();
  const end = (signal: NodeJS.Signals): void => {
    if (ended.signal.aborted) {
      if (signal === 'SIGINT') process.exit(130);
      return;
    }
    ended.abort();
    systemClock.after(closeLimitMs, () => process.exit(0));
  };
  process.on('SIGINT', end);
  process.on('SIGTERM', end);
  const release = holdProcess();
  try {
    await run(ended.signal);
  } finally {
    release();
    process.off('SIGINT', end);
    process.off('SIGTERM', end);
  }
}

/** Resolves when the signal fires. */
export function fired(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
}

/** Waits; the process lives at least as long. */
export async function pause(ms: number): Promise<void> {
  const release = holdProcess();
  await new Promise<void>((resolve) => void systemClock.after(ms, resolve));
  release();
}

/** Our timers hold no process, so that a forgotten one never does; who waits on purpose says so. */
function holdProcess(): () => void {
  const { port1 } = new MessageChannel();
  port1.ref();
  return () => port1.close();
}
