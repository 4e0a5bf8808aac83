/** Who showed each token of one owner first. Anybody else who shows it is refused, and told of once. */

import { limits } from '@cocoon-mesh/protocol';

const maxTold = 1000;

export class FirstRedeemers {
  /** Oldest first. */
  readonly #byToken: Map<string, string>;
  readonly #told = new Set<string>();

  constructor(known: Readonly<Record<string, string>> = {}) {
    this.#byToken = new Map(Object.entries(known));
    this.#dropOldest();
  }

  get(jti: string): string | undefined {
    return this.#byToken.get(jti);
  }

  /** In the place of whoever was noted before. */
  set(jti: string, redeemer: string): void {
    this.#byToken.set(jti, redeemer);
    this.#dropOldest();
  }

  /** True the first time it is asked about this token and redeemer. */
  isNews(jti: string, second: string): boolean {
    const key = `${jti} ${second}`;
    if (this.#told.has(key)) return false;
    this.#told.add(key);
    for (const oldest of this.#told) {
      if (this.#told.size <= maxTold) break;
      this.#told.delete(oldest);
    }
    return true;
  }

  state(): Record<string, string> {
    return Object.fromEntries(this.#byToken);
  }

  #dropOldest(): void {
    for (const oldest of this.#byToken.keys()) {
      if (this.#byToken.size <= limits.maxKnownRedeemers) return;
      this.#byToken.delete(oldest);
    }
  }
}
