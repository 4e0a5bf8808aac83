/** `cocoon services list|add|remove`: what this device offers, while it runs. */

import type { CommandContext } from '../command-context.ts';
import { ControlClient } from '../control/client.ts';
import type { ServiceView } from '../device-view.ts';
import { table } from '../output.ts';
import { parseService } from '../service-spec.ts';

export async function servicesList({ home, output }: CommandContext): Promise<void> {
  const list = await new ControlClient(home).ask<ServiceView[]>('GET', '/services');
  const rows = list.map(({ name, type, port, healthy }) => [name, type, String(port), healthText(healthy)]);
  output.say(
    list,
    rows.length === 0 ? 'This device offers no services.' : table(['NAME', 'TYPE', 'PORT', 'HEALTH'], rows),
  );
}

export async function servicesAdd(
  { home, output }: CommandContext,
  _options: object,
  [service = '']: readonly string[],
): Promise<void> {
  const { name } = parseService(service);
  const added = await new ControlClient(home).ask<ServiceView>('POST', '/services', { service });
  output.say(added, `${name} is offered now.`);
}

export async function servicesRemove(
  { home, output }: CommandContext,
  _options: object,
  [name = '']: readonly string[],
): Promise<void> {
  const removed = await new ControlClient(home).ask<ServiceView>('POST', '/services/remove', { name });
  output.say(removed, `${name} is not offered any more.`);
}

function healthText(healthy: boolean | null): string {
  return healthy === null ? 'not checked yet' : healthy ? 'well' : 'down';
}
