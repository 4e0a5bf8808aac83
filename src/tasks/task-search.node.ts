/** Full text search over tasks: FTS5 on SQLite, tsvector on PostgreSQL. Words reach both as parameters only. */

import type { Kysely, RawBuilder } from 'kysely';
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
  holds(column: 'labels', part: string): RawBuilder<boolean>;
  /** What a row gets besides its texts, so that it is found. */
  fields(texts: Texts): { readonly search?: RawBuilder<unknown> };
  /** Best first; equally good ones newest first. */
  find(db: Kysely<TaskTables>, query: SearchQuery, limit: number, offset: number): Promise<FoundRow[]>;
}

const snippetWords = 24;

const columns = sql.join(rowColumns.map((name) => sql.ref(`task.${name}`)));

const sqliteSearch: TaskSearch = {
  holds: (column, part) => sql<boolean>`instr(${sql.ref(column)}, ${part}) > 0`,
  // Triggers keep its index.
  fields: () => ({}),
  async find(db, query, limit, offset) {
    const match = matchText(query);
    // The snippets of those that are shown only.
    const { rows } = await sql<FoundRow>`
      select ${columns}, -hit.rank as rank,
        (select snippet(task_text, -1, '', '', '…', ${sql.lit(snippetWords)}) from task_text
          where task_text match ${match} and rowid = hit.number) as snippet
      from (select rowid as number, rank from task_text where task_text match ${match}
        order by rank, rowid desc limit ${limit} offset ${offset}) as hit
      join task on task.number = hit.number
      order by hit.rank, hit.number desc`.execute(db);
    return rows;
  },
};

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
  fields: ({ title, description, command }) => ({
    search: sql`setweight(to_tsvector('simple', ${foldedWords(title)}), 'A')
      || setweight(to_tsvector('simple', ${foldedWords(description)}), 'C')
      || setweight(to_tsvector('simple', ${foldedWords(command ?? '')}), 'B')`,
  }),
  async find(db, query, limit, offset) {
    const options = `StartSel="", StopSel="", MaxWords=${snippetWords}, MinWords=8, MaxFragments=1`;
    const { rows } = await sql<FoundRow>`
      select ${columns}, task.rank,
        ts_headline('simple', concat_ws(' ', task.title, task.description, task.command), task.query,
          ${options}) as snippet
      from (select task.*, wanted.query, ts_rank_cd(search, wanted.query) as rank
        from task, websearch_to_tsquery('simple', ${websearchText(query)}) as wanted (query)
        where search @@ wanted.query
        order by rank desc, created_at desc, id desc limit ${limit} offset ${offset}) as task
      order by task.rank desc, task.created_at desc, task.id desc`.execute(db);
    return rows;
  },
};

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
