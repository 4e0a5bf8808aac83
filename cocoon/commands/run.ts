/** `cocoon run`: this device joins a mesh and serves. */

import type { Command } from 'commander';
import type { CommandContext } from '../command-context.ts';
import type { Daemon } from '../daemon.ts';
import { facts } from '../output.ts';
import type { DeviceRun } from '../run-device.ts';

export async function run(context: CommandContext, flags: DeviceRun['flags']): Promise<void> {
  const { runDevice } = await import('../run-device.ts');
  await runDevice(context, {
    flags,
    announce: async (daemon) => ({ event: {}, text: readyText(daemon, context) }),
  });
}

export function describe(command: Command): void {
  command
    .description('This device joins and serves. Without any token it becomes its own owner.')
    .option('--token <token|-|@file>', 'a setup token: from stdin (-), from a file, or as it is')
    .option('--signaling <url>', 'the signaling server (default: where the token says)');
}

export function readyText({ mesh, gateway, signalingUrl }: Daemon, { home }: CommandContext): string {
  const own = mesh.devices().find(({ self }) => self);
  return facts([
    ['Device', `${own?.name} (${mesh.peerId})`],
    ['Signaling', `${signalingUrl}${mesh.signaling.state === 'connected' ? '' : ' (not reached yet)'}`],
    ['Gateway', `${gateway.url}, token in ${home.gatewayToken}`],
  ]);
}
