/** `cocoon tasks logs`: what a task's command wrote. */

import { createInterface } from 'node:readline';
import type { IncomingMessage } from 'node:http';
import type { Command } from 'commander';
import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import type { CommandContext } from '../command-context.ts';
import { ControlClient, toldError } from '../control/client.ts';
import { printableText } from '../terminal-text.ts';
import { taskPath, withDevice } from './tasks.ts';

type Line =
  | { readonly offset: number; readonly log: string }
  | { readonly error: { readonly code: string; readonly message: string; readonly hint?: string } };

export function describeLogs(command: Command): void {
  withDevice(command)
    .description("What a task's command wrote; the newest part of a long log.")
    .argument('<id>')
    .option('-f, --follow', 'go on until the task has ended');
}

export async function tasksLogs(
  { home, output }: CommandContext,
  flags: { readonly device?: string; readonly follow?: boolean },
  [id = '']: readonly string[],
): Promise<void> {
  const client = new ControlClient(home);
  const path = taskPath(id, '/logs', flags.device);
  const followed = flags.follow ? `${path}${path.includes('?') ? '&' : '?'}follow=1` : path;
  // A pipe gets the bytes as they were written.
  const lines = output.json || output.terminal;
  const headers = lines ? { accept: 'application/x-ndjson' } : {};
  const response = await client.send(await client.open(followed, { headers }), '');
  if (!lines) return passOn(response);
  for await (const text of createInterface({ input: response })) {
    const line = JSON.parse(text) as Line;
    if ('error' in line) throw toldError(line.error);
    if (output.json) output.say(line, '');
    else process.stdout.write(printableText(line.log));
  }
}

async function passOn(response: IncomingMessage): Promise<void> {
  try {
    for await (const chunk of response) {
      if (process.stdout.write(chunk as Uint8Array)) continue;
      await new Promise<void>((resolve) => process.stdout.once('drain', () => resolve()));
    }
  } catch (cause) {
    throw new MeshError('bad_gateway', 'The log broke off before its end', { cause });
  }
}
