/** `cocoon logs`: the daemon's log, from its file, so that it can be read after a crash, too. */

import { open, stat } from 'node:fs/promises';
import type { Command } from 'commander';
import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import type { CommandContext } from '../command-context.ts';
import { isMissing } from '../key-file.ts';
import type { Output } from '../output.ts';
import { pause } from '../until-ended.ts';

/** The end of the file is read, however long it is. */
const tailBytes = 1024 * 1024;
const followEveryMs = 300;

export function describe(command: Command): void {
  command
    .description('The log of the device.')
    .option('-n, --lines <n>', 'how many of the last lines', '100')
    .option('-f, --follow', 'go on with what is written from now on');
}

export async function logs(
  { home, output }: CommandContext,
  options: { lines: string; follow?: boolean },
): Promise<void> {
  if (!/^\d{1,6}$/.test(options.lines)) throw new MeshError('usage', '--lines is a number');
  const count = Number(options.lines);
  let { text, end } = await read(home.log, null);
  show(
    output,
    count === 0
      ? ''
      : text
          .split('\n')
          .slice(-count - 1)
          .join('\n'),
  );
  while (options.follow) {
    await pause(followEveryMs);
    ({ text, end } = await read(home.log, end));
    show(output, text);
  }
}

/** What was written since `from`; from its beginning when the file is another one by now. */
async function read(path: string, from: number | null): Promise<{ text: string; end: number }> {
  try {
    const { size } = await stat(path);
    const start = from === null ? Math.max(0, size - tailBytes) : size < from ? 0 : from;
    const file = await open(path, 'r');
    try {
      const bytes = Buffer.alloc(size - start);
      await file.read(bytes, 0, bytes.length, start);
      // A line that is being written is left for the next look.
      const whole = bytes.subarray(0, bytes.lastIndexOf(10) + 1);
      return { text: whole.toString(), end: start + whole.length };
    } finally {
      await file.close();
    }
  } catch (cause) {
    if (isMissing(cause))
      throw new MeshError('not_found', `There is no log at ${path}`, {
        cause,
        hint: 'It is made when the device starts.',
      });
    throw cause;
  }
}

function show(output: Output, text: string): void {
  for (const line of text.split('\n')) {
    if (line === '') continue;
    const entry = parse(line);
    output.say(entry, lineText(entry));
  }
}

function parse(line: string): Record<string, unknown> {
  try {
    return JSON.parse(line) as Record<string, unknown>;
  } catch {
    return { msg: line };
  }
}

function lineText({ time = '', level = '', msg = '', ...fields }: Record<string, unknown>): string {
  const rest = Object.entries(fields).map(
    ([name, value]) => ` ${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`,
  );
  return `${String(time)} ${String(level).padEnd(5)} ${String(msg)}${rest.join('')}`;
}
