import assert from 'node:assert/strict';
import { afterEach, before, describe, test } from 'node:test';
import type { Engine, Mesh, ProvenPeer, TrustState } from '@cocoon-mesh/mesh';
import { resetCodeOf } from '@cocoon-mesh/mesh';
import { libdatachannelEngine } from '@cocoon-mesh/mesh/engines/libdatachannel.node.ts';
import type { OwnerKeys, RevocationKind, Rights, SetupToken, SigningKey } from '@cocoon-mesh/protocol';
import {
  ResetCode,
  adminRights,
  coOwnerRights,
  createOwnerSecret,
  createSetupToken,
  encode,
  generateSigningKey,
  limits,
  memberRights,
  narrowRights,
  queryOpenSchema,
  ownerKeys,
  readSetupToken,
  rotateOwner,
  signRevocation,
  signShare,
  streamProtocols,
  tasksOpenSchema,
} from '@cocoon-mesh/protocol';
import { HostileSignaling } from '../doubles/hostile-signaling.ts';
import type { Peer, PeerOptions } from './two-peers.ts';
import { MemoryStore, listed, membershipOf, newOwner, startPeer, when } from './two-peers.ts';

/** How soon a right that was taken back has ended, signaling or not. */
const cutLimitMs = 2_000;
/** The header of a query. */
const question = encode(queryOpenSchema, { type: 'search_knowledgebase' });

const services = [
  { name: 'web', type: 'http' },
  { name: 'wiki', type: 'http' },
  { name: 'db', type: 'tcp' },
] as const;
const capabilities = [
  { protocol: 'proxy.http', version: '1.0.0' },
  { protocol: 'llm.chat', version: '1.0.0' },
] as const;

describe('owners and what they share', { timeout: 120_000 }, () => {
  let engine: Engine;
  let signaling: HostileSignaling;
  let root: OwnerKeys;
  let team: OwnerKeys;
  let peers: Peer[];
  const log: string[] = [];

  before(async () => {
    engine = await libdatachannelEngine();
  });

  afterEach(async () => {
    await Promise.all(peers.map(({ mesh }) => mesh.close()));
    await signaling.close();
    log.length = 0;
  });

  async function setUp(): Promise<void> {
    peers = [];
    signaling = await HostileSignaling.start();
    [root, team] = await Promise.all([newOwner(), newOwner()]);
  }

  async function start(name: string, owner: OwnerKeys, more: Partial<PeerOptions> = {}): Promise<Peer> {
    const peer = await startPeer({
      owner,
      engine,
      signalingUrl: signaling.url,
      name,
      logged: (line) => log.push(line),
      ...more,
    });
    peers.push(peer);
    const live = new Set<string>();
    sessions.set(peer.mesh, live);
    peer.mesh.on('session', (peerId, up) => void (up ? live.add(peerId) : live.delete(peerId)));
    return peer;
  }

  async function stop(peer: Peer): Promise<void> {
    peers.splice(peers.indexOf(peer), 1);
    await peer.mesh.close();
  }

  async function tokenFor(cocoon: Peer, rights: Rights = coOwnerRights): Promise<SetupToken> {
    const { token } = await createSetupToken(root, {
      scope: 'co-own',
      rights,
      now: seconds(),
      expires: seconds() + 3600,
      signaling: signaling.url,
      receiptKey: signaling.receiptKey,
      cocoon: cocoon.key.peerId,
    });
    return readSetupToken(token);
  }

  /** The root owner's server, and a laptop of the team that has claimed it. */
  async function sharedServer(rights?: Rights, more: Partial<PeerOptions> = {}) {
    await setUp();
    const server = await start('server', root, {
      self: { services, capabilities, location: 'attic' },
      ...more,
    });
    const laptop = await start('laptop', team);
    await laptop.mesh.claim(await tokenFor(server, rights), team);
    await listed(laptop.mesh, server.key.peerId);
    return { server, laptop };
  }

  /** One more entry behind those that a device knows. */
  async function revoke(by: Peer, owner: OwnerKeys, kind: RevocationKind, subject: string): Promise<void> {
    const list = by.mesh.revocations();
    const entry = await signRevocation(owner, list, { kind, subject, now: seconds() });
    await by.mesh.tellOwner(undefined, [...list, entry]);
  }

  describe('a cocoon that another owner has claimed', () => {
    test('is listed by that owner’s peers under its foreign name, with what it wrote for them, and can be reached', async () => {
      const { server, laptop } = await sharedServer();
      const name = `server@${root.id.slice(4, 12)}`;
      const seen = laptop.mesh.resolve(name);
      assert.deepEqual(
        [seen.peerId, seen.foreign, seen.owner, seen.location],
        [server.key.peerId, true, root.id, null],
      );
      assert.equal(seen.services.length, services.length);
      assert.throws(() => laptop.mesh.resolve('server'), { code: 'device_not_found' });
      await laptop.mesh.ping(seen.peerId);
      const heard = await peerAt(server, laptop);
      assert.equal(heard.name, `laptop@${team.id.slice(4, 12)}`);
      assert.deepEqual([heard.relation, heard.owner], ['co-owner', team.id]);
    });

    test('shows no other device of its owner, and lists none of the other owner’s', async () => {
      const { server, laptop } = await sharedServer();
      const other = await start('other', root);
      await listed(server.mesh, other.key.peerId);
      await laptop.mesh.ping(server.key.peerId);
      assert.deepEqual(names(laptop.mesh), ['laptop', `server@${root.id.slice(4, 12)}`]);
      assert.deepEqual(names(server.mesh), ['server', 'other']);
      await assert.rejects(laptop.mesh.ping(other.key.peerId));
      await assert.rejects(other.mesh.ping(laptop.key.peerId));
      laptop.mesh.disconnect(server.key.peerId);
      await when(server.mesh, 'session', () => server.mesh.sessionCount === 0);
      await assert.rejects(server.mesh.ping(laptop.key.peerId));
      assert.equal(laptop.mesh.sessionCount, 0);
    });

    test('tells a guest only of what it was granted, and lets it do no more', async () => {
      const { server, laptop } = await sharedServer(narrowRights(['web'], ['llm.chat']));
      const seen = laptop.mesh.resolve(server.key.peerId);
      assert.deepEqual(
        [...seen.services, ...seen.capabilities].map((each) => ('name' in each ? each.name : each.protocol)),
        ['web', 'proxy.http', 'llm.chat'],
      );
      for (const protocol of [streamProtocols.query, streamProtocols.tasks])
        server.mesh.handle(protocol, () => assert.fail('a guest got through'));
      assert.equal(await outcome(laptop, server, streamProtocols.query, question), ResetCode.denied);
      const header = encode(tasksOpenSchema, { verb: 'read' });
      assert.equal(await outcome(laptop, server, streamProtocols.tasks, header), ResetCode.denied);
      const heard = await peerAt(server, laptop);
      assert.equal(heard.relation, 'guest');
      assert.deepEqual(heard.rights, narrowRights(['web'], ['llm.chat']));
    });

    test('may do nothing at the peers that dial it', async () => {
      const { server, laptop } = await sharedServer();
      await laptop.mesh.ping(server.key.peerId);
      laptop.mesh.handle(streamProtocols.query, () => assert.fail('the cocoon got through'));
      assert.equal(await outcome(server, laptop, streamProtocols.query, question), ResetCode.denied);
      assert.deepEqual((await peerAt(laptop, server)).rights, []);
    });

    test('learns of the share from the peer that dials it, when signaling says nothing', async () => {
      await setUp();
      const server = await start('server', root, { self: { services } });
      const laptop = await start('laptop', team);
      await laptop.mesh.claim(await tokenFor(server), team);
      await listed(laptop.mesh, server.key.peerId);
      await stop(server);
      // A device that has forgotten, and a server that hides what it knows.
      signaling.hooks = { hidesShareFrom: (peerId) => peerId === server.key.peerId };
      const again = await start('server', root, { key: server.key, self: { services } });
      await listed(laptop.mesh, server.key.peerId);
      assert.deepEqual(again.mesh.shares(), []);
      await laptop.mesh.ping(server.key.peerId);
      assert.deepEqual(
        again.mesh.shares().map(({ coOwner }) => coOwner),
        [team.id],
      );
    });

    test('is cut off within two seconds when its owner takes the share back at another device, without signaling', async () => {
      const { server, laptop } = await sharedServer();
      const desk = await start('desk', root);
      await listed(desk.mesh, server.key.peerId);
      await desk.mesh.ping(server.key.peerId);
      await laptop.mesh.ping(server.key.peerId);
      const began = performance.now();
      await revoke(desk, root, 'owner', team.id);
      await when(server.mesh, 'session', () => !hasSession(server, laptop));
      assert.ok(performance.now() - began < cutLimitMs);
      await assert.rejects(laptop.mesh.ping(server.key.peerId));
      assert.equal(hasSession(server, laptop), false);
      assert.deepEqual(server.mesh.shares(), []);
    });

    test('is gone from the list when the other owner gives it back, and cut', async () => {
      const { server, laptop } = await sharedServer();
      await laptop.mesh.ping(server.key.peerId);
      await revoke(laptop, team, 'share', server.key.peerId);
      await when(server.mesh, 'session', () => server.mesh.sessionCount === 0);
      assert.deepEqual(names(laptop.mesh), ['laptop']);
    });

    test('goes on with fewer rights when a narrower share is signed while a session lives', async () => {
      const { server, laptop } = await sharedServer();
      const desk = await start('desk', root);
      assert.equal((await peerAt(server, laptop)).relation, 'co-owner');
      const [claimed] = desk.mesh.shares();
      assert.ok(claimed?.provisional);
      const narrow = { ...claimed, rights: narrowRights(['wiki'], []) };
      await desk.mesh.issueShare(await signShare(root, narrow, 1, seconds()));
      await when(server.mesh, 'trust', () => server.mesh.shares()[0]?.provisional === false);
      await when(laptop.mesh, 'devices', () => laptop.mesh.resolve(server.key.peerId).services.length === 1);
      assert.equal(hasSession(server, laptop), true);
      assert.deepEqual((await peerAt(server, laptop)).rights, narrowRights(['wiki'], []));
      assert.equal(await outcome(laptop, server, streamProtocols.query, question), ResetCode.denied);
    });

    test('holds on to what its own policy forbids, whatever the rights', async () => {
      const policy: PeerOptions['policy'] = (peer, { verb }) => peer.relation === 'own' || verb !== 'run';
      const { server, laptop } = await sharedServer(coOwnerRights, { policy });
      server.mesh.handle(streamProtocols.tasks, (stream) => stream.end());
      const open = (verb: 'read' | 'run'): Promise<ResetCode | null> =>
        outcome(laptop, server, streamProtocols.tasks, encode(tasksOpenSchema, { verb }));
      assert.equal(await open('read'), null);
      assert.equal(await open('run'), ResetCode.denied);
    });

    test('is claimed by nobody with a token for a device, nor by its own owner', async () => {
      await setUp();
      const server = await start('server', root);
      await assert.rejects(server.mesh.claim(await tokenFor(server), root), { code: 'already_owned' });
      const { token } = await createSetupToken(root, {
        scope: 'enroll',
        rights: memberRights,
        now: seconds(),
        expires: seconds() + 3600,
        signaling: signaling.url,
        receiptKey: signaling.receiptKey,
      });
      await assert.rejects(server.mesh.claim(await readSetupToken(token), team), { code: 'token_invalid' });
    });
  });

  describe('a device that its owner revokes', () => {
    test('is cut by every device that has a session with one that knows, without signaling', async () => {
      await setUp();
      const [desk, server, lost] = [
        await start('desk', root),
        await start('server', root),
        await start('lost', root),
      ];
      await listed(desk.mesh, server.key.peerId);
      await listed(lost.mesh, server.key.peerId);
      await desk.mesh.ping(server.key.peerId);
      await lost.mesh.ping(server.key.peerId);
      const began = performance.now();
      await revoke(desk, root, 'device', lost.key.peerId);
      await when(server.mesh, 'session', () => !hasSession(server, lost));
      assert.ok(performance.now() - began < cutLimitMs);
      assert.ok(!names(server.mesh).includes('lost'));
      await when(lost.mesh, 'session', () => !hasSession(lost, server));
      for (const { key } of [server, desk])
        await assert.rejects(lost.mesh.ping(key.peerId), { code: 'revoked' });
    });

    test('stays out after everybody has started anew and signaling still shows it', async () => {
      await setUp();
      const desk = await start('desk', root);
      const lost = await start('lost', root);
      await listed(desk.mesh, lost.key.peerId);
      await revoke(desk, root, 'device', lost.key.peerId);
      await stop(desk);
      const again = await start('desk', root, { key: desk.key, store: desk.store });
      assert.deepEqual(names(again.mesh), ['desk']);
      const refused: string[] = [];
      again.mesh.on('introduction', (_, code) => refused.push(String(code)));
      await listed(lost.mesh, again.key.peerId);
      await assert.rejects(lost.mesh.ping(again.key.peerId));
      assert.deepEqual(refused, ['revoked']);
    });

    test('is refused by one that was offline then, as soon as that has met anybody who knows', async () => {
      await setUp();
      const desk = await start('desk', root);
      const lost = await start('lost', root);
      await revoke(desk, root, 'device', lost.key.peerId);
      const late = await start('late', root);
      assert.ok(names(late.mesh).includes('lost'));
      await listed(desk.mesh, late.key.peerId);
      await desk.mesh.ping(late.key.peerId);
      await when(late.mesh, 'devices', () => !names(late.mesh).includes('lost'));
      await assert.rejects(lost.mesh.ping(late.key.peerId));
      assert.deepEqual(late.mesh.revocations(), desk.mesh.revocations());
    });

    test('hears of it itself, and says so', async () => {
      await setUp();
      const desk = await start('desk', root);
      const lost = await start('lost', root);
      await listed(lost.mesh, desk.key.peerId);
      await revoke(desk, root, 'device', lost.key.peerId);
      signaling.send(lost.key.peerId, {
        type: 'revocations',
        owner: root.id,
        list: [...desk.mesh.revocations()],
      });
      await when(lost.mesh, 'devices', () =>
        log.some((line) => /lost warn The owner has revoked/.test(line)),
      );
    });
  });

  test('a list that is longer than a HELLO is asked for in full', async () => {
    await setUp();
    const desk = await start('desk', root);
    const list: string[] = [];
    const count = limits.maxRevocationsPerMessage + limits.maxHelloRevocations + 5;
    for (let n = 0; n < count; n++)
      list.push(
        await signRevocation(root, list, { kind: 'owner', subject: `own_${'A'.repeat(43)}`, now: seconds() }),
      );
    await desk.mesh.tellOwner(undefined, list);
    const server = await start('server', root);
    await listed(server.mesh, desk.key.peerId);
    await server.mesh.ping(desk.key.peerId);
    await when(server.mesh, 'trust', () => server.mesh.revocations().length === count);
    assert.deepEqual(server.mesh.revocations(), list);
  });

  test('news goes to signaling as well, and is sent again to one that has forgotten it', async () => {
    await setUp();
    const desk = await start('desk', root);
    await revoke(desk, root, 'owner', team.id);
    const uploads = (): readonly (readonly string[])[] =>
      signaling.received.flatMap(({ message }) => (message.type === 'revocations' ? [message.list] : []));
    await signaling.until(() => uploads().length === 1);
    signaling.dropAll();
    await signaling.until(() => uploads().length === 2);
    assert.deepEqual(uploads(), [desk.mesh.revocations(), desk.mesh.revocations()]);
  });

  test('shares are given again to a signaling server that does not show them', async () => {
    const { server, laptop } = await sharedServer();
    const shares = (peer: Peer): number =>
      signaling.received.filter(({ from, message }) => from === peer.key.peerId && message.type === 'share')
        .length;
    assert.deepEqual([shares(server), shares(laptop)], [0, 0]);
    signaling.hooks = { hidesShareFrom: () => true };
    signaling.dropAll();
    await signaling.until(() => shares(server) === 1);
  });

  test('what could not be stored is not told as done, counts all the same, and is stored when it is told again', async () => {
    await setUp();
    const key = await generateSigningKey();
    const store = new FillingStore(await membershipOf(root, key.peerId));
    const desk = await start('desk', root, { key, store });
    const phone = await start('phone', root);
    await listed(desk.mesh, phone.key.peerId);
    await desk.mesh.ping(phone.key.peerId);
    store.isFull = true;
    await assert.rejects(revoke(desk, root, 'device', phone.key.peerId), {
      code: 'storage_failed',
      hint: /do the same once more before this device is started again/,
    });
    assert.ok(!desk.mesh.devices().some(({ peerId }) => peerId === phone.key.peerId));
    const list = desk.mesh.revocations();
    assert.equal(list.length, 1);
    await assert.rejects(desk.mesh.tellOwner(undefined, list), { code: 'storage_failed' });
    store.isFull = false;
    await desk.mesh.tellOwner(undefined, list);
    assert.deepEqual(store.trust?.owners[root.id]?.revocations, list);
  });

  test('neither is a membership, a share or a claim that could not be stored', async () => {
    const unstored = { code: 'storage_failed' };
    const { server } = await sharedServer();
    const [deskKey, friendKey] = [await generateSigningKey(), await generateSigningKey()];
    const full = async (owner: OwnerKeys, { peerId }: SigningKey): Promise<FillingStore> => {
      const store = new FillingStore(await membershipOf(owner, peerId));
      store.isFull = true;
      return store;
    };
    const desk = await start('desk', root, { key: deskKey, store: await full(root, deskKey) });
    await listed(desk.mesh, server.key.peerId);
    const proof = await membershipOf(root, server.key.peerId, { serial: 2 });
    await assert.rejects(desk.mesh.issueMembership(server.key.peerId, proof), unstored);
    const [claimed] = desk.mesh.shares();
    assert.ok(claimed);
    await assert.rejects(desk.mesh.issueShare(await signShare(root, claimed, 1, seconds())), unstored);
    const other = await newOwner();
    const friend = await start('friend', other, { key: friendKey, store: await full(other, friendKey) });
    await assert.rejects(friend.mesh.claim(await tokenFor(server), other), unstored);
  });

  test('a device that says that it signs is not believed without the right that the secret gives', async () => {
    await setUp();
    const rights = [...memberRights, ...adminRights];
    const desk = await start('desk', root, { signs: () => true, rights });
    const poser = await start('poser', root, { signs: () => true });
    const asker = await start('asker', root);
    for (const { key } of [desk, poser]) {
      await listed(asker.mesh, key.peerId);
      await asker.mesh.ping(key.peerId);
    }
    assert.deepEqual(
      asker.mesh.signers().map(({ name }) => name),
      ['desk'],
    );
    await desk.mesh.issueMembership(
      poser.key.peerId,
      await membershipOf(root, poser.key.peerId, { serial: 2, rights }),
    );
    await when(asker.mesh, 'devices', () => asker.mesh.signers().length === 2);
  });

  test('a chain is told of to whoever can sign it, and the signed membership takes its place at the device', async () => {
    await setUp();
    const rights = [...memberRights, ...adminRights];
    const desk = await start('desk', root, { signs: () => true, rights });
    const { token } = await createSetupToken(root, {
      scope: 'enroll',
      rights: memberRights,
      now: seconds(),
      expires: seconds() + 3600,
      signaling: signaling.url,
      receiptKey: signaling.receiptKey,
    });
    const told = new Promise<void>((resolve) => desk.mesh.on('provisional', resolve));
    const fresh = await start('fresh', root, { token: await readSetupToken(token) });
    await told;
    const [chain] = desk.mesh.provisional().memberships;
    assert.equal(chain?.peerId, fresh.key.peerId);
    assert.equal(fresh.mesh.membership?.provisional, true);
    assert.ok(chain.jti);
    const { jti, granted } = chain;
    const signed = await membershipOf(root, fresh.key.peerId, { jti, granted });
    await desk.mesh.issueMembership(fresh.key.peerId, signed);
    await when(fresh.mesh, 'trust', () => fresh.mesh.membership?.provisional === false);
    assert.deepEqual(desk.mesh.provisional().memberships, []);
    assert.deepEqual(
      desk.mesh.members().map(({ peerId }) => peerId),
      [desk.key.peerId, fresh.key.peerId],
    );
    await listed(fresh.mesh, desk.key.peerId);
    await fresh.mesh.ping(desk.key.peerId);
    assert.deepEqual(
      fresh.mesh.signers().map(({ name }) => name),
      ['desk'],
    );
    assert.deepEqual(fresh.store.membership, signed);
  });

  test('a session goes on with the rights of a newer membership', async () => {
    await setUp();
    const desk = await start('desk', root);
    const browser = await start('browser', root);
    await listed(browser.mesh, desk.key.peerId);
    await browser.mesh.ping(desk.key.peerId);
    const rights = [...memberRights, ...adminRights];
    await desk.mesh.issueMembership(
      browser.key.peerId,
      await membershipOf(root, browser.key.peerId, { rights, serial: 2 }),
    );
    assert.equal(hasSession(desk, browser), true);
    assert.deepEqual((await peerAt(desk, browser)).rights, rights);
  });

  test('after a rotation, members of the old epoch are cut and refused until they are signed for again', async () => {
    await setUp();
    const { secret, recoveryCode } = await createOwnerSecret();
    const old = await ownerKeys(secret);
    const desk = await start('desk', old);
    const server = await start('server', old);
    const thief = await start('thief', old);
    await listed(desk.mesh, server.key.peerId);
    await listed(thief.mesh, server.key.peerId);
    await desk.mesh.ping(server.key.peerId);
    await thief.mesh.ping(server.key.peerId);
    const next = await rotateOwner(old.records, recoveryCode, (await createOwnerSecret()).secret);
    for (const { key } of [desk, server])
      await desk.mesh.issueMembership(key.peerId, await membershipOf(next, key.peerId));
    await desk.mesh.tellOwner(next.records, []);
    await when(server.mesh, 'session', () => !hasSession(server, thief));
    await when(server.mesh, 'trust', () => server.mesh.membership?.epoch === 1);
    // It is told at once, not left to wait.
    await when(thief.mesh, 'session', () => !hasSession(thief, server));
    await assert.rejects(thief.mesh.ping(server.key.peerId), { code: 'membership_invalid' });
    await listed(desk.mesh, server.key.peerId);
    await desk.mesh.ping(server.key.peerId);
    assert.equal(desk.mesh.ownerRecords?.length, 2);
  });
});

function seconds(): number {
  return Math.floor(Date.now() / 1000);
}

class FillingStore extends MemoryStore {
  isFull = false;

  override async saveTrust(state: TrustState): Promise<void> {
    if (this.isFull) throw new Error('no space');
    await super.saveTrust(state);
  }
}

function names(mesh: Mesh): readonly string[] {
  return mesh.devices().map(({ name }) => name);
}

/** With whom each has a session, also those that are not in its list. */
const sessions = new WeakMap<Mesh, Set<string>>();

function hasSession(at: Peer, other: Peer): boolean {
  return sessions.get(at.mesh)?.has(other.key.peerId) === true;
}

/** As whom a device sees another that opens a stream to it. */
async function peerAt(at: Peer, from: Peer): Promise<ProvenPeer> {
  const protocol = '/cocoon/who/1';
  const seen = Promise.withResolvers<ProvenPeer>();
  at.mesh.handle(protocol, (stream, peer) => {
    stream.end();
    seen.resolve(peer);
  });
  const stream = await from.mesh.openStream(at.key.peerId, protocol, new Uint8Array());
  stream.end();
  return seen.promise;
}

/** The code with which a stream was reset, or null when it ended well. */
async function outcome(
  from: Peer,
  to: Peer,
  protocol: string,
  header: Uint8Array = new Uint8Array(),
): Promise<ResetCode | null> {
  const stream = await from.mesh.openStream(to.key.peerId, protocol, header);
  try {
    stream.end();
    while ((await stream.read()) !== null);
    return null;
  } catch (thrown) {
    return resetCodeOf(thrown);
  }
}
