/** A map from 32-bit numbers to sums, for thousands of features of each text: `Map` takes five times as long. */

const firstSize = 4096;

export class FeatureSums {
  #keys = new Uint32Array(firstSize);
  /** 0 where there is no key: what is added is positive. */
  #sums = new Float64Array(firstSize);
  #count = 0;

  /** @param amount positive */
  add(key: number, amount: number): void {
    const mask = this.#keys.length - 1;
    let at = key & mask;
    while (this.#sums[at] !== 0 && this.#keys[at] !== key) at = (at + 1) & mask;
    if (this.#sums[at] === 0) {
      this.#keys[at] = key;
      this.#count++;
    }
    this.#sums[at] = (this.#sums[at] ?? 0) + amount;
    if (this.#count * 2 > mask) this.#grow();
  }

  each(see: (key: number, sum: number) => void): void {
    for (let at = 0; at < this.#sums.length; at++) {
      const sum = this.#sums[at] ?? 0;
      if (sum !== 0) see(this.#keys[at] ?? 0, sum);
    }
  }

  #grow(): void {
    const before = { keys: this.#keys, sums: this.#sums };
    this.#keys = new Uint32Array(before.keys.length * 4);
    this.#sums = new Float64Array(before.sums.length * 4);
    this.#count = 0;
    for (let at = 0; at < before.sums.length; at++) {
      const sum = before.sums[at] ?? 0;
      if (sum !== 0) this.add(before.keys[at] ?? 0, sum);
    }
  }
}
