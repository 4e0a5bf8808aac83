import assert from 'node:assert/strict';
import { test } from 'node:test';
import { generateSigningKey, limits, signRevocation } from '@cocoon-mesh/protocol';
import { member, newOwner, now, TrustOfPeer } from './trust-parties.contract.ts';

const withinMs = 5_000;

test('as many revocations as an owner may have are read at a start without waiting, and one more is refused', async (t) => {
  const mine = await newOwner();
  const [self, laptop] = [await generateSigningKey(), await generateSigningKey()];
  const ownMembership = await member(mine, self);
  const content = { kind: 'device', subject: laptop.peerId, now } as const;
  const list: string[] = [];
  while (list.length <= limits.maxRevocations) list.push(await signRevocation(mine.keys, list, content));

  const me = await TrustOfPeer.create(self, ownMembership);
  const learning = performance.now();
  await assert.rejects(me.trust.learn(mine.keys.id, undefined, list), { code: 'message_too_large' });
  t.diagnostic(`learned in ${Math.round(performance.now() - learning)} ms`);
  assert.deepEqual(me.trust.revocations(mine.keys.id), list.slice(0, limits.maxRevocations));

  const opening = performance.now();
  const trust = await me.restart(ownMembership);
  const tookMs = Math.round(performance.now() - opening);
  t.diagnostic(`opened in ${tookMs} ms`);
  assert.ok(tookMs < withinMs, `${tookMs} ms`);
  assert.equal(trust.revocations(mine.keys.id).length, limits.maxRevocations);
  const standing = trust.judge(laptop.peerId, await member(mine, laptop));
  await assert.rejects(standing, { code: 'revoked' });
});
