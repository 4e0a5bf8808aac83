/** The token of the gateway: made on the first run, in a file that only the user can read. */

import { MeshError, fromBase64Url, randomBytes, toBase64Url } from '@cocoon-mesh/protocol';
import { writePrivateFile } from '../atomic-file.ts';
import { readKeyFile } from '../key-file.ts';

const tokenBytes = 32;

/** @throws MeshError key_exposed | key_unreadable | key_corrupt | storage_failed */
export async function openGatewayToken(path: string): Promise<string> {
  const stored = await readKeyFile(path, 'remove it: a new one is made at the next start');
  if (stored !== null) return checked(stored, path);
  const token = toBase64Url(randomBytes(tokenBytes));
  await writePrivateFile(path, `${token}\n`);
  return token;
}

function checked(token: string, path: string): string {
  try {
    if (fromBase64Url(token).length >= tokenBytes) return token;
  } catch {
    // Falls through to the one error.
  }
  throw new MeshError('key_corrupt', `${path} does not hold a token`, {
    hint: `Remove ${path}; a new one is made at the next start.`,
  });
}
