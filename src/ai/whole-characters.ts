/**
 * Characters that a server cut in two: some split texts between the halves of an emoji, and half a character cannot be
 * sent. The first half waits for the piece with the second.
 */

import type { ChatChunk, ChatDelta } from './chat-payload.ts';

/** A server may send any number of fields. */
const maxHalves = 64;

export class WholeCharacters {
  /** By choice and field. */
  readonly #halves = new Map<string, string>();

  /** Halves that have no other half become the character for what is none. */
  join(chunk: ChatChunk): ChatChunk {
    if (this.#halves.size === 0 && chunk.choices.every(({ delta }) => isWhole(delta))) return chunk;
    return {
      ...chunk,
      choices: chunk.choices.map((choice) => ({
        ...choice,
        delta: this.#joined(choice.index, choice.delta),
      })),
    };
  }

  #joined(index: number, delta: ChatDelta): ChatDelta {
    const fields = Object.entries(delta).map(([name, value]): [string, unknown] => {
      if (typeof value !== 'string') return [name, value];
      const key = `${index} ${name}`;
      const text = (this.#halves.get(key) ?? '') + value;
      this.#halves.delete(key);
      const half = this.#halves.size < maxHalves ? (/[\ud800-\udbff]$/.exec(text)?.[0] ?? '') : '';
      if (half !== '') this.#halves.set(key, half);
      return [name, text.slice(0, text.length - half.length).toWellFormed()];
    });
    return Object.fromEntries(fields);
  }
}

function isWhole(delta: ChatDelta): boolean {
  return Object.values(delta).every((value) => typeof value !== 'string' || value.isWellFormed());
}
