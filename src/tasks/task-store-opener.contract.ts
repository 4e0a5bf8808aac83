/** A device of its own that opens the database of tasks on a word: forked, for several at the same instant. */

import { systemClock, toMeshError } from '@cocoon-mesh/protocol';
import { openTaskStore } from './task-store.node.ts';

const [, , url = '', name = ''] = process.argv;

process.once('message', () => void open());
process.send?.('ready');

async function open(): Promise<void> {
  let outcome = 'opened';
  try {
    const device = { peerId: `12D3KooW${name}`, name };
    await (await openTaskStore({ url, device, clock: systemClock })).close();
  } catch (thrown) {
    outcome = toMeshError(thrown).code;
  }
  process.send?.(outcome, () => process.disconnect());
}
