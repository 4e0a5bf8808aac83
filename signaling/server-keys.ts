/**
 * The server's own keys that stay, one for each purpose, so that no signature can serve another. They lie in the
 * database of used tokens: whoever loses one loses both, so that outstanding tokens die and none works twice. Keys
 * of access tokens come and go (`access-keys.ts`).
 */

import type { SigningKey } from '@cocoon-mesh/protocol';
import { fromBase64Url, randomBytes, signingKeyFromSeed, toBase64Url } from '@cocoon-mesh/protocol';
import type { Store } from './store.ts';

export interface ServerKeys {
  /** Setup tokens are pinned to it. */
  readonly receipt: SigningKey;
  readonly ticket: SigningKey;
}

export async function loadServerKeys(store: Store): Promise<ServerKeys> {
  const load = async (purpose: string): Promise<SigningKey> =>
    signingKeyFromSeed(fromBase64Url(await store.signingKeySeed(purpose, toBase64Url(randomBytes(32)))));
  return { receipt: await load('receipt'), ticket: await load('ticket') };
}
