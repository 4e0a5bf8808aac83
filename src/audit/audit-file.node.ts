/**
 * Finds the place where an audit log goes on. What a crash left of a last line is cut off; a file whose last line
 * is not genuine is never continued, for that would put our hash under somebody else's words.
 */

import type { FileHandle } from 'node:fs/promises';
import { open, rename, stat } from 'node:fs/promises';
import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import type { AuditEnd } from './audit-line.node.ts';
import { beforeFirst, maxLineBytes, parseAuditLine } from './audit-line.node.ts';

export interface AuditPlace {
  readonly end: AuditEnd;
  readonly bytes: number;
  /** Of the unfinished line that was cut off. */
  readonly cutBytes: number;
  /** Where a file that could not be continued is now. */
  readonly movedTo: string | null;
}

/** Makes the file if there is none, private to the user. @throws MeshError storage_failed */
export async function prepareAuditFile(path: string): Promise<AuditPlace> {
  try {
    const place = await withFile(path, cutUnfinished);
    if (place) return { ...place, movedTo: null };
    const movedTo = await freeName(path);
    await rename(path, movedTo);
    const fresh = await withFile(path, cutUnfinished);
    if (!fresh) throw new Error('Somebody else writes into it');
    return { ...fresh, movedTo };
  } catch (cause) {
    throw new MeshError('storage_failed', `The audit log ${path} could not be opened`, { cause });
  }
}

async function withFile<T>(path: string, work: (file: FileHandle) => Promise<T>): Promise<T> {
  const file = await open(path, 'a+', 0o600);
  try {
    // One that others could write into would prove nothing.
    await file.chmod(0o600);
    return await work(file);
  } finally {
    await file.close();
  }
}

/** Null when the log cannot be continued; then it is left as it is. */
async function cutUnfinished(file: FileHandle): Promise<Omit<AuditPlace, 'movedTo'> | null> {
  const { size } = await file.stat();
  const from = Math.max(0, size - 2 * maxLineBytes);
  const tail = Buffer.alloc(size - from);
  await file.read(tail, 0, tail.length, from);
  const newline = tail.lastIndexOf(10);
  // Nothing of ours is that long without one.
  if (newline < 0 && from > 0) return null;
  const bytes = from + newline + 1;
  const end = bytes === 0 ? beforeFirst : lastEnd(tail.subarray(0, newline));
  if (!end) return null;
  if (bytes < size) await file.truncate(bytes);
  return { end, bytes, cutBytes: size - bytes };
}

function lastEnd(lines: Buffer): AuditEnd | null {
  const entry = parseAuditLine(lines.subarray(lines.lastIndexOf(10) + 1));
  return entry && { n: entry.n, hash: entry.hash };
}

async function freeName(path: string): Promise<string> {
  for (let n = 1; ; n++) {
    const name = `${path}.broken-${n}`;
    if (!(await exists(name))) return name;
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch {
    return false;
  }
}
