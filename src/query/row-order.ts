/** The order that answers are merged by: keys part by part, descending; numbers before texts, longer before shorter. */

import type { QueryRow } from '@cocoon-mesh/protocol';

export type RowKey = QueryRow['key'];

/** Negative: `one` comes first. Texts are compared by code unit. */
export function compareKeys(one: RowKey, other: RowKey): number {
  const length = Math.min(one.length, other.length);
  for (let i = 0; i < length; i++) {
    const a = one[i];
    const b = other[i];
    if (a === b || a === undefined || b === undefined) continue;
    if (typeof a !== typeof b) return typeof a === 'number' ? -1 : 1;
    return a > b ? -1 : 1;
  }
  return other.length - one.length;
}
