/**
 * The wait for a connection to open: one result, asked for any number of times, each with its own signal and
 * within `limits.connectTimeoutMs`. What makes it open or fail is the engine's matter.
 */

import type { Clock } from '@cocoon-mesh/protocol';
import { limits, MeshError, systemClock, toMeshError } from '@cocoon-mesh/protocol';
import type { Carrier } from './carrier.ts';

export class Opening {
  readonly #clock: Clock;
  readonly #result = Promise.withResolvers<Carrier>();

  constructor(clock: Clock = systemClock) {
    this.#clock = clock;
    // A connection that fails before anybody waits for it is no unhandled rejection.
    this.#result.promise.catch(() => undefined);
  }

  succeed(carrier: Carrier): void {
    this.#result.resolve(carrier);
  }

  /** Does nothing once it has succeeded. */
  fail(reason: string): void {
    this.#result.reject(new MeshError('carrier_lost', `The connection could not be opened: ${reason}`));
  }

  /** @throws MeshError connect_timeout | carrier_lost, or what the signal's reason stands for */
  async wait(signal: AbortSignal): Promise<Carrier> {
    const ended = Promise.withResolvers<never>();
    const onAbort = (): void => ended.reject(toMeshError(signal.reason, 'cancelled'));
    const timer = this.#clock.after(limits.connectTimeoutMs, () =>
      ended.reject(new MeshError('connect_timeout')),
    );
    signal.addEventListener('abort', onAbort, { once: true });
    if (signal.aborted) onAbort();
    try {
      return await Promise.race([this.#result.promise, ended.promise]);
    } finally {
      timer.cancel();
      signal.removeEventListener('abort', onAbort);
    }
  }
}
