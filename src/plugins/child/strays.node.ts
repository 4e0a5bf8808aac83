/**
 * Processes of a plugin that have left its group (`setsid` makes a group of its own): a variable goes with them that
 * the system shows. Who takes it out of the environment stays; where there is no `/proc`, nobody is found.
 */

import { readFileSync, readdirSync } from 'node:fs';

/** In the environment of a plugin's process and of everybody whom it starts. */
export const runVariable = 'COCOON_PLUGIN_RUN';
/** Read at a time; so many take about a millisecond. */
const batch = 32;

/** Ends them all but this process. Yields now and then, so that others can have a turn. */
export function* endStrays(run: string): Generator<void, void, undefined> {
  const mark = `\0${runVariable}=${run}\0`;
  let read = 0;
  for (const name of processes()) {
    if (++read % batch === 0) yield;
    try {
      // Looked at and ended in one go: the number could be somebody else's a moment later.
      const environment = `\0${readFileSync(`/proc/${name}/environ`, 'latin1')}\0`;
      if (environment.includes(mark)) process.kill(Number(name), 'SIGKILL');
    } catch {
      // Gone, or not ours to read.
    }
  }
}

function processes(): readonly string[] {
  try {
    return readdirSync('/proc').filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid);
  } catch {
    return [];
  }
}
