/**
 * A process that opens signaling's database the moment it is told to, as a starting server does: `fork` it, wait
 * for its first message, send URLs. It answers each with the server's key, or with what went wrong.
 */

import { Store } from '@cocoon-mesh/signaling/store.ts';
import { loadServerKeys } from '@cocoon-mesh/signaling/server-keys.ts';
import { openDatabase } from '@cocoon-mesh/signaling/open-database.ts';

export type Opened = { readonly key: string } | { readonly error: string };

async function open(url: string): Promise<Opened> {
  try {
    const store = new Store(await openDatabase(url));
    try {
      return { key: (await loadServerKeys(store)).receipt.peerId };
    } finally {
      await store.close();
    }
  } catch (thrown) {
    const cause = thrown instanceof Error && thrown.cause instanceof Error ? thrown.cause.stack : '';
    return { error: `${String(thrown)} ${cause}` };
  }
}

process.on('message', (url: string) => {
  void open(url).then((opened) => process.send?.(opened));
});
process.send?.('ready');
