/**
 * The owner's keys while the device runs. They count only as long as nobody has put a newer secret in their place:
 * what an old one signs is void, and whoever asks must not be told otherwise.
 */

import type { OwnerKeys, OwnerRecords } from '@cocoon-mesh/protocol';

export class OwnerKeyring {
  #keys: OwnerKeys | null;
  #newest: () => OwnerRecords | null = () => null;

  /** @param keys null on a device that holds no secret */
  constructor(keys: OwnerKeys | null) {
    this.#keys = keys;
  }

  /** The keys, unless there are none or they are outdated. */
  get keys(): OwnerKeys | null {
    return this.isOutdated ? null : this.#keys;
  }

  /** A newer secret of the same owner is known, which this device does not hold. */
  get isOutdated(): boolean {
    const newest = this.#newest();
    // Records have epochs without a gap, so that the longer list is the newer one.
    return this.#keys !== null && newest !== null && newest.length > this.#keys.records.length;
  }

  /** @param newest the newest records of the owner that are known */
  follow(newest: () => OwnerRecords | null): void {
    this.#newest = newest;
  }

  replace(keys: OwnerKeys): void {
    this.#keys = keys;
  }
}
