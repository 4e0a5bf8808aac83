/**
 * A log file that does not grow without end: at its size it becomes `.1`, the one before `.2` and so on. Lines
 * are written at once: the last ones before a crash are those that matter.
 */

import { closeSync, fstatSync, mkdirSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';

const maxFileBytes = 5 * 1024 * 1024;
const keptFiles = 4;

export class LogFile {
  readonly #path: string;
  readonly #maxBytes: number;
  #file: number;
  #bytes: number;

  constructor(path: string, maxBytes = maxFileBytes) {
    this.#path = path;
    this.#maxBytes = maxBytes;
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    this.#file = openSync(path, 'a', 0o600);
    this.#bytes = fstatSync(this.#file).size;
  }

  write(line: string): void {
    if (this.#file < 0) return;
    try {
      this.#bytes += writeSync(this.#file, line);
      if (this.#bytes > this.#maxBytes) this.#rotate();
    } catch {
      // A full disk must not end the device; what is lost is the log.
    }
  }

  /** Idempotent. */
  close(): void {
    if (this.#file >= 0) closeSync(this.#file);
    this.#file = -1;
  }

  #rotate(): void {
    closeSync(this.#file);
    this.#file = -1;
    rmSync(`${this.#path}.${keptFiles}`, { force: true });
    for (let n = keptFiles - 1; n >= 0; n--) {
      try {
        renameSync(n === 0 ? this.#path : `${this.#path}.${n}`, `${this.#path}.${n + 1}`);
      } catch {
        // There are not that many yet.
      }
    }
    this.#file = openSync(this.#path, 'a', 0o600);
    this.#bytes = 0;
  }
}
