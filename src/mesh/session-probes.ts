/**
 * Whether a session lives, asked before a request is trusted to it: its peer may be gone, or only its line to
 * signaling. A session that does not answer is given up, so that the request gets another one.
 */

import type { Clock } from '@cocoon-mesh/protocol';
import { deadline, limits } from '@cocoon-mesh/protocol';
import type { Link } from './links.ts';

/** After this silence a session is asked whether it lives before a request is trusted to it. */
const doubtAfterMs = limits.pingAfterMs + 500;
/** A session in doubt answers within this or is given up: many times a ping behind bulk, half of the heartbeat's. */
const probeMs = 2_000;

export class SessionProbes {
  readonly #clock: Clock;
  readonly #running = new Map<string, Promise<void>>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Resolves when the link, if it is in doubt, has answered or was given up. */
  async settle(link: Link): Promise<void> {
    if (link.session.silentMs > doubtAfterMs) this.doubt(link);
    await this.#running.get(link.peerId);
  }

  /** Asks at once; requests to that peer wait for the answer. */
  doubt(link: Link): void {
    if (this.#running.has(link.peerId)) return;
    const probe = this.#probe(link).finally(() => this.#running.delete(link.peerId));
    this.#running.set(link.peerId, probe);
  }

  async #probe(link: Link): Promise<void> {
    const limit = deadline(this.#clock, probeMs);
    try {
      await link.session.ping(limit.signal);
    } catch {
      link.session.giveUp();
    } finally {
      limit.cancel();
    }
  }
}
