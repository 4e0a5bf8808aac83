/** Who waits for a turn. Those who ask take turns, so that a thousand tasks of one never hold up the one of another. */

export interface Waiting {
  readonly id: string;
  /** Who asked for it. */
  readonly by: string;
}

export class FairQueue {
  /** In the order of their turns; each with at least one id, oldest first. */
  #lines = new Map<string, Set<string>>();
  readonly #byId = new Map<string, string>();

  get size(): number {
    return this.#byId.size;
  }

  has(id: string): boolean {
    return this.#byId.has(id);
  }

  add({ id, by }: Waiting): void {
    if (this.#byId.has(id)) return;
    this.#byId.set(id, by);
    const line = this.#lines.get(by);
    if (line) line.add(id);
    else this.#lines.set(by, new Set([id]));
  }

  /** The next one; who asked for it is last in turn then. */
  take(): Waiting | null {
    for (const [by, line] of this.#lines)
      for (const id of line) {
        this.delete(id);
        if (line.size > 0) {
          this.#lines.delete(by);
          this.#lines.set(by, line);
        }
        return { id, by };
      }
    return null;
  }

  /** Before all others: what was taken and could not be used. */
  putBack({ id, by }: Waiting): void {
    const line = new Set([id, ...(this.#lines.get(by) ?? [])]);
    const others = [...this.#lines].filter(([other]) => other !== by);
    this.#lines = new Map([[by, line], ...others]);
    this.#byId.set(id, by);
  }

  /** False: it does not wait here. */
  delete(id: string): boolean {
    const by = this.#byId.get(id);
    if (by === undefined) return false;
    this.#byId.delete(id);
    const line = this.#lines.get(by);
    line?.delete(id);
    if (line?.size === 0) this.#lines.delete(by);
    return true;
  }

  /** Everybody goes. */
  clear(): string[] {
    const ids = [...this.#byId.keys()];
    this.#byId.clear();
    this.#lines.clear();
    return ids;
  }
}
