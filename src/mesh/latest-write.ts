/**
 * Writes that replace each other: one at a time, and of what came meanwhile only the newest. Whoever must not say
 * that something is done before it is kept waits for it (`written`).
 */

export class LatestWrite<T> {
  readonly #write: (value: T) => Promise<void>;
  readonly #failed: (error: unknown) => void;
  #next: { readonly value: T } | null = null;
  #running: Promise<void> | null = null;
  /** The newest value, when it could not be written. */
  #lost: { readonly value: T; readonly error: unknown } | null = null;

  constructor(write: (value: T) => Promise<void>, failed: (error: unknown) => void) {
    this.#write = write;
    this.#failed = failed;
  }

  put(value: T): void {
    this.#next = { value };
    this.#running ??= this.#run();
  }

  /** Resolves when everything that was put is written, or could not be. */
  async flush(): Promise<void> {
    await this.#running;
  }

  /** Resolves when the newest value is written; one that could not be is tried again. Rejects as the write does. */
  async written(): Promise<void> {
    if (this.#lost && !this.#running) this.put(this.#lost.value);
    await this.#running;
    if (this.#lost) throw this.#lost.error;
  }

  async #run(): Promise<void> {
    for (let next = this.#next; next; next = this.#next) {
      this.#next = null;
      try {
        await this.#write(next.value);
        this.#lost = null;
      } catch (error) {
        this.#lost = { value: next.value, error };
        this.#failed(error);
      }
    }
    this.#running = null;
  }
}
