import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { MembershipProof, ShareProof } from '@cocoon-mesh/protocol';
import { generateSigningKey, signRevocation } from '@cocoon-mesh/protocol';
import { refusalLevel } from './refusal.ts';
import { TrustOfPeer, member, newOwner, now, rotated, share } from './trust-parties.contract.ts';

const [mine, theirs] = [await newOwner(), await newOwner()];
const [me, device] = [await generateSigningKey(), await generateSigningKey()];

async function levelOf(
  { trust }: TrustOfPeer,
  membership: MembershipProof,
  shown?: ShareProof,
): Promise<string> {
  return trust.judge(device.peerId, membership, shown).then(() => 'believed', refusalLevel);
}

test('of what has merely ended little is made: a revoked device, an epoch before a rotation, a share that is over', async () => {
  const peer = await TrustOfPeer.create(me, await member(mine, me));
  const before = await member(mine, device);
  const given = await share(theirs, device, mine);
  assert.equal(await levelOf(peer, before), 'believed');
  assert.equal(await levelOf(peer, await member(theirs, device), given), 'believed');
  const entry = await signRevocation(theirs.keys, [], { kind: 'owner', subject: mine.keys.id, now });
  await peer.trust.learn(theirs.keys.id, undefined, [entry]);
  assert.equal(await levelOf(peer, await member(theirs, device), given), 'debug');
  const lost = await signRevocation(mine.keys, [], { kind: 'device', subject: device.peerId, now });
  await peer.trust.learn(mine.keys.id, undefined, [lost]);
  assert.equal(await levelOf(peer, before), 'debug');
  const next = await rotated(mine);
  await peer.trust.learn(mine.keys.id, next.keys.records, []);
  assert.equal(await levelOf(peer, before), 'debug');
  assert.equal(await levelOf(peer, await member(next, device)), 'believed');
});

test('a lie is told of: a stranger, a signature of somebody else, an old epoch that nobody has signed', async () => {
  const peer = await TrustOfPeer.create(me, await member(mine, me));
  const genuine = await member(mine, device);
  assert.ok(genuine.kind === 'membership');
  const other = await member(theirs, device);
  assert.ok(other.kind === 'membership');
  assert.equal(await levelOf(peer, other), 'warn');
  await peer.trust.learn(mine.keys.id, (await rotated(mine)).keys.records, []);
  assert.equal(await levelOf(peer, genuine), 'debug');
  assert.equal(await levelOf(peer, { ...genuine, membership: other.membership }), 'warn');
});
