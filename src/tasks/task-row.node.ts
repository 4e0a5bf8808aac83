/** Between what the table holds and what others see. */

import type { Json, Task, TaskRow } from '@cocoon-mesh/protocol';
import type { Selectable } from 'kysely';
import { isoTime } from './iso-time.ts';
import type { TaskTable } from './task-tables.node.ts';

export type StoredTask = Omit<Selectable<TaskTable>, 'search'>;

/** All that a list shows. */
export const rowColumns = [
  'id',
  'title',
  'status',
  'command',
  'labels',
  'requires',
  'exit_code',
  'error',
  'created_at',
  'updated_at',
  'started_at',
  'finished_at',
  'version',
] as const satisfies readonly (keyof StoredTask)[];

export type StoredRow = Pick<StoredTask, (typeof rowColumns)[number]>;

export const taskColumns = [
  ...rowColumns,
  'description',
  'input',
  'output',
  'timeout_ms',
] as const satisfies readonly (keyof StoredTask)[];

export function toTaskRow(row: StoredRow): TaskRow {
  return {
    id: row.id,
    title: row.title,
    status: row.status,
    command: row.command,
    labels: toList(row.labels),
    requires: toList(row.requires),
    exit_code: row.exit_code,
    error: row.error,
    created_at: isoTime(row.created_at),
    updated_at: isoTime(row.updated_at),
    started_at: row.started_at === null ? null : isoTime(row.started_at),
    finished_at: row.finished_at === null ? null : isoTime(row.finished_at),
    version: row.version,
  };
}

export function toTask(row: StoredTask): Task {
  return {
    ...toTaskRow(row),
    description: row.description,
    input: toJson(row.input),
    output: toJson(row.output),
    timeout_ms: row.timeout_ms,
  };
}

function toList(text: string): string[] {
  return text === '[]' ? [] : (JSON.parse(text) as string[]);
}

function toJson(text: string): Json {
  return text === 'null' ? null : (JSON.parse(text) as Json);
}
