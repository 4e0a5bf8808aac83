/** The end of a log file, and what is added to it since; of several files, in the order in which it happened. */

import { open, stat } from 'node:fs/promises';
import { isMissing } from './key-file.ts';

/** The end of the file is read, however long it is. */
const tailBytes = 1024 * 1024;

export interface LogEntry {
  /** ISO 8601; of the line before where the line has none. */
  readonly time: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

export class LogTail {
  readonly #path: string;
  /** Where the next look begins; null before the first. */
  #end: number | null = null;
  #time = '';
  #isThere = false;

  constructor(path: string) {
    this.#path = path;
  }

  /** Was there a file at the last look? */
  get isThere(): boolean {
    return this.#isThere;
  }

  /** The last lines; at the next look those that came since, all of them when the file is another one by now. */
  async read(): Promise<LogEntry[]> {
    try {
      const text = await this.#readText();
      this.#isThere = true;
      return text.split('\n').flatMap((line) => (line === '' ? [] : this.#entry(line)));
    } catch (thrown) {
      if (!isMissing(thrown)) throw thrown;
      this.#isThere = false;
      // One that is made later is read from its beginning.
      this.#end = 0;
      return [];
    }
  }

  async #readText(): Promise<string> {
    const { size } = await stat(this.#path);
    const from = this.#end;
    const start = from === null ? Math.max(0, size - tailBytes) : size < from ? 0 : from;
    const file = await open(this.#path, 'r');
    try {
      const bytes = Buffer.alloc(size - start);
      await file.read(bytes, 0, bytes.length, start);
      // A line that is being written is left for the next look.
      const whole = bytes.subarray(0, bytes.lastIndexOf(10) + 1);
      this.#end = start + whole.length;
      return whole.toString();
    } finally {
      await file.close();
    }
  }

  #entry(line: string): LogEntry {
    const fields = fieldsOf(line);
    if (typeof fields['time'] === 'string') this.#time = fields['time'];
    return { time: this.#time, fields };
  }
}

/** By time; what is of one moment stays as it stood. */
export function inOrder(files: readonly (readonly LogEntry[])[]): LogEntry[] {
  return files.flat().toSorted((a, b) => (a.time < b.time ? -1 : Number(a.time > b.time)));
}

function fieldsOf(line: string): Record<string, unknown> {
  try {
    return JSON.parse(line) as Record<string, unknown>;
  } catch {
    return { msg: line };
  }
}
