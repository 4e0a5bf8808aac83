/**
 * Processes as the system sees them: who belongs to a group, and whether a group is still the one we started.
 * A process number is used again one day; together with the time of the start it names one process for good.
 */

import { execFile } from 'node:child_process';
import { readFile, readdir } from 'node:fs/promises';
import { promisify } from 'node:util';
import { carriesMark, parseStat } from './proc-files.ts';
import type { ProcessStat } from './proc-files.ts';

/** To every process of the group. False: there is none. */
export function signalGroup(group: number, signal: NodeJS.Signals): boolean {
  try {
    process.kill(-group, signal);
    return true;
  } catch {
    return false;
  }
}

/** Is anybody of the group there who could still do something? Zombies cannot. */
export async function groupLives(group: number): Promise<boolean> {
  try {
    process.kill(-group, 0);
  } catch (thrown) {
    return thrown instanceof Error && 'code' in thrown && thrown.code === 'EPERM';
  }
  if (!(await hasProc())) return true;
  return (await groupMembers(group)).length > 0;
}

/** Numbers of the processes of a group that are no zombies; where there is no `/proc`, none. */
export async function groupMembers(group: number): Promise<number[]> {
  const members: number[] = [];
  for (const name of await readdir('/proc').catch(() => [])) {
    if (!/^\d+$/.test(name)) continue;
    const stat = await readStat(Number(name));
    if (stat?.group === group && !stat.isDead) members.push(Number(name));
  }
  return members;
}

/** What tells this process from a later one of the same number. Null: it cannot be told, or there is none. */
export async function startTimeOf(pid: number): Promise<string | null> {
  if (await hasProc()) {
    const stat = await readStat(pid);
    return stat && !stat.isDead ? `${await bootId()} ${stat.startTime}` : null;
  }
  const { stdout } = await run('ps', ['-o', 'lstart=', '-p', String(pid)]).catch(() => ({ stdout: '' }));
  return stdout.trim() || null;
}

/**
 * Is the group of this number the one whose first process was started then? While a member lives, the system
 * gives the number to nobody else; when the first process is gone, a member that carries `mark` in its
 * environment proves it. What is not proved is not ours.
 */
export async function isSameGroup(group: number, startTime: string | null, mark: string): Promise<boolean> {
  const now = await startTimeOf(group);
  if (now !== null) return now === startTime;
  for (const pid of await groupMembers(group)) {
    const environment = await readFile(`/proc/${pid}/environ`, 'latin1').catch(() => '');
    if (carriesMark(environment, mark)) return true;
  }
  return false;
}

const run = promisify(execFile);

async function hasProc(): Promise<boolean> {
  return (await readStat(process.pid)) !== null;
}

/** Differs after each start of the machine, when ticks begin again. */
async function bootId(): Promise<string> {
  return (await readFile('/proc/sys/kernel/random/boot_id', 'latin1').catch(() => '')).trim();
}

async function readStat(pid: number): Promise<ProcessStat | null> {
  return parseStat(await readFile(`/proc/${pid}/stat`, 'latin1').catch(() => ''));
}
