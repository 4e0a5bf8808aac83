/** What the store of tasks promises on every database that it can be on. */

import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { Json, Task, TaskFilter, TaskStatus } from '@cocoon-mesh/protocol';
import {
  MeshError,
  limits,
  nextStatuses,
  taskRowSchema,
  taskSchema,
  taskStatuses,
} from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import type { TaskNews, TaskStore } from './task-store.node.ts';
import { openTaskStore } from './task-store.node.ts';

export interface TaskStoreLab {
  /** Of a database that is empty and not in memory. */
  newUrl(): Promise<string>;
  /** What a program of its own does to it. */
  run(url: string, statement: string): Promise<void>;
}

/** Whose tasks they are. */
export const device = { peerId: '12D3KooWHome', name: 'home' };
const stranger = { peerId: '12D3KooWStranger', name: 'stranger' };

const atOnce = 16;
const all = { limit: limits.maxQueryRows, after: null };
const nowhere = '01900000-0000-7000-8000-000000000000';
const hostile = `'); drop table task; -- " * NEAR(a b) title:x \\ $1 ? {} ^ % _ \u202e 𝔸`;

export function taskStoreContract(database: string, lab: TaskStoreLab): void {
  const inStore = async (body: (store: TaskStore, clock: SteppedClock, url: string) => Promise<void>) => {
    const clock = new SteppedClock();
    const url = await lab.newUrl();
    await using store = await openTaskStore({ url, device, clock });
    await body(store, clock, url);
  };

  describe(`a task on ${database}`, () => {
    test('is there with all that it holds when the store is opened again', async () => {
      const url = await lab.newUrl();
      const draft = {
        title: 'Überprüfe 日本 🦋',
        description: 'Two\nlines\tand a tab',
        command: 'printf \'%s\\n\' "$COCOON_TASK_INPUT"',
        input: { text: 'a\u0000b', deep: nested(limits.maxTaskJsonDepth - 1), number: -1.5e300, no: null },
        labels: ['fast', 'a/b'],
        requires: ['memory>=8g', 'capability:llm.chat@^1.0.0'],
        timeout_ms: limits.maxTaskTimeoutMs,
      };
      const clock = new SteppedClock();
      const before = await openTaskStore({ url, device, clock });
      const made = await before.create(draft);
      await before.close();
      await before.close();

      await using after = await openTaskStore({ url, device, clock });
      const found = await after.get(made.id);
      assert.deepEqual(found, made);
      assert.deepEqual(taskSchema.parse(found), found);
      assert.deepEqual({ ...found, ...draft }, found);
      assert.equal(found.created_at, '2026-01-01T00:00:00.000Z');
      assert.deepEqual([found.status, found.version, found.output], ['pending', 1, null]);
    });

    test('holds text of any kind as it is, and runs none of it', () =>
      inStore(async (store) => {
        const draft = {
          title: hostile,
          description: hostile,
          command: hostile,
          input: { [hostile]: hostile },
        };
        const { id } = await store.create(draft);
        const changed = await store.update(id, { title: `${hostile}!`, output: [hostile] });
        assert.deepEqual(await store.get(id), changed);
        assert.deepEqual([changed.description, changed.command], [hostile, hostile]);
        assert.equal((await store.search(hostile, all)).rows[0]?.row.id, id);
        assert.equal((await store.stats()).total, 1);
      }));

    test('that is not as a task has to be is refused with its field, and nothing is written', () =>
      inStore(async (store) => {
        const { id } = await store.create({ title: 'good' });
        const circle: Record<string, unknown> = {};
        circle['self'] = circle;
        const large = 'x'.repeat(10 * 1024 * 1024);
        for (const [field, value] of [
          ['title', ''],
          ['title', large],
          ['title', 'a\u0000b'],
          ['title', 'a\nb'],
          ['title', 'a\ud800b'],
          ['title', 7],
          ['title', undefined],
          ['description', large],
          ['description', 'a\u0000b'],
          ['description', '\udc00'],
          ['command', large],
          ['command', 'a\u0000b'],
          ['command', 'a\ud800'],
          ['input', large],
          ['input', nested(limits.maxTaskJsonDepth + 1)],
          ['input', nested(100_000)],
          ['input', circle],
          ['input', { text: '\ud800' }],
          ['input', { '\ud800': 1 }],
          ['input', Number.NaN],
          ['input', () => 1],
          ['labels', ["'; drop table task"]],
          ['labels', ['a"b']],
          ['labels', 'fast'],
          ['labels', Array.from({ length: 33 }, (_, n) => `l${n}`)],
          ['requires', ['two words']],
          ['requires', ['gp\u0000u']],
          ['timeout_ms', 0],
          ['timeout_ms', 1.5],
          ['timeout_ms', Number.MAX_SAFE_INTEGER],
          ['id', nowhere],
          ['status', 'completed'],
        ] as const) {
          const draft = { title: 'bad', [field]: value };
          await assert.rejects(store.create(draft), refusal('bad_task', new RegExp(`\\b${field}\\b`)));
        }
        for (const draft of [null, 'task', [], undefined])
          await assert.rejects(store.create(draft), refusal('bad_task'));
        for (const change of [
          { title: large },
          { description: 'a\u0000b' },
          { status: 'paused' },
          { output: nested(limits.maxTaskJsonDepth + 1) },
          { output: large },
          { version: 0 },
          { command: 'changed' },
          { exit_code: 0 },
          null,
        ])
          await assert.rejects(store.update(id, change), refusal('bad_task'));
        for (const bad of [
          '',
          'x',
          nowhere.toUpperCase().replace('7', 'A'),
          `${nowhere}' or '1'='1`,
          `${nowhere}\u0000`,
        ])
          for (const ask of [
            () => store.get(bad),
            () => store.update(bad, { title: 'x' }),
            () => store.delete(bad),
            () => store.claimForRun(bad),
          ])
            await assert.rejects(ask(), refusal('bad_task'));
        assert.deepEqual(await store.stats().then(({ total }) => total), 1);
        assert.equal((await store.get(id)).version, 1);
      }));

    test('that is not there is said not to be', () =>
      inStore(async (store) => {
        for (const ask of [
          () => store.get(nowhere),
          () => store.update(nowhere, { title: 'x' }),
          () => store.delete(nowhere),
          () => store.claimForRun(nowhere),
          () => store.finishRun(nowhere, ended('completed')),
        ])
          await assert.rejects(ask(), refusal('task_not_found'));
      }));

    test('is gone once it is deleted, which a running one cannot be', () =>
      inStore(async (store) => {
        const { id } = await store.create({ title: 'short' });
        await store.claimForRun(id);
        await assert.rejects(store.delete(id), refusal('bad_status_change'));
        await store.finishRun(id, ended('cancelled'));
        await store.delete(id);
        await assert.rejects(store.get(id), refusal('task_not_found'));
        assert.equal((await store.search('short', all)).rows.length, 0);
      }));
  });

  describe(`the status of a task on ${database}`, () => {
    test('changes along the legal ways only, and what has ended stays as it ended', () =>
      inStore(async (store, clock) => {
        for (const from of taskStatuses)
          for (const to of taskStatuses) {
            const { id, version } = await taskAt(store, from);
            clock.step(1_000);
            const change = store.update(id, { status: to });
            const same = from === to && nextStatuses[from].length > 0;
            if (same || nextStatuses[from].includes(to)) {
              const task = await change;
              assert.equal(task.status, to);
              assert.equal(task.finished_at !== null, nextStatuses[to].length === 0);
            } else {
              await assert.rejects(change, refusal('bad_status_change'), `${from} → ${to}`);
              assert.equal((await store.get(id)).version, version);
            }
          }
        const { id } = await taskAt(store, 'completed');
        await assert.rejects(store.update(id, { output: 'later' }), refusal('bad_status_change'));
        assert.equal((await store.update(id, { title: 'A better name' })).status, 'completed');
      }));

    test('says when it ran and how it ended', () =>
      inStore(async (store, clock) => {
        const { id } = await store.create({ title: 'run' });
        clock.step(1_000);
        const running = await store.claimForRun(id);
        assert.deepEqual(
          [running.status, running.started_at, running.finished_at, running.version],
          ['running', '2026-01-01T00:00:01.000Z', null, 2],
        );
        clock.step(1_000);
        const output = { lines: [1, 2] };
        const done = await store.finishRun(id, {
          status: 'failed',
          exitCode: 3,
          error: `a\u0000\nb\ud800${'c'.repeat(5_000)}`,
          output,
        });
        assert.deepEqual(await store.get(id), done);
        assert.deepEqual(
          [done.status, done.exit_code, done.error, done.output, done.finished_at, done.version],
          ['failed', 3, `a b\ufffd${'c'.repeat(995)}`, output, '2026-01-01T00:00:02.000Z', 3],
        );
        await assert.rejects(store.finishRun(id, ended('completed')), refusal('bad_status_change'));
        const large = { ...ended('completed'), output: 'x'.repeat(limits.maxTaskJsonBytes) };
        const other = await taskAt(store, 'running');
        await assert.rejects(store.finishRun(other.id, large), refusal('bad_task'));
      }));

    test('is known to run by its command, and not when somebody does it by hand', () =>
      inStore(async (store) => {
        for (const status of taskStatuses) await taskAt(store, status);
        const byHand = [
          await store.create({ title: 'hand' }),
          await store.create({ title: 'x', command: '' }),
        ];
        for (const { id } of byHand) await store.update(id, { status: 'running' });
        const { id } = await store.create({ title: 'machine', command: 'true' });
        await store.claimForRun(id);
        assert.deepEqual(
          (await store.running()).map((task) => task.id),
          [id],
        );
      }));

    test('is told, and so is every other change', async () => {
      const heard: TaskNews[] = [];
      const url = await lab.newUrl();
      const onChange = (news: TaskNews): void => void heard.push(news);
      await using store = await openTaskStore({ url, device, clock: new SteppedClock(), onChange });
      const { id } = await store.create({ title: 'heard' });
      await store.update(id, { title: 'heard again' });
      await store.claimForRun(id);
      await store.finishRun(id, ended('failed'));
      await assert.rejects(store.claimForRun(id));
      await store.update(id, {});
      await store.delete(id);
      assert.deepEqual(
        heard.map((news) => [news.id, news.task?.status ?? null, news.task?.version ?? null]),
        [
          [id, 'pending', 1],
          [id, 'pending', 2],
          [id, 'running', 3],
          [id, 'failed', 4],
          [id, null, null],
        ],
      );
    });
  });

  describe(`of writers at the same instant on ${database}`, () => {
    const inBoth = (body: (stores: readonly [TaskStore, TaskStore]) => Promise<void>) => async () => {
      const url = await lab.newUrl();
      const clock = new SteppedClock();
      const stores = [
        await openTaskStore({ url, device, clock }),
        await openTaskStore({ url, device, clock }),
      ] as const;
      try {
        await body(stores);
      } finally {
        await Promise.all(stores.map((store) => store.close()));
      }
    };
    const each = <T>(
      [one, two]: readonly [TaskStore, TaskStore],
      work: (store: TaskStore, n: number) => Promise<T>,
    ) => Promise.allSettled(Array.from({ length: atOnce }, (_, n) => work(n % 2 === 0 ? one : two, n)));

    test(
      'that changed the same version one wins, and the others learn of it',
      inBoth(async (stores) => {
        const { id, version } = await stores[0].create({ title: 'wanted' });
        const outcomes = await each(stores, (store, n) =>
          store.update(id, { title: `writer ${n}`, version }),
        );
        const won = wonBy(outcomes, 'task_conflict');
        assert.deepEqual((await stores[1].get(id)).title, won.title);
      }),
    );

    test(
      'that name no version all are heard, one after the other',
      inBoth(async (stores) => {
        const { id } = await stores[0].create({ title: 'wanted' });
        const outcomes = await each(stores, (store, n) => store.update(id, { description: `writer ${n}` }));
        assert.deepEqual(
          outcomes.filter(({ status }) => status === 'rejected'),
          [],
        );
        assert.equal((await stores[0].get(id)).version, 1 + atOnce);
      }),
    );

    test(
      'that complete a task one wins',
      inBoth(async (stores) => {
        const { id } = await stores[0].create({ title: 'wanted' });
        const outcomes = await each(stores, (store, n) =>
          store.update(id, { status: 'completed', output: n }),
        );
        assert.deepEqual((await stores[1].get(id)).output, wonBy(outcomes, 'bad_status_change').output);
      }),
    );

    test(
      'that claim a task to run it one wins',
      inBoth(async (stores) => {
        const { id } = await stores[0].create({ title: 'wanted' });
        wonBy(await each(stores, (store) => store.claimForRun(id)), 'bad_status_change');
        assert.equal((await stores[1].get(id)).version, 2);
      }),
    );
  });

  describe(`a list on ${database}`, () => {
    test('is newest first, in the order that is asked, and its rows are those of the wire', () =>
      inStore(async (store, clock) => {
        const made: Task[] = [];
        for (const title of ['one', 'two', 'three']) {
          made.push(await store.create({ title, command: 'true', input: 'not shown' }));
          clock.step(1_000);
        }
        await store.update(made[0]?.id ?? '', { title: 'one again' });
        const titles = async (filter: TaskFilter) =>
          (await store.list(filter, all)).rows.map(({ row }) => row.title);
        assert.deepEqual(await titles({}), ['three', 'two', 'one again']);
        assert.deepEqual(await titles({ order: 'updated' }), ['one again', 'three', 'two']);
        const { rows, more } = await store.list({}, all);
        assert.equal(more, false);
        for (const { row, key } of rows) {
          assert.deepEqual(taskRowSchema.parse(row), row);
          assert.equal('input' in row, false);
          assert.deepEqual(key, [Date.parse(row.created_at), row.id]);
        }
      }));

    test('has what the filter names: each status, all labels, a span of time', () =>
      inStore(async (store, clock) => {
        for (const status of taskStatuses) await taskAt(store, status);
        clock.step(60_000);
        await store.create({ title: 'both', labels: ['fast', 'fast/er'] });
        await store.create({ title: 'one', labels: ['fast/er'] });
        const count = async (filter: TaskFilter) => (await store.list(filter, all)).rows.length;
        assert.equal(await count({ status: ['running'] }), 1);
        assert.equal(await count({ status: ['failed', 'cancelled'] }), 2);
        assert.equal(await count({ labels: ['fast/er'] }), 2);
        assert.equal(await count({ labels: ['fast'] }), 1);
        assert.equal(await count({ labels: ['fast', 'fast/er'], status: ['pending'] }), 1);
        assert.equal(await count({ labels: ['ast'] }), 0);
        assert.equal(await count({ created_after: '2026-01-01T01:01:00+01:00' }), 2);
        assert.equal(await count({ created_before: '2026-01-01T00:01:00.000Z' }), taskStatuses.length);
      }));

    test('is not made wider by a filter that is not understood', () =>
      inStore(async (store) => {
        for (const filter of [
          { state: ['running'] },
          { status: 'running' },
          { status: ['paused'] },
          { status: [] },
          { labels: ["x' or '1'='1"] },
          { order: 'title; drop table task' },
          { created_after: 'yesterday' },
          { created_before: "2026-01-01' --" },
          null,
        ])
          await assert.rejects(store.list(filter as never, all), refusal('bad_filter'));
        for (const limit of [0, -1, 1.5, Number.NaN])
          await assert.rejects(store.list({}, { ...all, limit }), refusal('bad_filter'));
      }));

    test('has each task on one page only, while others are added and changed', () =>
      inStore(async (store, clock) => {
        const made = new Set<string>();
        for (let n = 0; n < 200; n++) {
          // Many at one instant.
          if (n % 20 === 0) clock.step(1);
          made.add((await store.create({ title: `task ${n}` })).id);
        }
        const [some] = made;
        const seen: string[] = [];
        let after: string | null = null;
        for (let more = true; more;) {
          const page = await store.list({}, { limit: 7, after });
          seen.push(...page.rows.map(({ row }) => row.id));
          ({ more } = page);
          after = page.rows.at(-1)?.at ?? null;
          clock.step(1);
          await store.create({ title: 'in between' });
          await store.update(some ?? '', { title: `changed after ${seen.length}` });
        }
        assert.equal(new Set(seen).size, seen.length);
        assert.deepEqual(new Set(seen), made);
      }));

    test('goes on only where a page of the same order ended', () =>
      inStore(async (store) => {
        const { id } = await store.create({ title: 'found' });
        const created = (await store.list({}, all)).rows[0]?.at ?? '';
        const updated = (await store.list({ order: 'updated' }, all)).rows[0]?.at ?? '';
        const found = (await store.search('found', all)).rows[0]?.at ?? '';
        for (const after of [
          updated,
          found,
          '',
          'c',
          `c:1:${hostile}`,
          `c:-1:${id}`,
          `c:1e9:${id}`,
          `c:1:${'-'.repeat(36)}`,
          `${created}x`,
        ])
          await assert.rejects(store.list({}, { limit: 1, after }), refusal('bad_cursor'), after);
        await assert.rejects(
          store.list({ order: 'updated' }, { limit: 1, after: created }),
          refusal('bad_cursor'),
        );
        for (const after of [created, 's:0', 's:-1', 's:1e3', 's:999999', 's:1 or 1'])
          await assert.rejects(store.search('found', { limit: 1, after }), refusal('bad_cursor'), after);
        assert.deepEqual((await store.list({}, { limit: 1, after: created })).rows, []);
      }));

    test('has pages that are bounded, however long they are wanted', () =>
      inStore(async (store) => {
        for (let n = 0; n <= 200; n++) await store.create({ title: `found ${n}` });
        const { rows, more } = await store.search('found', { limit: 1e6, after: null });
        assert.deepEqual([rows.length, more], [200, true]);
        for (const limit of [0, -1, 1.5, Number.NaN])
          await assert.rejects(store.list({}, { limit, after: null }), refusal('bad_filter'));
      }));

    test('counts, for each status', () =>
      inStore(async (store) => {
        for (const status of taskStatuses) await taskAt(store, status);
        await taskAt(store, 'failed');
        assert.deepEqual(await store.stats(), {
          total: 6,
          by_status: { pending: 1, running: 1, completed: 1, failed: 2, cancelled: 1 },
        });
      }));
  });

  describe(`a search on ${database}`, () => {
    test('finds words in titles, descriptions and commands, those in titles first', () =>
      inStore(async (store) => {
        await store.create({
          title: 'Nothing',
          description: 'a long text about many things and a heron among them',
        });
        await store.create({ title: 'The Heron' });
        await store.create({ title: 'Run', command: '/opt/birds/heron.sh --fly' });
        await store.create({ title: 'Sparrow' });
        const { rows, more } = await store.search('heron', all);
        assert.equal(more, false);
        assert.deepEqual(rows.map(({ row }) => row.title).toSorted(), ['Nothing', 'Run', 'The Heron']);
        assert.equal(rows[0]?.row.title, 'The Heron');
        assert.match(rows.find(({ row }) => row.title === 'Nothing')?.snippet ?? '', /heron/);
        for (const [i, { rank, row }] of rows.entries()) {
          assert.ok(rank <= (rows[i - 1]?.rank ?? Infinity));
          assert.deepEqual(taskRowSchema.parse(row), row);
        }
      }));

    test('understands phrases, what must not be there, and either of two', () =>
      inStore(async (store) => {
        await store.create({ title: 'red green blue' });
        await store.create({ title: 'green red' });
        await store.create({ title: 'Crème brûlée über src/tasks/store.ts' });
        const found = async (text: string) =>
          (await store.search(text, all)).rows.map(({ row }) => row.title.replace(/ .*/, '')).toSorted();
        assert.deepEqual(await found('red green'), ['green', 'red']);
        assert.deepEqual(await found('GREEN'), ['green', 'red']);
        assert.deepEqual(await found('"red green"'), ['red']);
        assert.deepEqual(await found('red -blue'), ['green']);
        assert.deepEqual(await found('red -"green blue"'), ['green']);
        assert.deepEqual(await found('blue or brulee'), ['Crème', 'red']);
        assert.deepEqual(await found('BRÛLÉE uber'), ['Crème']);
        assert.deepEqual(await found('tasks'), ['Crème']);
        assert.deepEqual(await found('src/tasks'), ['Crème']);
        assert.deepEqual(await found('red yellow'), []);
        assert.deepEqual(await found('red and green'), []);
        assert.deepEqual(await found('"red" AND "green'), []);
      }));

    test('follows changes of a task', () =>
      inStore(async (store) => {
        const { id } = await store.create({ title: 'before', description: 'kept' });
        await store.update(id, { title: 'after' });
        const count = async (text: string) => (await store.search(text, all)).rows.length;
        assert.deepEqual([await count('before'), await count('after'), await count('kept')], [0, 1, 1]);
        await store.claimForRun(id);
        assert.equal(await count('after'), 1);
      }));

    test('takes no sign for a command of the database', () =>
      inStore(async (store) => {
        await store.create({ title: 'x or y NEAR title' });
        for (const text of [
          hostile,
          '"x',
          "x'",
          'x*',
          'NEAR(x, y)',
          'title: x',
          '^x',
          '{x}',
          'x <-> y',
          '(x | y)',
          'x & !y',
          'x:*',
        ])
          assert.ok((await store.search(text, all)).rows.length <= 1, text);
        for (const text of [
          '',
          '   ',
          '-x',
          '-x or y',
          '"',
          '***',
          '\u0301',
          'x '.repeat(33),
          'x'.repeat(1_001),
        ])
          await assert.rejects(store.search(text, all), refusal('bad_filter'), text);
        assert.equal((await store.stats()).total, 1);
      }));

    test('is paged', () =>
      inStore(async (store) => {
        for (let n = 0; n < 10; n++) await store.create({ title: `same ${n}` });
        const first = await store.search('same', { limit: 4, after: null });
        const second = await store.search('same', { limit: 4, after: first.rows.at(-1)?.at ?? '' });
        const third = await store.search('same', { limit: 4, after: second.rows.at(-1)?.at ?? '' });
        assert.deepEqual([first.more, second.more, third.more], [true, true, false]);
        const ids = [first, second, third].flatMap(({ rows }) => rows.map(({ row }) => row.id));
        assert.equal(new Set(ids).size, 10);
      }));
  });

  describe(`a task database on ${database}`, () => {
    const newerMinor = [
      'alter table task add column priority integer not null default 0',
      'create table task_note (task text primary key, note text not null)',
      "insert into kysely_migration values ('0002-priority', '2999-01-01T00:00:00.000Z')",
      'update schema_version set minor = 1',
    ];

    test('of a newer minor version is read and written as if it were our own', () =>
      inStore(async (store, clock, url) => {
        const old = await store.create({ title: 'older', labels: ['kept'] });
        for (const statement of newerMinor) await lab.run(url, statement);
        // Also under whoever has it open.
        assert.equal((await store.update(old.id, { title: 'old' })).version, 2);
        await using again = await openTaskStore({ url, device, clock });
        const { id } = await again.create({ title: 'new', command: 'true' });
        await again.claimForRun(id);
        await again.finishRun(id, ended('completed'));
        assert.deepEqual(
          (await again.list({}, all)).rows.map(({ row }) => Object.keys(row).length),
          [13, 13],
        );
        assert.equal((await again.search('old', all)).rows[0]?.row.id, old.id);
        assert.deepEqual(Object.keys(await again.get(old.id)).toSorted(), Object.keys(old).toSorted());
        await again.delete(old.id);
        assert.equal((await again.stats()).total, 1);
      }));

    test('of a newer major version is refused and left as it is', () =>
      inStore(async (store, clock, url) => {
        await store.create({ title: 'kept' });
        for (const statement of newerMinor) await lab.run(url, statement);
        await lab.run(url, 'update schema_version set major = 2, minor = 0');
        await assert.rejects(openTaskStore({ url, device, clock }), refusal('database_newer'));
        await lab.run(url, 'drop table schema_version');
        await assert.rejects(openTaskStore({ url, device, clock }), refusal('database_newer'));
        assert.equal((await store.stats()).total, 1);
      }));

    test('is of one device: another one is told whose it is, and changes nothing', () =>
      inStore(async (store, clock, url) => {
        const made = await store.create({ title: 'running', command: 'true' });
        const running = await store.claimForRun(made.id);
        for (const name of ['stranger', device.name])
          await assert.rejects(
            openTaskStore({ url, device: { ...stranger, name }, clock }),
            refusal('database_in_use', /another device: home \(12D3KooWHome\)$/),
          );
        assert.deepEqual(await store.get(made.id), running);
        // A new name makes no other device of it, and is the one that is told.
        await (await openTaskStore({ url, device: { ...device, name: 'renamed' }, clock })).close();
        await assert.rejects(
          openTaskStore({ url, device: stranger, clock }),
          refusal('database_in_use', /renamed \(12D3KooWHome\)$/),
        );
      }));

    test('is of one of several devices that start on it at the same instant', async () => {
      const url = await lab.newUrl();
      const opener = fileURLToPath(import.meta.resolve('./task-store-opener.contract.ts'));
      const devices = await Promise.all(
        Array.from({ length: 4 }, async (_, n) => {
          const forked = fork(opener, [url, `device-${n}`]);
          await once(forked, 'message');
          return forked;
        }),
      );
      const outcomes = await Promise.all(
        devices.map(async (forked) => {
          const told = once(forked, 'message');
          forked.send('open');
          return String((await told)[0]);
        }),
      );
      const refused = Array.from({ length: devices.length - 1 }, () => 'database_in_use');
      assert.deepEqual(outcomes.toSorted(), [...refused, 'opened']);
    });

    test('is of another device once it was given up by hand', () =>
      inStore(async (store, clock, url) => {
        const { id } = await store.create({ title: 'inherited' });
        await lab.run(url, 'delete from task_home');
        await using heir = await openTaskStore({ url, device: stranger, clock });
        assert.equal((await heir.get(id)).title, 'inherited');
        await assert.rejects(openTaskStore({ url, device, clock }), refusal('database_in_use', /stranger/));
      }));
  });
}

function ended(status: 'completed' | 'failed' | 'cancelled') {
  return { status, exitCode: 0, error: null, output: null } as const;
}

async function taskAt(store: TaskStore, status: TaskStatus): Promise<Task> {
  const task = await store.create({ title: `is ${status}` });
  return status === 'pending' ? task : store.update(task.id, { status });
}

/** That many levels, from outside. */
function nested(levels: number): Json {
  let value: Json = 1;
  for (let level = 0; level < levels; level++) value = [value];
  return value;
}

function wonBy(outcomes: readonly PromiseSettledResult<Task>[], code: string): Task {
  const won = outcomes.filter((outcome) => outcome.status === 'fulfilled');
  assert.equal(won.length, 1);
  for (const outcome of outcomes)
    if (outcome.status === 'rejected') assert.equal((outcome.reason as MeshError).code, code);
  const [{ value }] = won as [PromiseFulfilledResult<Task>];
  return value;
}

export function refusal(code: string, message = /./) {
  return (thrown: unknown): boolean => {
    assert.ok(thrown instanceof MeshError, String(thrown));
    assert.equal(thrown.code, code, thrown.message);
    assert.match(thrown.message, message);
    assert.ok(thrown.message.length < 300);
    return true;
  };
}
