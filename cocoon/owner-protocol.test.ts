/** Both ends of `/cocoon/owner/1`: what a peer may ask of the device with the secret, and how one is found. */

import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';
import type { ProvenPeer } from '@cocoon-mesh/mesh';
import type { OwnerQuestion } from '@cocoon-mesh/mesh/owner-client.ts';
import { askOwner, askSigner } from '@cocoon-mesh/mesh/owner-client.ts';
import type { OwnerAnswer, OwnerRequest } from '@cocoon-mesh/protocol';
import {
  MeshError,
  adminRights,
  coOwnerRights,
  concat,
  decode,
  encode,
  limits,
  memberRights,
  narrowRights,
  signRevocation,
  ownerAnswerSchema,
  streamProtocols,
  utf8,
  verifyMembership,
} from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { localStreamPair } from './local-stream.ts';
import { OwnerDesk } from './owner-desk.ts';
import { OwnerKeyring } from './owner-keyring.ts';
import {
  OwnerMesh,
  auditLines,
  claimedShare,
  memberOf,
  newOwner,
  newPeerId,
  peerOf,
} from './owner-mesh.contract.ts';
import { OwnerServer } from './owner-server.ts';

const signer = await newPeerId();
const asker = await newPeerId();
const victim = await newPeerId();
const { keys } = await newOwner();
const { keys: anna } = await newOwner();
const { share: annas } = await claimedShare(keys, anna, signer, new SteppedClock().now() / 1000);

const makeToken: OwnerRequest = {
  op: 'token',
  token: { scope: 'enroll', expires_s: 60, admin: true, services: [], capabilities: [] },
};
const question: OwnerQuestion<OwnerAnswer> = { request: makeToken, read: async (answer) => answer };
const needAdmin: readonly OwnerRequest[] = [
  makeToken,
  { op: 'revoke', device: victim },
  { op: 'revoke_token', jti: annas.jti },
  { op: 'remove_owner', owner: anna.id },
];

const filler = await signRevocation(keys, [], { kind: 'device', subject: signer, now: 1 });

let clock: SteppedClock;
/** The device with the secret, and the one that asks. */
let there: OwnerMesh;
let here: OwnerMesh;
let keyring: OwnerKeyring;
let audit: ReturnType<typeof auditLines>;

beforeEach(() => {
  clock = new SteppedClock();
  there = new OwnerMesh(signer, keys, clock);
  here = new OwnerMesh(asker, keys, clock);
  audit = auditLines();
  keyring = new OwnerKeyring(keys);
  const desk = new OwnerDesk({
    mesh: there.mesh,
    keyring,
    clock,
    audit,
    log: () => undefined,
    signalingUrl: 'ws://10.0.0.1:7400/ws',
    noteToken: async () => undefined,
    madeTokens: () => [],
  });
  void new OwnerServer({ mesh: there.mesh, desk, clock, audit });
  there.add({ peerId: signer });
  there.add({ peerId: asker });
  there.add({ peerId: victim });
  there.sharesKnown = [annas];
  here.add({ peerId: asker });
  here.add({ peerId: signer }, { signs: true });
  here.others.set(signer, there);
  here.asPeer = admin();
});

function admin(given: Partial<ProvenPeer> = {}): ProvenPeer {
  return peerOf(memberOf(keys.id, { peerId: asker, rights: [...memberRights, ...adminRights] }), given);
}

async function ask(request: OwnerRequest, peer = admin()): Promise<string> {
  here.asPeer = peer;
  try {
    await askSigner(here.mesh, clock, signer, request);
    return 'ok';
  } catch (thrown) {
    return thrown instanceof MeshError ? thrown.code : String(thrown);
  }
}

/** What comes back for bytes that no version of ours sends. */
async function raw(bytes: Uint8Array, peer = admin()): Promise<string> {
  const [asking, serving] = localStreamPair(streamProtocols.owner, new Uint8Array());
  there.handlers.get(streamProtocols.owner)?.(serving, peer);
  asking.write(bytes);
  asking.end();
  const answer = await asking.read();
  return (
    decode(ownerAnswerSchema, answer ?? new Uint8Array(), limits.maxOwnerMessageBytes).error?.code ?? 'ok'
  );
}

/** MessagePack of short texts, which no schema of ours would let out. */
function packed(message: Record<string, string>): Uint8Array {
  const texts = Object.entries(message).flat().map(utf8);
  const parts = texts.map((text) => concat(Uint8Array.of(0xa0 + text.length), text));
  return concat(Uint8Array.of(0x80 + parts.length / 2), ...parts);
}

describe('the device with the secret', () => {
  test('does for a peer of its owner with the right to administer what is asked, and notes who asked', async () => {
    for (const request of needAdmin) assert.equal(await ask(request), 'ok', request.op);
    assert.deepEqual(
      (await there.entries()).map(({ kind, subject }) => [kind, subject]),
      [
        ['device', victim],
        ['token', annas.jti],
        ['owner', anna.id],
      ],
    );
    const asked = audit.lines.filter(({ event }) => event === 'owner.asked');
    assert.deepEqual(
      asked.map(({ peer, asked: op }) => [peer, op]),
      needAdmin.map(({ op }) => [asker, op]),
    );
  });

  test('does none of it for anybody else, and notes that', async () => {
    const members = [memberRights, narrowRights(['web'], []), []];
    const others: ProvenPeer[] = [
      ...members.map((rights) => admin({ rights })),
      // Rights that somebody else's owner gave count nothing here.
      admin({ owner: anna.id, relation: 'co-owner' }),
      admin({ owner: anna.id, relation: 'guest' }),
      admin({ owner: anna.id, relation: 'shared' }),
      admin({ rights: coOwnerRights, relation: 'co-owner' }),
    ];
    for (const peer of others)
      for (const request of needAdmin) assert.equal(await ask(request, peer), 'denied', request.op);
    assert.deepEqual(there.list, []);
    assert.equal(
      audit.lines.filter(({ event }) => event === 'owner.refused').length,
      others.length * needAdmin.length,
    );
    assert.ok(!audit.lines.some(({ event }) => event === 'token.made'));
  });

  test('renews for any device of its owner that device’s own membership, with what it has and no more', async () => {
    const rights = narrowRights(['web'], []);
    there.known[1]!.member = memberOf(keys.id, { peerId: asker, rights, provisional: true });
    // What it shows may be older and wider than what its owner gave it last.
    here.asPeer = admin({ rights: memberRights });
    const { membership } = await askSigner(here.mesh, clock, signer, { op: 'renew' });
    assert.ok(membership);
    const proven = await verifyMembership(membership, asker, Math.floor(clock.now() / 1000));
    assert.deepEqual(proven.rights, rights);
    for (const relation of ['co-owner', 'guest', 'shared'] as const)
      assert.equal(await ask({ op: 'renew' }, admin({ relation })), 'denied');
  });

  test('ends nothing that is not there, and what has ended already only once', async () => {
    for (let random = 0; random < 3; random++) {
      const jti = (await claimedShare(keys, anna, victim, 1)).share.jti;
      assert.equal(await ask({ op: 'revoke_token', jti }), 'not_found');
      assert.equal(await ask({ op: 'revoke', device: await newPeerId() }), 'device_not_found');
      const { keys: nobody } = await newOwner();
      assert.equal(await ask({ op: 'remove_owner', owner: nobody.id }), 'owner_not_found');
    }
    assert.deepEqual(there.list, []);
    for (let again = 0; again < 3; again++) {
      assert.equal(await ask({ op: 'revoke', device: victim }), 'ok');
      assert.equal(await ask({ op: 'revoke_token', jti: annas.jti }), 'ok');
      assert.equal(await ask({ op: 'remove_owner', owner: anna.id }), 'ok');
      there.sharesKnown = [];
    }
    assert.equal(there.list.length, 3);
  });

  test('does not void the token with which it came itself', async () => {
    const { share } = await claimedShare(keys, anna, victim, 1);
    there.known[0]!.member = memberOf(keys.id, { peerId: signer, jti: share.jti });
    assert.equal(await ask({ op: 'revoke_token', jti: share.jti }), 'usage');
    assert.deepEqual(there.list, []);
  });

  test('does thirty things a minute for one device, of whatever kind, and for others meanwhile', async () => {
    for (let n = 0; n < 30; n++)
      assert.equal(await ask(n % 2 ? makeToken : { op: 'revoke', device: victim }), 'ok');
    assert.equal(await ask(makeToken), 'rate_limited');
    assert.equal(await ask({ op: 'revoke', device: victim }), 'rate_limited');
    const other = memberOf(keys.id, { peerId: victim, rights: [...memberRights, ...adminRights] });
    assert.equal(await ask(makeToken, peerOf(other)), 'ok');
    clock.step(60_000);
    assert.equal(await ask(makeToken), 'ok');
  });

  test('keeps the last places of the list for its own user', async () => {
    const places = limits.maxRevocations - 1_000;
    there.revocations = () => Array<string>(places).fill(filler);
    assert.equal(await ask({ op: 'revoke', device: victim }), 'overloaded');
    assert.equal(await ask({ op: 'revoke_token', jti: annas.jti }), 'overloaded');
    assert.equal(await ask({ op: 'remove_owner', owner: anna.id }), 'overloaded');
  });

  test('renews once a minute for one device', async () => {
    assert.equal(await ask({ op: 'renew' }), 'ok');
    assert.equal(await ask({ op: 'renew' }), 'rate_limited');
    clock.step(60_000);
    assert.equal(await ask({ op: 'renew' }), 'ok');
  });

  test('has no message about its secret, plugins or configuration', async () => {
    for (const op of ['secret', 'rotate', 'config', 'plugins', 'services'])
      assert.equal(await raw(packed({ op })), 'unsupported', op);
  });

  test('refuses what is malformed or too large, and says nothing of itself', async () => {
    assert.equal(await raw(utf8('nonsense')), 'bad_message');
    assert.equal(await raw(new Uint8Array()), 'bad_message');
    assert.equal(await raw(new Uint8Array(limits.maxOwnerMessageBytes + 1)), 'message_too_large');
    const wrong = { op: 'revoke', device: '../../secret' };
    assert.equal(await raw(packed(wrong)), 'bad_message');
  });

  test('drops a peer that asks and never ends', async () => {
    const [asking, serving] = localStreamPair(streamProtocols.owner, new Uint8Array());
    there.handlers.get(streamProtocols.owner)?.(serving, admin());
    const ended = assert.rejects(asking.read(), { code: 'stream_reset' });
    clock.step(limits.ownerRequestTimeoutMs);
    await ended;
    assert.equal(clock.pendingTimers, 0);
  });
});

describe('a device without the secret', () => {
  test('asks the ones that sign, and goes on to the next when one is away', async () => {
    const away = await newPeerId();
    here.known.unshift({
      member: memberOf(keys.id, { peerId: away }),
      kind: 'cocoon',
      online: true,
      signs: true,
    });
    const { token } = await askOwner(here.mesh, clock, question);
    assert.ok(token?.token.startsWith('cocoon-token-1.'));
  });

  test('goes on to the next when an answer proves nothing, and names whoever gave it if there is none', async () => {
    const liar = await newPeerId();
    here.known.unshift({
      member: memberOf(keys.id, { peerId: liar }),
      kind: 'cocoon',
      online: true,
      signs: true,
    });
    const lying = new OwnerMesh(liar, keys, clock);
    here.others.set(liar, lying);
    let lies = 0;
    lying.handle(streamProtocols.owner, (stream) => {
      lies++;
      stream.write(encode(ownerAnswerSchema, {}));
      stream.end();
    });
    const read = async (answer: OwnerAnswer): Promise<string> => {
      if (!answer.token) throw new MeshError('token_invalid');
      return answer.token.token;
    };
    assert.ok(await askOwner(here.mesh, clock, { request: makeToken, read }));
    assert.equal(lies, 1);
    here.others.delete(signer);
    await assert.rejects(askOwner(here.mesh, clock, { request: makeToken, read }), (error: MeshError) => {
      assert.equal(error.code, 'owner_key_offline');
      assert.ok(error.message.includes(liar.slice(-6)) && !error.hint.includes(liar.slice(-6)));
      assert.ok(error.hint.includes(signer.slice(-6)));
      return true;
    });
  });

  test('does not ask another one when the first says no', async () => {
    here.asPeer = admin({ rights: memberRights });
    await assert.rejects(askOwner(here.mesh, clock, question), { code: 'denied' });
  });

  test('meets other devices of its owner to learn whether they sign', async () => {
    const entry = here.known[1]!;
    entry.signs = false;
    const met: string[] = [];
    here.ping = async (...args: unknown[]) => {
      met.push(String(args[0]));
      entry.signs = true;
      throw new MeshError('device_offline');
    };
    assert.ok((await askOwner(here.mesh, clock, question)).token);
    assert.deepEqual(met, [signer]);
  });

  test('is told whom to start when none is there, also by devices whose secret was replaced', async () => {
    here.known[1]!.online = false;
    await assert.rejects(askOwner(here.mesh, clock, question), (error: MeshError) => {
      assert.equal(error.code, 'owner_key_offline');
      assert.ok(error.hint.includes(signer.slice(-6)));
      return true;
    });
    here.known[1]!.online = true;
    keyring.follow(() => [...keys.records, 'next']);
    await assert.rejects(askOwner(here.mesh, clock, question), { code: 'owner_key_offline' });
  });

  test('gives up when its caller does', async () => {
    here.others.delete(signer);
    await assert.rejects(askOwner(here.mesh, clock, question, AbortSignal.abort()));
  });
});
