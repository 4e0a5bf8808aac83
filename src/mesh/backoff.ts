/** How long to wait before trying again: grows by half from half a second to half a minute, with full jitter. */

const firstMs = 500;
const longestMs = 30_000;

/**
 * @param attempt 0 for the first retry
 * @param random in [0, 1)
 * @returns milliseconds, at least a tenth of the step, so that many peers do not return at the same instant
 *   https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
 */
export function backoffMs(attempt: number, random: number): number {
  const step = Math.min(longestMs, firstMs * 1.5 ** Math.min(attempt, 16));
  return Math.round(step * (0.1 + 0.9 * random));
}
