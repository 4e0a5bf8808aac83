/**
 * Which commands a device runs: `any`, `none`, or those that its user lists. An entry allows exactly its line, or,
 * when it ends in ` *`, its words with plain words behind them. Nothing in those may mean anything to a shell: an
 * allowed `git log *` must not become `git log; rm -r ~`.
 */

import { MeshError } from '@cocoon-mesh/protocol';

export type CommandPolicy = 'any' | 'none' | readonly string[];

/** Words of letters, digits and signs without a meaning for any shell, one space between them. */
const plainWords = /^[\p{L}\p{N}_./:=@%+,-]+( [\p{L}\p{N}_./:=@%+,-]+)*$/u;

/** Of `task_commands` in config.toml. @throws MeshError bad_config */
export function parseCommandPolicy(setting: string | readonly string[] | undefined): CommandPolicy {
  if (setting === undefined || setting === 'any' || setting === 'none') return setting ?? 'any';
  const entries = typeof setting === 'string' ? [setting] : [...setting];
  for (const entry of entries) checkEntry(entry, entries.length);
  const [only] = entries;
  return entries.length === 1 && (only === 'any' || only === 'none') ? only : entries;
}

/** @throws MeshError command_refused */
export function checkCommand(policy: CommandPolicy, command: string): void {
  if (policy === 'any') return;
  if (policy === 'none')
    throw new MeshError('command_refused', 'The device runs no commands', {
      hint: 'Its user has set task_commands to none in its config.toml.',
    });
  if (!policy.some((entry) => allowsCommand(entry, command)))
    throw new MeshError('command_refused', undefined, {
      hint: 'Its user lists the commands that it runs as task_commands in its config.toml.',
    });
}

function allowsCommand(entry: string, command: string): boolean {
  if (command === entry) return !entry.endsWith(' *');
  if (!entry.endsWith(' *')) return false;
  const prefix = entry.slice(0, -1);
  return command.startsWith(prefix) && plainWords.test(command.slice(prefix.length));
}

function checkEntry(entry: string, entries: number): void {
  const refuse = (why: string): never => {
    throw new MeshError('bad_config', `task_commands: ${JSON.stringify(entry)} ${why}`, {
      hint: 'It is any, none, or a list of commands; one that ends in " *" allows plain words behind it.',
    });
  };
  if (entry.trim() === '') refuse('is empty');
  if ((entry === 'any' || entry === 'none') && entries > 1) refuse('stands alone or not at all');
  if (entry === '*') refuse('would allow everything: say any');
  // Behind an open quote, plain words are not what they seem.
  if (entry.endsWith(' *') && !plainWords.test(entry.slice(0, -2)))
    refuse('may have nothing but plain words before its *');
}
