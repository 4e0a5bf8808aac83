/** What Linux writes about a process into `/proc` (proc(5)), read from its text. */

export interface ProcessStat {
  readonly group: number;
  /** In ticks since the machine started. */
  readonly startTime: number;
  /** A zombie, or gone a moment later: it does nothing any more. */
  readonly isDead: boolean;
  /** A thread of the kernel, which has no environment. */
  readonly isKernel: boolean;
}

/** PF_KTHREAD of Linux. */
const kernelThread = 0x00200000;

/** @param text of `/proc/PID/stat`. Null: it is none. */
export function parseStat(text: string): ProcessStat | null {
  // The name in brackets may hold anything, brackets too. Behind it: state, parent, group, …, and 19 on the start.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  const [state, , group, , , , flags] = fields;
  const startTime = fields[19];
  if (state === undefined || group === undefined || startTime === undefined) return null;
  return {
    group: Number(group),
    startTime: Number(startTime),
    isDead: /[ZXx]/.test(state),
    isKernel: (Number(flags) & kernelThread) !== 0,
  };
}

/** @param environment text of `/proc/PID/environ` @param mark `NAME=value` */
export function carriesMark(environment: string, mark: string): boolean {
  return environment.split('\0').includes(mark);
}
