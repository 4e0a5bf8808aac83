/** Pings on their way and the round-trip time they measure. */

import { readU64, writeU64 } from '@cocoon-mesh/protocol';
import type { Clock, MeshError } from '@cocoon-mesh/protocol';

interface Waiting {
  readonly sentAt: number;
  readonly settle: ((rttMs: number | MeshError) => void) | null;
}

export class Pings {
  readonly #clock: Clock;
  readonly #send: (token: Uint8Array) => void;
  readonly #waiting = new Map<number, Waiting>();
  #lastToken = 0;
  #heartbeatToken = 0;
  #rttMs: number | null = null;

  constructor(clock: Clock, send: (token: Uint8Array) => void) {
    this.#clock = clock;
    this.#send = send;
  }

  /** The last measured round trip in ms. */
  get rttMs(): number | null {
    return this.#rttMs;
  }

  /** A ping that nobody waits for; the one before is given up. */
  heartbeat(): void {
    this.#waiting.delete(this.#heartbeatToken);
    this.#heartbeatToken = this.#ask(null);
  }

  /** Resolves with the round trip in ms. Rejects with the signal's reason, or when the session ends. */
  ping(signal: AbortSignal): Promise<number> {
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    if (signal.aborted) {
      reject(signal.reason as Error);
      return promise;
    }
    const aborted = () => {
      this.#waiting.delete(token);
      reject(signal.reason as Error);
    };
    const token = this.#ask((result) => {
      signal.removeEventListener('abort', aborted);
      if (typeof result === 'number') resolve(result);
      else reject(result);
    });
    signal.addEventListener('abort', aborted, { once: true });
    return promise;
  }

  /** The other side answered; a token we do not wait for is ignored. */
  pong(token: Uint8Array): void {
    // Any 8 bytes may come; what is out of range is not ours.
    const high = (token[0] ?? 0) > 0 || (token[1] ?? 0) > 0;
    const number = high ? 0 : readU64(token, 0);
    const waiting = this.#waiting.get(number);
    if (!waiting) return;
    this.#waiting.delete(number);
    this.#rttMs = this.#clock.monotonic() - waiting.sentAt;
    waiting.settle?.(this.#rttMs);
  }

  end(error: MeshError): void {
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const { settle } of waiting) settle?.(error);
  }

  #ask(settle: Waiting['settle']): number {
    const number = ++this.#lastToken;
    this.#waiting.set(number, { sentAt: this.#clock.monotonic(), settle });
    const token = new Uint8Array(8);
    writeU64(token, 0, number);
    this.#send(token);
    return number;
  }
}
