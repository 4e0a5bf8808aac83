/** `cocoon owners list|remove`: which other owners have access to my cocoons. */

import type { CommandContext } from '../command-context.ts';
import { ControlClient } from '../control/client.ts';
import { table } from '../output.ts';
import type { OwnerView } from '../owner-commands.ts';

export async function ownersList({ home, output }: CommandContext): Promise<void> {
  const list = await new ControlClient(home).ask<OwnerView[]>('GET', '/owners');
  const rows = list.flatMap(({ owner, cocoons }) =>
    cocoons.map(({ name, rights, since, until, provisional }) => [
      owner,
      name,
      rights,
      since,
      until ?? '-',
      provisional ? 'waits for a device with the secret' : '',
    ]),
  );
  output.say(
    list,
    rows.length === 0
      ? 'No other owner has access.'
      : table(['OWNER', 'COCOON', 'MAY USE', 'SINCE', 'UNTIL', ''], rows),
  );
}

export async function ownersRemove(
  { home, output }: CommandContext,
  _options: object,
  [owner = '']: readonly string[],
): Promise<void> {
  const removed = await new ControlClient(home).ask<{ owner: string }>('POST', '/owners/remove', { owner });
  output.say(removed, `${removed.owner} has no access any more.`);
}
