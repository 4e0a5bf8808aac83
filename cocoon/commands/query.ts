/** `cocoon query`: one question to every device that can answer it. */

import type { Command } from 'commander';
import type { CommandContext } from '../command-context.ts';
import { collect } from '../command-context.ts';
import { ControlClient } from '../control/client.ts';
import { parseDuration } from '../duration.ts';
import { askMany, failureOf } from '../query-stream.ts';
import { printableJson } from '../terminal-text.ts';
import { readJson } from './tasks-add.ts';
import { noteMissing, wholeNumber } from './tasks.ts';

interface QueryFlags {
  readonly params: string;
  readonly timeout: string;
  readonly limit?: string;
  readonly cursor?: string;
  readonly device?: readonly string[];
}

export function describe(command: Command): void {
  command
    .description('Ask every device that can answer, and merge what they say.')
    .argument(
      '<type>',
      'list_tasks, get_task_stats, search_tasks, search_knowledgebase, or custom with a name in --params',
    )
    .option('--params <json>', 'what is asked for: JSON, @FILE, or - for standard input', '{}')
    .option('--timeout <time>', 'how long devices may take', '5s')
    .option('--limit <n>', 'how many rows at most')
    .option('--cursor <cursor>', 'go on behind an earlier answer (its next_cursor)')
    .option('--device <device>', 'only this one; may stand several times', collect);
}

export async function query(
  { home, output }: CommandContext,
  flags: QueryFlags,
  [type = '']: readonly string[],
): Promise<void> {
  const answer = await askMany(
    new ControlClient(home),
    {
      query_type: type,
      params: await readJson(flags.params, '--params'),
      timeout_ms: parseDuration(flags.timeout) * 1000,
      ...(flags.limit === undefined ? {} : { limit: wholeNumber('--limit', flags.limit) }),
      ...(flags.cursor === undefined ? {} : { cursor: flags.cursor }),
      ...(flags.device ? { devices: flags.device } : {}),
    },
    (part) => {
      if (output.json) output.say({ part }, '');
    },
  );
  output.say({ result: answer }, printableJson(answer, 2));
  const failure = failureOf(answer);
  if (failure) throw failure;
  noteMissing(output, answer);
}
