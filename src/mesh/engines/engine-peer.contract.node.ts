/**
 * An engine's end as a process of its own, for suites and benchmarks: `fork`ed with the engine's name and
 * driven over IPC by `engine-process.contract.ts`. It leaves when its parent does.
 */

import { enginePeer } from '../engine-peer.contract.ts';
import type { FromPeer, ToPeer } from '../engine-peer.contract.ts';
import { selectEngine } from './select.node.ts';

const { engine } = await selectEngine(process.argv[2]);
process.once('disconnect', () => process.exit(0));
const take = enginePeer(engine, tell);
process.on('message', (message: ToPeer) => take(message));

function tell(message: FromPeer): void {
  // The parent may be gone between its last word and our `disconnect`.
  if (process.connected) process.send?.(message, undefined, undefined, () => undefined);
}
