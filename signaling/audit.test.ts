import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  generateSigningKey,
  peekGrant,
  peekTicket,
  randomBytes,
  signRevocation,
  toBase64Url,
} from '@cocoon-mesh/protocol';
import type { SignalingAudit } from './audit.ts';
import {
  TestPeer,
  newDevice,
  newOwner,
  newRecord,
  newRedemption,
  seconds,
  startTestServer,
} from './test-client.ts';

function collected() {
  const lines: [event: string, fields: Record<string, unknown>][] = [];
  const audit: SignalingAudit = { append: (event, fields) => void lines.push([event, fields]) };
  const events = () => lines.map(([event]) => event);
  return { lines, audit, events };
}

describe('what the server notes for good', () => {
  test('is each token that was used, by whom, once, and each redemption that was refused', async () => {
    const { lines, audit, events } = collected();
    await using run = await startTestServer({ audit });
    const owner = await newOwner();
    const key = await generateSigningKey();
    const thief = await generateSigningKey();
    const redemption = await newRedemption(owner, run, key);
    const { jti } = peekGrant(redemption.grant);
    for (const times of [1, 2]) {
      const peer = await TestPeer.open(run.server.url);
      await peer.prove(run.server.url, key, { record: await newRecord(key, run.clock), redemption });
      await peer.next('welcome');
      assert.deepEqual(
        lines,
        [['token.redeemed', { redeemer: key.peerId, owner: owner.id, jti, scope: 'enroll' }]],
        `time ${times}`,
      );
    }
    const peer = await TestPeer.open(run.server.url);
    await peer.prove(run.server.url, thief, { record: await newRecord(thief, run.clock), redemption });
    assert.equal(await peer.refusal(), 'token_invalid');
    assert.deepEqual(events().slice(1), ['redemption.refused', 'sign_in.refused']);
    assert.deepEqual(lines[1]?.[1], { peer: thief.peerId, address: '127.0.0.1', code: 'token_invalid' });
    assert.equal(lines[2]?.[1]['code'], 'token_invalid');
  });

  test('is a sign-in over HTTP that was refused, as well', async () => {
    const { lines, audit } = collected();
    await using run = await startTestServer({ audit });
    const { peerId } = await generateSigningKey();
    const { status } = await fetch(`${run.server.httpUrl}/auth/token`, {
      method: 'POST',
      body: JSON.stringify({
        peer_id: peerId,
        nonce: toBase64Url(randomBytes(32)),
        server_nonce: toBase64Url(randomBytes(32)),
        time: seconds(run.clock),
        signature: toBase64Url(randomBytes(64)),
      }),
    });
    assert.equal(status, 401);
    assert.deepEqual(lines, [
      ['sign_in.refused', { peer: peerId, address: '127.0.0.1', code: 'sign_in_failed' }],
    ]);
  });

  test('is each introduction, each one refused, and what it learns of revocations', async () => {
    const { lines, audit } = collected();
    await using run = await startTestServer({ audit });
    const owner = await newOwner();
    const lost = await newDevice(owner, run.clock);
    const own = await newDevice(owner, run.clock);
    await TestPeer.member(run.server.url, lost);
    const { peer } = await TestPeer.member(run.server.url, own);
    const about = { peer: own.key.peerId, owner: owner.id };

    peer.send({ type: 'introduce', id: 1, peer_id: lost.key.peerId });
    const { ticket } = await peer.next('introduction');
    const list = [
      await signRevocation(owner, [], { kind: 'device', subject: lost.key.peerId, now: seconds(run.clock) }),
    ];
    peer.send({ type: 'revocations', owner: owner.id, list });
    await peer.next('device');
    peer.send({ type: 'revocations', owner: owner.id, list });
    peer.send({ type: 'introduce', id: 2, peer_id: lost.key.peerId });
    await peer.next('error');
    const again = await TestPeer.open(run.server.url);
    await again.prove(run.server.url, lost.key, lost);
    assert.equal(await again.refusal(), 'revoked');

    assert.deepEqual(lines, [
      ['introduction', { ...about, to: lost.key.peerId, jti: peekTicket(ticket).jti }],
      ['revocations.learned', { ...about, entries: 1 }],
      ['introduction.refused', { ...about, to: lost.key.peerId, code: 'not_found' }],
      ['sign_in.refused', { peer: lost.key.peerId, address: '127.0.0.1', code: 'revoked' }],
    ]);
  });
});
