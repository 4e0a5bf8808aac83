/** Where this device's answers to queries come from: its tasks and its knowledge base. */

import type { Json, QueryRequest, QueryRow } from '@cocoon-mesh/protocol';
import { MeshError, check, limits, taskFilterSchema } from '@cocoon-mesh/protocol';
import type { Answerer } from '@cocoon-mesh/query';
import * as z from 'zod/mini';
import { fieldError } from '../gateway/request-body.ts';
import type { TaskSource } from '../tasks/task-home.ts';

const nothingSchema = z.strictObject({});
export const searchSchema = z.strictObject({ text: z.string().check(z.minLength(1), z.maxLength(1000)) });

interface Page {
  readonly rows: readonly QueryRow[];
  readonly more: boolean;
}

export function taskAnswerers(
  tasks: TaskSource,
): Record<'list_tasks' | 'get_task_stats' | 'search_tasks', Answerer> {
  return {
    list_tasks: (request) => {
      const filter = paramsOf(taskFilterSchema, request);
      return pages(request, async (page) => {
        const { rows, more } = await (await tasks.use()).store.list(filter, page);
        return { rows: rows.map(({ row, key, at }) => ({ key: [...key], at, value: asJson(row) })), more };
      });
    },
    async *get_task_stats(request) {
      paramsOf(nothingSchema, request);
      const { store } = await tasks.use();
      yield { key: [0], at: '', value: asJson(await store.stats()) };
    },
    search_tasks: (request) => {
      const { text } = paramsOf(searchSchema, request);
      return pages(request, async (page) => {
        const { rows, more } = await (await tasks.use()).store.search(text, page);
        return {
          rows: rows.map(({ row, rank, snippet, at }) => ({
            key: [rank],
            at,
            value: asJson({ ...row, snippet }),
          })),
          more,
        };
      });
    },
  };
}

/** For queries of a capability that was switched off. */
export function switchedOff(): never {
  throw new MeshError('capability_off');
}

/** @throws MeshError bad_filter */
export function paramsOf<T>(schema: z.ZodMiniType<T>, { params }: QueryRequest): T {
  try {
    return check(schema, params);
  } catch (thrown) {
    throw fieldError(thrown, 'bad_filter') ?? thrown;
  }
}

/** One row more than is wanted says that there are more. */
async function* pages(
  { limit, after }: QueryRequest,
  read: (page: { limit: number; after: string | null }) => Promise<Page>,
): AsyncGenerator<readonly QueryRow[]> {
  const size = Math.min(limit + 1, limits.maxQueryRows);
  for (let position = after; ;) {
    const { rows, more } = await read({ limit: size, after: position });
    yield rows;
    const last = rows.at(-1);
    if (!more || !last) return;
    position = last.at;
  }
}

/** What came out of a store of ours is JSON by its type; that it says so is all that is missing. */
export function asJson(value: object): Json {
  return value as unknown as Json;
}
