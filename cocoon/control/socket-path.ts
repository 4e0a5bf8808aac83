/**
 * Where the control socket of a home is. In the home itself, unless its path is longer than the system lets the
 * path of a socket be: then in a folder of the user's own among the temporary files.
 */

import { createHash } from 'node:crypto';
import { lstat, mkdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import type { Home } from '../home.ts';

/** `sun_path` is 108 bytes on Linux and 104 on macOS, with a zero at the end. */
const maxPathBytes = 103;

export function controlSocketPath(home: Home): string {
  const inside = join(home.path, 'control.sock');
  if (Buffer.byteLength(inside) <= maxPathBytes) return inside;
  const hash = createHash('sha256').update(home.path).digest('hex').slice(0, 16);
  return join(tmpdir(), `cocoon-${process.getuid?.() ?? 'user'}`, `${hash}.sock`);
}

/** Makes the folder of the socket and checks that it is the user's alone. @throws MeshError key_exposed */
export async function prepareSocketFolder(path: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  await assertOwnFolder(path);
}

/**
 * Temporary files are everybody's: a folder of this name that somebody else made would let them listen in.
 * @throws MeshError key_exposed
 */
export async function assertOwnFolder(path: string): Promise<void> {
  const folder = dirname(path);
  if (dirname(folder) !== tmpdir() || !/^cocoon-(\d+|user)$/.test(folder.slice(tmpdir().length + 1))) return;
  const { uid, mode } = await lstat(folder);
  if (uid !== process.getuid?.() || (mode & 0o077) !== 0)
    throw new MeshError('key_exposed', `${folder} is not yours alone`, {
      hint: 'Choose a --home with a shorter path.',
    });
}
