/** A query to the mesh: asked of every target, answered as one page, one sum or one ranking, with every device's status. */

import type { Clock, DeviceAnswer, Json, QueryType, Schema, TaskStats } from '@cocoon-mesh/protocol';
import { MeshError, limits, taskRowSchema, taskStatsSchema } from '@cocoon-mesh/protocol';
import { positionOf, readCursor, writeCursor } from './cursor.ts';
import type { Places } from './cursor.ts';
import { failureOf } from './device-status.ts';
import { fanOut } from './fan-out.ts';
import type { DeviceRows } from './fan-out.ts';
import { makePage } from './page.ts';
import type { PageOrder } from './page.ts';
import { addStats } from './stats.ts';
import type { QueryTarget } from './target.ts';

export interface QueryOptions {
  readonly targets: readonly QueryTarget[];
  readonly type: QueryType;
  readonly params: Json;
  /** Rows at most. */
  readonly limit?: number;
  readonly timeoutMs?: number;
  /** `next_cursor` of the page before. */
  readonly cursor?: string | null;
  /** What a row's value must be; a device that answers something else is one with an error. Tasks are known. */
  readonly value?: Schema<unknown>;
  readonly clock: Clock;
  /** Cancels the query at every device. */
  readonly signal?: AbortSignal;
  /** Called as parts come; must not throw. */
  readonly onPart?: (part: ShownPart) => void;
}

/** A part as the gateway and the CLI show it. */
export interface ShownPart {
  readonly device: string;
  readonly device_id: string;
  readonly seq: number;
  readonly rows: readonly Json[];
  readonly is_final: boolean;
}

export interface ShownRow {
  readonly device: string;
  readonly device_id: string;
  readonly value: Json;
}

export interface QueryAnswer {
  readonly rows: readonly ShownRow[];
  /** Sums of `get_task_stats`; null for every other type. */
  readonly stats: TaskStats | null;
  readonly devices: readonly DeviceAnswer[];
  /** Something is missing: a device did not answer, or not to its end. */
  readonly partial: boolean;
  /** Null: there is no more to come from devices that answer. Not null: there may be, even behind an empty page. */
  readonly next_cursor: string | null;
}

/** What a page has when nobody says. */
export const defaultQueryLimit = 100;

/** @throws MeshError bad_cursor, cancelled, bad_message for options out of their limits */
export async function runQuery(options: QueryOptions): Promise<QueryAnswer> {
  const { targets, type, params, clock, signal, onPart } = options;
  const limit =
    type === 'get_task_stats' ? 1 : within(options.limit ?? defaultQueryLimit, limits.maxQueryRows);
  const timeoutMs = within(options.timeoutMs ?? limits.queryTimeoutMs, limits.maxQueryTimeoutMs);
  const places = await placesOf(options);
  const asked = targets
    .filter(({ peerId }) => places.get(peerId) !== 'finished')
    .map((target) => ({ ...target, after: positionOf(places.get(target.peerId)) }));
  const answers = await fanOut({
    targets: asked,
    request: { type, params, limit, timeout_ms: timeoutMs },
    clock,
    ...(signal ? { signal } : {}),
    ...(onPart
      ? {
          onPart: ({ target, seq, rows, isFinal }) =>
            onPart({
              device: target.name,
              device_id: target.peerId,
              seq,
              rows: rows.map(({ value }) => value),
              is_final: isFinal,
            }),
        }
      : {}),
  });
  const checked = withValues(answers, options.value ?? valueSchemas[type]);
  const devices = inOrder(targets, checked);
  const shared = { devices, partial: devices.some(({ status }) => status !== 'ok') };
  if (type === 'get_task_stats')
    return { ...shared, rows: [], stats: addStats(checked.flatMap(statsOf)), next_cursor: null };
  const page = makePage(checked, places, orders[type], limit);
  return {
    ...shared,
    rows: page.rows.map(({ peerId, name, row }) => ({ device: name, device_id: peerId, value: row.value })),
    stats: null,
    next_cursor: page.more ? await writeCursor(type, params, page.places) : null,
  };
}

const orders: Readonly<Record<Exclude<QueryType, 'get_task_stats'>, PageOrder>> = {
  list_tasks: 'key',
  /** Scores of different devices cannot be compared. */
  search_tasks: 'rank',
  search_knowledgebase: 'rank',
  custom: 'key',
};

const valueSchemas: Partial<Record<QueryType, Schema<unknown>>> = {
  list_tasks: taskRowSchema,
  get_task_stats: taskStatsSchema,
};

async function placesOf({ type, params, cursor }: QueryOptions): Promise<Places> {
  if (cursor === undefined || cursor === null) return new Map();
  if (type === 'get_task_stats') throw new MeshError('bad_cursor', 'Statistics have no pages');
  return readCursor(type, params, cursor);
}

/** Rows up to the first whose value is not what it should be; that one makes it an error. */
function withValues(
  answers: readonly DeviceRows[],
  schema: Schema<unknown> | undefined,
): readonly DeviceRows[] {
  if (!schema) return answers;
  return answers.map((device) => {
    const bad = device.rows.findIndex(({ value }) => !schema.safeParse(value).success);
    if (bad < 0) return device;
    const { error } = failureOf(new MeshError('bad_message', `Row ${bad + 1} is not what was asked for`));
    return {
      answer: { ...device.answer, status: 'error', count: bad, error },
      rows: device.rows.slice(0, bad),
      more: false,
    };
  });
}

function statsOf({ rows }: DeviceRows): TaskStats[] {
  return rows.flatMap(({ value }) => {
    const parsed = taskStatsSchema.safeParse(value);
    return parsed.success ? [parsed.data] : [];
  });
}

/** Every target, those too that had nothing more to be asked for. */
function inOrder(targets: readonly QueryTarget[], answers: readonly DeviceRows[]): DeviceAnswer[] {
  const byPeer = new Map(answers.map(({ answer }) => [answer.id, answer]));
  return targets.map(
    ({ peerId, name }) => byPeer.get(peerId) ?? { id: peerId, name, status: 'ok', count: 0, ms: 0 },
  );
}

function within(value: number, max: number): number {
  if (Number.isInteger(value) && value >= 1 && value <= max) return value;
  throw new MeshError('bad_message', `A limit of ${value} is not between 1 and ${max}`);
}
