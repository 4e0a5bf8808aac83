/** `cocoon generate-token`: a one-time setup token, for a device of my own or for another owner. */

import type { Command } from 'commander';
import type { TokenAnswer } from '@cocoon-mesh/protocol';
import { systemClock } from '@cocoon-mesh/protocol/clock.ts';
import type { CommandContext } from '../command-context.ts';
import { collect } from '../command-context.ts';
import { ControlClient } from '../control/client.ts';
import { parseDate, parseDuration } from '../duration.ts';

interface Options {
  readonly expires: string;
  readonly scope: string;
  readonly cocoon?: string;
  readonly service?: readonly string[];
  readonly capability?: readonly string[];
  readonly until?: string;
  readonly admin?: boolean;
}

export function describe(command: Command): void {
  command
    .description('A token with which one more device joins, or another owner gets one cocoon. It works once.')
    .option('--expires <duration>', 'how long the token can be redeemed', '1h')
    .option(
      '--scope <enroll|co-own>',
      'enroll: a device of my own. co-own: share a cocoon with another owner',
      'enroll',
    )
    .option('--cocoon <name>', 'with co-own: which cocoon')
    .option('--service <name>', 'only this service; may stand several times', collect)
    .option('--capability <protocol>', 'only this capability; may stand several times', collect)
    .option('--until <date>', 'when the right itself ends, say 2027-01-31')
    .option('--admin', 'the device may also ask for tokens and revocations');
}

export async function generateToken({ home, output }: CommandContext, options: Options): Promise<void> {
  const answer = await new ControlClient(home).ask<TokenAnswer>('POST', '/tokens', {
    scope: options.scope,
    expires_s: parseDuration(options.expires),
    ...(options.until === undefined ? {} : { until: parseDate(options.until, systemClock.now()) }),
    admin: options.admin === true,
    services: options.service ?? [],
    capabilities: options.capability ?? [],
    ...(options.cocoon === undefined ? {} : { cocoon: options.cocoon }),
  });
  output.say(answer, answer.token);
  if (!output.json && output.terminal) output.note(nextText(answer));
}

/** Beside the token, so that `cocoon generate-token > file` writes nothing but the token. */
function nextText({ scope, signaling, expires_at }: TokenAnswer): string {
  const works = `Works once, until ${expires_at}.`;
  if (scope === 'co-own')
    return ['', `${works} Give it to the other owner, who runs`, '  cocoon claim -', 'and pastes it.'].join(
      '\n',
    );
  return [
    '',
    `${works} On the other device run`,
    `  cocoon run --token - --signaling ${signaling}`,
    'and paste it.',
  ].join('\n');
}
