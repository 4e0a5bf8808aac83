/** `cocoon devices`: all devices of the owner, how they are reached and what they offer. */

import type { Command } from 'commander';
import type { CommandContext } from '../command-context.ts';
import { ControlClient } from '../control/client.ts';
import type { DeviceView } from '../device-view.ts';
import { table } from '../output.ts';

export function describe(command: Command): void {
  command
    .description('All devices: who is online, how they are reached, what they offer.')
    .option('--accept <name>', 'accept that this name belongs to another device now');
}

export async function devices({ home, output }: CommandContext, options: { accept?: string }): Promise<void> {
  const client = new ControlClient(home);
  const list =
    options.accept === undefined
      ? await client.ask<DeviceView[]>('GET', '/devices')
      : await client.ask<DeviceView[]>('POST', '/devices/accept', { name: options.accept });
  output.say(list, devicesText(list));
}

function devicesText(list: readonly DeviceView[]): string {
  const rows = list.map((device) => [
    device.this ? `${device.name} (this)` : device.name,
    device.online ? 'online' : 'offline',
    device.path ?? '-',
    device.engine ?? '-',
    device.rtt_ms === null ? '-' : `${device.rtt_ms.toFixed(1)} ms`,
    device.services.map(serviceText).join(' ') || '-',
    device.capabilities.map(capabilityText).join(' ') || '-',
    device.peer_id,
  ]);
  const problems = list.flatMap(({ name, problem }) => (problem === null ? [] : [`${name}: ${problem}`]));
  return [
    table(['NAME', 'STATE', 'PATH', 'ENGINE', 'RTT', 'SERVICES', 'CAPABILITIES', 'PEER ID'], rows),
    ...problems,
  ].join('\n');
}

/** `llm.chat@1.0.0 (1+2 of 4)`: served and waiting of as many as it serves at once. */
function capabilityText({
  protocol,
  version,
  in_flight: inFlight = 0,
  queued = 0,
  limit,
}: DeviceView['capabilities'][number]): string {
  const waiting = queued === 0 ? '' : `+${queued}`;
  return `${protocol}@${version}${limit === undefined ? '' : ` (${inFlight}${waiting} of ${limit})`}`;
}

function serviceText({ name, type, healthy }: DeviceView['services'][number]): string {
  return `${name}${type === 'tcp' ? '/tcp' : ''}${healthy === false ? ' (down)' : ''}`;
}
