/**
 * Reads files that hold a key. One that others may read, that cannot be read or that holds something else is an
 * error of its own, and is left exactly as it is: a wrong guess here would cost an identity.
 */

import { open } from 'node:fs/promises';
import { MeshError } from '@cocoon-mesh/protocol/errors.ts';

const maxKeyFileBytes = 64 * 1024;

/**
 * The text of a key file, or null when there is none. `replacing` says how to come to another one.
 * @throws MeshError key_exposed | key_unreadable | key_corrupt
 */
export async function readKeyFile(path: string, replacing = 'make a new identity'): Promise<string | null> {
  let file;
  try {
    file = await open(path, 'r');
  } catch (cause) {
    if (isMissing(cause)) return null;
    throw new MeshError('key_unreadable', `${path} cannot be read`, { cause });
  }
  try {
    // Of the open file, so that nobody can put another one in its place between the look and the reading.
    const { mode, size } = await file.stat();
    if (process.platform !== 'win32' && (mode & 0o077) !== 0)
      throw new MeshError('key_exposed', `${path} can be read by others`, {
        hint: `Run chmod 600 ${path}. If others may have read it, ${replacing}.`,
      });
    if (size > maxKeyFileBytes) throw new MeshError('key_corrupt', `${path} does not hold a key`);
    return (await file.readFile('utf8')).trim();
  } catch (cause) {
    if (cause instanceof MeshError) throw cause;
    throw new MeshError('key_unreadable', `${path} cannot be read`, { cause });
  } finally {
    await file.close();
  }
}

export function isMissing(thrown: unknown): boolean {
  return systemCode(thrown) === 'ENOENT';
}

/** `ENOENT`, `EADDRINUSE`, … of an error of the system. */
export function systemCode(thrown: unknown): string {
  return thrown instanceof Error && 'code' in thrown ? String(thrown.code) : '';
}
