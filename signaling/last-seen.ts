/**
 * When devices were last seen. Each write waits for the disk, and after an outage of the network a thousand devices
 * leave at once: those that leave while one is under way are written together.
 */

import type { Kysely } from 'kysely';
import type { Tables } from './tables.ts';

export class LastSeen {
  readonly #db: Kysely<Tables>;
  readonly #waiting = new Map<string, number>();
  #writing: Promise<void> | null = null;

  constructor(db: Kysely<Tables>) {
    this.#db = db;
  }

  /** Resolves when it is written. @throws MeshError storage_failed */
  async note(peerId: string, lastSeen: number): Promise<void> {
    this.#waiting.set(peerId, lastSeen);
    // What came after the list of this one was made has to wait for the next.
    while (this.#waiting.has(peerId)) {
      this.#writing ??= this.#write().finally(() => (this.#writing = null));
      await this.#writing;
    }
  }

  async #write(): Promise<void> {
    // Whoever leaves in this turn of the event loop comes along.
    await new Promise<void>((resolve) => setImmediate(resolve));
    const times = Map.groupBy(this.#waiting, ([, lastSeen]) => lastSeen);
    this.#waiting.clear();
    for (const [lastSeen, devices] of times)
      await this.#db
        .updateTable('device')
        .set({ last_seen: lastSeen })
        .where(
          'peer_id',
          'in',
          devices.map(([peerId]) => peerId),
        )
        .execute();
  }
}
