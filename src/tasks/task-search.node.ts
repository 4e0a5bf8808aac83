/** Full text search over tasks: FTS5 on SQLite, tsvector on PostgreSQL. Words reach both as parameters only. */

import type { Slot, Statements } from '@cocoon-mesh/database';
import type { CompiledQuery, Kysely, RawBuilder } from 'kysely';
import { sql } from 'kysely';
import type { SearchQuery, SearchTerm } from './search-words.ts';
import { foldedWords } from './search-words.ts';
import type { StoredRow } from './task-row.node.ts';
import { rowColumns } from './task-row.node.ts';
import type { DatabaseKind, TaskTables } from './task-tables.node.ts';

export type FoundRow = StoredRow & {
  /** The higher the better; only within one search of one database. */
  readonly rank: number;
  readonly snippet: string;
};

interface Texts {
  readonly title: string;
  readonly description: string;
  readonly command: string | null;
}

export interface TaskSearch {
  /** The text of the column has this part, as it is written. */
  holds(column: 'labels', part: RawBuilder<unknown>): RawBuilder<boolean>;
  /** What a row gets besides its texts, so that it is found, from the values of `values`. */
  fields(slot: Slot): { readonly search?: RawBuilder<unknown> };
  values(texts: Texts): Readonly<Record<string, string>>;
  /** Best first; equally good ones newest first. SQLite ranks only the newest 5,000 that match. */
  find(
    statements: Statements<TaskTables>,
    query: SearchQuery,
    limit: number,
    offset: number,
  ): Promise<FoundRow[]>;
}

const snippetWords = 24;
/**
 * The newest of those that match, of which the best are taken: a word that is in all of 100,000 tasks took 60 ms to
 * rank, and 10 with this.
 */
const maxRanked = 5_000;

const columns = sql.join(rowColumns.map((name) => sql.ref(`task.${name}`)));

const sqliteSearch: TaskSearch = {
  holds: (column, part) => sql<boolean>`instr(${sql.ref(column)}, ${part}) > 0`,
  // Triggers keep its index.
  fields: () => ({}),
  values: () => ({}),
  find: async (statements, query, limit, offset) =>
    statements.run<FoundRow>('search', findOnSqlite, { match: matchText(query), limit, offset }),
};

function findOnSqlite(db: Kysely<TaskTables>, slot: Slot): CompiledQuery<FoundRow> {
  // The snippets of those that are shown only.
  return sql<FoundRow>`
    select ${columns}, -hit.rank as rank,
      (select snippet(task_text, -1, '', '', '…', ${sql.lit(snippetWords)}) from task_text
        where task_text match ${slot('match')} and rowid = hit.number) as snippet
    from (select number, rank from (
        select rowid as number, rank from task_text where task_text match ${slot('match')}
        order by rowid desc limit ${sql.lit(maxRanked)})
      order by rank, number desc limit ${slot('limit')} offset ${slot('offset')}) as hit
    join task on task.number = hit.number
    order by hit.rank, hit.number desc`.compile(db);
}

/** Every word is a quoted string of FTS5, in which nothing has a meaning; words have no quotes in them. */
function matchText(query: SearchQuery): string {
  const phrase = ({ words }: SearchTerm): string => `"${words.join(' ')}"`;
  return query
    .map((side) => {
      const wanted = side.filter(({ excluded }) => !excluded).map(phrase);
      const unwanted = side.filter(({ excluded }) => excluded).map(phrase);
      return `((${wanted.join(' AND ')})${unwanted.map((word) => ` NOT ${word}`).join('')})`;
    })
    .join(' OR ');
}

const postgresSearch: TaskSearch = {
  holds: (column, part) => sql<boolean>`strpos(${sql.ref(column)}, ${part}) > 0`,
  // PostgreSQL's own idea of words differs (`src/tasks` is one), so it gets ours.
  fields: (slot) => ({
    search: sql`setweight(to_tsvector('simple', ${slot('title_words')}), 'A')
      || setweight(to_tsvector('simple', ${slot('description_words')}), 'C')
      || setweight(to_tsvector('simple', ${slot('command_words')}), 'B')`,
  }),
  values: ({ title, description, command }) => ({
    title_words: foldedWords(title),
    description_words: foldedWords(description),
    command_words: foldedWords(command ?? ''),
  }),
  find: async (statements, query, limit, offset) =>
    statements.run<FoundRow>('search', findOnPostgres, { text: websearchText(query), limit, offset }),
};

function findOnPostgres(db: Kysely<TaskTables>, slot: Slot): CompiledQuery<FoundRow> {
  const options = `StartSel="", StopSel="", MaxWords=${snippetWords}, MinWords=8, MaxFragments=1`;
  return sql<FoundRow>`
    select ${columns}, task.rank,
      ts_headline('simple', concat_ws(' ', task.title, task.description, task.command), task.query,
        ${options}) as snippet
    from (select task.*, wanted.query, ts_rank_cd(search, wanted.query) as rank
      from task, websearch_to_tsquery('simple', ${slot('text')}) as wanted (query)
      where search @@ wanted.query
      order by rank desc, created_at desc, id desc limit ${slot('limit')} offset ${slot('offset')}) as task
    order by task.rank desc, task.created_at desc, task.id desc`.compile(db);
}

/** In PostgreSQL's form of what was typed, in which quoted words have no meaning either. */
function websearchText(query: SearchQuery): string {
  return query
    .map((side) =>
      side.map(({ words, excluded }) => `${excluded ? '-' : ''}"${foldedWords(words.join(' '))}"`).join(' '),
    )
    .join(' or ');
}

export function taskSearch(kind: DatabaseKind): TaskSearch {
  return kind === 'sqlite' ? sqliteSearch : postgresSearch;
}
