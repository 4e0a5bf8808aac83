/** Queries between real meshes: three devices on two engines, one of which leaves, refuses or says nothing. */

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { libdatachannelEngine } from '@cocoon-mesh/mesh/engines/libdatachannel.node.ts';
import { weriftEngine } from '@cocoon-mesh/mesh/engines/werift.node.ts';
import type { Stream } from '@cocoon-mesh/mesh';
import type { OwnerKeys, QueryRow } from '@cocoon-mesh/protocol';
import { limits, memberRights, streamProtocols, systemClock } from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import type { QueryAnswer, QueryOptions } from '@cocoon-mesh/query';
import { QueryServer, meshTargets, runQuery } from '@cocoon-mesh/query';
import { HostileSignaling } from '../doubles/hostile-signaling.ts';
import type { Peer } from './two-peers.ts';
import { listed, newOwner, startPeer, when } from './two-peers.ts';

const rowsEach = 1000;
const names = ['anna', 'ben', 'cleo'] as const;

interface Answering extends Peer {
  readonly server: QueryServer;
}

/** Times of the three are woven into each other. */
function rowAt(device: number, n: number): QueryRow {
  const time = n * names.length + device;
  const id = `${names[device]}-${n}`;
  return { key: [time, id], at: String(n), value: { id, time } };
}

describe('queries over a mesh', () => {
  let signaling: HostileSignaling;
  let owner: OwnerKeys;
  let peers: Answering[];
  let anna: Answering;
  let ben: Answering;
  let cleo: Answering;
  /** Signals of queries that wait at cleo. */
  const waiting: AbortSignal[] = [];

  async function start(device: number): Promise<Answering> {
    const peer = await startPeer({
      owner,
      engine: device === 1 ? await weriftEngine() : await libdatachannelEngine(),
      signalingUrl: signaling.url,
      name: names[device] ?? '',
      self: { capabilities: [{ protocol: 'test', version: '1.0.0' }] },
      rights: device === 2 ? memberRights.filter(({ protocol }) => protocol !== 'tasks') : memberRights,
    });
    const server = new QueryServer({ clock: systemClock, log: () => undefined });
    server.answer('custom', async function* ({ after: position, limit }) {
      const from = position === null ? rowsEach : Number(position);
      const count = Math.min(from, limit + 1);
      yield Array.from({ length: count }, (_, i) => rowAt(device, from - 1 - i));
    });
    server.answer('search_knowledgebase', async function* (_request, signal) {
      yield rowAt(device, 1);
      if (device !== 2) return;
      waiting.push(signal);
      await new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => reject(signal.reason as Error));
      });
    });
    peer.mesh.handle(streamProtocols.query, server.handle);
    return { ...peer, server };
  }

  before(async () => {
    signaling = await HostileSignaling.start();
    owner = await newOwner();
    peers = [await start(0), await start(1), await start(2)];
    [anna, ben, cleo] = peers as [Answering, Answering, Answering];
    for (const { mesh } of peers) await Promise.all(peers.map(({ key }) => listed(mesh, key.peerId)));
  });

  after(async () => {
    for (const { mesh } of peers) await mesh.close();
    await signaling.close();
  });

  function ask(from: Answering, options: Partial<QueryOptions> = {}): Promise<QueryAnswer> {
    const { mesh, server } = from;
    return runQuery({
      targets: meshTargets({
        mesh,
        clock: systemClock,
        capability: 'test',
        local: (request, signal) => server.ask(request, signal),
      }),
      type: 'custom',
      params: {},
      // Deadlines come when a test says so, however busy the machine is.
      clock: new SteppedClock(),
      timeoutMs: limits.maxQueryTimeoutMs,
      ...options,
    });
  }

  const statuses = ({ devices }: QueryAnswer) =>
    Object.fromEntries(devices.map(({ name, status }) => [name, status]));

  test('page through the rows of all devices, each once and in order', async () => {
    const times: number[] = [];
    let cursor: string | null = null;
    do {
      const page: QueryAnswer = await ask(anna, { limit: 700, cursor });
      assert.equal(page.partial, false);
      times.push(...page.rows.map(({ value }) => (value as { time: number }).time));
      cursor = page.next_cursor;
    } while (cursor !== null);
    assert.deepEqual(
      times,
      Array.from({ length: 3 * rowsEach }, (_, i) => 3 * rowsEach - 1 - i),
    );
  });

  test('leave no stream open', async () => {
    await ask(anna);
    // The last frames of a stream may still be under way.
    await anna.mesh.ping(ben.key.peerId);
    await anna.mesh.ping(cleo.key.peerId);
    assert.deepEqual([ben.mesh.streamCount, cleo.mesh.streamCount], [0, 0]);
  });

  test('are answered at the deadline when one device is silent, and cancelled there', async () => {
    const clock = new SteppedClock();
    const came = new Set<string>();
    const answer = await ask(ben, {
      type: 'search_knowledgebase',
      clock,
      onPart: ({ device }) => {
        came.add(device);
        if (came.size === peers.length) setImmediate(() => clock.step(limits.maxQueryTimeoutMs));
      },
    });
    assert.deepEqual(statuses(answer), { anna: 'ok', ben: 'ok', cleo: 'timeout' });
    assert.equal(answer.partial, true);
    // What it had found came before.
    assert.equal(answer.rows.length, 3);
    const signal = waiting.shift();
    assert.ok(signal);
    if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve));
  });

  test('that are cancelled are cancelled at every device', async () => {
    const cancel = new AbortController();
    const answer = ask(anna, {
      type: 'search_knowledgebase',
      signal: cancel.signal,
      onPart: ({ device }) => {
        if (device === 'cleo') cancel.abort();
      },
    });
    await assert.rejects(answer, { code: 'cancelled' });
    const signal = waiting.shift();
    assert.ok(signal);
    if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve));
  });

  test('about tasks are denied to a device that may not read them', async () => {
    for (const { server } of peers) server.answer('list_tasks', async function* () {});
    assert.deepEqual(statuses(await ask(cleo, { type: 'list_tasks' })), {
      anna: 'denied',
      ben: 'denied',
      cleo: 'ok',
    });
    assert.deepEqual(statuses(await ask(anna, { type: 'list_tasks' })), {
      anna: 'ok',
      ben: 'ok',
      cleo: 'ok',
    });
  });

  test('are answered by the others when one answers garbage', async () => {
    cleo.mesh.handle(streamProtocols.query, (stream: Stream) => {
      stream.write(crypto.getRandomValues(new Uint8Array(2000)));
    });
    const answer = await ask(anna);
    assert.deepEqual(statuses(answer), { anna: 'ok', ben: 'ok', cleo: 'error' });
    assert.equal(answer.rows.length, 100);
    cleo.mesh.handle(streamProtocols.query, cleo.server.handle);
    assert.equal(statuses(await ask(anna))['cleo'], 'ok');
  });

  test('do not wait for a device that has left', async () => {
    await cleo.mesh.close();
    const isGone = () => anna.mesh.devices().some(({ name, online }) => name === 'cleo' && !online);
    await when(anna.mesh, 'devices', isGone);
    const answer = await ask(anna);
    assert.deepEqual(statuses(answer), { anna: 'ok', ben: 'ok', cleo: 'offline' });
    assert.equal(answer.devices.find(({ name }) => name === 'cleo')?.ms, 0);
  });
});
