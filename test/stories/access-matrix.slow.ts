/*
 * Who may do what at one cocoon, cell by cell, against installed daemons. `box` belongs to the owner of `laptop`,
 * which holds the secret, and is shared: wholly with one owner, with its service `web` with a second, with its
 * capability `embeddings` with a third, with `knowledgebase` with a fourth. What a person does with a command is done with the command; streams that no
 * command of this version opens are opened by a peer of the same owner.
 */

import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import {
  browser,
  cellsOf,
  chat,
  coOwner,
  enrolled,
  everything,
  guestOfCapability,
  guestOfKnowledge,
  guestOfService,
  nothing,
  refusedWith,
  services,
} from './access-cells.ts';
import { ask, offers, untilOffers } from './capability-client.ts';
import { CocoonProcess, command, enroll, failure, sees } from './cocoon-process.ts';
import { Origin } from './origin.ts';
import { ProviderDesk } from './provider-desk.ts';
import { foreignName } from './shares.ts';
import { WirePeer } from './wire-peer.ts';

/** Resolves when the peer's own view fits. */
async function until(peer: WirePeer, test: () => boolean): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const look = (): void => (test() ? resolve() : undefined);
  const forget = [peer.mesh.on('devices', look), peer.mesh.on('signaling', look)];
  const limit = setTimeout(() => reject(new Error('what was waited for did not come')), 20_000);
  look();
  try {
    await promise;
  } finally {
    clearTimeout(limit);
    for (const stop of forget) stop();
  }
}

interface Owner {
  readonly device: CocoonProcess;
  readonly peer: WirePeer;
}

describe('the access matrix', () => {
  const parts = new AsyncDisposableStack();
  let origin: Origin;
  let signaling: CocoonProcess;
  let laptop: CocoonProcess;
  let box: CocoonProcess;

  before(async () => {
    origin = parts.use(await Origin.start());
    const desk = parts.use(await ProviderDesk.start());
    signaling = parts.use(await CocoonProcess.start({ command: 'signaling', args: ['--port', '0'] }));
    laptop = parts.use(await alone('laptop'));
    box = parts.use(
      await enroll(laptop, {
        name: 'box',
        engine: 'libdatachannel',
        args: [
          ...services.flatMap((name) => [
            '--service',
            `${name}:${origin.port}${name === 'db' ? ':tcp' : ''}`,
          ]),
          '--plugin',
          await desk.plugin('box', [chat]),
        ],
      }),
    );
    await untilOffers(laptop, 'box', offers(chat.protocol));
  });

  after(async () => {
    await parts.disposeAsync();
  });

  async function alone(name: string): Promise<CocoonProcess> {
    return CocoonProcess.start({
      command: 'run',
      args: ['--name', name, '--gateway-port', '0', '--signaling', signaling.signaling],
      engine: 'libdatachannel',
    });
  }

  /** Another owner with a device and a further peer, who claimed a share of `box`. */
  async function guest(name: string, ...narrow: readonly string[]): Promise<Owner> {
    const device = parts.use(await alone(name));
    const { token } = await laptop.json<{ token: string }>(
      'generate-token',
      '--scope',
      'co-own',
      '--cocoon',
      'box',
      ...narrow,
    );
    const claimed = await device.command(['claim', '-', '--json'], { input: token });
    assert.equal(claimed.code, 0, claimed.stderr);
    const peer = parts.use(await WirePeer.of(device, `${name}-peer`));
    await peer.sees(box.peerId);
    return { device, peer };
  }

  /** A device that admins revoke in their cell. */
  async function victim(): Promise<string> {
    const peer = await WirePeer.of(laptop, 'victim');
    await peer[Symbol.asyncDispose]();
    return peer.peerId;
  }

  /** The same through the commands of a person: list, ping, fetch. */
  async function byCommand(
    device: CocoonProcess,
    name: string,
  ): Promise<Record<string, string | number | null>> {
    const fetched = async (service: string): Promise<number | null> =>
      (await command(device.home, ['fetch', `${name}/${service}/hello`])).code;
    return {
      ping: (await command(device.home, ['ping', name, '--count', '1'])).code,
      web: await fetched('web'),
      hidden: await fetched('hidden'),
    };
  }

  /** The same with capabilities: what it is told of, whom it gets by name, and that others stand in for what it gets not. */
  async function guestAsks({ device, peer }: Owner, ...given: readonly string[]): Promise<void> {
    assert.deepEqual(await peer.told(box.peerId), given);
    const name = await foreignName(device, box.peerId);
    const payload = { input: 'x' };
    const own = await ask(device, 'embeddings', { payload });
    assert.equal(own.device, device.name);
    const preferred = await ask(device, 'embeddings', { payload, prefer_device: name });
    const insteadOf = preferred.headers.get('cocoon-instead-of');
    if (given.includes('embeddings')) assert.deepEqual([preferred.device, insteadOf], [name, null]);
    else assert.deepEqual([preferred.device, insteadOf], [device.name, name]);
    assert.deepEqual(await failure(device.home, ['request', 'llm.chat', '--prefer-device', name]), {
      code: 'capability_not_found',
      exit: 3,
    });
  }

  test('the root owner may do everything, but its secret and configuration answer to nobody over a session', async () => {
    await using peer = await WirePeer.of(laptop, 'root-peer', { args: ['--admin'] });
    await peer.sees(box.peerId);
    // The box holds no secret, so it signs nothing; the laptop, which does, is asked.
    const { 'token making': making, revoke, ...cells } = await cellsOf(peer, box, await victim());
    const { 'token making': _making, revoke: _revoke, ...rest } = everything;
    assert.deepEqual(cells, rest);
    assert.deepEqual([making, revoke], ['owner_key_offline', 'owner_key_offline']);
    await peer.sees(laptop.peerId);
    const asked = await cellsOf(peer, laptop, await victim());
    assert.deepEqual(
      [asked['token making'], asked.revoke, asked['secret and configuration']],
      ['ok', 'ok', 'unsupported'],
    );
    assert.deepEqual(await byCommand(laptop, 'box'), { ping: 0, web: 0, hidden: 0 });
  });

  test('an enrolled device uses everything and makes nothing', async () => {
    await using peer = await WirePeer.of(laptop, 'enrolled');
    await peer.sees(box.peerId);
    await peer.sees(laptop.peerId);
    assert.deepEqual(await cellsOf(peer, box, laptop.peerId), enrolled);
    assert.deepEqual((await cellsOf(peer, laptop, box.peerId))['token making'], 'denied');
  });

  test('a browser uses everything but does not run tasks', async () => {
    await using peer = await WirePeer.of(laptop, 'tab', { kind: 'browser' });
    await peer.sees(box.peerId);
    assert.deepEqual(await cellsOf(peer, box, laptop.peerId), browser);
  });

  test('a co-owner uses everything at the one cocoon, passes nothing on and runs no tasks', async () => {
    const { device, peer } = await guest('anna');
    assert.deepEqual(await cellsOf(peer, box, laptop.peerId), coOwner);
    await sees(device, await foreignName(device, box.peerId));
    assert.deepEqual(await byCommand(device, await foreignName(device, box.peerId)), {
      ping: 0,
      web: 0,
      hidden: 0,
    });
    // Only that one: the owner's other device is nobody to her.
    assert.deepEqual(await cellsOf(peer, laptop, box.peerId), nothing);
    assert.equal((await failure(device.home, ['ping', 'laptop'])).code, 'device_not_found');
    assert.equal((await failure(device.home, ['ping', 'box'])).code, 'device_not_found');
  });

  test('a guest of one service sees and reaches that', async () => {
    const { device, peer } = await guest('bert', '--service', 'web');
    assert.deepEqual(await cellsOf(peer, box, laptop.peerId), guestOfService);
    await guestAsks({ device, peer });
    assert.deepEqual(await byCommand(device, await foreignName(device, box.peerId)), {
      ping: 0,
      web: 0,
      hidden: 3,
    });
  });

  test('a guest of one capability sees and reaches that', async () => {
    const { device, peer } = await guest('cleo', '--capability', 'embeddings');
    assert.deepEqual(await cellsOf(peer, box, laptop.peerId), guestOfCapability);
    await guestAsks({ device, peer }, 'embeddings');
    assert.deepEqual(await byCommand(device, await foreignName(device, box.peerId)), {
      ping: 0,
      web: 3,
      hidden: 3,
    });
  });

  test('a guest of the knowledge base searches that and asks nothing else', async () => {
    const documents = await mkdtemp(join(tmpdir(), 'cocoon-documents-'));
    parts.defer(() => rm(documents, { recursive: true, force: true }));
    await writeFile(join(documents, 'notes.md'), '# Notes\n\nThe numbat sleeps at night.\n');
    await box.json('kb', 'add', documents);
    const { device, peer } = await guest('nora', '--capability', 'knowledgebase');
    assert.deepEqual(await cellsOf(peer, box, laptop.peerId), guestOfKnowledge);
    const name = await foreignName(device, box.peerId);
    assert.deepEqual(await byCommand(device, name), { ping: 0, web: 3, hidden: 3 });
    const search = ['kb', 'search', 'numbat', '--device', name, '--timeout', '20s'];
    const { rows } = await device.json<{ rows: { device: string; snippet: string }[] }>(...search);
    assert.deepEqual([rows.length, rows[0]?.device], [1, name]);
    assert.match(rows[0]?.snippet ?? '', /numbat sleeps/);
    assert.deepEqual(await failure(device.home, ['tasks', 'list', '--device', name]), {
      code: 'denied',
      exit: 4,
    });
    // Of a guest of another capability nothing is found.
    const other = await guest('olga', '--capability', 'embeddings');
    const foreign = await foreignName(other.device, box.peerId);
    const refused = await failure(other.device.home, [...search.slice(0, 3), '--device', foreign]);
    assert.deepEqual(refused, { code: 'denied', exit: 4 });
  });

  test('a revoked owner is a stranger again', async () => {
    const { device, peer } = await guest('dora');
    assert.equal(await peer.session(box.peerId), 'ok');
    const { owner } = await device.json<{ owner: string }>('status');
    await laptop.json('owners', 'remove', owner);
    await until(peer, () => !peer.lists(box.peerId));
    assert.deepEqual(await cellsOf(peer, box, laptop.peerId), nothing);
    const seen = await device.json<{ peer_id: string }[]>('devices');
    assert.ok(!seen.some(({ peer_id: peerId }) => peerId === box.peerId));
  });

  test('a revoked device is let in nowhere', async () => {
    const peer = parts.use(await WirePeer.of(laptop, 'thief'));
    await peer.sees(box.peerId);
    assert.equal(await peer.session(box.peerId), 'ok');
    await laptop.json('revoke', 'thief');
    await until(peer, () => peer.mesh.signaling.state === 'refused');
    // It is no longer signed in anywhere, is told why, and what it remembers opens no door.
    assert.deepEqual(await cellsOf(peer, box, laptop.peerId), refusedWith('revoked'));
    const seen = await laptop.json<{ name: string }[]>('devices');
    assert.ok(!seen.some(({ name }) => name === 'thief'));
  });

  test('a stranger sees and reaches nothing', async () => {
    const eve = parts.use(await alone('eve'));
    const peer = parts.use(await WirePeer.of(eve, 'eve-peer'));
    assert.deepEqual(await cellsOf(peer, box, laptop.peerId), nothing);
    assert.deepEqual(await byCommand(eve, box.peerId), { ping: 3, web: 3, hidden: 3 });
  });

  test('a stranger with a stolen access token reads what signaling knows until it ends, and nothing of a device', async () => {
    const holder = parts.use(await WirePeer.of(laptop, 'holder'));
    const state = holder.mesh.signaling;
    assert.ok(state.state === 'connected');
    const http = signaling.signaling.replace(/^ws/, 'http').replace(/\/ws$/, '');
    const asThief = async (path: string, init: RequestInit = {}): Promise<number> =>
      (await fetch(`${http}${path}`, { ...init, headers: { authorization: `Bearer ${state.accessToken}` } }))
        .status;
    assert.equal(await asThief('/cocoons'), 200);
    assert.equal(await asThief('/claims', { method: 'POST', body: '{}' }), 400);
    assert.equal(await asThief('/auth/token', { method: 'POST', body: '{}' }), 400);
    for (const path of ['/cocoons', '/proxy/box/web/', '/metrics']) {
      const answer = await fetch(`${box.gateway}${path}`, {
        headers: { authorization: `Bearer ${state.accessToken}` },
      });
      assert.equal(answer.status, path === '/metrics' ? 200 : 401, path);
    }
    const eve = parts.use(await alone('mallory'));
    const peer = parts.use(await WirePeer.of(eve, 'mallory-peer'));
    assert.deepEqual(await cellsOf(peer, box, laptop.peerId), nothing);
    await laptop.json('revoke', 'holder');
    let status = 200;
    for (const end = Date.now() + 2_000; status === 200 && Date.now() < end;)
      status = await asThief('/cocoons');
    assert.equal(status, 403);
  });
});
