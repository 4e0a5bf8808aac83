/** Where the requests of a session were served last: whoever keeps something warm for them is asked again. */

import type { Clock } from '@cocoon-mesh/protocol';
import type { CapabilityRequest } from './request.ts';

const maxSessions = 1_000;
/** A provider that was idle for that long has forgotten it. */
const idleMs = 10 * 60_000;

interface Entry {
  readonly peerId: string;
  readonly atMs: number;
}

type Asked = Pick<CapabilityRequest, 'protocol' | 'session'>;

export class Sessions {
  readonly #clock: Clock;
  /** The longest unused first. */
  readonly #entries = new Map<string, Entry>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** PeerId; null: nobody in particular. */
  deviceOf(asked: Asked): string | null {
    const key = keyOf(asked);
    const entry = key === null ? undefined : this.#entries.get(key);
    return entry && this.#clock.monotonic() - entry.atMs < idleMs ? entry.peerId : null;
  }

  served(asked: Asked, peerId: string): void {
    const key = keyOf(asked);
    if (key === null) return;
    this.#entries.delete(key);
    this.#entries.set(key, { peerId, atMs: this.#clock.monotonic() });
    const [oldest] = this.#entries.keys();
    if (this.#entries.size > maxSessions && oldest !== undefined) this.#entries.delete(oldest);
  }
}

function keyOf({ protocol, session }: Asked): string | null {
  return session === undefined ? null : `${protocol} ${session}`;
}
