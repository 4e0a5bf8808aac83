/**
 * What a task printed: bytes as they came, the newest few MiB of them. It lies in files that are named by the offset
 * of their first byte, so that offsets stay true when the oldest file is removed.
 *
 * Whoever writes is never held up. What the disk cannot take in time is dropped, oldest first: it would have been
 * rotated away in a moment anyway.
 */

import type { FileHandle } from 'node:fs/promises';
import { mkdir, open, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { NewestBytes } from './newest-bytes.node.ts';

export interface LogPiece {
  readonly bytes: Uint8Array;
  /** In all that was ever written; behind a gap the part before was dropped. */
  readonly offset: number;
}

export interface ReadOptions {
  /** Goes on until the task has ended. */
  readonly follow?: boolean;
  /** Ends the reading quietly. */
  readonly signal?: AbortSignal;
}

interface LogFile {
  readonly handle: FileHandle;
  readonly start: number;
  bytes: number;
}

/** The log of a task is at least one and at most two of these once it is longer than that. */
const fileBytes = 4 * 1024 * 1024;
/** Usually it is two files; more after a disk that took only parts. */
const maxFiles = 16;
const readBytes = 64 * 1024;

/** The log of a task that runs. */
export class TaskLog {
  readonly #folder: string;
  readonly #fileBytes: number;
  /** What came since the last write, and what is being written; they take turns. */
  #pending: NewestBytes;
  #spare: NewestBytes;
  #end = 0;
  /** On the disk, or dropped. */
  #written = 0;
  #file: LogFile | null = null;
  /** Of the run, oldest first; those before the last are closed. */
  #kept: LogFile[] = [];
  #draining: Promise<void> | null = null;
  #changed = Promise.withResolvers<void>();
  #closed = false;
  #failure: Error | null = null;

  constructor(folder: string, bytesOfFile = fileBytes) {
    this.#folder = folder;
    this.#fileBytes = bytesOfFile;
    this.#pending = new NewestBytes(bytesOfFile);
    this.#spare = new NewestBytes(bytesOfFile);
  }

  /** Of everything that came. */
  get end(): number {
    return this.#end;
  }

  /** Why some of it could not be written; null when all could. */
  get failure(): Error | null {
    return this.#failure;
  }

  /** Never waits, and copies what it is given. */
  append(bytes: Uint8Array): void {
    if (this.#closed || bytes.length === 0) return;
    this.#end += bytes.length;
    this.#pending.append(bytes);
    this.#draining ??= this.#drain();
  }

  /** Everything is written then, and followers come to their end. Idempotent. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#draining;
    await this.#file?.handle.close();
    this.#file = null;
    this.#notify();
  }

  /** From `offset`, or the oldest byte behind it that is kept. */
  async *read(offset: number, { follow = false, signal }: ReadOptions = {}): AsyncIterable<LogPiece> {
    const goal = this.#end;
    let at = offset;
    for (;;) {
      const changed = this.#changed.promise;
      const over = this.#closed && this.#draining === null;
      const upTo = this.#written;
      for await (const piece of readFiles(this.#folder, at, upTo)) {
        if (signal?.aborted) return;
        at = piece.offset + piece.bytes.length;
        yield piece;
      }
      if (signal?.aborted || over || (!follow && upTo >= goal)) return;
      if (this.#written === upTo) await settled(changed, signal);
    }
  }

  async #drain(): Promise<void> {
    while (this.#pending.length > 0) {
      const taken = this.#pending;
      const end = this.#end;
      this.#pending = this.#spare;
      this.#spare = taken;
      try {
        await this.#write(taken.pieces(), end - taken.length);
      } catch (thrown) {
        this.#failure ??= thrown instanceof Error ? thrown : new Error(String(thrown));
        await this.#abandonFile();
      }
      taken.clear();
      this.#written = end;
      this.#notify();
    }
    this.#draining = null;
  }

  async #write(pieces: readonly Buffer[], start: number): Promise<void> {
    let at = start;
    let rest = pieces;
    while (rest.length > 0) {
      const file = await this.#fileAt(at);
      const [now, later] = split(rest, this.#fileBytes - file.bytes);
      const bytes = now.reduce((sum, { length }) => sum + length, 0);
      const { bytesWritten } = await file.handle.writev(now);
      file.bytes += bytesWritten;
      if (bytesWritten < bytes) throw new Error('The disk took only a part of the log');
      at += bytes;
      rest = later;
    }
  }

  /** The file that goes on at this offset and has room. */
  async #fileAt(offset: number): Promise<LogFile> {
    const current = this.#file;
    if (current && current.start + current.bytes === offset && current.bytes < this.#fileBytes)
      return current;
    this.#file = null;
    await current?.handle.close();
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    await this.#makeRoom();
    const handle = await open(join(this.#folder, fileName(offset)), 'w', 0o600);
    this.#file = { handle, start: offset, bytes: 0 };
    this.#kept.push(this.#file);
    return this.#file;
  }

  /** For one more file. What a disk did not take leaves the earlier ones alone. */
  async #makeRoom(): Promise<void> {
    let bytes = this.#kept.reduce((sum, file) => sum + file.bytes, 0);
    while (bytes > this.#fileBytes || this.#kept.length >= maxFiles) {
      const oldest = this.#kept.shift();
      if (!oldest) return;
      bytes -= oldest.bytes;
      await this.#remove(oldest);
    }
  }

  /** The disk has failed it. */
  async #abandonFile(): Promise<void> {
    const file = this.#file;
    this.#file = null;
    if (!file) return;
    await file.handle.close().catch(() => undefined);
    if (file.bytes > 0) return;
    this.#kept.pop();
    await this.#remove(file).catch(() => undefined);
  }

  async #remove({ start }: LogFile): Promise<void> {
    await rm(join(this.#folder, fileName(start)), { force: true });
  }

  #notify(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }
}

/** The log of a task that does not run; none when it never did. */
export function readTaskLog(folder: string, offset: number): AsyncIterable<LogPiece> {
  return readFiles(folder, offset, Number.POSITIVE_INFINITY);
}

async function* readFiles(folder: string, from: number, upTo: number): AsyncIterable<LogPiece> {
  let at = from;
  const starts = await startsOf(folder);
  for (const [index, start] of starts.entries()) {
    const next = starts[index + 1] ?? upTo;
    if (at >= upTo || start >= upTo) return;
    if (next <= at) continue;
    // It may have been rotated away since it was listed.
    const file = await open(join(folder, fileName(start)), 'r').catch(() => null);
    if (!file) continue;
    try {
      for (at = Math.max(at, start); at < upTo;) {
        const buffer = Buffer.allocUnsafe(Math.min(readBytes, upTo - at));
        const { bytesRead } = await file.read(buffer, 0, buffer.length, at - start);
        if (bytesRead === 0) break;
        yield { bytes: buffer.subarray(0, bytesRead), offset: at };
        at += bytesRead;
      }
    } finally {
      await file.close();
    }
  }
}

async function startsOf(folder: string): Promise<number[]> {
  const names = await readdir(folder).catch(() => []);
  return names
    .filter((name) => /^\d{16}\.log$/.test(name))
    .map((name) => Number.parseInt(name, 10))
    .sort((a, b) => a - b);
}

function fileName(start: number): string {
  return `${String(start).padStart(16, '0')}.log`;
}

/** The first `bytes` of them, and what comes behind. */
function split(pieces: readonly Buffer[], bytes: number): [Buffer[], Buffer[]] {
  const now: Buffer[] = [];
  let room = bytes;
  for (const [index, piece] of pieces.entries()) {
    if (piece.length > room) {
      if (room > 0) now.push(piece.subarray(0, room));
      return [now, [piece.subarray(room), ...pieces.slice(index + 1)]];
    }
    now.push(piece);
    room -= piece.length;
  }
  return [now, []];
}

async function settled(changed: Promise<void>, signal: AbortSignal | undefined): Promise<void> {
  if (!signal) return changed;
  const aborted = Promise.withResolvers<void>();
  const abort = (): void => aborted.resolve();
  signal.addEventListener('abort', abort, { once: true });
  if (signal.aborted) abort();
  await Promise.race([changed, aborted.promise]);
  signal.removeEventListener('abort', abort);
}
