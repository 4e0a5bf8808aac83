/** `cocoon ping`: round trips over the session to a device. */

import type { Command } from 'commander';
import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import type { CommandContext } from '../command-context.ts';
import type { PingAnswer } from '../commands-api.ts';
import { ControlClient } from '../control/client.ts';
import { pause } from '../until-ended.ts';

const intervalMs = 250;
const maxCount = 100_000;

export function describe(command: Command): void {
  command
    .description('Round trips over the session to a device, and how it is reached.')
    .argument('<device>', 'name or peer id')
    .option('--count <n>', 'how many', '4');
}

export async function ping(
  { home, output }: CommandContext,
  options: { count: string },
  [device = '']: readonly string[],
): Promise<void> {
  const count = /^\d+$/.test(options.count) ? Number(options.count) : 0;
  if (count < 1 || count > maxCount)
    throw new MeshError('usage', `--count is a number from 1 to ${maxCount}`);
  const client = new ControlClient(home);
  for (let seq = 1; seq <= count; seq++) {
    if (seq > 1) await pause(intervalMs);
    const answer = await client.ask<PingAnswer>('POST', '/ping', { device });
    output.say(
      { seq, ...answer },
      `${device}: seq=${seq} rtt=${answer.rtt_ms.toFixed(2)} ms path=${answer.path ?? 'unknown'} engine=${answer.engine}`,
    );
  }
}
