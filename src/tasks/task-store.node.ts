/**
 * The tasks of this device, in its database. What comes in is held to the schemas of the wire first; two writers of
 * one task never both win, in this process or in another.
 */

import type { Slot } from '@cocoon-mesh/database';
import { Statements, openDatabase } from '@cocoon-mesh/database';
import type { Clock, Json, Task, TaskFilter, TaskRow, TaskStats, TaskStatus } from '@cocoon-mesh/protocol';
import {
  MeshError,
  limits,
  nextStatuses,
  taskChangeSchema,
  taskDraftSchema,
  taskFilterSchema,
  taskIdField,
  taskIdPattern,
  taskJsonField,
  taskStatuses,
} from '@cocoon-mesh/protocol';
import type { Kysely } from 'kysely';
import { sql } from 'kysely';
import type { HomeDevice } from './task-home.node.ts';
import { settleTaskHome } from './task-home.node.ts';
import { parseSearch } from './search-words.ts';
import { TaskIds } from './task-id.ts';
import { checked } from './task-input.ts';
import { listPosition, readListPosition, readSearchPosition, searchPosition } from './task-position.ts';
import type { StoredTask } from './task-row.node.ts';
import { rowColumns, taskColumns, toTask, toTaskRow } from './task-row.node.ts';
import type { TaskSearch } from './task-search.node.ts';
import { taskSearch } from './task-search.node.ts';
import type { TaskTables } from './task-tables.node.ts';
import { taskMigrations, taskSchemaMajor } from './task-tables.node.ts';

export interface TaskStoreOptions {
  /** `sqlite:PATH`, `sqlite::memory:` or `postgres://…`; of this device alone. */
  readonly url: string;
  /** Whose tasks they are; another device is refused. */
  readonly device: HomeDevice;
  readonly clock: Clock;
  /** Called after each change; `task` is null for one that was deleted. */
  readonly onChange?: (news: TaskNews) => void;
}

export interface TaskNews {
  readonly id: string;
  readonly task: Task | null;
}

export interface TaskPage<Entry> {
  readonly rows: readonly Entry[];
  /** There are rows behind these. */
  readonly more: boolean;
}

export interface ListedTask {
  readonly row: TaskRow;
  /** What lists of several devices are merged by, descending. */
  readonly key: readonly [number, string];
  /** The position behind it. */
  readonly at: string;
}

export interface FoundTask {
  readonly row: TaskRow;
  /** The higher the better; says nothing beside the ranks of another search or device. */
  readonly rank: number;
  readonly snippet: string;
  readonly at: string;
}

export interface PageRequest {
  /** Rows at most; fewer may come. */
  readonly limit: number;
  /** `at` of the last row before; null: from the start. */
  readonly after: string | null;
}

/** How a run ended. */
export interface RunEnd {
  readonly status: 'completed' | 'failed' | 'cancelled';
  readonly exitCode: number | null;
  /** Why it failed, in a sentence. */
  readonly error: string | null;
  readonly output: Json;
}

/** Of somebody who names no version, and of a run that ends. */
const maxTurns = 20;
/** Ranks say little further down, and snippets cost. */
const maxFound = 200;
const maxErrorLength = 1_000;
/** @throws MeshError usage | database_in_use | database_corrupt | database_newer | storage_full | storage_failed */
export async function openTaskStore(options: TaskStoreOptions): Promise<TaskStore> {
  const kind = options.url.startsWith('sqlite:') ? 'sqlite' : 'postgres';
  const db = await openDatabase<TaskTables>({
    url: options.url,
    migrations: taskMigrations(kind),
    what: 'tasks',
    setting: 'COCOON_DATABASE_URL',
    major: taskSchemaMajor,
  });
  try {
    await settleTaskHome(db, options.device);
  } catch (thrown) {
    await db.destroy();
    throw thrown;
  }
  return new TaskStore(db, taskSearch(kind), options);
}

/** Every method throws storage_full or storage_failed when the database cannot be used, and works again when it can. */
export class TaskStore implements AsyncDisposable {
  readonly #db: Kysely<TaskTables>;
  readonly #statements: Statements<TaskTables>;
  readonly #search: TaskSearch;
  readonly #clock: Clock;
  readonly #ids: TaskIds;
  readonly #onChange: (news: TaskNews) => void;

  constructor(
    db: Kysely<TaskTables>,
    search: TaskSearch,
    { clock, onChange }: Pick<TaskStoreOptions, 'clock' | 'onChange'>,
  ) {
    this.#db = db;
    this.#statements = new Statements(db);
    this.#search = search;
    this.#clock = clock;
    this.#ids = new TaskIds(clock);
    this.#onChange = onChange ?? (() => undefined);
  }

  /**
   * @param draft of the shape of `taskDraftSchema`
   * @throws MeshError bad_task
   */
  async create(draft: unknown): Promise<Task> {
    const given = checked('bad_task', 'The task', taskDraftSchema, draft);
    const { id, ms } = this.#ids.next();
    const row: StoredTask = {
      id,
      title: given.title,
      description: given.description ?? '',
      status: 'pending',
      command: given.command ?? null,
      input: JSON.stringify(given.input ?? null),
      output: 'null',
      labels: JSON.stringify([...new Set(given.labels)]),
      requires: JSON.stringify([...new Set(given.requires)]),
      timeout_ms: given.timeout_ms ?? null,
      exit_code: null,
      error: null,
      created_at: ms,
      updated_at: ms,
      started_at: null,
      finished_at: null,
      version: 1,
    };
    await this.#statements.run(
      'create',
      (db, slot) =>
        db
          .insertInto('task')
          .values({ ...slots(taskColumns, slot), ...this.#search.fields(slot) })
          .compile(),
      { ...row, ...this.#search.values(row) },
    );
    return this.#tell(row);
  }

  /** @throws MeshError task_not_found | bad_task for what is no id */
  async get(id: string): Promise<Task> {
    const rows = this.#rows(id);
    return toTask(onlyRow(Array.isArray(rows) ? rows : await rows));
  }

  /**
   * Newest first. A task that is added or changed while somebody pages is not shown twice by creation.
   * @throws MeshError bad_filter | bad_cursor
   */
  async list(filter: TaskFilter, page: PageRequest): Promise<TaskPage<ListedTask>> {
    const { order = 'created', ...wanted } = checked('bad_filter', 'The filter', taskFilterSchema, filter);
    const limit = pageSize(page.limit, limits.maxQueryRows);
    const column = order === 'created' ? 'created_at' : 'updated_at';
    const { status = [], labels = [], created_after: from, created_before: to } = wanted;
    const after = page.after === null ? null : readListPosition(order, page.after);
    const build = (db: Kysely<TaskTables>, slot: Slot) => {
      let query = db.selectFrom('task').select(rowColumns);
      if (status.length === 1) query = query.where('status', '=', slot<TaskStatus>('status0'));
      else if (status.length > 1)
        query = query.where(
          'status',
          'in',
          status.map((_, n) => slot<TaskStatus>(`status${n}`)),
        );
      // Labels have no quotes in them, so that a quoted one is never part of another.
      for (const n of labels.keys()) query = query.where(this.#search.holds('labels', slot(`label${n}`)));
      if (from !== undefined) query = query.where('created_at', '>=', slot<number>('from'));
      if (to !== undefined) query = query.where('created_at', '<', slot<number>('to'));
      if (after) query = query.where(sql<boolean>`(${sql.ref(column)}, id) < (${slot('ms')}, ${slot('id')})`);
      return query.orderBy(column, 'desc').orderBy('id', 'desc').limit(slot<number>('limit')).compile();
    };
    const found = await this.#statements.run(
      [
        'list',
        order,
        status.length,
        labels.length,
        from === undefined,
        to === undefined,
        after === null,
      ].join(' '),
      build,
      {
        ...Object.fromEntries(status.map((each, n) => [`status${n}`, each])),
        ...Object.fromEntries(labels.map((each, n) => [`label${n}`, JSON.stringify(each)])),
        from: Date.parse(from ?? ''),
        to: Date.parse(to ?? ''),
        ms: after?.ms,
        id: after?.id,
        limit: limit + 1,
      },
    );
    const rows = found.slice(0, limit).map((row) => {
      const at = { ms: row[column], id: row.id };
      return { row: toTaskRow(row), key: [at.ms, at.id] as const, at: listPosition(order, at) };
    });
    return { rows, more: found.length > limit };
  }

  /**
   * Fields that are not named stay as they are; so does all of a task when the change names none. What a task that
   * has ended put out stays, too.
   * @param change of the shape of `taskChangeSchema`
   * @throws MeshError bad_task | task_not_found | task_conflict | bad_status_change
   */
  async update(id: string, change: unknown): Promise<Task> {
    const { version, ...wanted } = checked('bad_task', 'The change', taskChangeSchema, change);
    return this.#change(id, version, (row) => {
      const {
        title = row.title,
        description = row.description,
        status = row.status,
        output,
        labels,
      } = wanted;
      if ('status' in wanted || output !== undefined) assertStatusChange(row.status, status);
      const sameTexts = title === row.title && description === row.description;
      return {
        ...(sameTexts ? {} : { title, description }),
        ...this.#atStatus(row, status),
        ...(output === undefined ? {} : { output: JSON.stringify(output) }),
        ...(labels === undefined ? {} : { labels: JSON.stringify([...new Set(labels)]) }),
      };
    });
  }

  /**
   * A running one has to be cancelled first.
   * @throws MeshError task_not_found | bad_status_change | bad_task
   */
  async delete(id: string): Promise<void> {
    const { numDeletedRows } = await this.#db
      .deleteFrom('task')
      .where('id', '=', checkedId(id))
      .where('status', '!=', 'running')
      .executeTakeFirst();
    if (numDeletedRows === 0n) {
      await this.#row(id);
      throw new MeshError('bad_status_change', 'A task that runs cannot be deleted', {
        hint: 'Cancel it first.',
      });
    }
    this.#onChange({ id, task: null });
  }

  async stats(): Promise<TaskStats> {
    const rows = await this.#db
      .selectFrom('task')
      .select(['status', sql<number>`count(*)`.as('count')])
      .groupBy('status')
      .execute();
    const counts = new Map(rows.map(({ status, count }) => [status, count]));
    const entries = taskStatuses.map((status) => [status, counts.get(status) ?? 0] as const);
    return {
      total: entries.reduce((sum, [, count]) => sum + count, 0),
      by_status: Object.fromEntries(entries) as Record<TaskStatus, number>,
    };
  }

  /**
   * Best first, in titles, descriptions and commands. See `search-words` for what may be typed.
   * @throws MeshError bad_filter | bad_cursor
   */
  async search(text: string, page: PageRequest): Promise<TaskPage<FoundTask>> {
    const query = parseSearch(text);
    const limit = pageSize(page.limit, maxFound);
    const offset = page.after === null ? 0 : readSearchPosition(page.after);
    const found = await this.#search.find(this.#statements, query, limit + 1, offset);
    const rows = found.slice(0, limit).map(({ rank, snippet, ...row }, i) => ({
      row: toTaskRow(row),
      rank,
      snippet,
      at: searchPosition(offset + i + 1),
    }));
    return { rows, more: found.length > limit };
  }

  /**
   * From pending to running, for exactly one of all that try.
   * @throws MeshError task_not_found | bad_status_change | bad_task
   */
  async claimForRun(id: string): Promise<Task> {
    const now = this.#clock.now();
    const [row] = await this.#statements.run(
      'claim',
      (db, slot) =>
        db
          .updateTable('task')
          .set({
            status: 'running',
            started_at: slot<number>('now'),
            updated_at: slot<number>('now'),
            version: sql`version + 1`,
          })
          .where('id', '=', slot<string>('id'))
          .where('status', '=', 'pending')
          .returning(taskColumns)
          .compile(),
      { id: checkedId(id), now },
    );
    if (row) return this.#tell(row);
    throw statusChangeError((await this.#row(id)).status, 'running');
  }

  /**
   * For whoever ran it.
   * @throws MeshError task_not_found | bad_status_change when it does not run | bad_task for output that is too large
   */
  async finishRun(id: string, end: RunEnd): Promise<Task> {
    const output = JSON.stringify(checked('bad_task', 'The output', taskJsonField, end.output));
    return this.#change(id, undefined, (row) => {
      if (row.status !== 'running') throw statusChangeError(row.status, end.status);
      return {
        ...this.#atStatus(row, end.status),
        exit_code: end.exitCode,
        error: end.error === null ? null : plainSentence(end.error),
        output,
      };
    });
  }

  /** By the table, with a command: what somebody does by hand goes on without the device. */
  async running(): Promise<Task[]> {
    const rows = await this.#db
      .selectFrom('task')
      .select(taskColumns)
      .where('status', '=', 'running')
      .where('command', '!=', '')
      .execute();
    return rows.map(toTask);
  }

  /** Idempotent. */
  async close(): Promise<void> {
    await this.#db.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #row(id: string): Promise<StoredTask> {
    return onlyRow(await this.#rows(id));
  }

  #rows(id: string): StoredTask[] | Promise<StoredTask[]> {
    return this.#statements.run<StoredTask>('get', selectById, { id: checkedId(id) });
  }

  /** @param version that the change was made from; without one it is made from whatever there is */
  async #change(
    id: string,
    version: number | undefined,
    decide: (row: StoredTask) => Partial<StoredTask>,
  ): Promise<Task> {
    for (let turn = 1; turn <= maxTurns; turn++) {
      const row = await this.#row(id);
      if (version !== undefined && version !== row.version) throw new MeshError('task_conflict');
      const changes = decide(row);
      if (Object.keys(changes).length === 0) return toTask(row);
      const changed = { ...changes, updated_at: this.#clock.now(), version: row.version + 1 };
      const next: StoredTask = { ...row, ...changed };
      const retold = 'title' in changed;
      const columns = Object.keys(changed) as (keyof StoredTask)[];
      const written = await this.#statements.run(
        `update ${columns.join(' ')}`,
        (db, slot) =>
          db
            .updateTable('task')
            .set({ ...slots(columns, slot), ...(retold ? this.#search.fields(slot) : {}) })
            .where('id', '=', slot<string>('id'))
            .where('version', '=', slot<number>('from'))
            .returning('version')
            .compile(),
        { ...changed, id, from: row.version, ...(retold ? this.#search.values(next) : {}) },
      );
      if (written.length === 1) return this.#tell(next);
    }
    throw new MeshError('task_conflict');
  }

  #atStatus(row: StoredTask, status: TaskStatus): Partial<StoredTask> {
    if (status === row.status) return {};
    const now = this.#clock.now();
    return {
      status,
      ...(status === 'running' ? { started_at: now } : {}),
      ...(hasEnded(status) ? { finished_at: now } : {}),
    };
  }

  #tell(row: StoredTask): Task {
    const task = toTask(row);
    this.#onChange({ id: row.id, task });
    return task;
  }
}

/** @throws MeshError task_not_found */
function onlyRow([row]: readonly StoredTask[]): StoredTask {
  if (!row) throw new MeshError('task_not_found');
  return row;
}

function selectById(db: Kysely<TaskTables>, slot: Slot) {
  return db.selectFrom('task').select(taskColumns).where('id', '=', slot<string>('id')).compile();
}

/** A place for the value of each. */
function slots(columns: readonly (keyof StoredTask)[], slot: Slot) {
  return Object.fromEntries(columns.map((name) => [name, slot(name)])) as Record<keyof StoredTask, never>;
}

/** @throws MeshError bad_task */
function checkedId(id: string): string {
  // Most are ids, and the schema takes as long to say so as SQLite to find the task.
  return typeof id === 'string' && taskIdPattern.test(id)
    ? id
    : checked('bad_task', 'The id', taskIdField, id);
}

function hasEnded(status: TaskStatus): boolean {
  return nextStatuses[status].length === 0;
}

/** A task that has ended stays ended, the way it ended. */
function assertStatusChange(from: TaskStatus, to: TaskStatus): void {
  if (from === to ? hasEnded(from) : !nextStatuses[from].includes(to)) throw statusChangeError(from, to);
}

function statusChangeError(from: TaskStatus, to: TaskStatus): MeshError {
  return new MeshError(
    'bad_status_change',
    from === to ? `The task is ${from} already` : `A task that is ${from} cannot become ${to}`,
    hasEnded(from) ? {} : { hint: 'See it with `cocoon tasks show`; `cocoon tasks cancel` ends it.' },
  );
}

function pageSize(wanted: number, most: number): number {
  if (!Number.isSafeInteger(wanted) || wanted < 1)
    throw new MeshError('bad_filter', 'A page has at least one row');
  return Math.min(wanted, most);
}

/** An error of a program may hold anything. */
function plainSentence(text: string): string {
  return text
    .slice(0, maxErrorLength)
    .toWellFormed()
    .replaceAll(/\p{Cc}+/gu, ' ');
}
