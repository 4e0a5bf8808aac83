/**
 * What a command says: with `--json` one document or NDJSON lines on stdout and errors as JSON on stderr, for
 * people sentences and tables. Nothing here decides what is said. Much of it was written by other devices: whatever
 * goes out here steers no terminal.
 */

import type { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import { printableJson, printableLine, printableText } from './terminal-text.ts';

export class Output {
  readonly json: boolean;
  /** Somebody reads along: progress and secrets may be shown. */
  readonly terminal: boolean = process.stdout.isTTY;

  constructor(json: boolean) {
    this.json = json;
  }

  /** The one answer of a command, or one line of a stream of answers. */
  say(value: unknown, text: string): void {
    this.#write(this.json ? printableJson(value) : printableText(text));
  }

  /** For people only. */
  tell(text: string): void {
    if (!this.json) this.#write(printableText(text));
  }

  /** For people only: text whose next piece follows at once. */
  piece(text: string): void {
    if (!this.json) process.stdout.write(printableText(text));
  }

  /** One sentence beside the answer. */
  note(text: string): void {
    process.stderr.write(`${this.json ? printableJson({ note: text }) : printableText(text)}\n`);
  }

  error(error: MeshError): void {
    process.stderr.write(`${this.json ? printableJson({ error }) : printableText(sentence(error))}\n`);
  }

  #write(line: string): void {
    process.stdout.write(`${line}\n`);
  }
}

/** A line of somebody else's text must not look like one of ours. */
function sentence({ code, message, hint }: MeshError): string {
  const stop = /[.!?]$/.test(message) ? '' : '.';
  return `cocoon: ${printableLine(message)}${stop} (${code})${hint === '' ? '' : `\n  ${printableLine(hint)}`}`;
}

/** Columns as wide as their widest cell, two spaces apart. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [head, ...rows].map((row) => row.map(printableLine));
  const widths = head.map((_, i) => Math.max(...all.map((row) => row[i]?.length ?? 0)));
  return all
    .map((row) =>
      row
        .map((cell, i) => cell.padEnd(widths[i] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** Names and values below each other. */
export function facts(rows: readonly (readonly [string, string])[]): string {
  const width = Math.max(...rows.map(([name]) => name.length));
  return rows.map(([name, value]) => `${name.padEnd(width)}  ${printableLine(value)}`).join('\n');
}
