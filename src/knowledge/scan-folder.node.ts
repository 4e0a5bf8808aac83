/**
 * Every file below a folder that may be a text, in a stable order, one at a time. Links are not followed: what they
 * lead to inside of the folder is found in its own place, and what lies outside was not named.
 */

import type { BigIntStats, Dirent } from 'node:fs';
import { lstatSync, readdirSync } from 'node:fs';
import { dirname, extname, join, sep } from 'node:path';
import type { SkipReason } from './read-text.node.ts';
import { stampOf } from './read-text.node.ts';

export type Found =
  | { readonly kind: 'folder'; readonly path: string }
  | { readonly kind: 'file'; readonly path: string; readonly stamp: string; readonly modifiedMs: number }
  /** `isFolder`: everything below it is unknown, too. */
  | {
      readonly kind: 'skipped';
      readonly path: string;
      readonly reason: SkipReason;
      readonly isFolder: boolean;
    };

export interface ScanRules {
  /** Extensions in lower case, without their dots; null for every name. */
  readonly only: readonly string[] | null;
}

/** Deeper ones are loops of mounts. */
const maxDepth = 64;
const binaryExtensions = new Set(
  (
    '7z a avi bin bmp bz2 class db dll dmg docx dylib eot exe flac gif gz ico iso jar jpeg jpg lz4 mkv mov mp3 mp4 ' +
    'node o odt ogg onnx otf pdf png pptx pyc rar so sqlite tar tgz tif tiff ttf wasm wav webm webp woff woff2 xlsx ' +
    'xz zip zst'
  ).split(' '),
);

/** Every cocoon keeps its own here, beside its secret and its token: whoever may search must not find those. */
const homeMark = 'identity.key';

/** @param root a real path: a folder or a file */
export function* scan(root: string, rules: ScanRules): Generator<Found> {
  const stat = statOf(root);
  if (stat?.isDirectory() !== true) {
    // A file that was named is read whatever its name is.
    const isPrivate = stat !== null && statOf(join(dirname(root), homeMark)) !== null;
    yield isPrivate ? homeOf(root, false) : fileOf(root, stat);
    return;
  }
  // Whoever names a folder of packages, or one inside, wants what is in it.
  const seesPackages = root.split(sep).includes('node_modules');
  yield* below(root, 0);

  function* below(folder: string, depth: number): Generator<Found> {
    let entries: Dirent[];
    try {
      entries = readdirSync(folder, { withFileTypes: true });
    } catch {
      yield { kind: 'skipped', path: folder, reason: 'unreadable', isFolder: true };
      return;
    }
    if (entries.some(({ name }) => name === homeMark)) {
      yield homeOf(folder, true);
      return;
    }
    yield { kind: 'folder', path: folder };
    for (const entry of entries.toSorted((a, b) => (a.name < b.name ? -1 : 1))) {
      const path = join(folder, entry.name);
      const isFolder = entry.isDirectory();
      const reason = refusal(entry, depth);
      if (reason !== null) yield { kind: 'skipped', path, reason, isFolder };
      else if (isFolder) yield* below(path, depth + 1);
      else yield fileOf(path, statOf(path));
    }
  }

  function refusal(entry: Dirent, depth: number): SkipReason | null {
    const { name } = entry;
    if (name.startsWith('.') || (name === 'node_modules' && !seesPackages)) return 'hidden';
    if (entry.isSymbolicLink()) return 'link';
    if (entry.isDirectory()) return depth >= maxDepth ? 'too_many' : null;
    const extension = extname(name).slice(1).toLowerCase();
    if (rules.only && !rules.only.includes(extension)) return 'other_name';
    return binaryExtensions.has(extension) ? 'binary' : null;
  }
}

function homeOf(path: string, isFolder: boolean): Found {
  return { kind: 'skipped', path, reason: 'home_of_a_cocoon', isFolder };
}

function fileOf(path: string, stat: BigIntStats | null): Found {
  if (!stat) return { kind: 'skipped', path, reason: 'unreadable', isFolder: false };
  if (!stat.isFile()) return { kind: 'skipped', path, reason: 'special', isFolder: false };
  return { kind: 'file', path, stamp: stampOf(stat), modifiedMs: Number(stat.mtimeMs) };
}

function statOf(path: string): BigIntStats | null {
  try {
    return lstatSync(path, { bigint: true });
  } catch {
    return null;
  }
}
