/** The server's database, at its newest version. */

import { openDatabase as open } from '@cocoon-mesh/database';
import type { Kysely } from 'kysely';
import type { Tables } from './tables.ts';
import { migrations } from './tables.ts';

/**
 * @param url `sqlite:PATH`, `sqlite::memory:` or `postgres://…`
 * @throws MeshError usage | database_corrupt | database_newer | storage_full | storage_failed
 */
export function openDatabase(url: string): Promise<Kysely<Tables>> {
  return open<Tables>({ url, migrations, what: 'signaling', setting: 'SIGNALING_DATABASE_URL' });
}
