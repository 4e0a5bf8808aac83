/**
 * Prints what a capability request costs: choosing among 1,000 devices (at most 1 ms), how long until an abort at the
 * asker reaches the provider (at most 50 ms), and what each chunk of a stream takes longer through the mesh than from
 * a provider of this device (at most 2 ms). The last two on both engines, between two meshes in one process.
 *
 *   node bench/capabilities.ts [--rounds 200]
 */

import { parseArgs } from 'node:util';
import {
  CapabilityRouter,
  CapabilityServer,
  Descriptions,
  DeviceStates,
  LocalCapabilities,
} from '@cocoon-mesh/capabilities';
import type { Content, Provider, ProviderCall } from '@cocoon-mesh/capabilities';
import type { Candidate } from '@cocoon-mesh/capabilities/choice.ts';
import { choose } from '@cocoon-mesh/capabilities/choice.ts';
import type { Engine } from '@cocoon-mesh/mesh';
import { libdatachannelEngine } from '@cocoon-mesh/mesh/engines/libdatachannel.node.ts';
import { weriftEngine } from '@cocoon-mesh/mesh/engines/werift.node.ts';
import { streamProtocols, systemClock } from '@cocoon-mesh/protocol';
import type { CapabilityState, OwnerKeys } from '@cocoon-mesh/protocol';
import { HostileSignaling } from '../test/doubles/hostile-signaling.ts';
import type { Peer } from '../test/mesh/two-peers.ts';
import { listed, newOwner, startPeer, when } from '../test/mesh/two-peers.ts';

const { values } = parseArgs({ options: { rounds: { type: 'string', default: '200' } } });
const rounds = Number(values.rounds);
const clock = systemClock;
const log = () => undefined;

function at(numbers: readonly number[], share: number): number {
  return (
    numbers.toSorted((a, b) => a - b)[Math.min(numbers.length - 1, Math.floor(numbers.length * share))] ?? NaN
  );
}

function milliseconds(numbers: readonly number[]) {
  return { 'p50 ms': at(numbers, 0.5).toFixed(3), 'p99 ms': at(numbers, 0.99).toFixed(3) };
}

/** Devices with two versions, a few features and all kinds of load. */
function choosing(count: number, features: readonly string[]): number[] {
  const states = new Map<string, CapabilityState[]>();
  const candidates = Array.from({ length: count }, (_, i): Candidate => {
    const offered = { protocol: 'llm.chat', version: `1.${i % 7}.0` };
    const model = {
      ...offered,
      in_flight: i % 5,
      queued: i % 3,
      limit: 4,
      warm: i % 2 === 0,
      stand_in: false,
    };
    states.set(`peer-${i}`, [
      { ...model, features: [`model:${i % 10}`, 'tools'] },
      { ...model, protocol: 'embeddings', features: ['space:a'] },
    ]);
    return {
      peerId: `peer-${i}`,
      name: `device-${i}`,
      self: false,
      foreign: false,
      online: true,
      problem: null,
      capabilities: [
        offered,
        { protocol: 'embeddings', version: '1.0.0' },
        { protocol: 'tasks', version: '1.0.0' },
      ],
      load: (i % 10) / 10,
      rttMs: i % 4 === 0 ? i % 50 : null,
    };
  });
  const wanted = {
    protocol: 'llm.chat',
    version: '^1.0.0',
    features,
    preferred: null,
    only: null,
    sticky: null,
  };
  const times: number[] = [];
  for (let round = 0; round < rounds + 50; round++) {
    const started = clock.monotonic();
    choose(candidates, wanted, (peerId) => states.get(peerId) ?? null);
    if (round >= 50) times.push(clock.monotonic() - started);
  }
  return times;
}

/** Streams a time stamp as often as it is asked to, a little apart from each other; then waits to be aborted. */
class Stamps implements Provider {
  readonly protocol = 'bench.stamps';
  readonly version = '1.0.0';
  readonly limit = 4;
  readonly maxQueued = 4;
  readonly state = { problem: null, warm: true, features: [] };
  abortedAt = Promise.withResolvers<number>();

  onChange(): () => void {
    return () => undefined;
  }

  async *handle({ payload, signal }: ProviderCall): AsyncGenerator<Content> {
    for (let n = 0; n < Number(payload); n++) {
      await new Promise<void>((resolve) => void setTimeout(resolve, 2));
      yield { payload: { at: clock.monotonic(), token: 'word ' }, parts: [] };
    }
    if (payload !== 1) return;
    await new Promise<void>((resolve) => {
      signal.addEventListener('abort', () => {
        this.abortedAt.resolve(clock.monotonic());
        resolve();
      });
    });
  }

  async close(): Promise<void> {
    this.abortedAt = Promise.withResolvers();
  }
}

interface Serving extends Peer {
  readonly local: LocalCapabilities;
  readonly router: CapabilityRouter;
}

async function serving(name: string, engine: Engine, owner: OwnerKeys, url: string): Promise<Serving> {
  const peer = await startPeer({ owner, engine, signalingUrl: url, name });
  const local = new LocalCapabilities({ clock, log });
  const states = new DeviceStates();
  const own = () => ({ services: [], capabilities: local.states() });
  const descriptions = new Descriptions({ mesh: peer.mesh, clock, own });
  peer.mesh.handle(streamProtocols.capability, new CapabilityServer({ local, clock, log }).handle);
  return {
    ...peer,
    local,
    router: new CapabilityRouter({ mesh: peer.mesh, clock, local, states, descriptions }),
  };
}

async function chunkTimes({ router }: Serving, count: number): Promise<number[]> {
  const times: number[] = [];
  const { chunks } = router.request({ protocol: 'bench.stamps', version: '*', payload: count, parts: [] });
  for await (const { payload } of chunks) times.push(clock.monotonic() - (payload as { at: number }).at);
  return times;
}

async function abortTime({ router }: Serving, stamps: Stamps): Promise<number> {
  stamps.abortedAt = Promise.withResolvers();
  const cancel = new AbortController();
  const answer = router.request({
    protocol: 'bench.stamps',
    version: '*',
    payload: 1,
    parts: [],
    signal: cancel.signal,
  });
  const chunks = answer.chunks[Symbol.asyncIterator]();
  await chunks.next();
  const started = clock.monotonic();
  cancel.abort();
  const took = (await stamps.abortedAt.promise) - started;
  await chunks.next().catch(() => undefined);
  return took;
}

async function throughMesh(engine: Engine) {
  const signaling = await HostileSignaling.start();
  const owner = await newOwner();
  const asker = await serving('asker', engine, owner, signaling.url);
  const provider = await serving('provider', engine, owner, signaling.url);
  const stamps = new Stamps();
  provider.local.add(stamps);
  const capabilities = provider.local.advertised();
  await provider.mesh.describe({ kind: 'cocoon', name: 'provider', services: [], capabilities });
  await listed(asker.mesh, provider.key.peerId);
  await when(asker.mesh, 'devices', () => asker.mesh.resolve('provider').capabilities.length > 0);
  await chunkTimes(asker, 20);
  const [near, far] = [await chunkTimes(provider, rounds), await chunkTimes(asker, rounds)];
  const aborts: number[] = [];
  for (let round = 0; round < Math.ceil(rounds / 4); round++) aborts.push(await abortTime(asker, stamps));
  await asker.mesh.close();
  await provider.mesh.close();
  await signaling.close();
  return { near, far, aborts };
}

console.table({
  'choice among 1,000 devices': milliseconds(choosing(1_000, [])),
  'among 1,000 with features': milliseconds(choosing(1_000, ['model:3', 'tools'])),
});

const rows: Record<string, Record<string, string>> = {};
for (const engine of [await libdatachannelEngine(), await weriftEngine()]) {
  const { near, far, aborts } = await throughMesh(engine);
  rows[engine.name] = {
    'abort to provider p50 ms': at(aborts, 0.5).toFixed(2),
    'abort p99 ms': at(aborts, 0.99).toFixed(2),
    'chunk on this device p50 ms': at(near, 0.5).toFixed(3),
    'chunk through the mesh p50 ms': at(far, 0.5).toFixed(3),
    'added p50 ms': (at(far, 0.5) - at(near, 0.5)).toFixed(3),
    'added p99 ms': (at(far, 0.99) - at(near, 0.99)).toFixed(3),
  };
}
console.table(rows);
