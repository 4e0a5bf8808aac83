/** `cocoon revoke`: ends a device of mine for good, or gives back a cocoon of another owner. */

import type { Command } from 'commander';
import type { CommandContext } from '../command-context.ts';
import { ControlClient } from '../control/client.ts';
import type { RevokeAnswer } from '../owner-commands.ts';

export function describe(command: Command): void {
  command
    .description('Ends a device of mine for good; a cocoon of another owner (name@owner) is given back.')
    .argument('<device>')
    .option('--yes', 'also a device that holds the secret, or one that no list shows');
}

export async function revoke(
  { home, output }: CommandContext,
  { yes }: { yes?: boolean },
  [device = '']: readonly string[],
): Promise<void> {
  const answer = await new ControlClient(home).ask<RevokeAnswer>('POST', '/revocations', {
    device,
    sure: yes === true,
  });
  const name = answer.name ?? answer.peer_id;
  output.say(
    answer,
    answer.kind === 'share'
      ? `${name} is given back.`
      : `${name} is revoked. To join again it needs a new home (--home) and a new token.`,
  );
}
