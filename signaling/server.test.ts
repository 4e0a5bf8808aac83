import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { describe, test } from 'node:test';
import type { MeshError } from '@cocoon-mesh/protocol';
import { defaultLimits } from './server-limits.ts';
import { TestPeer, newDevice, newOwner, startTestServer } from './test-client.ts';

const code = (expected: string) => (error: MeshError) => error.code === expected;

describe('a server that stops', () => {
  test('says goodbye to every peer, leaves no timer behind and frees its port', async () => {
    const run = await startTestServer();
    const owner = await newOwner();
    const { peer } = await TestPeer.member(run.server.url, await newDevice(owner, run.clock));
    const silent = await TestPeer.open(run.server.url, { format: 'cocoon.v1.json' });
    const { port } = run.server;
    await Promise.all([run.server.close(), run.server.close()]);
    for (const one of [peer, silent]) {
      assert.ok((await one.next('goodbye')).retry_after_ms > 0);
      assert.equal((await one.closed).code, 1001);
    }
    assert.equal(run.clock.pendingTimers, 0);
    await using again = await startTestServer({ port });
    assert.equal(again.server.port, port);
  });

  test('waits no longer than its patience for a peer that does not answer', async () => {
    const run = await startTestServer();
    const { peer } = await TestPeer.member(run.server.url, await newDevice(await newOwner(), run.clock));
    peer.socket.pause();
    const closed = run.server.close();
    run.clock.step(defaultLimits.goodbyeMs);
    await closed;
    assert.equal(run.clock.pendingTimers, 0);
    peer.socket.resume();
    peer.socket.terminate();
  });

  test('deals with what has begun before its database closes', async () => {
    const run = await startTestServer();
    const device = await newDevice(await newOwner(), run.clock);
    const peer = await TestPeer.open(run.server.url);
    await peer.prove(run.server.url, device.key, device);
    await run.server.close();
    assert.ok(!run.logged.some((line) => /failed|could not/.test(line)), run.logged.join('\n'));
  });
});

describe('a server that cannot start', () => {
  test('because its port is in use says so', async () => {
    const other = createServer().listen(0, '127.0.0.1');
    await once(other, 'listening');
    const { port } = other.address() as AddressInfo;
    await assert.rejects(startTestServer({ port }), code('port_in_use'));
    other.close();
  });

  test('because its public address is no WebSocket URL says so', async () => {
    for (const publicUrl of [
      'http://mesh.example',
      'mesh.example',
      'wss://me@mesh.example/ws',
      'ws://x/ws?a=b',
    ])
      await assert.rejects(startTestServer({ publicUrl }), code('bad_signaling_url'));
  });

  test('because TLS lacks its key says so', async () => {
    await assert.rejects(startTestServer({ tlsCert: 'x' }), code('usage'));
  });
});

test('a public address without a path is that of the WebSocket', async () => {
  await using run = await startTestServer({ publicUrl: 'wss://mesh.example' });
  assert.equal(run.server.url, 'wss://mesh.example/ws');
});
