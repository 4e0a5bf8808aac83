import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Json, QueryRequest, QueryRow } from '@cocoon-mesh/protocol';
import { systemClock } from '@cocoon-mesh/protocol';
import type { Answerer } from '@cocoon-mesh/query';
import { openTaskStore } from '@cocoon-mesh/tasks';
import { Home } from '../home.ts';
import { Knowledge } from '../knowledge.ts';
import type { OpenTasks } from '../tasks/task-home.ts';
import { switchedOff, taskAnswerers } from './query-sources.ts';

const device = { peerId: '12D3KooWHome', name: 'home' };

function requestOf(params: Json, change: Partial<QueryRequest> = {}): QueryRequest {
  const usual = { limit: 10, after: null, timeout_ms: 1_000, max_bytes: 1_000_000 };
  return { type: 'list_tasks', params, ...usual, ...change };
}

async function rowsOf(answerer: Answerer, request: QueryRequest): Promise<QueryRow[]> {
  const batches = await Array.fromAsync(answerer(request, new AbortController().signal, null));
  return batches.flatMap((batch) => batch as QueryRow | QueryRow[]);
}

describe('a query that reaches this device', () => {
  test('is judged here, whatever its asker has looked at', async () => {
    await using store = await openTaskStore({ url: 'sqlite::memory:', clock: systemClock, device });
    const answerers = taskAnswerers({ use: async () => ({ store }) as unknown as OpenTasks });
    const knowledge = new Knowledge(
      { home: new Home('/nonexistent'), clock: systemClock, log: () => undefined, embeddings: null },
      true,
    );
    const long = 'x'.repeat(1001);
    for (const [answerer, ...params] of [
      [answerers.list_tasks, { nonsense: 1 }, { status: ['done'] }, { status: [] }, [], null],
      [answerers.get_task_stats, { status: ['pending'] }, { x: 1 }, [], null],
      [answerers.search_tasks, {}, { text: '' }, { text: long }, { text: 5 }, { text: 'x', y: 1 }],
      [knowledge.answerer, {}, { text: '' }, { text: long }, { text: 5 }, { text: 'x', y: 1 }],
    ] as const)
      for (const each of params)
        await assert.rejects(
          async () => rowsOf(answerer, requestOf(each)),
          { code: 'bad_filter' },
          JSON.stringify(each).slice(0, 40),
        );
  });

  test('goes on from a position of this device, and from nothing else', async () => {
    await using store = await openTaskStore({ url: 'sqlite::memory:', clock: systemClock, device });
    for (const title of ['one', 'two', 'three']) await store.create({ title });
    const { list_tasks: list, search_tasks: search } = taskAnswerers({
      use: async () => ({ store }) as unknown as OpenTasks,
    });
    const [first] = await rowsOf(list, requestOf({}));
    const rest = await rowsOf(list, requestOf({}, { after: first?.at ?? null }));
    assert.deepEqual(
      rest.map(({ value }) => (value as { title: string }).title),
      ['two', 'one'],
    );
    const knowledge = new Knowledge(
      { home: new Home('/nonexistent'), clock: systemClock, log: () => undefined, embeddings: null },
      true,
    );
    for (const after of ['', '0', '-1', '1 or 1=1', 's:0', 'c:1:x', `u${first?.at.slice(1)}`]) {
      await assert.rejects(rowsOf(list, requestOf({}, { after })), { code: 'bad_cursor' }, after);
      for (const each of [search, knowledge.answerer])
        await assert.rejects(
          rowsOf(each, requestOf({ text: 'one' }, { after })),
          { code: 'bad_cursor' },
          after,
        );
    }
  });

  test('about what was switched off here is told so', async () => {
    const answerers = taskAnswerers({ use: async () => switchedOff() });
    const knowledge = new Knowledge(
      { home: new Home('/nonexistent'), clock: systemClock, log: () => undefined, embeddings: null },
      false,
    );
    const off = { code: 'capability_off' };
    await assert.rejects(rowsOf(answerers.list_tasks, requestOf({})), off);
    await assert.rejects(rowsOf(answerers.get_task_stats, requestOf({})), off);
    await assert.rejects(rowsOf(answerers.search_tasks, requestOf({ text: 'x' })), off);
    await assert.rejects(rowsOf(knowledge.answerer, requestOf({ text: 'x' })), off);
  });
});
