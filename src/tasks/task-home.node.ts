/**
 * Whose database this is: a task is run, ended and listed by its home alone, so a second device on the same database
 * would take the tasks of the first for its own.
 */

import { databaseError } from '@cocoon-mesh/database';
import { MeshError } from '@cocoon-mesh/protocol';
import type { Kysely } from 'kysely';
import { sql } from 'kysely';
import type { TaskHomeTable, TaskTables } from './task-tables.node.ts';

/** The device that opens a database. */
export interface HomeDevice {
  readonly peerId: string;
  /** For people only; it may change. */
  readonly name: string;
}

/**
 * Who comes first has it: looking and writing are one statement, so that of two at the same instant one wins.
 * @throws MeshError database_in_use | storage_full | storage_failed | database_corrupt
 */
export async function settleTaskHome(db: Kysely<TaskTables>, device: HomeDevice): Promise<void> {
  const { peerId, name } = device;
  const { rows } = await sql<Pick<TaskHomeTable, 'peer_id' | 'name'>>`
    insert into task_home (one, peer_id, name) values (1, ${peerId}, ${name})
    on conflict (one) do update
      set name = case when task_home.peer_id = excluded.peer_id then excluded.name else task_home.name end
    returning peer_id, name`
    .execute(db)
    .catch((thrown: unknown) => {
      throw databaseError(thrown);
    });
  const [home] = rows;
  if (home?.peer_id === peerId) return;
  throw new MeshError(
    'database_in_use',
    `The database holds the tasks of another device: ${home?.name} (${home?.peer_id})`,
  );
}
