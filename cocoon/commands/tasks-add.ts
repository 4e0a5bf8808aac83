/** `cocoon tasks add`: a new task, here or on the device that is named or chosen. */

import { readFile } from 'node:fs/promises';
import { createInterface } from 'node:readline/promises';
import type { Command } from 'commander';
import { MeshError, toMeshError } from '@cocoon-mesh/protocol/errors.ts';
import type { CommandContext } from '../command-context.ts';
import { collect } from '../command-context.ts';
import { ControlClient } from '../control/client.ts';
import { parseDuration } from '../duration.ts';
import type { TaskView } from '../tasks/task-view.ts';

interface AddFlags {
  readonly title: string;
  readonly description?: string;
  readonly command?: string;
  readonly input?: string;
  readonly label?: readonly string[];
  readonly requires?: readonly string[];
  readonly timeLimit?: string;
  readonly run?: boolean;
  readonly device?: string;
}

export function describeAdd(command: Command): void {
  command
    .description('Add a task. It stays pending until it is run.')
    .requiredOption('--title <title>', 'what it is, in a line')
    .option('--description <text>', 'more about it')
    .option('--command <command>', 'what is run by `sh -c` on its device, in a new folder')
    .option(
      '--input <json>',
      'JSON for the command, on its standard input: the text, @FILE, or - for this one',
    )
    .option('--label <label>', 'to find it by; may stand several times', collect)
    .option(
      '--requires <requirement>',
      'docker, gpu, memory>=8g, label:NAME or capability:NAME@RANGE; may stand several times',
      collect,
    )
    .option('--time-limit <time>', 'how long a run may take, such as 10m')
    .option('--run', 'run it at once')
    .option('--device <device>', 'the device that is its home (default: this one)');
}

export async function tasksAdd({ home, output }: CommandContext, flags: AddFlags): Promise<void> {
  const client = new ControlClient(home);
  const draft = await draftOf(flags);
  const add = (device?: string): Promise<TaskView> =>
    client.ask<TaskView>(
      'POST',
      device === undefined ? '/tasks' : `/tasks?device=${encodeURIComponent(device)}`,
      draft,
    );
  const task = await add(flags.device).catch(async (thrown: unknown) => {
    const asks = !output.json && process.stdin.isTTY && process.stderr.isTTY && flags.device === undefined;
    if (!asks || toMeshError(thrown).code !== 'cannot_run') throw thrown;
    return add(await chooseHost(client, toMeshError(thrown), flags.requires ?? []));
  });
  output.say(task, `${task.id} is ${task.status} on ${task.device}.`);
}

async function draftOf(flags: AddFlags): Promise<Record<string, unknown>> {
  return {
    title: flags.title,
    ...(flags.description === undefined ? {} : { description: flags.description }),
    ...(flags.command === undefined ? {} : { command: flags.command }),
    ...(flags.input === undefined ? {} : { input: await readJson(flags.input) }),
    ...(flags.label ? { labels: flags.label } : {}),
    ...(flags.requires ? { requires: flags.requires } : {}),
    ...(flags.timeLimit === undefined ? {} : { timeout_ms: parseDuration(flags.timeLimit) * 1000 }),
    run: flags.run === true,
  };
}

/** `TEXT`, `@FILE` or `-`. @throws MeshError usage */
export async function readJson(text: string, what = '--input'): Promise<unknown> {
  const source =
    text === '-' ? await readInput() : text.startsWith('@') ? await readText(text.slice(1)) : text;
  try {
    return JSON.parse(source) as unknown;
  } catch (cause) {
    throw new MeshError('usage', `${what} is not JSON: ${cause instanceof Error ? cause.message : ''}`, {
      cause,
      hint: `Example: ${what} '{"name": "value"}'; a text needs its quotes.`,
    });
  }
}

async function readInput(): Promise<string> {
  let all = '';
  process.stdin.setEncoding('utf8');
  for await (const chunk of process.stdin) all += String(chunk);
  return all;
}

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    throw new MeshError('usage', `The file ${path} cannot be read`, { cause });
  }
}

/** @throws MeshError the refusal, when no device can or none is chosen */
async function chooseHost(
  client: ControlClient,
  refusal: MeshError,
  requires: readonly string[],
): Promise<string> {
  const query = requires.map((requirement) => `requires=${encodeURIComponent(requirement)}`).join('&');
  const { devices } = await client.ask<{ devices: string[] }>('GET', `/tasks/hosts?${query}`);
  const [first, ...others] = devices;
  if (first === undefined) throw refusal;
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  try {
    const question =
      others.length === 0
        ? `${refusal.message}.\n${first} can. Add it there? [Y/n] `
        : `${refusal.message}.\n${devices.map((name, i) => `  ${i + 1}  ${name}\n`).join('')}Add it where? [1] `;
    const answer = (await terminal.question(question)).trim().toLowerCase();
    const chosen = chosenHost(answer, devices);
    if (chosen === null) throw refusal;
    return chosen;
  } finally {
    terminal.close();
  }
}

/** A number or a name of the list; an empty answer and `y` take the first. Null: none. */
export function chosenHost(answer: string, devices: readonly string[]): string | null {
  if (['', 'y', 'yes'].includes(answer)) return devices[0] ?? null;
  if (/^\d+$/.test(answer)) return devices[Number(answer) - 1] ?? null;
  return devices.find((name) => name === answer) ?? null;
}
