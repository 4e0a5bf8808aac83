/**
 * Calls of tools in what a model writes: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, as Hermes, Qwen and
 * the models after them do. What does not follow that stays text.
 */

const opening = '<tool_call>';
const closing = '</tool_call>';

export type WrittenPiece =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'call'; readonly name: string; readonly arguments: string };

export class ToolCallReader {
  #held = '';

  push(text: string): WrittenPiece[] {
    this.#held += text;
    const pieces: WrittenPiece[] = [];
    for (;;) {
      const start = this.#held.indexOf(opening);
      if (start < 0) break;
      const end = this.#held.indexOf(closing, start);
      if (end < 0) {
        this.#say(pieces, start);
        return pieces;
      }
      this.#say(pieces, start);
      const whole = this.#held.slice(0, end - start + closing.length);
      this.#held = this.#held.slice(whole.length);
      pieces.push(callIn(whole) ?? { kind: 'text', text: whole });
    }
    this.#say(pieces, this.#held.length - beginning(this.#held));
    return pieces;
  }

  /** What is left; a call that never ended is text. */
  rest(): WrittenPiece[] {
    const pieces: WrittenPiece[] = [];
    this.#say(pieces, this.#held.length);
    return pieces;
  }

  #say(pieces: WrittenPiece[], length: number): void {
    const text = this.#held.slice(0, length);
    this.#held = this.#held.slice(length);
    if (text !== '') pieces.push({ kind: 'text', text });
  }
}

/** How much of its end may be the beginning of a call. */
function beginning(text: string): number {
  for (let length = Math.min(opening.length - 1, text.length); length > 0; length--)
    if (text.endsWith(opening.slice(0, length))) return length;
  return 0;
}

function callIn(text: string): WrittenPiece | null {
  try {
    const value = JSON.parse(text.slice(opening.length, -closing.length)) as unknown;
    if (typeof value !== 'object' || value === null || !('name' in value)) return null;
    const { name } = value;
    if (typeof name !== 'string' || name === '') return null;
    const given = 'arguments' in value ? value.arguments : {};
    return { kind: 'call', name, arguments: typeof given === 'string' ? given : JSON.stringify(given) };
  } catch {
    return null;
  }
}
