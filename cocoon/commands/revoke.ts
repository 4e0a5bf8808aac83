/** `cocoon revoke`: ends a device of mine for good, gives back a cocoon of another owner, or voids a setup token. */

import type { Command } from 'commander';
import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import type { CommandContext } from '../command-context.ts';
import { ControlClient } from '../control/client.ts';
import type { RevokeAnswer, RevokedToken } from '../owner-commands.ts';
import { readSecretArgument } from '../token-source.ts';

interface Options {
  readonly token?: string;
  readonly yes?: boolean;
}

export function describe(command: Command): void {
  command
    .description(
      'Ends a device of mine for good; a cocoon of another owner (name@owner) is given back. Or voids a token.',
    )
    .argument('[device]')
    .option(
      '--token <jti|token|-|@file>',
      'in place of a device a setup token of mine, and what came from it: by its name, or itself',
    )
    .option('--yes', 'also what holds the secret, what no list shows, and a token that is redeemed')
    .addHelpText('after', '  cocoon revoke --token -');
}

export async function revoke(
  { home, output }: CommandContext,
  { token, yes = false }: Options,
  [device]: readonly string[],
): Promise<void> {
  if ((device === undefined) === (token === undefined))
    throw new MeshError('usage', 'Name either a device, or a token with --token', {
      hint: 'See `cocoon revoke --help`.',
    });
  const client = new ControlClient(home);
  if (token !== undefined) {
    const { text } = await readSecretArgument(token);
    const voided = await client.ask<RevokedToken>('POST', '/tokens/revoke', { token: text, sure: yes });
    output.say(voided, tokenText(voided));
    return;
  }
  const answer = await client.ask<RevokeAnswer>('POST', '/revocations', { device, sure: yes });
  const name = answer.name ?? answer.peer_id;
  output.say(
    answer,
    answer.kind === 'share'
      ? `${name} is given back.`
      : `${name} is revoked. To join again it needs a new home (--home) and a new token.`,
  );
}

function tokenText({ jti, put_out: putOut }: RevokedToken): string {
  return `The token ${jti} is void${putOut === null ? '' : `, and ${putOut} is put out`}.`;
}
