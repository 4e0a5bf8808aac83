/** `cocoon tasks list|show|run|cancel|rm|stats`: tasks of this device, of another one, or of all. */

import type { Command } from 'commander';
import type { DeviceAnswer, TaskRow, TaskStats } from '@cocoon-mesh/protocol';
import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import type { CommandContext } from '../command-context.ts';
import { collect } from '../command-context.ts';
import { ControlClient } from '../control/client.ts';
import { parseDuration } from '../duration.ts';
import { facts, table } from '../output.ts';
import type { Output } from '../output.ts';
import type { QueryAsk, ResultView } from '../query-stream.ts';
import { askMany, failureOf, missingShares } from '../query-stream.ts';
import type { TaskView } from '../tasks/task-view.ts';
import { printableLine } from '../terminal-text.ts';

/** Whose tasks. */
interface PlaceFlags {
  readonly device?: string;
  readonly all?: boolean;
  readonly timeout?: string;
}

interface ListFlags extends PlaceFlags {
  readonly status?: readonly string[];
  readonly label?: readonly string[];
  readonly order?: string;
  readonly limit: string;
  readonly cursor?: string;
}

type ListedTask = TaskRow & { readonly device: string; readonly device_id: string };

export function withDevice(command: Command): Command {
  return command.option('--device <device>', 'the device whose task it is (default: this one)');
}

function withPlace(command: Command): Command {
  return command
    .option('--device <device>', 'of this device (default: the one that you are at)')
    .option('--all', 'of all your devices')
    .option('--timeout <time>', 'how long devices may take', '5s');
}

export function describeList(command: Command): void {
  withPlace(command)
    .description('Tasks, newest first.')
    .option('--status <status>', 'only these; may stand several times', collect)
    .option('--label <label>', 'only those with all of these; may stand several times', collect)
    .option('--order <created|updated>', 'newest by what')
    .option('--limit <n>', 'how many at most', '50')
    .option('--cursor <cursor>', 'go on behind an earlier answer (its next_cursor)');
}

export function describeStats(command: Command): void {
  withPlace(command).description('How many tasks there are, by status.');
}

export async function tasksList({ home, output }: CommandContext, flags: ListFlags): Promise<void> {
  const client = new ControlClient(home);
  const answer = await askMany(client, {
    query_type: 'list_tasks',
    params: {
      ...(flags.status ? { status: flags.status } : {}),
      ...(flags.label ? { labels: flags.label } : {}),
      ...(flags.order === undefined ? {} : { order: flags.order }),
    },
    limit: wholeNumber('--limit', flags.limit),
    ...(flags.cursor === undefined ? {} : { cursor: flags.cursor }),
    ...(await placeOf(client, flags)),
  });
  const failure = failureOf(answer);
  if (failure) throw failure;
  const { rows = [], devices, partial, next_cursor: cursor = null } = answer;
  const tasks = rows as readonly ListedTask[];
  output.say({ tasks, devices, partial, next_cursor: cursor }, listText(tasks));
  noteMissing(output, answer);
  if (cursor !== null && !output.json) output.note(`There are more: --cursor ${cursor}`);
}

export async function tasksStats({ home, output }: CommandContext, flags: PlaceFlags): Promise<void> {
  const client = new ControlClient(home);
  const answer = await askMany(client, {
    query_type: 'get_task_stats',
    params: {},
    ...(await placeOf(client, flags)),
  });
  const failure = failureOf(answer);
  if (failure) throw failure;
  const { stats, devices, partial } = answer as ResultView & { stats: TaskStats };
  const lines = Object.entries(stats.by_status).map(([status, count]): [string, string] => [
    status,
    String(count),
  ]);
  output.say({ ...stats, devices, partial }, facts([...lines, ['all', String(stats.total)]]));
  noteMissing(output, answer);
}

export async function tasksShow(
  { home, output }: CommandContext,
  flags: { readonly device?: string },
  [id = '']: readonly string[],
): Promise<void> {
  const task = await new ControlClient(home).ask<TaskView>('GET', taskPath(id, '', flags.device));
  output.say(task, taskText(task));
}

export async function tasksRun(
  { home, output }: CommandContext,
  flags: { readonly device?: string },
  [id = '']: readonly string[],
): Promise<void> {
  const task = await new ControlClient(home).ask<TaskView>('POST', taskPath(id, '/run', flags.device));
  output.say(task, `${task.id} is ${task.status} on ${task.device}.`);
}

export async function tasksCancel(
  { home, output }: CommandContext,
  flags: { readonly device?: string },
  [id = '']: readonly string[],
): Promise<void> {
  const task = await new ControlClient(home).ask<TaskView>('POST', taskPath(id, '/cancel', flags.device));
  output.say(task, `${task.id} is ${task.status}.`);
}

export async function tasksRemove(
  { home, output }: CommandContext,
  flags: { readonly device?: string },
  [id = '']: readonly string[],
): Promise<void> {
  const task = await new ControlClient(home).ask<TaskView>('DELETE', taskPath(id, '', flags.device));
  output.say(task, `${task.id} was removed.`);
}

export function taskPath(id: string, what: string, device?: string): string {
  const query = device === undefined ? '' : `?device=${encodeURIComponent(device)}`;
  return `/tasks/${encodeURIComponent(id)}${what}${query}`;
}

/** @throws MeshError usage */
export function wholeNumber(flag: string, text: string): number {
  if (/^\d{1,6}$/.test(text) && Number(text) > 0) return Number(text);
  throw new MeshError('usage', `${flag} is a number from 1 on`);
}

/** Which devices are asked, and how long they have. @throws MeshError usage */
async function placeOf(
  client: ControlClient,
  { device, all, timeout }: PlaceFlags,
): Promise<Pick<QueryAsk, 'devices' | 'timeout_ms'>> {
  if (all && device !== undefined) throw new MeshError('usage', '--all and --device exclude each other');
  const time = timeout === undefined ? {} : { timeout_ms: parseDuration(timeout) * 1000 };
  if (all) return time;
  const named = device ?? (await client.ask<{ peer_id: string }>('GET', '/status')).peer_id;
  return { ...time, devices: [named] };
}

export function noteMissing(output: Output, answer: { readonly devices: readonly DeviceAnswer[] }): void {
  if (!output.json) for (const sentence of missingShares(answer)) output.note(`${sentence}.`);
}

function listText(tasks: readonly ListedTask[]): string {
  if (tasks.length === 0) return 'There are no such tasks.';
  const rows = tasks.map(({ id, device, status, title, created_at: created }) => [
    id,
    device,
    status,
    created.slice(0, 19).replace('T', ' '),
    printableLine(title),
  ]);
  return table(['ID', 'DEVICE', 'STATUS', 'CREATED (UTC)', 'TITLE'], rows);
}

function taskText(task: TaskView): string {
  const json = (value: unknown): string => (value === null ? '' : printableLine(JSON.stringify(value)));
  const rows: (readonly [string, string])[] = [
    ['Task', task.id],
    ['Device', `${task.device} (${task.device_id})`],
    ['Title', printableLine(task.title)],
    ['Status', task.status],
    ['Error', printableLine(task.error ?? '')],
    ['Exit code', task.exit_code === null ? '' : String(task.exit_code)],
    ['Command', printableLine(task.command ?? '')],
    ['Description', printableLine(task.description)],
    ['Labels', task.labels.join(', ')],
    ['Requires', task.requires.join(', ')],
    ['Input', json(task.input)],
    ['Output', json(task.output)],
    ['Created', task.created_at],
    ['Started', task.started_at ?? ''],
    ['Finished', task.finished_at ?? ''],
    ['Updated', task.updated_at],
    ['Version', String(task.version)],
  ];
  return facts(rows.filter(([, value]) => value !== ''));
}
