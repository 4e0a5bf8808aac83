/** `cocoon claim`: takes a cocoon that another owner shares, for all of my devices. */

import type { Command } from 'commander';
import type { CommandContext } from '../command-context.ts';
import { ControlClient } from '../control/client.ts';
import type { ClaimAnswer } from '../owner-commands.ts';
import { readSecretArgument } from '../token-source.ts';

export function describe(command: Command): void {
  command
    .description('Redeems a token with which another owner shares a cocoon: all of my devices reach it then.')
    .argument('<token|-|@file>', 'from stdin (-), from a file, or as it is');
}

export async function claim(
  { home, output }: CommandContext,
  _options: object,
  [argument = '-']: readonly string[],
): Promise<void> {
  const { text, exposed } = await readSecretArgument(argument);
  if (exposed)
    output.note(
      'A token in the argument list can be read by every program of this machine: use `cocoon claim -` or `cocoon claim @FILE`.',
    );
  const answer = await new ControlClient(home).ask<ClaimAnswer>('POST', '/claims', { token: text });
  output.say(answer, claimText(answer));
}

function claimText({ cocoon, owner, rights, until }: ClaimAnswer): string {
  const may = `You may use ${rights}${until === null ? '' : `, until ${until}`}.`;
  if (cocoon.name === null)
    return `A cocoon of ${owner} is shared with you (${cocoon.peer_id}). ${may} It appears when it connects.`;
  return `${cocoon.name} is shared with you. ${may}${cocoon.online ? '' : ' It is offline now.'}`;
}
