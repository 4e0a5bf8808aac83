/**
 * Processes of a task that have left its group (`setsid` makes a session of its own): the variable that names the
 * task goes with them, and the system shows it. Who removes it from the environment leaves for good; where there is
 * no `/proc`, nobody is found.
 */

import { readFileSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { systemClock } from '@cocoon-mesh/protocol';
import type { ProcessStat } from './proc-files.ts';
import { carriesMark, parseStat } from './proc-files.ts';

/** Read at a time: so many take about a millisecond, and what else waits goes on in between. */
const batch = 32;
/** A process that is just becoming another program shows no environment until it is done with that. */
const looks = 6;
const lookAgainMs = 5;

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
  let names = (await readdir('/proc').catch(() => [])).filter(
    (name) => /^\d+$/.test(name) && Number(name) !== process.pid,
  );
  for (let look = 1; look <= looks && names.length > 0; look++) {
    const unclear: string[] = [];
    for (const [n, name] of names.entries()) {
      if (n % batch === batch - 1) await new Promise((resolve) => setImmediate(resolve));
      // Looked at and signalled in one go: the number could be somebody else's a moment later.
      const environment = environmentOf(name);
      if (carriesMark(environment, mark)) {
        if (statOf(name)?.group !== group && sent(Number(name), signal)) found++;
      } else if (environment === '' && isProgram(statOf(name))) unclear.push(name);
    }
    names = unclear;
    if (names.length > 0) await new Promise<void>((resolve) => systemClock.after(lookAgainMs, resolve));
  }
  return found;
}

/** Empty of the kernel's own threads, of zombies, and of who is just becoming another program. */
function environmentOf(name: string): string {
  return read(name, 'environ') ?? 'unreadable';
}

function isProgram(stat: ProcessStat | null): boolean {
  return stat !== null && !stat.isDead && !stat.isKernel;
}

function statOf(name: string): ProcessStat | null {
  return parseStat(read(name, 'stat') ?? '');
}

/** At once, so that nothing comes between looking and signalling. Null: gone, or not ours to read. */
function read(name: string, what: 'environ' | 'stat'): string | null {
  try {
    return readFileSync(`/proc/${name}/${what}`, 'latin1');
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
