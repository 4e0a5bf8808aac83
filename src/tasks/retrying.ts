/** Asking again what did not answer. */

import type { Clock } from '@cocoon-mesh/protocol';

const firstPauseMs = 500;
const longestPauseMs = 15_000;

/**
 * Asks until there is an answer, with longer and longer pauses. Once `signal` fires there is one last attempt at
 * most. @throws what `ask` throws, when `isFinal` of it or `signal` has fired
 */
export async function retrying<T>(
  ask: () => Promise<T>,
  isFinal: (thrown: unknown) => boolean,
  clock: Clock,
  signal: AbortSignal,
): Promise<T> {
  for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(2 * pauseMs, longestPauseMs)) {
    const last = signal.aborted;
    try {
      return await ask();
    } catch (thrown) {
      if (isFinal(thrown) || last) throw thrown;
    }
    await pause(pauseMs, clock, signal);
  }
}

async function pause(ms: number, clock: Clock, signal: AbortSignal): Promise<void> {
  const over = Promise.withResolvers<void>();
  const end = (): void => over.resolve();
  const timer = clock.after(ms, end);
  signal.addEventListener('abort', end, { once: true });
  if (signal.aborted) end();
  await over.promise;
  signal.removeEventListener('abort', end);
  timer.cancel();
}
