/**
 * Processes of a task that have left its group (`setsid` makes a session of its own): the variable that names the
 * task goes with them, and the system shows it. Who removes it from the environment leaves for good; where there is
 * no `/proc`, nobody is found.
 */

import { readFileSync } from 'node:fs';
import { readdir } from 'node:fs/promises';

/** Read at a time: so many take about a millisecond, and what else waits goes on in between. */
const batch = 32;

/** What stands in the environment of every process of a task, unless it was removed. */
export function taskMark(id: string): string {
  return `COCOON_TASK_ID=${id}`;
}

/**
 * To everybody who carries the mark and is not in `group`, which gets its signals by itself: a second SIGTERM would
 * mean to some that they should hurry. @returns how many there were; zombies carry none
 */
export async function signalStrays(mark: string, group: number, signal: NodeJS.Signals | 0): Promise<number> {
  let found = 0;
  let read = 0;
  for (const name of await readdir('/proc').catch(() => [])) {
    if (!/^\d+$/.test(name) || Number(name) === process.pid) continue;
    if (++read % batch === 0) await new Promise((resolve) => setImmediate(resolve));
    // Looked at and signalled in one go: the number could be somebody else's a moment later.
    if (carries(name, mark) && groupOf(name) !== group && sent(Number(name), signal)) found++;
  }
  return found;
}

function carries(name: string, mark: string): boolean {
  try {
    return readFileSync(`/proc/${name}/environ`, 'latin1').split('\0').includes(mark);
  } catch {
    return false;
  }
}

/** Null: it is gone. */
function groupOf(name: string): number | null {
  try {
    const text = readFileSync(`/proc/${name}/stat`, 'latin1');
    return Number(text.slice(text.lastIndexOf(')') + 2).split(' ')[2]);
  } catch {
    return null;
  }
}

function sent(pid: number, signal: NodeJS.Signals | 0): boolean {
  try {
    return process.kill(pid, signal);
  } catch {
    return false;
  }
}
