/** Text out of tokens as they come: whole characters only, and not beyond a text that ends the answer. */

/** What stands for bytes that are no character (yet). */
const replacement = '\uFFFD';
/** No character has more bytes; what is not one by then never will be. */
const longestCharacter = 4;

export class TokenText {
  readonly #decode: (ids: number[]) => string;
  #ids: number[] = [];
  /** Of these tokens the text is out already; later ones are decoded behind them, for their spaces. */
  #said = 0;

  constructor(decode: (ids: number[]) => string) {
    this.#decode = decode;
  }

  /** @returns what can be said now; empty: a character is not complete */
  push(id: number): string {
    this.#ids.push(id);
    const text = this.#new();
    const waits = text.endsWith(replacement) && this.#ids.length - this.#said < longestCharacter;
    if (text === '' || waits) return '';
    this.#ids = this.#ids.slice(this.#said);
    this.#said = this.#ids.length;
    return text;
  }

  /** What is left, complete or not. */
  rest(): string {
    const text = this.#new();
    this.#said = this.#ids.length;
    return text;
  }

  #new(): string {
    const said = this.#ids.slice(0, this.#said);
    const before = said.length === 0 ? '' : this.#decode(said);
    return this.#ids.length === 0 ? '' : this.#decode(this.#ids).slice(before.length);
  }
}

export class StopText {
  readonly #stops: readonly string[];
  readonly #longest: number;
  #held = '';

  constructor(stops: readonly string[]) {
    this.#stops = stops.filter((stop) => stop !== '');
    this.#longest = Math.max(0, ...this.#stops.map(({ length }) => length));
  }

  /** @returns what is surely before any of the texts, and whether one of them is there */
  push(text: string): { readonly text: string; readonly stopped: boolean } {
    this.#held += text;
    const found = this.#stops.map((stop) => this.#held.indexOf(stop)).filter((at) => at >= 0);
    if (found.length > 0) {
      const before = this.#held.slice(0, Math.min(...found));
      this.#held = '';
      return { text: before, stopped: true };
    }
    const sure = this.#held.length - Math.max(0, this.#longest - 1);
    if (sure <= 0) return { text: '', stopped: false };
    const before = this.#held.slice(0, sure);
    this.#held = this.#held.slice(sure);
    return { text: before, stopped: false };
  }

  rest(): string {
    const text = this.#held;
    this.#held = '';
    return text;
  }
}
