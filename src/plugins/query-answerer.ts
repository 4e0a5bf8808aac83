/** A `custom` query that a plugin answers, as rows of a query. */

import type { Json, QueryRequest, QueryRow } from '@cocoon-mesh/protocol';
import { MeshError, queryRowSchema } from '@cocoon-mesh/protocol';
import type { PluginFace } from './plugin-provider.ts';

/** As `Answerer` of `src/query`. */
export type CustomAnswerer = (
  request: QueryRequest,
  signal: AbortSignal,
  from: { readonly id: string; readonly name: string },
) => AsyncGenerator<QueryRow, void, undefined>;

/**
 * Rows that a plugin does not rank stand in the order in which they come; a page goes on behind so many of them, so
 * a plugin's rows must have the same order each time.
 */
export function customAnswerer(name: string, plugin: PluginFace): CustomAnswerer {
  return async function* answer(request, signal, from) {
    const skip = positionOf(request.after);
    const left = new AbortController();
    const { reader, settled } = plugin.request({
      target: { kind: 'query', name },
      payload: withoutName(request.params),
      parts: [],
      from,
      session: null,
      features: [],
      signal: AbortSignal.any([signal, left.signal]),
    });
    try {
      let index = 0;
      for await (const { payload } of reader.chunks()) {
        if (index++ < skip) continue;
        yield rowOf(payload, index, name);
      }
    } finally {
      left.abort(new MeshError('cancelled'));
      await settled;
    }
  };
}

/** @throws MeshError bad_cursor */
function positionOf(after: string | null): number {
  if (after === null) return 0;
  if (!/^\d{1,9}$/.test(after)) throw new MeshError('bad_cursor');
  return Number(after);
}

function withoutName(params: Json): Json {
  if (typeof params !== 'object' || params === null || Array.isArray(params)) return {};
  const { name: _, ...rest } = params as { readonly [key: string]: Json };
  return rest;
}

/** Ranks are descending; rows without one come after those with one, the first first. */
function rowOf(payload: Json, index: number, name: string): QueryRow {
  const { rank, value } = payload as { rank: number | string | null; value: Json };
  const row = { key: rank === null ? [-index] : [rank], at: String(index), value };
  const result = queryRowSchema.safeParse(row);
  if (!result.success)
    throw new MeshError('bad_answer', `The query ${name} of a plugin has a row that is none`);
  return result.data;
}
