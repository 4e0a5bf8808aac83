/** The device key in `identity.key`: made on the first run, then read, never changed. */

import type { SigningKey } from '@cocoon-mesh/protocol';
import {
  MeshError,
  concat,
  equalBytes,
  fromBase64Url,
  randomBytes,
  sha256,
  signingKeyFromSeed,
  toBase64Url,
} from '@cocoon-mesh/protocol';
import { writePrivateFile } from './atomic-file.ts';
import { readKeyFile } from './key-file.ts';

const prefix = 'cocoon-identity-1.';
const seedBytes = 32;
/** Of the SHA-256 of the seed, against damage that would silently be another identity. */
const checksumBytes = 4;

/** @throws MeshError key_exposed | key_unreadable | key_corrupt | storage_failed */
export async function openIdentityKey(path: string): Promise<SigningKey> {
  const text = await readKeyFile(path);
  if (text !== null) return signingKeyFromSeed(await seedOf(text, path));
  const seed = randomBytes(seedBytes);
  const checksum = (await sha256(seed)).slice(0, checksumBytes);
  await writePrivateFile(path, `${prefix}${toBase64Url(concat(seed, checksum))}\n`);
  return signingKeyFromSeed(seed);
}

async function seedOf(text: string, path: string): Promise<Uint8Array> {
  try {
    if (!text.startsWith(prefix)) throw new TypeError('no identity');
    const bytes = fromBase64Url(text.slice(prefix.length));
    const seed = bytes.slice(0, seedBytes);
    const checksum = (await sha256(seed)).slice(0, checksumBytes);
    if (!equalBytes(bytes.slice(seedBytes), checksum)) throw new TypeError('a wrong checksum');
    return seed;
  } catch (cause) {
    throw new MeshError('key_corrupt', `${path} does not hold a key`, {
      cause,
      hint: 'Restore it from a backup. Without it this device needs a new home and a new token.',
    });
  }
}
