/**
 * What a plugin prints, as lines for the log: whatever it is, a bounded part of it. Its bytes may be no text at all.
 */

import type { Clock } from '@cocoon-mesh/protocol';

const maxLineLength = 1024;
const maxLines = 100;
/** So many lines in this time. */
const spanMs = 10_000;

export class OutputLines {
  readonly #clock: Clock;
  readonly #line: (line: string) => void;
  readonly #decoder = new TextDecoder();
  #rest = '';
  /** The line is too long; what follows of it is left out. */
  #isCut = false;
  #spanStart = 0;
  #count = 0;
  #dropped = 0;

  constructor(clock: Clock, line: (line: string) => void) {
    this.#clock = clock;
    this.#line = line;
  }

  add(bytes: Uint8Array): void {
    const lines = this.#decoder.decode(bytes, { stream: true }).split('\n');
    const last = lines.pop() ?? '';
    for (const line of lines) {
      if (!this.#isCut) this.#put(this.#rest + line);
      this.#rest = '';
      this.#isCut = false;
    }
    if (!this.#isCut) this.#rest += last;
    if (this.#rest.length > maxLineLength) {
      this.#put(this.#rest);
      this.#rest = '';
      this.#isCut = true;
    }
  }

  end(): void {
    if (this.#rest !== '') this.#put(this.#rest);
    this.#rest = '';
    this.#tellDropped();
  }

  #put(line: string): void {
    const text = line.slice(0, maxLineLength).trimEnd();
    if (text === '') return;
    const now = this.#clock.monotonic();
    if (now - this.#spanStart >= spanMs) {
      this.#tellDropped();
      this.#spanStart = now;
      this.#count = 0;
    }
    if (this.#count++ < maxLines) this.#line(text);
    else this.#dropped++;
  }

  #tellDropped(): void {
    if (this.#dropped > 0) this.#line(`(${this.#dropped} more lines were left out)`);
    this.#dropped = 0;
  }
}
