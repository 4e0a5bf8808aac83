import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { limits } from '@cocoon-mesh/protocol';
import fc from 'fast-check';
import { TestPeer, newDevice, newNonce, newOwner, startTestServer } from './test-client.ts';

const seed = 20_260_101;

describe('a message', () => {
  test('larger than its limit ends the connection before it is read', async () => {
    await using run = await startTestServer();
    const device = await newDevice(await newOwner(), run.clock);
    const { peer } = await TestPeer.member(run.server.url, device);
    const before = run.server.counters.messageBytesIn;
    peer.socket.send(Buffer.alloc(limits.maxSignalingMessageBytes + 1));
    assert.equal((await peer.closed).code, 1009);
    assert.equal(run.server.counters.messageBytesIn, before);
  });

  test('of an unknown type ends the connection as unsupported', async () => {
    await using run = await startTestServer();
    const device = await newDevice(await newOwner(), run.clock);
    const { peer } = await TestPeer.member(run.server.url, device, { format: 'cocoon.v1.json' });
    peer.socket.send('{"type":"teleport"}');
    assert.equal(await peer.refusal(), 'unsupported');
  });

  test('of an unknown type that is a request is answered, and the connection lives on', async () => {
    await using run = await startTestServer();
    const device = await newDevice(await newOwner(), run.clock);
    const { peer } = await TestPeer.member(run.server.url, device, { format: 'cocoon.v1.json' });
    peer.socket.send('{"type":"teleport","id":5}');
    const { id, code } = await peer.next('error');
    assert.deepEqual([id, code], [5, 'unsupported']);
    await peer.quiet();
  });

  test('with fields that nobody knows is understood', async () => {
    await using run = await startTestServer();
    const device = await newDevice(await newOwner(), run.clock);
    const { peer } = await TestPeer.member(run.server.url, device, { format: 'cocoon.v1.json' });
    peer.socket.send('{"type":"ping","id":5,"colour":"green"}');
    assert.equal((await peer.next('pong')).id, 5);
  });

  for (const [what, text] of [
    ['that is no JSON', '{'],
    ['that is no object', '[1,2]'],
    ['without a type', '{}'],
    ['with a field of a wrong type', '{"type":"ping","id":"1"}'],
    ['with a load above 1', '{"type":"load","load":1.5}'],
    ['with a name of no peer', '{"type":"introduce","id":1,"peer_id":"me"}'],
    ['with a polluting field', '{"type":"ping","id":-1,"__proto__":{"type":"load"}}'],
  ] as const)
    test(`${what} ends the connection, before and after sign-in`, async () => {
      await using run = await startTestServer();
      const format = 'cocoon.v1.json';
      const fresh = await TestPeer.open(run.server.url, { format });
      const device = await newDevice(await newOwner(), run.clock);
      const { peer: member } = await TestPeer.member(run.server.url, device, { format });
      for (const peer of [fresh, member]) {
        peer.socket.send(text);
        assert.equal(await peer.refusal(), 'bad_message');
      }
    });

  test('in the other format than was agreed ends the connection', async () => {
    await using run = await startTestServer();
    const packed = await TestPeer.open(run.server.url, { format: 'cocoon.v1.msgpack' });
    packed.socket.send('{"type":"ping","id":1}');
    assert.equal(await packed.refusal(), 'bad_message');
    const text = await TestPeer.open(run.server.url, { format: 'cocoon.v1.json' });
    text.socket.send(Buffer.from('{"type":"ping","id":1}'));
    assert.equal(await text.refusal(), 'bad_message');
  });
});

describe('whatever bytes come', () => {
  for (const format of ['cocoon.v1.msgpack', 'cocoon.v1.json'] as const)
    test(`as ${format}, before and after sign-in, the server goes on and other peers notice nothing`, async () => {
      await using run = await startTestServer();
      const owner = await newOwner();
      const { peer: bystander } = await TestPeer.member(
        run.server.url,
        await newDevice(await newOwner(), run.clock),
      );
      const attacker = await newDevice(owner, run.clock);
      const bytes = fc.uint8Array({ maxLength: 300 }).map((array) => Buffer.from(array));
      const likely = fc
        .record(
          {
            type: fc.constantFrom('sign_in', 'sign_in_proof', 'record', 'signal', 'revocations', 'lookup'),
            id: fc.oneof(fc.integer(), fc.string()),
            peer_id: fc.oneof(fc.constant(attacker.key.peerId), fc.string()),
            nonce: fc.oneof(fc.constant(newNonce()), fc.string()),
            record: fc.oneof(fc.constant(attacker.record), fc.string()),
            membership: fc.oneof(fc.constant(attacker.membership), fc.object()),
            signature: fc.oneof(fc.constant('A'.repeat(86)), fc.string()),
            protocol: fc.string(),
            version: fc.string(),
            owner: fc.constant(owner.id),
            list: fc.array(fc.oneof(fc.constant(attacker.record), fc.string())),
            jti: fc.constant(newNonce()),
            payload: fc.object(),
          },
          { requiredKeys: ['type'] },
        )
        .map((value) => JSON.stringify(value));
      await fc.assert(
        fc.asyncProperty(
          fc.boolean(),
          fc.array(fc.oneof(bytes, likely), { minLength: 1, maxLength: 4 }),
          async (member, messages) => {
            const peer = member
              ? (await TestPeer.member(run.server.url, attacker, { format })).peer
              : await TestPeer.open(run.server.url, { format });
            for (const message of messages) peer.socket.send(message);
            peer.socket.close();
            await peer.closed;
          },
        ),
        { numRuns: 60, seed },
      );
      await bystander.quiet();
      assert.ok(!run.logged.some((line) => line.includes('failed')), run.logged.join('\n'));
    });
});
