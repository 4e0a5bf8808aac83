/** What owners hand on to each other's devices through a real signaling server, on real engines. */

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, before, beforeEach, describe, test } from 'node:test';
import type { Engine, Mesh } from '@cocoon-mesh/mesh';
import { libdatachannelEngine } from '@cocoon-mesh/mesh/engines/libdatachannel.node.ts';
import type { OwnerKeys, RevocationKind, SetupToken } from '@cocoon-mesh/protocol';
import {
  coOwnerRights,
  createOwnerSecret,
  createSetupToken,
  ownerKeys,
  readSetupToken,
  rotateOwner,
  signRevocation,
  signShare,
  systemClock,
} from '@cocoon-mesh/protocol';
import type { SignalingServer } from '@cocoon-mesh/signaling';
import { startSignaling } from '@cocoon-mesh/signaling';
import type { Peer, PeerOptions } from './two-peers.ts';
import { listed, membershipOf, newOwner, startPeer, when } from './two-peers.ts';

const cutLimitMs = 2_000;

describe('owners, over signaling', { timeout: 120_000 }, () => {
  let engine: Engine;
  let folder: string;
  let signaling: SignalingServer;
  let root: OwnerKeys;
  let team: OwnerKeys;
  const peers = new Set<Peer>();

  before(async () => {
    engine = await libdatachannelEngine();
  });

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'cocoon-owners-'));
    signaling = await serve(0, 'first.db');
    [root, team] = await Promise.all([newOwner(), newOwner()]);
  });

  afterEach(async () => {
    await Promise.all([...peers].map(stop));
    await signaling.close();
    await rm(folder, { recursive: true });
  });

  async function serve(port: number, database: string): Promise<SignalingServer> {
    const quiet = (): void => undefined;
    return startSignaling({
      host: '127.0.0.1',
      port,
      databaseUrl: `sqlite:${join(folder, database)}`,
      clock: systemClock,
      log: { debug: quiet, info: quiet, warn: quiet, error: quiet },
    });
  }

  async function start(name: string, owner: OwnerKeys, more: Partial<PeerOptions> = {}): Promise<Peer> {
    const peer = await startPeer({ owner, engine, signalingUrl: signaling.url, name, ...more });
    peers.add(peer);
    return peer;
  }

  async function stop(peer: Peer): Promise<void> {
    peers.delete(peer);
    await peer.mesh.close();
  }

  async function tokenFor(cocoon: Peer): Promise<SetupToken> {
    const { token } = await createSetupToken(root, {
      scope: 'co-own',
      rights: coOwnerRights,
      now: seconds(),
      expires: seconds() + 3600,
      signaling: signaling.url,
      receiptKey: signaling.receiptKey,
      cocoon: cocoon.key.peerId,
    });
    return readSetupToken(token);
  }

  async function revoke(by: Peer, owner: OwnerKeys, kind: RevocationKind, subject: string): Promise<void> {
    const list = by.mesh.revocations();
    const entry = await signRevocation(owner, list, { kind, subject, now: seconds() });
    await by.mesh.tellOwner(undefined, [...list, entry]);
  }

  test('a cocoon that is offline when it is claimed learns of it at its next connection, and serves every device of its co-owner', async () => {
    const server = await start('server', root);
    const laptop = await start('laptop', team);
    const phone = await start('phone', team);
    const token = await tokenFor(server);
    await stop(server);
    await laptop.mesh.claim(token, team);
    assert.deepEqual(foreign(laptop.mesh), []);
    const again = await start('server', root, { key: server.key, store: server.store });
    for (const peer of [laptop, phone]) {
      await listed(peer.mesh, server.key.peerId);
      await peer.mesh.ping(server.key.peerId);
    }
    assert.deepEqual(
      again.mesh.shares().map(({ coOwner }) => coOwner),
      [team.id],
    );
    assert.equal(again.mesh.devices().length, 1);
  });

  test('a token that another owner has used is refused, and does not spoil the share that came of it', async () => {
    const server = await start('server', root);
    const desk = await start('desk', root);
    const laptop = await start('laptop', team);
    const late = await newOwner();
    const stranger = await start('stranger', late);
    const token = await tokenFor(server);
    await laptop.mesh.claim(token, team);
    await when(desk.mesh, 'trust', () => desk.mesh.shares().length === 1);
    const [claimed] = desk.mesh.shares();
    assert.ok(claimed);
    await assert.rejects(stranger.mesh.claim(token, late), { code: 'token_used' });
    await desk.mesh.issueShare(await signShare(root, claimed, 1, seconds()));
    await when(server.mesh, 'trust', () => server.mesh.shares()[0]?.provisional === false);
    await assert.rejects(stranger.mesh.claim(token, late), { code: 'token_used' });
    await listed(laptop.mesh, server.key.peerId);
    await laptop.mesh.ping(server.key.peerId);
  });

  test('a claimed share that is signed reaches cocoon and co-owner, and stays', async () => {
    const server = await start('server', root);
    const desk = await start('desk', root, { signs: () => true });
    const laptop = await start('laptop', team);
    const waiting = new Promise<void>((resolve) => desk.mesh.on('provisional', resolve));
    await laptop.mesh.claim(await tokenFor(server), team);
    await waiting;
    const [claimed] = desk.mesh.provisional().shares;
    assert.ok(claimed);
    await desk.mesh.issueShare(await signShare(root, claimed, 1, seconds()));
    for (const { mesh } of [server, laptop])
      await when(mesh, 'trust', () => mesh.shares()[0]?.provisional === false);
    assert.deepEqual(desk.mesh.provisional().shares, []);
    await listed(laptop.mesh, server.key.peerId);
    await laptop.mesh.ping(server.key.peerId);
  });

  test('an owner that is removed is cut within two seconds, sees the cocoon no more, and nothing brings it back', async () => {
    const server = await start('server', root);
    const desk = await start('desk', root);
    const laptop = await start('laptop', team);
    await laptop.mesh.claim(await tokenFor(server), team);
    await listed(laptop.mesh, server.key.peerId);
    await laptop.mesh.ping(server.key.peerId);
    const began = performance.now();
    await revoke(desk, root, 'owner', team.id);
    await when(server.mesh, 'session', () => server.mesh.sessionCount === 0);
    await when(laptop.mesh, 'devices', () => foreign(laptop.mesh).length === 0);
    assert.ok(performance.now() - began < cutLimitMs);
    await stop(laptop);
    const again = await start('laptop', team, { key: laptop.key, store: laptop.store });
    assert.deepEqual(foreign(again.mesh), []);
    await assert.rejects(again.mesh.ping(server.key.peerId));
  });

  test('a device that is revoked is refused at sign-in and says so, also after a new start of everything', async () => {
    const desk = await start('desk', root);
    const lost = await start('lost', root);
    const refused = when(lost.mesh, 'signaling', () => lost.mesh.signaling.state === 'refused');
    await revoke(desk, root, 'device', lost.key.peerId);
    await refused;
    assert.equal(lost.mesh.signaling.state === 'refused' && lost.mesh.signaling.code, 'revoked');
    await stop(lost);
    await assert.rejects(start('lost', root, { key: lost.key, store: lost.store }), { code: 'revoked' });
  });

  test('a signaling server that has lost its database gets back what devices know, and they enforce it meanwhile', async () => {
    const server = await start('server', root);
    const desk = await start('desk', root);
    const lost = await start('lost', root);
    const laptop = await start('laptop', team);
    await laptop.mesh.claim(await tokenFor(server), team);
    await listed(laptop.mesh, server.key.peerId);
    await revoke(desk, root, 'device', lost.key.peerId);
    await when(server.mesh, 'trust', () => server.mesh.revocations().length === 1);
    const { port } = signaling;
    await signaling.close();
    signaling = await serve(port, 'second.db');
    for (const { mesh } of [server, desk, laptop])
      await when(mesh, 'signaling', () => mesh.signaling.state === 'connected');
    await listed(laptop.mesh, server.key.peerId);
    await laptop.mesh.ping(server.key.peerId);
    await assert.rejects(start('lost', root, { key: lost.key }), { code: 'revoked' });
    assert.ok(!server.mesh.devices().some(({ peerId }) => peerId === lost.key.peerId));
  });

  test('a device that was offline when its owner rotated the secret gets its new membership at its next sign-in', async () => {
    const { secret, recoveryCode } = await createOwnerSecret();
    const old = await ownerKeys(secret);
    const desk = await start('desk', old);
    const server = await start('server', old);
    await listed(desk.mesh, server.key.peerId);
    await stop(server);
    const next = await rotateOwner(old.records, recoveryCode, (await createOwnerSecret()).secret);
    for (const { key } of [desk, server])
      await desk.mesh.issueMembership(key.peerId, await membershipOf(next, key.peerId));
    await desk.mesh.tellOwner(next.records, []);
    const again = await start('server', old, { key: server.key, store: server.store });
    assert.equal(again.mesh.membership?.epoch, 1);
    await listed(desk.mesh, server.key.peerId);
    await desk.mesh.ping(server.key.peerId);
  });
});

function seconds(): number {
  return Math.floor(Date.now() / 1000);
}

function foreign(mesh: Mesh): readonly string[] {
  return mesh
    .devices()
    .filter((device) => device.foreign)
    .map(({ name }) => name);
}
