/**
 * `cocoon logs`: the logs of the daemon and of `cocoon signaling`, whichever ran with this home, from their files, so
 * that they can be read after a crash, too.
 */

import type { Command } from 'commander';
import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import type { CommandContext } from '../command-context.ts';
import type { LogEntry } from '../log-tail.ts';
import { LogTail, inOrder } from '../log-tail.ts';
import { pause } from '../until-ended.ts';

const followEveryMs = 300;

export function describe(command: Command): void {
  command
    .description('The log of the device, and of `cocoon signaling` where it runs with the same home.')
    .option('-n, --lines <n>', 'how many of the last lines', '100')
    .option('-f, --follow', 'go on with what is written from now on');
}

export async function logs(
  { home, output }: CommandContext,
  options: { lines: string; follow?: boolean },
): Promise<void> {
  if (!/^\d{1,6}$/.test(options.lines)) throw new MeshError('usage', '--lines is a number');
  const count = Number(options.lines);
  const tails = [new LogTail(home.log), new LogTail(home.signalingLog)];
  const read = async (): Promise<LogEntry[]> => inOrder(await Promise.all(tails.map((tail) => tail.read())));
  const show = (entries: readonly LogEntry[]): void => {
    for (const { fields } of entries) output.say(fields, lineText(fields));
  };
  const last = await read();
  if (!tails.some(({ isThere }) => isThere))
    throw new MeshError('not_found', `There is no log at ${home.log}`, {
      hint: 'It is made by `cocoon up`, `cocoon run` or `cocoon signaling`; with another --home it is there.',
    });
  show(count === 0 ? [] : last.slice(-count));
  while (options.follow) {
    await pause(followEveryMs);
    show(await read());
  }
}

function lineText({ time = '', level = '', msg = '', ...fields }: LogEntry['fields']): string {
  const rest = Object.entries(fields).map(
    ([name, value]) => ` ${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`,
  );
  return `${String(time)} ${String(level).padEnd(5)} ${String(msg)}${rest.join('')}`;
}
