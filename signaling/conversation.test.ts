import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { limits, verifyTicket, fromBase64Url, peekTicket } from '@cocoon-mesh/protocol';
import { TestPeer, newDevice, newOwner, seconds, startTestServer } from './test-client.ts';

describe('two devices of one owner', () => {
  for (const [first, second] of [
    ['cocoon.v1.msgpack', 'cocoon.v1.json'],
    ['cocoon.v1.json', 'cocoon.v1.msgpack'],
  ] as const)
    test(`meet and signal to each other, one speaking ${first}, the other ${second}`, async () => {
      await using run = await startTestServer();
      const { server, clock } = run;
      const owner = await newOwner();
      const anna = await newDevice(owner, clock, { name: 'anna' });
      const bert = await newDevice(owner, clock, { name: 'bert' });
      const a = await TestPeer.member(server.url, anna, { format: first });
      assert.deepEqual(
        a.welcome.devices.map(({ peer_id, online }) => ({ peer_id, online })),
        [{ peer_id: anna.key.peerId, online: true }],
      );
      assert.equal(a.welcome.time_ms, clock.now());
      const b = await TestPeer.member(server.url, bert, { format: second });
      assert.equal(b.welcome.devices.length, 2);
      const { device } = await a.peer.next('device');
      assert.equal(device.peer_id, bert.key.peerId);
      assert.equal(device.online, true);

      a.peer.send({ type: 'introduce', id: 7, peer_id: bert.key.peerId });
      const asked = await a.peer.next('introduction');
      const told = await b.peer.next('introduction');
      assert.equal(asked.id, 7);
      assert.equal(told.id, undefined);
      assert.equal(asked.ticket, told.ticket);
      assert.equal(asked.device.record, bert.record);
      assert.equal(told.device.record, anna.record);
      await verifyTicket(
        told.ticket,
        fromBase64Url(b.welcome.ticket_key),
        { offerer: anna.key.peerId, answerer: bert.key.peerId },
        seconds(clock),
      );

      const { jti, exp, iat } = peekTicket(asked.ticket);
      assert.ok(exp - iat <= limits.ticketLifetimeMs / 1000);
      a.peer.send({ type: 'signal', jti, payload: { kind: 'offer', sdp: 'v=0' } });
      assert.deepEqual((await b.peer.next('signal')).payload, { kind: 'offer', sdp: 'v=0' });
      b.peer.send({ type: 'signal', jti, payload: { kind: 'candidate', candidate: null } });
      assert.deepEqual((await a.peer.next('signal')).payload, { kind: 'candidate', candidate: null });

      await b.peer.close();
      const gone = await a.peer.next('device');
      assert.deepEqual([gone.device.peer_id, gone.device.online], [bert.key.peerId, false]);
    });
});
