/** Counts of several devices add up: a task has one home, so none is counted twice. */

import type { TaskStats } from '@cocoon-mesh/protocol';
import { taskStatuses } from '@cocoon-mesh/protocol';

export function addStats(all: readonly TaskStats[]): TaskStats {
  const sum = (count: (stats: TaskStats) => number): number =>
    all.reduce((total, one) => total + count(one), 0);
  const counts = taskStatuses.map((status) => [status, sum(({ by_status }) => by_status[status] ?? 0)]);
  return {
    total: sum(({ total }) => total),
    by_status: Object.fromEntries(counts) as TaskStats['by_status'],
  };
}
