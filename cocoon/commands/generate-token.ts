/** `cocoon generate-token`: a one-time setup token, for a device of my own or for another owner. */

import type { Command } from 'commander';
import type { Grant, TokenAnswer } from '@cocoon-mesh/protocol';
import { allows, dateText, includesRights, memberRights, readSetupToken } from '@cocoon-mesh/protocol';
import { systemClock } from '@cocoon-mesh/protocol/clock.ts';
import type { CommandContext } from '../command-context.ts';
import { collect } from '../command-context.ts';
import { ControlClient } from '../control/client.ts';
import type { DeviceView } from '../device-view.ts';
import { parseDate, parseDuration } from '../duration.ts';
import { describeRights } from '../rights-text.ts';

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
    .option(
      '--until <date>',
      'when the right itself ends: 2027-01-31 is the end of that day (UTC), 2027-01-31T12:00:00Z a moment',
    )
    .option('--admin', 'the device may also ask for tokens and revocations');
}

export async function generateToken({ home, output }: CommandContext, options: Options): Promise<void> {
  const client = new ControlClient(home);
  const answer = await client.ask<TokenAnswer>('POST', '/tokens', {
    scope: options.scope,
    expires_s: parseDuration(options.expires),
    ...(options.until === undefined ? {} : { until: parseDate(options.until, systemClock.now()) }),
    admin: options.admin === true,
    services: options.service ?? [],
    capabilities: options.capability ?? [],
    ...(options.cocoon === undefined ? {} : { cocoon: options.cocoon }),
  });
  output.say(answer, answer.token);
  const unknown = await unlisted(client, options);
  if (unknown.length > 0)
    output.note(
      `${options.cocoon ?? 'No cocoon of yours'} lists ${options.cocoon === undefined ? 'a' : 'no'} service ${unknown.join(' or ')} now: the token is for one of that name, should there be one.`,
    );
  if (output.json || !output.terminal) return;
  const { grant } = await readSetupToken(answer.token);
  output.note(nextText(answer, grant));
}

/** The services that the token names and no cocoon offers, as far as this device knows. */
async function unlisted(client: ControlClient, { cocoon, service = [] }: Options): Promise<string[]> {
  if (service.length === 0) return [];
  const devices = await client.ask<DeviceView[]>('GET', '/devices');
  const asked = devices.filter(
    ({ name, peer_id: peerId, foreign }) => !foreign && [undefined, name, peerId].includes(cocoon),
  );
  const listed = new Set(asked.flatMap(({ services }) => services.map(({ name }) => name)));
  return service.filter((name) => !listed.has(name));
}

/** Beside the token, so that `cocoon generate-token > file` writes nothing but the token. */
function nextText({ scope, jti, signaling, expires_at: expiresAt }: TokenAnswer, grant: Grant): string {
  const works = `Works once, until ${expiresAt}; \`cocoon revoke --token ${jti}\` voids it before.`;
  const gives = `It gives ${givenText(grant)}${untilText(grant)}.`;
  if (scope === 'co-own')
    return [
      '',
      works,
      gives,
      `Give it to the other owner, who needs a device at the same signaling server (${signaling}), runs`,
      '  cocoon claim -',
      'and pastes it.',
    ].join('\n');
  return [
    '',
    works,
    gives,
    'On the other device run',
    `  cocoon run --token - --signaling ${signaling}`,
    'and paste it.',
  ].join('\n');
}

function givenText({ scope, rights }: Grant): string {
  if (scope === 'co-own') return describeRights(rights).rights;
  if (allows(rights, 'owner', 'admin', null)) return 'everything, tokens and revocations too';
  return includesRights(rights, memberRights)
    ? 'everything but tokens and revocations'
    : describeRights(rights).rights;
}

function untilText({ until }: Grant): string {
  return until === undefined ? ', until you revoke it' : `, until ${dateText(until)}`;
}
