/**
 * Prints what the store of tasks adds to its databases: operations a second beside better-sqlite3 and pg with the
 * same SQL on a database of their own, which leave the rows as they are, by turns in one run, and how long a search in many tasks takes.
 *
 *   node bench/tasks.ts [--rounds 7] [--operations 300] [--tasks 100000] [--searches 500] [--no-postgres]
 */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { systemClock } from '@cocoon-mesh/protocol';
import type { TaskStore } from '@cocoon-mesh/tasks';
import { openTaskStore } from '@cocoon-mesh/tasks';
import { foldedWords } from '@cocoon-mesh/tasks/search-words.ts';
import { TaskIds } from '@cocoon-mesh/tasks/task-id.ts';
import Sqlite from 'better-sqlite3';
import { Pool } from 'pg';
import { Postgres } from '../test/doubles/postgres.ts';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '7' },
    operations: { type: 'string', default: '300' },
    tasks: { type: 'string', default: '100000' },
    searches: { type: 'string', default: '500' },
    'no-postgres': { type: 'boolean', default: false },
  },
});
const operations = Number(values.operations);
const pageSize = 50;

/** The same work for the store and for the bare driver. */
interface Contender {
  create(title: string): Promise<string>;
  get(id: string): Promise<void>;
  list(): Promise<void>;
  update(id: string, title: string): Promise<void>;
  claim(id: string): Promise<void>;
  search(word: string): Promise<void>;
}

const works = ['create', 'get', 'list', 'update', 'claim', 'search'] as const;
type Work = (typeof works)[number];

/** Made up, of two or three syllables. */
const syllables = ['ba', 'do', 'fe', 'gi', 'ku', 'la', 'me', 'ni', 'po', 'ra', 'se', 'ti', 'vu', 'wa', 'ze'];
const words = syllables.flatMap((one) =>
  syllables.flatMap((two) => [`${one}${two}`, ...syllables.map((three) => `${one}${two}${three}`)]),
);
const device = { peerId: '12D3KooWBench', name: 'bench' };
const folder = mkdtempSync(join(tmpdir(), 'cocoon-bench-tasks-'));

async function compareSqlite(): Promise<void> {
  await using store = await openTaskStore({
    url: `sqlite:${join(folder, 'store.db')}`,
    device,
    clock: systemClock,
  });
  // Made by the store, so that tables and settings are the same.
  const path = join(folder, 'raw.db');
  await (await openTaskStore({ url: `sqlite:${path}`, device, clock: systemClock })).close();
  const raw = new Sqlite(path);
  raw.pragma('synchronous = FULL');
  print('better-sqlite3', await compare(ofStore(store), ofSqlite(raw)));
  raw.close();
}

async function comparePostgres(): Promise<void> {
  await using postgres = await Postgres.start();
  await using store = await openTaskStore({ url: await postgres.newUrl(), device, clock: systemClock });
  const url = await postgres.newUrl();
  await (await openTaskStore({ url, device, clock: systemClock })).close();
  const pool = new Pool({ connectionString: url, max: 10 });
  print('pg', await compare(ofStore(store), ofPostgres(pool)));
  await pool.end();
}

/** Operations a second, the median of the rounds. */
async function compare(
  store: Contender,
  raw: Contender,
): Promise<Map<Work, { readonly store: number; readonly raw: number; readonly ratio: number }>> {
  const rates = new Map(works.map((work) => [work, { store: [] as number[], raw: [] as number[] }]));
  // The first round is for the compiler.
  for (let round = 0; round <= Number(values.rounds); round++)
    for (const [name, contender] of round % 2 === 0
      ? ([
          ['store', store],
          ['raw', raw],
        ] as const)
      : ([
          ['raw', raw],
          ['store', store],
        ] as const)) {
      const ids: string[] = [];
      const each: Record<Work, (n: number) => Promise<unknown>> = {
        create: async (n) => ids.push(await contender.create(titleOf(n))),
        get: (n) => contender.get(ids[n] ?? ''),
        list: () => contender.list(),
        update: (n) => contender.update(ids[n] ?? '', titleOf(n + 7)),
        claim: (n) => contender.claim(ids[n] ?? ''),
        search: (n) => contender.search(words[n % 50] ?? ''),
      };
      for (const work of works) {
        const began = performance.now();
        for (let n = 0; n < operations; n++) await each[work](n);
        const rate = (operations * 1000) / (performance.now() - began);
        if (round > 0) rates.get(work)?.[name].push(rate);
      }
    }
  return new Map(
    [...rates].map(([work, of]) => [
      work,
      {
        store: median(of.store),
        raw: median(of.raw),
        ratio: median(of.store.map((rate, round) => rate / (of.raw[round] ?? Number.NaN))),
      },
    ]),
  );
}

function titleOf(n: number): string {
  return `${words[n % words.length]} ${words[(n * 7) % words.length]} ${n}`;
}

function median(numbers: readonly number[]): number {
  return numbers.toSorted((a, b) => a - b)[numbers.length >> 1] ?? Number.NaN;
}

function print(what: string, results: Awaited<ReturnType<typeof compare>>): void {
  console.log(`\n| operation | store /s | ${what} /s | ratio (≥ 0.7) |\n|---|---|---|---|`);
  for (const [work, { store, raw, ratio }] of results)
    console.log(`| ${work} | ${store.toFixed(0)} | ${raw.toFixed(0)} | ${ratio.toFixed(2)} |`);
}

function ofStore(store: TaskStore): Contender {
  const page = { limit: pageSize, after: null };
  return {
    create: async (title) => (await store.create({ title, command: 'true' })).id,
    get: async (id) => void (await store.get(id)),
    list: async () => void (await store.list({}, page)),
    update: async (id, title) => void (await store.update(id, { title })),
    claim: async (id) => void (await store.claimForRun(id)),
    search: async (word) => void (await store.search(word, { ...page, limit: 20 })),
  };
}

const rowColumns =
  'id, title, status, command, labels, requires, exit_code, error, created_at, updated_at, started_at, finished_at, version';
const taskColumns = `${rowColumns}, description, input, output, timeout_ms`;
const insertColumns =
  'id, title, description, status, command, input, output, labels, requires, timeout_ms, exit_code, error, created_at, updated_at, started_at, finished_at, version';
const ofTask = (columns: string): string =>
  columns
    .split(', ')
    .map((name) => `task.${name}`)
    .join(', ');

function newRow(title: string, ids: TaskIds): unknown[] {
  const { id, ms } = ids.next();
  return [
    id,
    title,
    '',
    'pending',
    'true',
    'null',
    'null',
    '[]',
    '[]',
    null,
    null,
    null,
    ms,
    ms,
    null,
    null,
    1,
  ];
}

function ofSqlite(database: Sqlite.Database): Contender {
  const ids = new TaskIds(systemClock);
  const insert = database.prepare(
    `insert into task (${insertColumns}) values (${insertColumns.replaceAll(/\w+/g, '?')})`,
  );
  const get = database.prepare(`select ${taskColumns} from task where id = ?`);
  const list = database.prepare(`select ${rowColumns} from task order by created_at desc, id desc limit ?`);
  const update = database.prepare(
    'update task set title = ?, description = ?, updated_at = ?, version = ? where id = ? and version = ? returning version',
  );
  const claim = database.prepare(
    `update task set status = 'running', started_at = ?, updated_at = ?, version = version + 1
      where id = ? and status = 'pending' returning ${taskColumns}`,
  );
  const search = database.prepare(
    `select ${ofTask(rowColumns)}, -hit.rank as rank,
      (select snippet(task_text, -1, '', '', '…', 24) from task_text where task_text match ? and rowid = hit.number)
        as snippet
      from (select number, rank from (select rowid as number, rank from task_text where task_text match ?
        order by rowid desc limit 5000) order by rank, number desc limit ? offset ?) as hit
      join task on task.number = hit.number order by hit.rank, hit.number desc`,
  );
  return {
    async create(title) {
      const row = newRow(title, ids);
      insert.run(row);
      return String(row[0]);
    },
    get: async (id) => void get.get(id),
    list: async () => void list.all(pageSize + 1),
    async update(id, title) {
      const { version } = get.get(id) as { version: number };
      update.get(title, '', Date.now(), version + 1, id, version);
    },
    claim: async (id) => void claim.get(Date.now(), Date.now(), id),
    search: async (word) => void search.all(`(("${word}"))`, `(("${word}"))`, 21, 0),
  };
}

function ofPostgres(pool: Pool): Contender {
  const ids = new TaskIds(systemClock);
  const vector = (at: number): string =>
    ['A', 'C', 'B']
      .map((weight, n) => `setweight(to_tsvector('simple', $${at + n}), '${weight}')`)
      .join(' || ');
  const marks = insertColumns.split(', ').map((_, n) => `$${n + 1}`);
  return {
    async create(title) {
      const row = newRow(title, ids);
      const insert = `insert into task (${insertColumns}, search) values (${marks.join(', ')}, ${vector(18)})`;
      await pool.query(insert, [...row, foldedWords(title), '', 'true']);
      return String(row[0]);
    },
    get: async (id) => void (await pool.query(`select ${taskColumns} from task where id = $1`, [id])),
    list: async () =>
      void (await pool.query(`select ${rowColumns} from task order by created_at desc, id desc limit $1`, [
        pageSize + 1,
      ])),
    async update(id, title) {
      const { rows } = await pool.query<{ version: number }>(
        `select ${taskColumns} from task where id = $1`,
        [id],
      );
      const version = Number(rows[0]?.version);
      await pool.query(
        `update task set title = $1, description = $2, updated_at = $3, version = $4, search = ${vector(7)}
          where id = $5 and version = $6 returning version`,
        [title, '', Date.now(), version + 1, id, version, foldedWords(title), '', 'true'],
      );
    },
    claim: async (id) =>
      void (await pool.query(
        `update task set status = 'running', started_at = $1, updated_at = $1, version = version + 1
          where id = $2 and status = 'pending' returning ${taskColumns}`,
        [Date.now(), id],
      )),
    search: async (word) =>
      void (await pool.query(
        `select ${ofTask(rowColumns)}, task.rank,
          ts_headline('simple', concat_ws(' ', task.title, task.description, task.command), task.query,
            'StartSel="", StopSel="", MaxWords=24, MinWords=8, MaxFragments=1') as snippet
          from (select task.*, wanted.query, ts_rank_cd(search, wanted.query) as rank
            from task, websearch_to_tsquery('simple', $1) as wanted (query) where search @@ wanted.query
            order by rank desc, created_at desc, id desc limit $2 offset $3) as task
          order by task.rank desc, task.created_at desc, task.id desc`,
        [`"${word}"`, 21, 0],
      )),
  };
}

/** Words as often as they are in a language (Zipf): the first is in most tasks, the last in a few. */
function zipfText(random: () => number, count: number): string {
  const text: string[] = [];
  for (let n = 0; n < count; n++) text.push(words[Math.floor(words.length ** random()) - 1] ?? 'word');
  return text.join(' ');
}

/** The same numbers each time (a linear congruence). */
function seeded(seed: number): () => number {
  let state = seed;
  return () => (state = (state * 1_103_515_245 + 12_345) % 2 ** 31) / 2 ** 31;
}

async function timeSearches(): Promise<void> {
  const path = join(folder, 'search.db');
  await (await openTaskStore({ url: `sqlite:${path}`, device, clock: systemClock })).close();
  const database = new Sqlite(path);
  const insert = database.prepare(
    `insert into task (${insertColumns}) values (${insertColumns.replaceAll(/\w+/g, '?')})`,
  );
  const ids = new TaskIds(systemClock);
  const random = seeded(7);
  const count = Number(values.tasks);
  database.transaction(() => {
    for (let n = 0; n < count; n++) {
      const row = newRow(zipfText(random, 6), ids);
      row[2] = zipfText(random, 30);
      insert.run(row);
    }
  })();
  database.close();
  await using store = await openTaskStore({ url: `sqlite:${path}`, device, clock: systemClock });
  console.log(`\n| search in ${count} tasks | p50 ms | p99 ms (≤ 30) | max ms |\n|---|---|---|---|`);
  const kinds: Readonly<Record<string, () => string>> = {
    'one or two words of titles': () => zipfText(random, 1 + Math.floor(random() * 2)),
    'the commonest word': () => words[0] ?? '',
    'a rare word': () => words[words.length - 1 - Math.floor(random() * 100)] ?? '',
    'a phrase': () => `"${zipfText(random, 2)}"`,
    'either of two': () => `${zipfText(random, 1)} or ${zipfText(random, 1)}`,
  };
  for (const [kind, text] of Object.entries(kinds)) {
    const times: number[] = [];
    for (let n = 0; n < Number(values.searches); n++) {
      const wanted = text();
      const began = performance.now();
      await store.search(wanted, { limit: 20, after: null });
      times.push(performance.now() - began);
    }
    times.sort((a, b) => a - b);
    const at = (share: number): string =>
      (times[Math.ceil(times.length * share) - 1] ?? Number.NaN).toFixed(1);
    console.log(`| ${kind} | ${at(0.5)} | ${at(0.99)} | ${at(1)} |`);
  }
}

try {
  await compareSqlite();
  if (!values['no-postgres']) await comparePostgres();
  await timeSearches();
} finally {
  rmSync(folder, { recursive: true });
}
