/**
 * Reciprocal rank fusion (Cormack, Clarke, Büttcher: "Reciprocal Rank Fusion outperforms Condorcet and individual
 * Rank Learning Methods", SIGIR 2009): scores of different searches cannot be compared, places can.
 */

/** The paper's: takes away from the first places that a single list would decide alone. */
export const fusionK = 60;

/** @param rank 1 for the first */
export function reciprocalRank(rank: number): number {
  return 1 / (fusionK + rank);
}

export interface Fused<T> {
  readonly item: T;
  readonly score: number;
}

/**
 * Best first. An item that is in several lists counts in each, in one list once, with its best place; it is taken
 * from the first list that has it. Equal scores: the order of the lists, then of their rows.
 */
export function fuseRanks<T>(lists: readonly (readonly T[])[], idOf: (item: T) => string): Fused<T>[] {
  const found = new Map<string, { readonly item: T; score: number }>();
  for (const list of lists) {
    const here = new Set<string>();
    for (const [index, item] of list.entries()) {
      const id = idOf(item);
      if (here.has(id)) continue;
      here.add(id);
      const known = found.get(id);
      if (known) known.score += reciprocalRank(index + 1);
      else found.set(id, { item, score: reciprocalRank(index + 1) });
    }
  }
  // Sorting is stable, and the map keeps the order of the lists.
  return [...found.values()].toSorted((one, other) => other.score - one.score);
}
