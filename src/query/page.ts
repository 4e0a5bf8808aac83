/**
 * One page out of what the devices answered: which rows are on it, and where each device goes on. What a page
 * promises:
 *
 * - Its rows are in order. While the same devices answer, so are the pages one after the other.
 * - Each row is on one page at most, and a row that stays where it is in the order (by creation, say) and whose
 *   device answers is on exactly one, whatever is added or changed meanwhile.
 * - What comes into the order before the place of its device (a new task; by time of update, a changed one) is not
 *   on later pages: it is on a new first page. Leaving it out can make a page short, or even empty.
 * - A device that answers for the first time, or again, goes on from its own place: its rows are merged into the
 *   page, so this one page may begin before the end of the one before.
 */

import type { QueryRow } from '@cocoon-mesh/protocol';
import type { Place, Places } from './cursor.ts';
import type { DeviceRows } from './fan-out.ts';
import { reciprocalRank } from './fuse.ts';
import { mergeRows } from './merge.ts';
import { compareKeys } from './row-order.ts';

/** By the keys that devices give their rows, or by rank: the first of each device, then the second of each, … */
export type PageOrder = 'key' | 'rank';

export interface PageRow {
  readonly peerId: string;
  readonly name: string;
  readonly row: QueryRow;
}

export interface Page {
  readonly rows: readonly PageRow[];
  readonly places: Places;
  /** There are rows for another page. */
  readonly more: boolean;
}

/** @param limit rows at most; fewer when a device could not bring all that it was asked for */
export function makePage(
  answers: readonly DeviceRows[],
  before: Places,
  order: PageOrder,
  limit: number,
): Page {
  const sources = answers.map((answer) => sourceOf(answer, before.get(answer.answer.id), order));
  const rows: PageRow[] = [];
  for (const { source, row } of mergeRows(sources)) {
    rows.push({ peerId: source.peerId, name: source.name, row });
    source.used++;
    if (rows.length === limit) break;
  }
  const places = new Map(before);
  let more = false;
  for (const source of sources) {
    const place = placeAfter(source);
    if (place) places.set(source.peerId, place);
    more ||= goesOn(source);
  }
  return { rows, places, more };
}

interface Source {
  readonly peerId: string;
  readonly name: string;
  readonly rows: readonly QueryRow[];
  readonly open: boolean;
  readonly ok: boolean;
  readonly before: Place | undefined;
  /** The last of those that are left out, because they came after the first page. */
  readonly leftOut: QueryRow | undefined;
  used: number;
}

/** Rows that came into the order since the device first answered, while none of its rows was given out. */
function countLater(rows: readonly QueryRow[], before: Place | undefined): number {
  if (typeof before !== 'object' || !('first' in before)) return 0;
  const { first } = before;
  const start = rows.findIndex(({ key }) => compareKeys(first, key) <= 0);
  return start < 0 ? rows.length : start;
}

function sourceOf({ answer, rows, more }: DeviceRows, before: Place | undefined, order: PageOrder): Source {
  // Ranks start anew with each search, so nothing can be said to have come later.
  const start = order === 'key' ? countLater(rows, before) : 0;
  const kept = rows.slice(start);
  const ok = answer.status === 'ok';
  return {
    peerId: answer.id,
    name: answer.name,
    rows: order === 'rank' ? ranked(kept, takenOf(before)) : kept,
    open: ok && more,
    ok,
    before,
    leftOut: rows[start - 1],
    used: 0,
  };
}

function ranked(rows: readonly QueryRow[], taken: number): QueryRow[] {
  return rows.map((row, index) => ({ ...row, key: [reciprocalRank(taken + index + 1)] }));
}

function takenOf(place: Place | undefined): number {
  return typeof place === 'object' && 'taken' in place ? place.taken : 0;
}

function placeAfter(source: Source): Place | undefined {
  const { rows, used, before, leftOut, ok, open } = source;
  if (ok && !open && used === rows.length) return 'finished';
  const last = rows[used - 1];
  if (last) return { at: last.at, taken: takenOf(before) + used };
  if (leftOut && typeof before === 'object' && 'first' in before) return { ...before, at: leftOut.at };
  if (before !== undefined) return before;
  const [next] = rows;
  return next && { first: next.key };
}

/** A device that failed goes on only where it has brought something, so that no page after page stays empty. */
function goesOn({ rows, used, open, ok }: Source): boolean {
  return ok ? open || used < rows.length : rows.length > 0;
}
