/**
 * Writes that replace each other: one at a time, and of what came meanwhile only the newest. Nobody waits for a
 * write but whoever closes.
 */

export class LatestWrite<T> {
  readonly #write: (value: T) => Promise<void>;
  readonly #failed: (error: unknown) => void;
  #next: { readonly value: T } | null = null;
  #running: Promise<void> | null = null;

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

  async #run(): Promise<void> {
    for (let next = this.#next; next; next = this.#next) {
      this.#next = null;
      try {
        await this.#write(next.value);
      } catch (error) {
        this.#failed(error);
      }
    }
    this.#running = null;
  }
}
