/** The life of a command that runs until somebody ends it: SIGINT and SIGTERM close it cleanly, in limited time. */

/** Promised to service managers; what is not closed by then is cut by the end of the process. */
const closeLimitMs = 4_500;

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
    setTimeout(() => process.exit(0), closeLimitMs).unref();
  };
  process.on('SIGINT', end);
  process.on('SIGTERM', end);
  // Timers of ours hold no process; this one does, until it is over.
  const held = setInterval(() => undefined, 3600_000);
  try {
    await run(ended.signal);
  } finally {
    clearInterval(held);
    process.off('SIGINT', end);
    process.off('SIGTERM', end);
  }
}

/** Resolves when the signal fires. */
export function fired(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
}
