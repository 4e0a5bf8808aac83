import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { ClientMessage } from '@cocoon-mesh/protocol';
import { generateSigningKey } from '@cocoon-mesh/protocol';
import { Directory } from './directory.ts';
import { Ownership } from './ownership.ts';
import { TrustOfPeer, confirmed, member, newOwner, share } from './trust-parties.contract.ts';

describe('what a device hands on for its owner', () => {
  async function peer() {
    const [anna, eve, key] = await Promise.all([newOwner(), newOwner(), generateSigningKey()]);
    const { trust } = await TrustOfPeer.create(key, await member(anna, key));
    const sent: ClientMessage[] = [];
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
      request: () => Promise.reject(new Error('nothing is asked')),
      provisional: () => undefined,
      log: () => undefined,
    });
    return { anna, eve, key, sent, ownership };
  }

  test('a membership is of this owner, or it is handed to nobody', async () => {
    const { anna, eve, sent, ownership } = await peer();
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
    const { anna, eve, key, sent, ownership } = await peer();
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
