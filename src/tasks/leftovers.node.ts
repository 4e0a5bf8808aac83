/** What an earlier daemon left running when it died: ended before anything else is started. */

import type { Clock } from '@cocoon-mesh/protocol';
import { groupLives, isSameGroup, signalGroup } from './process-group.node.ts';
import { TaskFiles, taskFolders } from './task-files.node.ts';

/** SIGKILL takes no time but for those who hang in the kernel. */
const killTimeoutMs = 2_000;
const pollMs = 20;

/** @param root of the folders of all tasks */
export async function endLeftovers(root: string, clock: Clock): Promise<void> {
  const ids = await taskFolders(root);
  for (const id of ids) await endLeftoversOf(id, new TaskFiles(root, id), clock);
}

async function endLeftoversOf(id: string, files: TaskFiles, clock: Clock): Promise<void> {
  const mark = await files.readProcess();
  if (!mark) return;
  if (await isSameGroup(mark.pid, mark.start_time, `COCOON_TASK_ID=${id}`)) {
    for (let leftMs = killTimeoutMs; leftMs > 0 && (await groupLives(mark.pid)); leftMs -= pollMs) {
      signalGroup(mark.pid, 'SIGKILL');
      const { promise, resolve } = Promise.withResolvers<void>();
      clock.after(pollMs, resolve);
      await promise;
    }
  }
  await files.forgetProcess();
}
