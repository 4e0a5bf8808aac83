/** Where a page of a list ended: a text that is opaque to whoever keeps it, and belongs to one order of the list. */

import type { TaskOrder } from '@cocoon-mesh/protocol';
import { MeshError, taskIdField } from '@cocoon-mesh/protocol';

export interface ListPosition {
  readonly ms: number;
  readonly id: string;
}

const letters: Readonly<Record<TaskOrder, string>> = { created: 'c', updated: 'u' };
const listPattern = /^([cu]):(0|[1-9]\d{0,14}):([0-9a-f-]{36})$/;
const searchPattern = /^s:([1-9]\d{0,4})$/;

export function listPosition(order: TaskOrder, { ms, id }: ListPosition): string {
  return `${letters[order]}:${ms}:${id}`;
}

/** @throws MeshError bad_cursor */
export function readListPosition(order: TaskOrder, text: string): ListPosition {
  const [, letter, ms, id] = listPattern.exec(text) ?? [];
  if (letter !== letters[order] || !taskIdField.safeParse(id).success || id === undefined)
    throw new MeshError('bad_cursor');
  return { ms: Number(ms), id };
}

/** @param count results up to there */
export function searchPosition(count: number): string {
  return `s:${count}`;
}

/** @throws MeshError bad_cursor */
export function readSearchPosition(text: string): number {
  const [, count] = searchPattern.exec(text) ?? [];
  if (count === undefined) throw new MeshError('bad_cursor');
  return Number(count);
}
