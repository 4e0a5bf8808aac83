/** `cocoon status`: this device. */

import type { CommandContext } from '../command-context.ts';
import type { Status } from '../commands-api.ts';
import { ControlClient } from '../control/client.ts';
import { facts } from '../output.ts';

export async function status({ home, output }: CommandContext): Promise<void> {
  const answer = await new ControlClient(home).ask<Status>('GET', '/status');
  output.say(answer, statusText(answer));
}

function statusText(answer: Status): string {
  const { signaling } = answer;
  const reached = signaling.connected ? 'connected' : (signaling.problem?.message ?? 'connecting');
  return facts([
    ['Device', `${answer.name} (${answer.peer_id})`],
    ['Owner', `${answer.owner ?? 'none yet'}${answer.holds_secret ? ', whose secret is here' : ''}`],
    ['Signaling', `${signaling.url}: ${reached}`],
    ['Gateway', answer.gateway],
    ['Web page', answer.web ?? 'none'],
    ['Engine', answer.engine],
    ['Sessions', String(answer.sessions)],
    ['Services', answer.services.map(({ name, port }) => `${name}:${port}`).join(', ') || 'none'],
    [
      'Capabilities',
      answer.capabilities.map(({ protocol, version }) => `${protocol} ${version}`).join(', ') || 'none',
    ],
    ...answer.unavailable.map(({ protocol, problem }): [string, string] => [
      'Unavailable',
      `${protocol}: ${problem}`,
    ]),
    ['Home', answer.home],
    ['Version', `${answer.version}, pid ${answer.pid}`],
  ]);
}
