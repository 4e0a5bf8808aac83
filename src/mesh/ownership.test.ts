import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { ClientMessage } from '@cocoon-mesh/protocol';
import { generateSigningKey, readSetupToken } from '@cocoon-mesh/protocol';
import { Directory } from './directory.ts';
import { Ownership } from './ownership.ts';
import { TrustOfPeer, confirmed, member, newOwner, newToken, now, share } from './trust-parties.contract.ts';

async function newPeer() {
  const [anna, eve, key] = await Promise.all([newOwner(), newOwner(), generateSigningKey()]);
  const { trust } = await TrustOfPeer.create(key, await member(anna, key));
  const sent: ClientMessage[] = [];
  const asked: string[] = [];
  const ownership = new Ownership({
    self: key.peerId,
    trust,
    directory: new Directory({
      trust,
      self: key.peerId,
      pins: {},
      pinned: () => undefined,
      rejected: () => undefined,
    }),
    saveMembership: async () => undefined,
    send: (message) => sent.push(message) > 0,
    request: async (build) => {
      asked.push(build(1).type);
      return { type: 'error', id: 1, code: 'token_used', message: '' };
    },
    provisional: () => undefined,
    log: () => undefined,
  });
  return { anna, eve, key, sent, asked, ownership };
}

test('a token whose right is over by the own clock is not redeemed, so that it is not used up for nothing', async () => {
  const { anna, eve, asked, ownership } = await newPeer();
  const cocoon = await generateSigningKey();
  const claim = async (until: number): Promise<unknown> => {
    const { token } = await newToken(eve, { cocoon, until });
    return ownership.claim(await readSetupToken(token), anna.keys);
  };
  await assert.rejects(claim(now), { code: 'token_expired' });
  assert.deepEqual(asked, []);
  await assert.rejects(claim(now + 1));
  assert.deepEqual(asked, ['claim']);
});

describe('what a device hands on for its owner', () => {
  test('a membership is of this owner, or it is handed to nobody', async () => {
    const { anna, eve, sent, ownership } = await newPeer();
    const { peerId } = await generateSigningKey();
    const device = await generateSigningKey();
    await assert.rejects(ownership.issueMembership(device.peerId, await member(eve, device)), {
      code: 'membership_invalid',
    });
    await assert.rejects(ownership.issueMembership(peerId, await member(anna, device)), {
      code: 'membership_invalid',
    });
    assert.deepEqual(sent, []);
    await ownership.issueMembership(device.peerId, await member(anna, device));
    assert.deepEqual(
      sent.map(({ type }) => type),
      ['issue'],
    );
  });

  test('a share is of this owner’s cocoon, or it is handed to nobody', async () => {
    const { anna, eve, key, sent, ownership } = await newPeer();
    const theirs = await generateSigningKey();
    // One that concerns this owner, too: its cocoon is shared with us.
    const given = await confirmed(eve, await share(eve, theirs, anna));
    await assert.rejects(ownership.issueShare(given), { code: 'membership_invalid' });
    assert.deepEqual(sent, []);
    await ownership.issueShare(await confirmed(anna, await share(anna, key, eve)));
    assert.deepEqual(
      sent.map(({ type }) => type),
      ['share'],
    );
  });
});
