/**
 * A thread that does nothing but wait for the end of the daemon. A plugin may keep the main thread busy for ever and
 * may have started processes of its own: when the daemon is gone, all of them are to be gone.
 */

import { Socket } from 'node:net';
import { isMainThread } from 'node:worker_threads';
import { endStrays, runVariable } from './strays.node.ts';

const lifelineFd = 4;
const run = process.env[runVariable];

/** This process and whatever it started. */
export function endGroup(): void {
  if (run !== undefined) for (const _ of endStrays(run));
  try {
    process.kill(-process.pid, 'SIGKILL');
  } catch {
    process.kill(process.pid, 'SIGKILL');
  }
}

if (!isMainThread) {
  const lifeline = new Socket({ fd: lifelineFd, readable: true, writable: false });
  lifeline.on('error', () => undefined);
  lifeline.on('close', endGroup);
  lifeline.resume();
}
