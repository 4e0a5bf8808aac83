import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { TestPeer, newDevice, newOwner, startTestServer } from './test-client.ts';

const llm = (...versions: string[]) => ({
  capabilities: versions.map((version) => ({ protocol: 'llm.chat', version })),
});

describe('a capability lookup', () => {
  test('finds the online devices of the own owner that fit, least loaded first', async () => {
    await using run = await startTestServer();
    const { url } = run.server;
    const owner = await newOwner();
    const open = async (load: number, content: object, of = owner): Promise<string> => {
      const device = await newDevice(of, run.clock, content);
      const { peer } = await TestPeer.member(url, device);
      peer.send({ type: 'load', load });
      await peer.quiet();
      return device.key.peerId;
    };
    const busy = await open(0.9, llm('1.2.0'));
    const idle = await open(0.1, llm('1.0.0', '1.9.3', '2.0.0'));
    await open(0, llm('2.0.0'));
    await open(0, llm('1.5.0-beta.1'));
    await open(0, { capabilities: [{ protocol: 'llm.chat.more', version: '1.2.0' }] });
    await open(0, llm('1.2.0'), await newOwner());
    const offline = await TestPeer.member(url, await newDevice(owner, run.clock, llm('1.2.0')));
    await offline.peer.close();

    const { peer } = await TestPeer.member(url, await newDevice(owner, run.clock));
    peer.send({ type: 'lookup', id: 3, protocol: 'llm.chat', version: '^1.0.0' });
    const { id, matches } = await peer.next('lookup_result', ['device']);
    assert.equal(id, 3);
    assert.deepEqual(
      matches.map(({ peer_id, capability, load }) => [peer_id, capability.version, load]),
      [
        [idle, '1.9.3', 0.1],
        [busy, '1.2.0', 0.9],
      ],
    );
  });

  test('of nothing gives nothing', async () => {
    await using run = await startTestServer();
    const { peer } = await TestPeer.member(run.server.url, await newDevice(await newOwner(), run.clock));
    peer.send({ type: 'lookup', id: 1, protocol: 'nothing', version: '*' });
    assert.deepEqual((await peer.next('lookup_result')).matches, []);
  });

  test('by something that is no range is an error, and the connection lives on', async () => {
    await using run = await startTestServer();
    const { peer } = await TestPeer.member(run.server.url, await newDevice(await newOwner(), run.clock));
    peer.send({ type: 'lookup', id: 1, protocol: 'tasks', version: 'newest please' });
    const { id, code } = await peer.next('error');
    assert.deepEqual([id, code], [1, 'bad_message']);
    await peer.quiet();
  });
});
