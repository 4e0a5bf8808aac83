/** Capability requests between real meshes, on both engines: a laptop that serves nothing, and two that do. */

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import {
  CapabilityRouter,
  CapabilityServer,
  Descriptions,
  DeviceStates,
  LocalCapabilities,
  collect,
} from '@cocoon-mesh/capabilities';
import type { CapabilityRequest, Content } from '@cocoon-mesh/capabilities';
import {
  content,
  scriptedProvider,
  untilAborted,
} from '@cocoon-mesh/capabilities/scripted-provider.contract.ts';
import type { Engine } from '@cocoon-mesh/mesh';
import { libdatachannelEngine } from '@cocoon-mesh/mesh/engines/libdatachannel.node.ts';
import { weriftEngine } from '@cocoon-mesh/mesh/engines/werift.node.ts';
import type { OwnerKeys, Rights } from '@cocoon-mesh/protocol';
import { memberRights, streamProtocols, systemClock } from '@cocoon-mesh/protocol';
import { HostileSignaling } from '../doubles/hostile-signaling.ts';
import type { Peer } from './two-peers.ts';
import { listed, newOwner, startPeer, when } from './two-peers.ts';

interface Serving extends Peer {
  readonly local: LocalCapabilities;
  readonly router: CapabilityRouter;
}

const clock = systemClock;
const log = () => undefined;

async function startServing(
  name: string,
  { engine, owner, signaling }: { engine: Engine; owner: OwnerKeys; signaling: HostileSignaling },
  rights: Rights = memberRights,
): Promise<Serving> {
  const peer = await startPeer({ owner, engine, signalingUrl: signaling.url, name, rights });
  const { mesh } = peer;
  const local = new LocalCapabilities({ clock, log });
  const states = new DeviceStates();
  const descriptions = new Descriptions({
    mesh,
    clock,
    own: () => ({ services: [], capabilities: local.states() }),
    learnt: (peerId, { capabilities }) => states.learn(peerId, capabilities),
  });
  mesh.handle(streamProtocols.capability, new CapabilityServer({ local, clock, log }).handle);
  local.onChange((change) => {
    if (change === 'offer')
      void mesh.describe({ kind: 'cocoon', name, services: [], capabilities: local.advertised() });
  });
  const router = new CapabilityRouter({ mesh, clock, local, states, descriptions });
  return { ...peer, local, router };
}

/** As an embedding comes: many float32, packed. */
function vector(seed: number): Uint8Array {
  return new Uint8Array(Float32Array.from({ length: 8 * 384 }, (_, i) => Math.sin(seed * i)).buffer);
}

for (const [name, load] of [
  ['libdatachannel', libdatachannelEngine],
  ['werift', weriftEngine],
] as const)
  describe(`with ${name}, a capability request`, () => {
    let signaling: HostileSignaling;
    let laptop: Serving;
    let guest: Serving;
    let small: Serving;
    let large: Serving;
    const all: Serving[] = [];
    let hold = Promise.withResolvers<Content>();

    before(async () => {
      signaling = await HostileSignaling.start();
      const given = { engine: await load(), owner: await newOwner(), signaling };
      const withoutCapabilities = memberRights.filter(({ protocol }) => protocol !== 'capability');
      laptop = await startServing('laptop', given);
      guest = await startServing('guest', given, withoutCapabilities);
      small = await startServing('small', given);
      large = await startServing('large', given);
      all.push(laptop, guest, small, large);
      for (const { mesh } of all) await Promise.all(all.map(({ key }) => listed(mesh, key.peerId)));
      for (const [serving, limit] of [
        [small, 1],
        [large, 3],
      ] as const) {
        serving.local.add(
          scriptedProvider({ protocol: 'demo.hold', limit, maxQueued: 8, handle: () => hold.promise }),
        );
        serving.local.add(
          scriptedProvider({
            protocol: 'demo.vector',
            version: '1.4.0',
            limit,
            maxQueued: 8,
            handle: async ({ payload }) => content({ count: 8 }, vector(Number(payload))),
          }),
        );
        serving.local.add(
          scriptedProvider({
            protocol: 'demo.count',
            limit,
            handle: async function* ({ payload, signal }) {
              for (let n = 0; n < Number(payload); n++) yield content(n);
              if (Number(payload) < 10) await untilAborted(signal);
            },
          }),
        );
        serving.local.add(
          scriptedProvider({
            protocol: 'demo.hang',
            limit,
            handle: ({ signal }) =>
              serving === small ? untilAborted(signal) : Promise.resolve(content('served')),
          }),
        );
      }
      for (const { mesh } of [laptop, guest])
        await when(mesh, 'devices', () =>
          ['small', 'large'].every((each) =>
            mesh.devices().some((device) => device.name === each && device.capabilities.length === 4),
          ),
        );
    });

    after(async () => {
      for (const { mesh } of all) await mesh.close();
      await signaling.close();
    });

    const request = (protocol: string, change: Partial<CapabilityRequest> = {}) =>
      laptop.router.request({ protocol, version: '^1.0.0', payload: null, parts: [], ...change });

    const loadOf = ({ local }: Serving, protocol: string) =>
      local.states().find((state) => state.protocol === protocol)?.in_flight;

    test('of a device that serves nothing gets the bytes that another one computes', async () => {
      const { payload, parts, source } = await collect(request('demo.vector', { payload: 3 }));
      assert.deepEqual([payload, source.version, source.attempts], [{ count: 8 }, '1.4.0', 1]);
      assert.deepEqual(parts, [vector(3)]);
      assert.ok(source.device === 'small' || source.device === 'large');
    });

    test('streams its answer in order', async () => {
      const { chunks } = await collect(request('demo.count', { payload: 500 }));
      assert.deepEqual(
        chunks.map(({ payload }) => payload),
        Array.from({ length: 500 }, (_, i) => i),
      );
    });

    test('that is cancelled is cancelled at its provider, whose place is free again', async () => {
      const cancel = new AbortController();
      const answer = request('demo.count', { payload: 1, signal: cancel.signal, preferDevice: 'large' });
      const chunks = answer.chunks[Symbol.asyncIterator]();
      await chunks.next();
      assert.equal(loadOf(large, 'demo.count'), 1);
      const freed = new Promise<void>((resolve) => {
        const forget = large.local.onChange(() => {
          if (loadOf(large, 'demo.count') !== 0) return;
          forget();
          resolve();
        });
      });
      cancel.abort();
      await assert.rejects(chunks.next(), { code: 'cancelled' });
      await freed;
    });

    test('goes to devices by what they can take', async () => {
      hold = Promise.withResolvers<Content>();
      const asked: Promise<{ source: { device: string } }>[] = [];
      const arrived = (count: number) =>
        new Promise<void>((resolve) => {
          const look = (): void => {
            const busy = [small, large].flatMap(({ local }) => local.states());
            const holding = busy.filter(({ protocol }) => protocol === 'demo.hold');
            if (holding.reduce((sum, { in_flight, queued }) => sum + in_flight + queued, 0) < count) return;
            for (const forget of forgets) forget();
            resolve();
          };
          const forgets = [small, large].map(({ local }) => local.onChange(look));
          look();
        });
      for (let i = 1; i <= 8; i++) {
        asked.push(collect(request('demo.hold')));
        await arrived(i);
      }
      hold.resolve(content(1));
      const served = (await Promise.all(asked)).map(({ source }) => source.device);
      assert.equal(served.filter((device) => device === 'small').length, 2);
      assert.equal(served.filter((device) => device === 'large').length, 6);
    });

    test('whose device is lost before the first byte is answered by another one', async () => {
      const answer = collect(request('demo.hang', { preferDevice: 'small' }));
      await new Promise<void>((resolve) => {
        const forget = small.local.onChange(() => {
          if (loadOf(small, 'demo.hang') !== 1) return;
          forget();
          resolve();
        });
      });
      small.mesh.disconnect(laptop.key.peerId);
      const { payload, source } = await answer;
      assert.deepEqual([payload, source.device, source.attempts], ['served', 'large', 2]);
      assert.equal(source.insteadOf?.device, 'small');
    });

    test('whose device is lost after the first byte ends with a clear error', async () => {
      const answer = request('demo.count', { payload: 1, preferDevice: 'small' });
      const chunks = answer.chunks[Symbol.asyncIterator]();
      assert.equal((await chunks.next()).value?.payload, 0);
      small.mesh.disconnect(laptop.key.peerId);
      await assert.rejects(chunks.next(), { message: /^small broke off its answer/ });
    });

    test('of a device that may not ask is denied, and asks no provider', async () => {
      const denied = guest.router.request({ protocol: 'demo.vector', version: '*', payload: 1, parts: [] });
      await assert.rejects(collect(denied), { code: 'denied' });
    });

    test('leaves no stream open', async () => {
      for (const { key } of [small, large]) await laptop.mesh.ping(key.peerId);
      assert.equal(laptop.mesh.streamCount, 0);
    });

    test('does not wait for a device that is off, and says which one served instead', async () => {
      await large.mesh.close();
      await when(laptop.mesh, 'devices', () =>
        laptop.mesh.devices().some((device) => device.name === 'large' && !device.online),
      );
      const { source } = await collect(request('demo.vector', { payload: 1, preferDevice: 'large' }));
      assert.deepEqual([source.device, source.attempts], ['small', 1]);
      assert.equal(source.insteadOf?.code, 'device_offline');
      await assert.rejects(collect(request('demo.vector', { onlyDevice: 'large' })), {
        code: 'device_offline',
      });
    });
  });
