/*
 * The row of the access matrix for a hostile signaling server, cell by cell: it introduces to `box` whom it likes,
 * with tickets of its own, and peers that obey nothing try everything. `box` was set up at an honest server; from then
 * on nobody tells it the truth but by proofs.
 */

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Engine } from '@cocoon-mesh/mesh';
import { selectEngine } from '@cocoon-mesh/mesh/engines/select.node.ts';
import type { MembershipProof, OwnerKeys, OwnerRecords, ShareProof, SigningKey } from '@cocoon-mesh/protocol';
import {
  coOwnerRights,
  createSetupToken,
  generateSigningKey,
  memberRights,
  readSetupToken,
  redeem,
  signDeviceRecord,
  signMembership,
  signShare,
  verifyMembership,
  verifyShare,
} from '@cocoon-mesh/protocol';
import type { TicketChange } from '../doubles/hostile-signaling.ts';
import { HostileSignaling } from '../doubles/hostile-signaling.ts';
import { membershipOf, newOwner } from '../mesh/two-peers.ts';
import { cellsOf, chat, enrolled, guestOfService, refusedWith, services } from './access-cells.ts';
import { offers, untilOffers } from './capability-client.ts';
import { CocoonProcess, enroll, sees } from './cocoon-process.ts';
import type { LawlessOptions, Shown } from './lawless-peer.ts';
import { LawlessPeer } from './lawless-peer.ts';
import { Origin } from './origin.ts';
import { ProviderDesk } from './provider-desk.ts';
import { listedAs } from './shares.ts';
import { WirePeer } from './wire-peer.ts';

const now = Math.floor(Date.now() / 1000);

async function recordOf(key: SigningKey, name: string): Promise<string> {
  const seq = Date.now();
  return signDeviceRecord(key, { kind: 'cocoon', name, seq, services: [], capabilities: [], iat: now });
}

function recordsOf(proof: MembershipProof): OwnerRecords {
  return proof.kind === 'membership' ? proof.records : proof.redemption.records;
}

/** What the peer's library has proved of itself. */
function membershipIn({ store }: WirePeer): MembershipProof {
  assert.ok(store.membership);
  return store.membership;
}

describe('the access matrix behind a hostile signaling server', () => {
  const parts = new AsyncDisposableStack();
  let engine: Engine;
  let hostile: HostileSignaling;
  let laptop: CocoonProcess;
  let box: CocoonProcess;
  /** A device of the owner's, which has left: its key and what it may show. */
  let member: WirePeer;
  /** Of an owner that may use the service `web`. */
  let guest: WirePeer;
  let guestShare: ShareProof;
  let thief: WirePeer;
  let stranger: WirePeer;
  /** The owner that the server is itself. */
  let mallory: OwnerKeys;
  /** A second one, for nobody shares with itself. */
  let claimant: OwnerKeys;
  /** Calls itself the owner of the box, by records that anybody has who ever met a device of that owner. */
  let pretender: OwnerKeys;

  before(async () => {
    ({ engine } = await selectEngine('auto'));
    const origin = parts.use(await Origin.start());
    const signaling = parts.use(await CocoonProcess.start({ command: 'signaling', args: ['--port', '0'] }));
    const alone = async (name: string): Promise<CocoonProcess> =>
      parts.use(
        await CocoonProcess.start({
          command: 'run',
          args: ['--name', name, '--gateway-port', '0', '--signaling', signaling.signaling],
          engine: 'libdatachannel',
        }),
      );
    laptop = await alone('laptop');
    const desk = parts.use(await ProviderDesk.start());
    const offered = [
      ...services.flatMap((name) => ['--service', `${name}:${origin.port}${name === 'db' ? ':tcp' : ''}`]),
      '--plugin',
      await desk.plugin('box', [chat]),
    ];
    box = parts.use(await enroll(laptop, { name: 'box', engine: 'libdatachannel', args: offered }));
    await sees(laptop, 'box');

    member = await WirePeer.of(laptop, 'member');
    await member.sees(box.peerId);
    assert.equal(await member.session(box.peerId), 'ok');
    await member[Symbol.asyncDispose]();

    const bert = await alone('bert');
    const narrow = ['--scope', 'co-own', '--cocoon', 'box', '--service', 'web'];
    const { token } = await laptop.json<{ token: string }>('generate-token', ...narrow);
    const claimed = await bert.command(['claim', '-', '--json'], { input: token });
    assert.equal(claimed.code, 0, claimed.stderr);
    guest = await WirePeer.of(bert, 'bert-peer');
    await guest.sees(box.peerId);
    await guest[Symbol.asyncDispose]();
    const share = guest.store.trust?.shares[0];
    assert.ok(share);
    guestShare = share;

    thief = await WirePeer.of(laptop, 'thief');
    await thief.sees(box.peerId);
    assert.equal(await thief.session(box.peerId), 'ok');
    await laptop.json('revoke', 'thief');
    for (const end = Date.now() + 20_000; (await listedAs(box, thief.peerId)) !== null;)
      assert.ok(Date.now() < end, 'the box did not hear of the revocation');

    stranger = await WirePeer.of(await alone('hanna'), 'hanna-peer');

    hostile = await HostileSignaling.start();
    parts.defer(() => hostile.close());
    const args = ['--gateway-port', '0', '--signaling', hostile.url];
    await box.restart({ args: ['--name', 'box', ...args, ...offered], input: '' });
    await laptop.restart({ args: ['--name', 'laptop', ...args] });
    await hostile.online(box.peerId, laptop.peerId);
    await untilOffers(box, 'box', offers(chat.protocol));

    mallory = await newOwner();
    claimant = await newOwner();
    const proof = membershipIn(member);
    const { owner, epoch } = await verifyMembership(proof, member.peerId, null);
    pretender = { ...mallory, id: owner, epoch, records: recordsOf(proof) };
  });

  after(async () => {
    await parts.disposeAsync();
  });

  function lawless(key: SigningKey, shown: Shown, more: Partial<LawlessOptions> = {}): LawlessPeer {
    return new LawlessPeer({ server: hostile, engine, key, target: box, shown, ...more });
  }

  /** What a device of this owner truly is. */
  async function of(owner: OwnerKeys, key: SigningKey): Promise<Shown> {
    return { record: await recordOf(key, 'mallory'), membership: await membershipOf(owner, key.peerId) };
  }

  async function shownBy(peer: WirePeer): Promise<Shown> {
    return { record: await recordOf(peer.key, 'peer'), membership: membershipIn(peer) };
  }

  async function ofGuest(): Promise<Shown> {
    return { ...(await shownBy(guest)), share: guestShare };
  }

  /** By a token for the box that mallory made, and claimed. */
  async function shareOfMallory(): Promise<ShareProof> {
    const { token } = await createSetupToken(mallory, {
      scope: 'co-own',
      rights: memberRights,
      now,
      expires: now + 3600,
      signaling: hostile.url,
      receiptKey: hostile.receiptKey,
      cocoon: box.peerId,
    });
    const read = await readSetupToken(token);
    const redemption = await redeem(read, claimant.key, claimant.id, claimant.records);
    const receipt = await hostile.receipt(read.grant.jti, claimant.id);
    return { kind: 'claim', redemption, receipt };
  }

  /** A device of the owner's that has joined through the server, and left. */
  async function newMember(name: string): Promise<WirePeer> {
    const peer = await WirePeer.of(laptop, name);
    await peer[Symbol.asyncDispose]();
    return peer;
  }

  test('whoever belongs here gets in through it as through any other, so that the rest is no accident', async () => {
    assert.equal((await laptop.command(['ping', 'box', '--count', '1'])).code, 0);
    await using peer = lawless(member.key, await shownBy(member));
    assert.deepEqual(await cellsOf(peer, box, laptop.peerId), enrolled);
  });

  test('its own peer, signed by itself, gets nothing, neither there nor where the secret is', async () => {
    const key = await generateSigningKey();
    for (const target of [box, laptop]) {
      await using peer = lawless(key, await of(mallory, key), { target });
      assert.deepEqual(await cellsOf(peer, target, member.peerId), refusedWith('denied'), target.name);
    }
  });

  test('its own peer gets nothing with the membership of a device that is welcome', async () => {
    const key = await generateSigningKey();
    await using peer = lawless(key, { ...(await of(mallory, key)), membership: membershipIn(member) });
    assert.deepEqual(await cellsOf(peer, box, laptop.peerId), refusedWith('membership_invalid'));
  });

  test('its own peer gets nothing with a membership that it signed in the name of the owner', async () => {
    const key = await generateSigningKey();
    const { peerId } = key;
    const membership = await signMembership(pretender, { peerId, serial: 9, rights: memberRights, now });
    await using peer = lawless(key, { ...(await of(mallory, key)), membership });
    assert.deepEqual(await cellsOf(peer, box, laptop.peerId), refusedWith('membership_invalid'));
  });

  test('its own peer gets nothing with a share that it gave itself, in its own name or in that of the owner', async () => {
    const own = await shareOfMallory();
    const proven = await verifyShare(own, null);
    const forged = await signShare(pretender, { ...proven, owner: pretender.id }, 9, now);
    for (const share of [own, forged]) {
      const key = await generateSigningKey();
      await using peer = lawless(key, { ...(await of(claimant, key)), share });
      assert.deepEqual(await cellsOf(peer, box, laptop.peerId), refusedWith('denied'), share.kind);
    }
  });

  test('its own peer gets nothing with the share of another owner', async () => {
    const key = await generateSigningKey();
    await using peer = lawless(key, { ...(await of(mallory, key)), share: guestShare });
    assert.deepEqual(await cellsOf(peer, box, laptop.peerId), refusedWith('denied'));
  });

  test('its own peer gets nothing under the id of a device that is welcome, with all that this one shows', async () => {
    const key = await generateSigningKey();
    const borrowed = { ...key, peerId: member.peerId };
    await using peer = lawless(borrowed, await shownBy(member));
    assert.deepEqual(await cellsOf(peer, box, laptop.peerId), refusedWith('proof_failed'));
  });

  test('a guest gets through it what it was given and no more, also with a share that was widened', async () => {
    const given = await ofGuest();
    await using peer = lawless(guest.key, given);
    assert.deepEqual(await cellsOf(peer, box, laptop.peerId), guestOfService);

    const proven = await verifyShare(guestShare, null);
    const share = await signShare(pretender, { ...proven, rights: coOwnerRights }, 9, now);
    await using greedy = lawless(guest.key, { ...given, share });
    assert.deepEqual(await cellsOf(greedy, box, laptop.peerId), guestOfService);
  });

  test('a guest that shows in HELLO a membership of the owner that nobody gave it gets nothing', async () => {
    const given = await ofGuest();
    const { peerId } = guest;
    const membership = await signMembership(pretender, { peerId, serial: 9, rights: memberRights, now });
    for (const forged of [membership, membershipIn(member)]) {
      const hello = { record: given.record, membership: forged };
      await using peer = lawless(guest.key, given, { hello });
      const { 'see device': seen, ...cells } = await cellsOf(peer, box, laptop.peerId);
      const { 'see device': _, ...refused } = refusedWith('membership_invalid');
      assert.deepEqual(cells, refused);
      // Both say HELLO at once, so it may have heard what it was given, and nothing else.
      assert.match(seen, /^(web|nothing)$/);
    }
  });

  test('a device that was revoked gets nothing, though the server forgets it', async () => {
    await using peer = await thief.elsewhere(hostile.url);
    await peer.sees(box.peerId);
    // What the server was told it tells whom it likes.
    const expected = { ...refusedWith('revoked'), 'see device': 'web hidden db' };
    assert.deepEqual(await cellsOf(peer, box, laptop.peerId), expected);
    await using careless = lawless(thief.key, await shownBy(thief));
    assert.deepEqual(await cellsOf(careless, box, laptop.peerId), refusedWith('revoked'));
  });

  test('the device of a stranger believes nothing of it either, and gets nothing', async () => {
    await using peer = await stranger.elsewhere(hostile.url);
    assert.deepEqual(await cellsOf(peer, box, laptop.peerId), refusedWith('denied'));
  });

  const badTickets: Record<string, (self: string, box: string) => Promise<string>> = {
    'for another device': (_, to) => hostile.mint(laptop.peerId, to),
    'for the other direction': (self, to) => hostile.mint(to, self),
    'that has ended': mintWith({ age: 120 }),
    'from the future': mintWith({ age: -120 }),
    'that lasts too long': mintWith({ lifetime: 3600 }),
    'that somebody else signed': async (self, to) =>
      hostile.mint(self, to, { key: await generateSigningKey() }),
  };

  function mintWith(change: TicketChange): (self: string, to: string) => Promise<string> {
    return (self, to) => hostile.mint(self, to, change);
  }

  for (const [which, mint] of Object.entries(badTickets))
    test(`who belongs here gets nothing with a ticket ${which}`, async () => {
      const welcome = await newMember(which.split(' ').at(-1) ?? '');
      const ticket = (): Promise<string> => mint(welcome.peerId, box.peerId);
      await using peer = lawless(welcome.key, await shownBy(welcome), { ticket });
      assert.deepEqual(await cellsOf(peer, box, laptop.peerId), refusedWith('ticket_invalid'));
    });

  test('who belongs here gets nothing with a ticket that was used', async () => {
    const used = await hostile.mint(member.peerId, box.peerId);
    const ticket = async (): Promise<string> => used;
    const first = lawless(member.key, await shownBy(member), { ticket });
    assert.equal(await first.session(box.peerId), 'ok');
    await first[Symbol.asyncDispose]();
    await using peer = lawless(member.key, await shownBy(member), { ticket });
    assert.deepEqual(await cellsOf(peer, box, laptop.peerId), refusedWith('ticket_used'));
  });

  test('none of it leaves anybody in the list who does not belong there', async () => {
    const rows = await box.json<{ peer_id: string }[]>('devices');
    const seen = new Set(rows.map(({ peer_id: peerId }) => peerId));
    assert.ok(seen.has(laptop.peerId) && seen.has(member.peerId));
    for (const { peerId } of [thief, guest, stranger]) assert.ok(!seen.has(peerId));
    assert.equal((await laptop.command(['ping', 'box', '--count', '1'])).code, 0);
  });
});
