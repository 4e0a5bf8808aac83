/** Queries of this device's user: checked here, so that nobody is asked what makes no sense, then put to the mesh. */

import type { Mesh } from '@cocoon-mesh/mesh';
import type { Clock, DeviceAnswer, Json, QueryType, Schema, TaskStats } from '@cocoon-mesh/protocol';
import {
  check,
  knowledgeRowSchema,
  queryCapability,
  taskFilterSchema,
  taskRowSchema,
} from '@cocoon-mesh/protocol';
import type { QueryTarget, ShownPart, ShownRow } from '@cocoon-mesh/query';
import { QueryServer, meshTargets, runQuery } from '@cocoon-mesh/query';
import * as z from 'zod/mini';
import { fieldError } from '../gateway/request-body.ts';
import { searchSchema } from './query-sources.ts';

export interface QueryAsk {
  readonly type: QueryType;
  readonly params: Readonly<Record<string, Json>>;
  readonly limit: number | null;
  readonly cursor: string | null;
  readonly timeoutMs: number;
  /** Names or PeerIds; null: every own device that has the capability. */
  readonly devices: readonly string[] | null;
}

/** As `POST /query` answers it: `stats`, or `rows` and where they go on. */
export type QueryResult = (
  { readonly rows: readonly Json[]; readonly next_cursor: string | null } | { readonly stats: TaskStats }
) & { readonly devices: readonly DeviceAnswer[]; readonly partial: boolean };

export interface PreparedQuery {
  readonly devices: readonly { readonly device: string; readonly device_id: string }[];
  /** @throws MeshError bad_cursor | cancelled */
  run(signal: AbortSignal, onPart?: (part: ShownPart) => void): Promise<QueryResult>;
}

const paramSchemas: Readonly<Record<QueryType, z.ZodMiniType>> = {
  list_tasks: taskFilterSchema,
  get_task_stats: z.strictObject({}),
  search_tasks: searchSchema,
  search_knowledgebase: searchSchema,
  /** Whatever its plugin takes. */
  custom: z.looseObject({ name: z.string().check(z.minLength(1), z.maxLength(128)) }),
};

/** What is found; whoever answers something else has failed, and breaks nobody's list. */
const valueSchemas: Partial<Record<QueryType, Schema<unknown>>> = {
  search_tasks: z.extend(taskRowSchema, { snippet: z.string() }),
  search_knowledgebase: knowledgeRowSchema,
};

export class QueryService {
  readonly #mesh: Mesh;
  readonly #server: QueryServer;
  readonly #clock: Clock;

  constructor(mesh: Mesh, server: QueryServer, clock: Clock) {
    this.#mesh = mesh;
    this.#server = server;
    this.#clock = clock;
  }

  /** @throws MeshError bad_filter | device_not_found | name_changed */
  prepare({ type, params, limit, cursor, timeoutMs, devices }: QueryAsk): PreparedQuery {
    const checked = checkedParams(type, params);
    const targets = this.#targets(type, devices);
    const value = valueSchemas[type];
    return {
      devices: targets.map(({ name, peerId }) => ({ device: name, device_id: peerId })),
      run: async (signal, onPart) => {
        const { rows, stats, next_cursor, ...shared } = await runQuery({
          targets,
          type,
          params: checked,
          ...(limit === null ? {} : { limit }),
          cursor,
          timeoutMs,
          ...(value ? { value } : {}),
          clock: this.#clock,
          signal,
          ...(onPart ? { onPart } : {}),
        });
        return stats
          ? { stats, ...shared }
          : { rows: rows.map((row) => rowView(row, type)), ...shared, next_cursor };
      },
    };
  }

  #targets(type: QueryType, named: readonly string[] | null): readonly QueryTarget[] {
    const mesh = this.#mesh;
    return meshTargets({
      mesh,
      clock: this.#clock,
      capability: type === 'custom' ? '' : queryCapability[type],
      // Which devices have a plugin for it is not known beforehand.
      ...(named || type === 'custom' ? { named: named ?? ownCocoons(mesh) } : {}),
      local: (request, signal) => this.#server.ask(request, signal),
    });
  }
}

function ownCocoons(mesh: Mesh): string[] {
  return mesh
    .devices()
    .filter(({ kind, foreign, problem }) => kind === 'cocoon' && !foreign && problem === null)
    .map(({ peerId }) => peerId);
}

/** @throws MeshError bad_filter */
function checkedParams(type: QueryType, params: Readonly<Record<string, Json>>): Json {
  // One status is as good as a list of one.
  const { status } = params;
  const listed =
    type === 'list_tasks' && typeof status === 'string' ? { ...params, status: [status] } : params;
  try {
    check(paramSchemas[type], listed);
    return listed;
  } catch (thrown) {
    throw fieldError(thrown, 'bad_filter') ?? thrown;
  }
}

/** The device has the last word about whose row it is. */
function rowView({ device, device_id, value }: ShownRow, type: QueryType): Json {
  if (type === 'custom' || !isRecord(value)) return { device, device_id, value };
  return { ...value, device, device_id };
}

function isRecord(value: Json): value is { readonly [key: string]: Json } {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
