/**
 * Prints how long it takes from the exchanged description to a proven session: two meshes in this process and a
 * signaling server that only relays, so that what is measured is ICE, DTLS, Noise and HELLO.
 *
 *   node bench/connect.ts [--tries 50]
 */

import { parseArgs } from 'node:util';
import type { Engine } from '@cocoon-mesh/mesh';
import { libdatachannelEngine } from '@cocoon-mesh/mesh/engines/libdatachannel.node.ts';
import { weriftEngine } from '@cocoon-mesh/mesh/engines/werift.node.ts';
import { HostileSignaling } from '../test/doubles/hostile-signaling.ts';
import { listed, newOwner, startPeer } from '../test/mesh/two-peers.ts';

const { values } = parseArgs({ options: { tries: { type: 'string', default: '50' } } });

const engines: Record<string, () => Promise<Engine>> = {
  libdatachannel: () => libdatachannelEngine(),
  werift: () => weriftEngine(),
};

const rows: Record<string, Record<string, string>> = {};
for (const dialler of Object.keys(engines))
  for (const listener of Object.keys(engines))
    rows[`${dialler} → ${listener}`] = await measure(dialler, listener);
console.table(rows);

async function measure(dialler: string, listener: string): Promise<Record<string, string>> {
  const signaling = await HostileSignaling.start();
  const owner = await newOwner();
  const common = { owner, signalingUrl: signaling.url };
  const anna = await startPeer({ ...common, name: 'anna', engine: await engine(dialler) });
  const ben = await startPeer({ ...common, name: 'ben', engine: await engine(listener) });
  await listed(anna.mesh, ben.key.peerId);
  const times: number[] = [];
  for (let i = -3; i < Number(values.tries); i++) {
    const began = { at: 0 };
    signaling.hooks = {
      relay: (payload) => {
        if (payload.kind === 'answer') began.at = performance.now();
        return payload;
      },
    };
    await anna.mesh.ping(ben.key.peerId);
    if (i >= 0) times.push(performance.now() - began.at);
    await parted(anna.mesh, ben.mesh, ben.key.peerId);
  }
  await anna.mesh.close();
  await ben.mesh.close();
  await signaling.close();
  times.sort((a, b) => a - b);
  return {
    'p50 ms': (times[Math.floor(times.length / 2)] ?? NaN).toFixed(1),
    'max ms': (times.at(-1) ?? NaN).toFixed(1),
    'over 1 s': String(times.filter((ms) => ms > 1_000).length),
  };
}

async function engine(name: string): Promise<Engine> {
  const load = engines[name];
  if (!load) throw new Error(`no engine ${name}`);
  return load();
}

type Mesh = Awaited<ReturnType<typeof startPeer>>['mesh'];

async function parted(left: Mesh, right: Mesh, peerId: string): Promise<void> {
  left.disconnect(peerId);
  await Promise.all(
    [left, right].map(
      (mesh) =>
        new Promise<void>((resolve) => {
          if (mesh.sessionCount === 0) return resolve();
          const forget = mesh.on('session', () => {
            if (mesh.sessionCount > 0) return;
            forget();
            resolve();
          });
        }),
    ),
  );
}
