/** `cocoon plugins list|add|remove|test`: code that this device runs to offer more. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import type { PluginView } from '@cocoon-mesh/plugins/plugin-host.node.ts';
import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import type { CommandContext } from '../command-context.ts';
import { action } from '../command-context.ts';
import { ControlClient } from '../control/client.ts';
import type { Environment } from '../environment.ts';
import { table } from '../output.ts';
import { printableLine } from '../terminal-text.ts';

/** A new command with an example in its help. */
type Add = (parent: Command, name: string, example: string) => Command;

export function addPluginCommands(program: Command, environment: Environment, add: Add): void {
  const command = add(program, 'plugins', 'cocoon plugins list').description(
    'Code of others that this device runs, each in a process of its own, and what it offers.',
  );
  const listCommand = add(command, 'list', 'cocoon plugins list').description(
    'Which plugins there are, and why one does not run.',
  );
  action(listCommand, environment, pluginsList);
  const addCommand = add(command, 'add', 'cocoon plugins add ./shout')
    .description('Run a plugin, now and at every start. It runs as you: add only what you trust.')
    .argument('<folder>', 'with a manifest: "cocoon" in its package.json, or cocoon-plugin.toml');
  action(addCommand, environment, pluginsAdd);
  const removeCommand = add(command, 'remove', 'cocoon plugins remove shout')
    .description('Run a plugin no more. Its folder, data and settings stay.')
    .argument('<name>');
  action(removeCommand, environment, pluginsRemove);
  const testCommand = add(command, 'test', 'cocoon plugins test ./shout')
    .description("Run a plugin's own tests, so that they find cocoon/plugin/testing.")
    .argument('[folder]', 'default: this one');
  action(testCommand, environment, pluginsTest);
}

async function pluginsList({ home, output }: CommandContext): Promise<void> {
  const { plugins } = await new ControlClient(home).ask<{ plugins: PluginView[] }>('GET', '/plugins');
  output.say({ plugins }, plugins.length === 0 ? 'This device runs no plugins.' : listText(plugins));
}

async function pluginsAdd(
  { home, output }: CommandContext,
  _options: object,
  [folder = '']: readonly string[],
): Promise<void> {
  const path = resolve(folder);
  const added = await new ControlClient(home).ask<PluginView>('POST', '/plugins', { path });
  output.say(added, `${added.name} ${added.version} is started; \`cocoon plugins list\` shows how it does.`);
}

async function pluginsRemove(
  { home, output }: CommandContext,
  _options: object,
  [name = '']: readonly string[],
): Promise<void> {
  const answer = await new ControlClient(home).ask<{ name: string; stays: string | null }>(
    'POST',
    '/plugins/remove',
    { name },
  );
  output.say(answer, `${answer.name} does not run any more.`);
  if (!output.json && answer.stays !== null)
    output.note(`It comes back at the next start from ${answer.stays}; that is left to you.`);
}

async function pluginsTest(
  _context: CommandContext,
  _options: object,
  [folder = '.']: readonly string[],
): Promise<void> {
  const hook = import.meta.resolve('../register.ts');
  const child = spawn(process.execPath, ['--import', hook, '--test'], {
    cwd: resolve(folder),
    stdio: 'inherit',
  });
  const [code] = (await once(child, 'exit').catch((cause: unknown) => {
    throw new MeshError('not_found', `There is no folder ${resolve(folder)}`, { cause });
  })) as [number | null];
  process.exitCode = code === 0 ? 0 : 1;
}

function listText(plugins: readonly PluginView[]): string {
  const rows = plugins.map(({ name, version, state, capabilities, pid, restarts, path }) => [
    name ?? path,
    version ?? '',
    state,
    capabilities.map(capabilityText).join(', '),
    pid === null ? '' : String(pid),
    String(restarts),
  ]);
  const whys = plugins.flatMap(({ name, path, why, code }) =>
    why === null ? [] : [`${name ?? path}: ${printableLine(why)} (${code})`],
  );
  return [table(['NAME', 'VERSION', 'STATE', 'CAPABILITIES', 'PID', 'RESTARTS'], rows), ...whys].join('\n');
}

function capabilityText({ protocol, version, disabled }: PluginView['capabilities'][number]): string {
  return `${protocol} ${version}${disabled ? ' (off)' : ''}`;
}
