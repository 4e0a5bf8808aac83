/** What an earlier daemon left running when it died: ended before anything else is started. */

import type { Clock } from '@cocoon-mesh/protocol';
import { groupLives, isSameGroup, signalGroup } from './process-group.node.ts';
import { signalStrays, taskMark } from './strays.node.ts';
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
  const process = await files.readProcess();
  if (!process) return;
  const { pid: group, start_time: startTime } = process;
  const mark = taskMark(id);
  const ours = await isSameGroup(group, startTime, mark);
  for (let leftMs = killTimeoutMs; leftMs > 0; leftMs -= pollMs) {
    const strays = await signalStrays(mark, group, 'SIGKILL');
    const lives = ours && (await groupLives(group));
    if (strays === 0 && !lives) break;
    if (lives) signalGroup(group, 'SIGKILL');
    const { promise, resolve } = Promise.withResolvers<void>();
    clock.after(pollMs, resolve);
    await promise;
  }
  await files.forgetProcess();
}
