/**
 * Ordered lists into one: a k-way merge over a heap, by key and, where keys are equal, by peer. Rows of one list
 * keep their order. What it costs is the logarithm of the number of lists for each row.
 */

import type { QueryRow } from '@cocoon-mesh/protocol';
import { compareKeys } from './row-order.ts';

export interface MergeSource {
  readonly peerId: string;
  /** Ordered by key. */
  readonly rows: readonly QueryRow[];
  /**
   * There are rows behind these that did not come with them. The merge ends with the last of these, because the
   * next one of another source may belong behind those that are not there.
   */
  readonly open: boolean;
}

export interface Merged<S extends MergeSource> {
  readonly source: S;
  readonly row: QueryRow;
}

/** Ends with the last row, or when an open source has no more. */
export function* mergeRows<S extends MergeSource>(
  sources: readonly S[],
): Generator<Merged<S>, void, undefined> {
  if (sources.some(({ rows, open }) => open && rows.length === 0)) return;
  const heap = new Heap<S>();
  for (const source of sources) heap.add(source);
  for (let head = heap.first; head; head = heap.first) {
    const { source, row } = head;
    yield { source, row };
    if (!heap.advance() && source.open) return;
  }
}

interface Head<S> {
  readonly source: S;
  readonly row: QueryRow;
  readonly at: number;
}

/** Binary: each head comes before both below it. */
class Heap<S extends MergeSource> {
  readonly #heads: Head<S>[] = [];

  get first(): Head<S> | undefined {
    return this.#heads[0];
  }

  add(source: S): void {
    const [row] = source.rows;
    if (!row) return;
    const heads = this.#heads;
    const head = { source, row, at: 0 };
    let place = heads.length;
    while (place > 0) {
      const above = (place - 1) >> 1;
      const other = heads[above];
      if (!other || comesFirst(other, head)) break;
      heads[place] = other;
      place = above;
    }
    heads[place] = head;
  }

  /** The next row of the source that was first; false when it has none. */
  advance(): boolean {
    const heads = this.#heads;
    const [head] = heads;
    if (!head) return false;
    const at = head.at + 1;
    const row = head.source.rows[at];
    if (row) {
      this.#sink({ source: head.source, row, at });
      return true;
    }
    const last = heads.pop();
    if (last && heads.length > 0) this.#sink(last);
    return false;
  }

  /** From the top to its place. */
  #sink(head: Head<S>): void {
    const heads = this.#heads;
    let place = 0;
    for (;;) {
      let below = 2 * place + 1;
      let next = heads[below];
      if (!next) break;
      const right = heads[below + 1];
      if (right && comesFirst(right, next)) {
        next = right;
        below++;
      }
      if (comesFirst(head, next)) break;
      heads[place] = next;
      place = below;
    }
    heads[place] = head;
  }
}

function comesFirst(one: Head<MergeSource>, other: Head<MergeSource>): boolean {
  const order = compareKeys(one.row.key, other.row.key);
  return order < 0 || (order === 0 && one.source.peerId < other.source.peerId);
}
