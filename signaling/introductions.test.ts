import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { ServerMessage } from '@cocoon-mesh/protocol';
import { generateSigningKey, limits, peekTicket } from '@cocoon-mesh/protocol';
import type { TestServer } from './test-client.ts';
import { TestPeer, newDevice, newMembership, newOwner, seconds, startTestServer } from './test-client.ts';

/** Two signed-in devices of one owner, introduced. */
async function introduced(run: TestServer) {
  const owner = await newOwner();
  const anna = await newDevice(owner, run.clock, { name: 'anna' });
  const bert = await newDevice(owner, run.clock, { name: 'bert' });
  const { peer: a } = await TestPeer.member(run.server.url, anna, { format: 'cocoon.v1.json' });
  const { peer: b } = await TestPeer.member(run.server.url, bert);
  await a.next('device');
  a.send({ type: 'introduce', id: 1, peer_id: bert.key.peerId });
  const { ticket } = await a.next('introduction');
  await b.next('introduction');
  return { owner, anna, bert, a, b, jti: peekTicket(ticket).jti };
}

async function answerTo(peer: TestPeer, peerId: string): Promise<ServerMessage> {
  peer.send({ type: 'introduce', id: 9, peer_id: peerId });
  return peer.next('error');
}

describe('an introduction', () => {
  test('to a stranger, online or not, looks exactly like one to nobody, and the stranger hears nothing', async () => {
    await using run = await startTestServer();
    const { url } = run.server;
    const eve = await TestPeer.member(url, await newDevice(await newOwner(), run.clock));
    const others = await newOwner();
    const online = await newDevice(others, run.clock);
    const offline = await newDevice(others, run.clock);
    const victim = await TestPeer.member(url, online);
    await (await TestPeer.member(url, offline)).peer.close();
    await victim.peer.next('device');
    await victim.peer.next('device');

    const nobody = await answerTo(eve.peer, (await generateSigningKey()).peerId);
    assert.equal(nobody.type === 'error' && nobody.code, 'not_found');
    assert.deepEqual(await answerTo(eve.peer, online.key.peerId), nobody);
    assert.deepEqual(await answerTo(eve.peer, offline.key.peerId), nobody);
    await victim.peer.quiet();
    assert.equal(eve.welcome.devices.length, 1);
    assert.equal(run.server.counters.introductions, 0);
  });

  test('to an own device that is offline says so', async () => {
    await using run = await startTestServer();
    const { a, b, bert } = await introduced(run);
    await b.close();
    await a.next('device');
    const answer = await answerTo(a, bert.key.peerId);
    assert.equal(answer.type === 'error' && answer.code, 'device_offline');
    await a.quiet();
  });

  test('to itself is refused', async () => {
    await using run = await startTestServer();
    const { a, anna } = await introduced(run);
    const answer = await answerTo(a, anna.key.peerId);
    assert.equal(answer.type === 'error' && answer.code, 'self_connect');
  });

  test('asked with a membership that has ended is refused', async () => {
    await using run = await startTestServer();
    const owner = await newOwner();
    const expires = seconds(run.clock) + 5;
    const short = await newDevice(owner, run.clock, {}, { expires });
    const long = await newDevice(owner, run.clock);
    const { peer: a } = await TestPeer.member(run.server.url, short);
    const { peer: b } = await TestPeer.member(run.server.url, long);
    await a.next('device');
    run.clock.step(5000);
    const asked = await answerTo(a, long.key.peerId);
    assert.equal(asked.type === 'error' && asked.code, 'membership_expired');
    const asking = await answerTo(b, short.key.peerId);
    assert.equal(asking.type === 'error' && asking.code, 'not_found');
  });

  test('carries no more signals than its limit, in both directions together', async () => {
    await using run = await startTestServer();
    const { a, b, jti } = await introduced(run);
    const half = limits.maxSignalsPerIntroduction / 2;
    for (let i = 0; i < half; i++) {
      a.send({ type: 'signal', jti, payload: { kind: 'candidate', candidate: `a${i}` } });
      b.send({ type: 'signal', jti, payload: { kind: 'candidate', candidate: `b${i}` } });
    }
    for (let i = 0; i < half; i++) {
      assert.deepEqual((await b.next('signal')).payload, { kind: 'candidate', candidate: `a${i}` });
      assert.deepEqual((await a.next('signal')).payload, { kind: 'candidate', candidate: `b${i}` });
    }
    a.send({ type: 'signal', jti, payload: { kind: 'candidate', candidate: 'one too many' } });
    await a.quiet();
    await b.quiet();
    assert.equal(run.server.counters.signals, limits.maxSignalsPerIntroduction);
  });

  test('carries one offer of the side that asked and one answer of the other', async () => {
    await using run = await startTestServer();
    const { a, b, jti } = await introduced(run);
    const offer = { kind: 'offer', sdp: 'the offer' } as const;
    const answer = { kind: 'answer', sdp: 'the answer' } as const;
    for (const [peer, wrong] of [
      [a, answer],
      [b, offer],
    ] as const)
      peer.send({ type: 'signal', jti, payload: wrong });
    for (let i = 0; i < 2; i++) {
      a.send({ type: 'signal', jti, payload: offer });
      b.send({ type: 'signal', jti, payload: answer });
    }
    assert.deepEqual((await b.next('signal')).payload, offer);
    assert.deepEqual((await a.next('signal')).payload, answer);
    await a.quiet();
    await b.quiet();
  });

  test('carries signals as long as its ticket lives', async () => {
    await using run = await startTestServer();
    const { a, b, jti } = await introduced(run);
    for (let passed = 0; passed < limits.ticketLifetimeMs; passed += limits.signalingPingMs) {
      a.send({ type: 'signal', jti, payload: { kind: 'candidate', candidate: null } });
      await b.next('signal');
      await b.quiet();
      run.clock.step(limits.signalingPingMs);
    }
    a.send({ type: 'signal', jti, payload: { kind: 'candidate', candidate: null } });
    await a.quiet();
    await b.quiet();
  });

  test('is of use to nobody else, of the same owner or of another', async () => {
    await using run = await startTestServer();
    const { owner, a, b, jti } = await introduced(run);
    for (const device of [await newDevice(owner, run.clock), await newDevice(await newOwner(), run.clock)]) {
      const { peer } = await TestPeer.member(run.server.url, device);
      peer.send({ type: 'signal', jti, payload: { kind: 'offer', sdp: 'v=0' } });
      await peer.quiet();
    }
    // The arrival of the third device, and nothing else.
    for (const peer of [a, b]) {
      await peer.next('device');
      await peer.quiet();
    }
    assert.equal(run.server.counters.signals, 0);
  });

  test('ends for a device that joins another owner', async () => {
    await using run = await startTestServer();
    const { a, bert, jti } = await introduced(run);
    const membership = await newMembership(await newOwner(), bert.key.peerId, run.clock);
    const { peer: b } = await TestPeer.member(run.server.url, { ...bert, membership });
    assert.equal((await a.next('device')).device.online, false);
    for (const peer of [a, b])
      peer.send({ type: 'signal', jti, payload: { kind: 'candidate', candidate: null } });
    for (const peer of [a, b, a]) await peer.quiet();
  });

  test('counts the bytes of what it carries, each way', async () => {
    await using run = await startTestServer();
    const { a, b, jti } = await introduced(run);
    const before = run.server.counters;
    a.send({ type: 'signal', jti, payload: { kind: 'offer', sdp: 'x'.repeat(1000) } });
    await b.next('signal');
    const { signalBytesIn, signalBytesOut } = run.server.counters;
    assert.ok(signalBytesIn - before.signalBytesIn > 1000 && signalBytesIn - before.signalBytesIn < 1100);
    assert.ok(signalBytesOut - before.signalBytesOut > 1000 && signalBytesOut < signalBytesIn);
  });

  test('carries nothing that is larger than a description', async () => {
    await using run = await startTestServer();
    const { a, b, jti } = await introduced(run);
    const payload = { kind: 'offer', sdp: 'x'.repeat(limits.maxSdpBytes + 1) };
    a.socket.send(JSON.stringify({ type: 'signal', jti, payload }));
    assert.equal(await a.refusal(), 'bad_message');
    assert.equal((await b.next('device')).device.online, false);
    assert.equal(run.server.counters.signals, 0);
  });
});
