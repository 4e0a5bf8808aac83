/**
 * One daemon per home, and one signaling server. The lock is the system's lock on a file, which ends with the process however it ends, so
 * there is never a stale one to judge. Node has no call for such locks; its SQLite takes them.
 */

import { DatabaseSync } from 'node:sqlite';
import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import type { Home } from './home.ts';

/** SQLITE_BUSY */
const busy = 5;

/** Holds a lock file of the home until the answer is called. @throws MeshError already_running | storage_failed */
export function lockHome(path: string, home: Home): () => void {
  let database;
  try {
    database = new DatabaseSync(path);
    database.exec('BEGIN EXCLUSIVE');
  } catch (cause) {
    database?.close();
    if (cause instanceof Error && 'errcode' in cause && cause.errcode === busy)
      throw new MeshError('already_running', `A cocoon is already running with the home ${home.path}`);
    throw new MeshError('storage_failed', `${path} cannot be locked`, { cause });
  }
  const held = database;
  return () => {
    if (held.isOpen) held.close();
  };
}
