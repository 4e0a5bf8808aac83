/**
 * Texts that wait for a model, and which of them go into it together: about the same length each, since the model
 * computes as much for padding as for text, and those of somebody who waits before those of a job.
 */

export type Lane = 'interactive' | 'batch';

export interface WaitingText {
  readonly lane: Lane;
  /** Tokens. */
  readonly length: number;
  /** What it came with; requests are served in order, their texts are not. */
  readonly request: object;
}

/** Batches of `interactive` in a row while `batch` waits too: a flood of questions must not stop a job. */
const patience = 8;

export class TokenLanes<Text extends WaitingText> {
  readonly #interactive = new OrderedTexts<Text>();
  readonly #batch = new OrderedTexts<Text>();
  #inARow = 0;

  get size(): number {
    return this.#interactive.size + this.#batch.size;
  }

  push(texts: readonly Text[]): void {
    this.#interactive.push(texts.filter(({ lane }) => lane === 'interactive'));
    this.#batch.push(texts.filter(({ lane }) => lane === 'batch'));
  }

  /** @returns the next ones, at most `maxTokens` when padded to the longest, but at least one; [] when none wait */
  take(maxTokens: number): readonly Text[] {
    const bothWait = this.#interactive.size > 0 && this.#batch.size > 0;
    const isTurnOfBatch = this.#interactive.size === 0 || (bothWait && this.#inARow >= patience);
    this.#inARow = bothWait && !isTurnOfBatch ? this.#inARow + 1 : 0;
    return (isTurnOfBatch ? this.#batch : this.#interactive).take(maxTokens);
  }

  /** Forgets what has not been taken of a request. */
  remove(request: object): void {
    this.#interactive.remove(request);
    this.#batch.remove(request);
  }
}

class OrderedTexts<Text extends WaitingText> {
  /** Longest first. */
  #texts: Text[] = [];
  /** Oldest first, with how many wait of each. */
  readonly #requests = new Map<object, number>();

  get size(): number {
    return this.#texts.length;
  }

  push(texts: readonly Text[]): void {
    for (const { request } of texts) this.#count(request, 1);
    this.#texts = [...this.#texts, ...texts].toSorted((a, b) => b.length - a.length);
  }

  take(maxTokens: number): readonly Text[] {
    const [oldest] = this.#requests.keys();
    // Every batch has a text of the oldest request, so none waits for ever.
    const first = this.#texts.findIndex(({ request }) => request === oldest);
    const longest = this.#texts[first];
    if (!longest) return [];
    const count = Math.max(1, Math.floor(maxTokens / Math.max(1, longest.length)));
    const taken = this.#texts.splice(first, count);
    for (const { request } of taken) this.#count(request, -1);
    return taken;
  }

  remove(request: object): void {
    if (!this.#requests.delete(request)) return;
    this.#texts = this.#texts.filter((text) => text.request !== request);
  }

  #count(request: object, change: number): void {
    const count = (this.#requests.get(request) ?? 0) + change;
    if (count === 0) this.#requests.delete(request);
    else this.#requests.set(request, count);
  }
}
