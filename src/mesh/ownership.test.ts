import assert from 'node:assert/strict';
import { test } from 'node:test';
import { generateSigningKey, readSetupToken } from '@cocoon-mesh/protocol';
import { Directory } from './directory.ts';
import { Ownership } from './ownership.ts';
import { TrustOfPeer, member, newOwner, newToken, now } from './trust-parties.contract.ts';

test('a token whose right is over by the own clock is not redeemed, so that it is not used up for nothing', async () => {
  const [root, friend] = [await newOwner(), await newOwner()];
  const [me, cocoon] = [await generateSigningKey(), await generateSigningKey()];
  const peer = await TrustOfPeer.create(me, await member(friend, me));
  const asked: string[] = [];
  const trust = peer.trust;
  const directory = new Directory({
    trust,
    self: me.peerId,
    pins: {},
    pinned: () => undefined,
    rejected: () => undefined,
  });
  const ownership = new Ownership({
    self: me.peerId,
    trust,
    directory,
    saveMembership: async () => undefined,
    send: () => true,
    request: async (build) => {
      asked.push(build(1).type);
      return { type: 'error', id: 1, code: 'token_used', message: '' };
    },
    provisional: () => undefined,
    log: () => undefined,
  });
  const claim = async (until: number): Promise<unknown> => {
    const { token } = await newToken(root, { cocoon, until });
    return ownership.claim(await readSetupToken(token), friend.keys);
  };
  await assert.rejects(claim(now), { code: 'token_expired' });
  assert.deepEqual(asked, []);
  await assert.rejects(claim(now + 1));
  assert.deepEqual(asked, ['claim']);
});
