import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { generateSigningKey, limits } from '@cocoon-mesh/protocol';
import type { TestDevice } from './test-client.ts';
import {
  TestPeer,
  newDevice,
  newMembership,
  newNonce,
  newOwner,
  newRecord,
  newRedemption,
  newRotatedOwner,
  refusedUpgrade,
  seconds,
  signSignIn,
  startTestServer,
} from './test-client.ts';

/** Signs in with what may be wrong; the code of the refusal. */
async function refusal(url: string, device: TestDevice, signedUrl = url): Promise<string> {
  const peer = await TestPeer.open(url);
  const { key, record, membership } = device;
  await peer.prove(signedUrl, key, { record, membership });
  return peer.refusal();
}

describe('a sign-in', () => {
  test('signed for the address of another server is refused, and the error names ours and what to set', async () => {
    await using run = await startTestServer();
    const device = await newDevice(await newOwner(), run.clock);
    const peer = await TestPeer.open(run.server.url);
    await peer.prove('ws://evil.example/ws', device.key, device);
    const { code, message } = await peer.next('error');
    assert.equal(code, 'sign_in_failed');
    assert.ok(message.includes(run.server.url), message);
    assert.ok(message.includes('SIGNALING_PUBLIC_URL'), message);
    assert.equal((await peer.closed).code, 1008);
    assert.equal(run.server.counters.peers, 0);
  });

  test('with the challenge of another server, which relays it, is refused', async () => {
    await using victim = await startTestServer();
    await using relay = await startTestServer();
    const device = await newDevice(await newOwner(), victim.clock);
    const relayed = await TestPeer.open(victim.server.url);
    const nonce = newNonce();
    relayed.send({ type: 'sign_in', peer_id: device.key.peerId, nonce });
    const challenge = await relayed.next('challenge');
    // The device dialled the relay and signs that; the relay hands the signature on.
    const signature = await signSignIn(device.key, relay.server.url, nonce, challenge.nonce, challenge.time);
    const { record, membership } = device;
    relayed.send({ type: 'sign_in_proof', signature, record, membership });
    assert.equal(await relayed.refusal(), 'sign_in_failed');
  });

  test('whose proof is shown a second time is refused', async () => {
    await using run = await startTestServer();
    const { url } = run.server;
    const { key, record, membership } = await newDevice(await newOwner(), run.clock);
    const nonce = newNonce();
    const first = await TestPeer.open(url);
    first.send({ type: 'sign_in', peer_id: key.peerId, nonce });
    const challenge = await first.next('challenge');
    const signature = await signSignIn(key, url, nonce, challenge.nonce, challenge.time);
    const proof = { type: 'sign_in_proof', signature, record, membership } as const;
    first.send(proof);
    await first.next('welcome');

    const second = await TestPeer.open(url);
    second.send({ type: 'sign_in', peer_id: key.peerId, nonce });
    assert.notEqual((await second.next('challenge')).nonce, challenge.nonce);
    second.send(proof);
    assert.equal(await second.refusal(), 'sign_in_failed');
  });

  test('signed by another key than that of the peer it names is refused', async () => {
    await using run = await startTestServer();
    const device = await newDevice(await newOwner(), run.clock);
    const other = await generateSigningKey();
    const impostor = { ...other, peerId: device.key.peerId };
    assert.equal(await refusal(run.server.url, { ...device, key: impostor }), 'sign_in_failed');
  });

  test('with the stolen membership of another device is refused', async () => {
    await using run = await startTestServer();
    const device = await newDevice(await newOwner(), run.clock);
    const key = await generateSigningKey();
    const thief = { key, record: await newRecord(key, run.clock), membership: device.membership };
    assert.equal(await refusal(run.server.url, thief), 'membership_invalid');
  });

  test('with a membership that somebody else signed for the owner is refused', async () => {
    await using run = await startTestServer();
    const owner = await newOwner();
    const forger = { ...owner, key: (await newOwner()).key };
    assert.equal(await refusal(run.server.url, await newDevice(forger, run.clock)), 'membership_invalid');
  });

  test('with a membership that has ended is refused', async () => {
    await using run = await startTestServer();
    const device = await newDevice(await newOwner(), run.clock, {}, { expires: seconds(run.clock) });
    assert.equal(await refusal(run.server.url, device), 'membership_expired');
  });

  test('with the record of another device is refused', async () => {
    await using run = await startTestServer();
    const owner = await newOwner();
    const device = await newDevice(owner, run.clock);
    const { record } = await newDevice(owner, run.clock);
    assert.equal(await refusal(run.server.url, { ...device, record }), 'bad_signature');
  });

  test('that shows both a membership and a redemption, or neither, is refused', async () => {
    await using run = await startTestServer();
    const { url } = run.server;
    const owner = await newOwner();
    const { key, record, membership } = await newDevice(owner, run.clock);
    const redemption = await newRedemption(owner, run, key);
    for (const proof of [{ record }, { record, membership, redemption }]) {
      const peer = await TestPeer.open(url);
      await peer.prove(url, key, proof);
      assert.equal(await peer.refusal(), 'bad_message');
    }
  });

  test('that nobody finishes ends by time', async () => {
    await using run = await startTestServer();
    const silent = await TestPeer.open(run.server.url);
    const half = await TestPeer.open(run.server.url);
    half.send({ type: 'sign_in', peer_id: (await generateSigningKey()).peerId, nonce: newNonce() });
    await half.next('challenge');
    run.clock.step(limits.signInTimeoutMs);
    assert.equal(await silent.refusal(), 'timeout');
    assert.equal(await half.refusal(), 'timeout');
  });

  test('comes before everything else', async () => {
    await using run = await startTestServer();
    const device = await newDevice(await newOwner(), run.clock);
    for (const message of [
      { type: 'introduce', id: 1, peer_id: device.key.peerId },
      { type: 'lookup', id: 1, protocol: 'tasks', version: '*' },
      { type: 'ping', id: 1 },
      {
        type: 'sign_in_proof',
        signature: 'A'.repeat(86),
        record: device.record,
        membership: device.membership,
      },
    ] as const) {
      const peer = await TestPeer.open(run.server.url);
      peer.send(message);
      assert.equal(await peer.refusal(), 'protocol_violation');
    }
  });

  test('happens once for each connection', async () => {
    await using run = await startTestServer();
    const device = await newDevice(await newOwner(), run.clock);
    const { peer } = await TestPeer.member(run.server.url, device);
    peer.send({ type: 'sign_in', peer_id: device.key.peerId, nonce: newNonce() });
    assert.equal(await peer.refusal(), 'protocol_violation');
  });
});

describe('the address that a peer signs', () => {
  test('is any name of this machine as long as no other is configured', async () => {
    await using run = await startTestServer({ host: '::' });
    const { port } = run.server;
    const device = await newDevice(await newOwner(), run.clock);
    for (const host of ['localhost', '127.0.0.1', '[::1]', 'mesh.localhost']) {
      const url = `ws://${host === 'mesh.localhost' ? '127.0.0.1' : host}:${port}/ws`;
      const peer = await TestPeer.open(url, { headers: { Host: `${host}:${port}` } });
      await peer.prove(`ws://${host}:${port}/ws`, device.key, device);
      await peer.next('welcome');
      await peer.close();
    }
  });

  test('is no name that others control, and no other port', async () => {
    await using run = await startTestServer();
    const { url, port } = run.server;
    for (const host of [
      `evil.example:${port}`,
      `192.0.2.1:${port}`,
      '127.0.0.1',
      '127.0.0.1:1',
      `localhost.evil.example:${port}`,
      `user@localhost:${port}`,
    ]) {
      const peer = await TestPeer.open(url, { headers: { Host: host } });
      peer.send({ type: 'sign_in', peer_id: (await generateSigningKey()).peerId, nonce: newNonce() });
      const { code, message } = await peer.next('error');
      assert.equal(code, 'sign_in_failed');
      assert.ok(message.includes('SIGNALING_PUBLIC_URL'), message);
    }
  });

  test('is the configured one and no other', async () => {
    const publicUrl = 'wss://mesh.example/ws';
    await using run = await startTestServer({ publicUrl });
    assert.equal(run.server.url, publicUrl);
    const device = await newDevice(await newOwner(), run.clock);
    const here = `${run.server.httpUrl.replace('http', 'ws')}/ws`;
    assert.equal(await refusal(here, device), 'sign_in_failed');
    const peer = await TestPeer.open(here);
    await peer.prove(publicUrl, device.key, device);
    await peer.next('welcome');
  });
});

describe('an owner', () => {
  test('with a newer secret has no members of the older one, whether they come or are here', async () => {
    await using run = await startTestServer();
    const { before, after } = await newRotatedOwner();
    const old = await newDevice(before, run.clock);
    const renewed = await newDevice(after, run.clock);
    const { peer } = await TestPeer.member(run.server.url, old);
    await TestPeer.member(run.server.url, renewed);
    assert.equal(await peer.refusal(), 'membership_invalid');
    assert.equal(await refusal(run.server.url, old), 'membership_invalid');
    const membership = await newMembership(after, old.key.peerId, run.clock);
    await TestPeer.member(run.server.url, { ...old, membership });
  });

  test('who narrowed a membership is not tricked by an older one', async () => {
    await using run = await startTestServer();
    const owner = await newOwner();
    const device = await newDevice(owner, run.clock);
    const { peer } = await TestPeer.member(run.server.url, device);
    const expires = seconds(run.clock) + limits.signalingPingMs / 1000;
    const narrowed = await newMembership(owner, device.key.peerId, run.clock, { serial: 2, expires });
    peer.send({ type: 'membership', membership: narrowed });
    await peer.quiet();
    run.clock.step(limits.signalingPingMs);
    assert.equal(await peer.refusal(), 'membership_expired');
    assert.equal(await refusal(run.server.url, device), 'membership_expired');
  });
});

describe('a connection', () => {
  test('without a subprotocol that we know is refused', async () => {
    await using run = await startTestServer();
    const refused = { status: 400, code: 'version_mismatch' };
    assert.deepEqual(await refusedUpgrade(run.server.url, []), refused);
    assert.deepEqual(await refusedUpgrade(run.server.url, ['cocoon.v9.json']), refused);
  });

  test('to another path is refused', async () => {
    await using run = await startTestServer();
    const refused = await refusedUpgrade(run.server.url.replace('/ws', '/other'));
    assert.deepEqual(refused, { status: 404, code: 'not_found' });
  });

  test('beyond the limit of its address is refused, and one that ends makes room', async () => {
    await using run = await startTestServer({ limits: { maxConnectionsPerAddress: 2 } });
    const { url } = run.server;
    const first = await TestPeer.open(url);
    await TestPeer.open(url);
    assert.deepEqual(await refusedUpgrade(url), { status: 503, code: 'overloaded' });
    await first.close();
    // The server's own end of the connection closes a little after ours.
    while (run.server.counters.connections > 1) await new Promise((resolve) => setImmediate(resolve));
    await (await TestPeer.open(url)).close();
  });
});
