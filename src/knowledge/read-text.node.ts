/** The text of one file as it is at one moment, with what tells that it was changed. */

import { createHash } from 'node:crypto';
import type { BigIntStats } from 'node:fs';
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { decodeText } from './decode-text.ts';

/** Larger texts are logs and data; their chunks would drown those of the others. */
export const maxFileBytes = 2 * 1024 * 1024;

export type SkipReason =
  | 'too_large'
  | 'binary'
  | 'unreadable'
  | 'changing'
  | 'link'
  | 'hidden'
  | 'special'
  | 'other_name'
  | 'home_of_a_cocoon'
  | 'too_many';

export type FileRead =
  | { readonly kind: 'text'; readonly text: string; readonly hash: string; readonly stamp: string }
  | { readonly kind: 'skipped'; readonly reason: SkipReason };

/** Equal as long as nobody wrote to the file. The time of the last change of its inode cannot be set back. */
export function stampOf({ size, mtimeNs, ctimeNs, ino }: BigIntStats): string {
  return `${size}:${mtimeNs}:${ctimeNs}:${ino}`;
}

/** Never throws: what cannot be read is skipped with its reason. */
export function readText(path: string): FileRead {
  try {
    // A pipe that took the file's place would wait for a writer, a link could lead out of the folder.
    const file = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    try {
      return readOpened(file);
    } finally {
      closeSync(file);
    }
  } catch (thrown) {
    return skipped(codeOf(thrown) === 'ELOOP' ? 'link' : 'unreadable');
  }
}

function readOpened(file: number): FileRead {
  const before = fstatSync(file, { bigint: true });
  if (!before.isFile()) return skipped('special');
  if (before.size > maxFileBytes) return skipped('too_large');
  const bytes = Buffer.alloc(Number(before.size) + 1);
  let length = 0;
  for (let count = -1; count !== 0 && length < bytes.length; length += count)
    count = readSync(file, bytes, length, bytes.length - length, null);
  const stamp = stampOf(before);
  if (BigInt(length) !== before.size || stampOf(fstatSync(file, { bigint: true })) !== stamp)
    return skipped('changing');
  const content = bytes.subarray(0, length);
  const text = decodeText(content);
  if (text === null) return skipped('binary');
  return { kind: 'text', text, hash: createHash('sha256').update(content).digest('hex'), stamp };
}

function skipped(reason: SkipReason): FileRead {
  return { kind: 'skipped', reason };
}

function codeOf(thrown: unknown): string {
  return thrown instanceof Error && 'code' in thrown ? String(thrown.code) : '';
}
