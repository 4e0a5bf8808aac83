/** The sending end of an answer: waits until the reader has granted room. */

export class SendCredit {
  #bytes: number;
  #wake: (() => void) | null = null;

  constructor(windowBytes: number) {
    this.#bytes = windowBytes;
  }

  grant(bytes: number): void {
    this.#bytes += bytes;
    if (this.#bytes > 0) this.#wake?.();
  }

  /** One more message may go, of whatever size. @throws the signal's reason */
  async room(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.#bytes > 0) return;
    const woken = Promise.withResolvers<void>();
    const abort = (): void => woken.reject(signal.reason);
    this.#wake = () => woken.resolve();
    signal.addEventListener('abort', abort, { once: true });
    try {
      await woken.promise;
    } finally {
      this.#wake = null;
      signal.removeEventListener('abort', abort);
    }
  }

  spend(bytes: number): void {
    this.#bytes -= bytes;
  }
}
