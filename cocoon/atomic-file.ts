/**
 * Files that are whole or not there at all: written beside their place, flushed, then renamed. Everything a
 * device keeps is private to its user, so 0600 is the only mode.
 */

import { open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { MeshError } from '@cocoon-mesh/protocol/errors.ts';

const privateMode = 0o600;

/** @throws MeshError storage_failed naming the file */
export async function writePrivateFile(path: string, content: string | Uint8Array): Promise<void> {
  const temporary = `${path}.${process.pid}.new`;
  try {
    const file = await open(temporary, 'wx', privateMode);
    try {
      await file.writeFile(content);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
    await syncFolder(dirname(path));
  } catch (cause) {
    await rm(temporary, { force: true });
    throw new MeshError('storage_failed', `${path} could not be written`, { cause });
  }
}

/** A rename is on disk only once its folder is. Not every system lets folders be opened. */
async function syncFolder(path: string): Promise<void> {
  try {
    const folder = await open(path, 'r');
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  } catch {
    // Then the system's own time of writing decides.
  }
}
