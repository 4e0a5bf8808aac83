/** `cocoon open`: a service, or the web page with a fresh sign-in link, in the browser. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Command } from 'commander';
import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import type { CommandContext } from '../command-context.ts';
import { ControlClient } from '../control/client.ts';

export function describe(command: Command): void {
  command
    .description('Opens a service of a device in the browser; without one the web page, signed in.')
    .argument('[device/service]')
    .option('--print', 'print the link instead of opening it');
}

export async function open(
  { home, output }: CommandContext,
  options: { print?: boolean },
  [target]: readonly string[],
): Promise<void> {
  const { url } = await new ControlClient(home).ask<{ url: string }>('POST', '/open', {
    target: target ?? null,
  });
  if (output.json || options.print) {
    output.say({ url }, url);
    return;
  }
  if (await openBrowser(url)) return output.tell('Opened in the browser.');
  // Who reads along may have it; a log of standard output may not.
  if (output.terminal) return output.tell(url);
  throw new MeshError('unsupported', 'No browser could be started', { hint: 'Use --print to get the link.' });
}

async function openBrowser(url: string): Promise<boolean> {
  const [command, ...args] = opener();
  const child = spawn(command, [...args, url], { stdio: 'ignore', detached: true });
  try {
    const [code] = (await once(child, 'exit')) as [number | null];
    return code === 0;
  } catch {
    return false;
  }
}

function opener(): [string, ...string[]] {
  if (process.platform === 'darwin') return ['open'];
  // Not `cmd /c start`, which would read the address as a command.
  if (process.platform === 'win32') return ['rundll32', 'url.dll,FileProtocolHandler'];
  return ['xdg-open'];
}
