/*
 * Who may do what at one cocoon, cell by cell, against installed daemons. `box` belongs to the owner of `laptop`,
 * which holds the secret, and is shared: wholly with one owner, with its service `web` with a second, with its
 * capability `embeddings` with a third. What a person does with a command is done with the command; streams that no
 * command of this version opens are opened by a peer of the same owner.
 */

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import {
  capabilityOpenSchema,
  concat,
  encode,
  streamProtocols,
  queryOpenSchema,
  tasksOpenSchema,
  utf8,
} from '@cocoon-mesh/protocol';
import { HostileSignaling } from '../doubles/hostile-signaling.ts';
import { CocoonProcess, command, enroll, failure, sees } from './cocoon-process.ts';
import { Origin } from './origin.ts';
import { foreignName } from './shares.ts';
import { WirePeer, outcome } from './wire-peer.ts';

/** What a cell says: `ok`, a status, or the code of the refusal. */
interface Cells {
  readonly 'see device': string;
  readonly introduction: string;
  readonly session: string;
  readonly 'proxy web': string;
  readonly 'proxy hidden': string;
  readonly 'forward db': string;
  readonly query: string;
  readonly 'capability embeddings': string;
  readonly 'capability llm.chat': string;
  readonly 'read tasks': string;
  readonly 'run tasks': string;
  readonly 'token making': string;
  readonly revoke: string;
  readonly 'secret and configuration': string;
}

/** Let in: this version has nobody behind the door yet, which is said only to those who may open it. */
const letIn = 'unsupported';
/** Let in, and told that nothing was asked. */
const answered = 'answered';

const everything: Cells = {
  'see device': 'web hidden db',
  introduction: 'ok',
  session: 'ok',
  'proxy web': '200',
  'proxy hidden': '200',
  'forward db': 'connected',
  query: answered,
  'capability embeddings': letIn,
  'capability llm.chat': letIn,
  'read tasks': answered,
  'run tasks': answered,
  'token making': 'ok',
  revoke: 'ok',
  'secret and configuration': 'unsupported',
};

const nothing: Cells = {
  'see device': 'nothing',
  introduction: 'none',
  session: 'not_found',
  'proxy web': 'not_found',
  'proxy hidden': 'not_found',
  'forward db': 'not_found',
  query: 'not_found',
  'capability embeddings': 'not_found',
  'capability llm.chat': 'not_found',
  'read tasks': 'not_found',
  'run tasks': 'not_found',
  'token making': 'not_found',
  revoke: 'not_found',
  'secret and configuration': 'not_found',
};

/** Seen nothing of, and every try ends with this code. */
function refusedWith(code: string): Cells {
  const { 'see device': seen, introduction, ...rest } = nothing;
  const cells = Object.fromEntries(Object.keys(rest).map((cell) => [cell, code])) as typeof rest;
  return { 'see device': seen, introduction, ...cells };
}

const enrolled: Cells = { ...everything, 'token making': 'denied', revoke: 'denied' };
const browser: Cells = { ...enrolled, 'run tasks': 'denied' };
const coOwner: Cells = { ...enrolled, 'run tasks': 'denied' };

const guestOfService: Cells = {
  ...coOwner,
  'see device': 'web',
  'proxy hidden': 'service_not_found',
  'forward db': 'service_not_found',
  query: 'denied',
  'capability embeddings': 'denied',
  'capability llm.chat': 'denied',
  'read tasks': 'denied',
};

const guestOfCapability: Cells = {
  ...guestOfService,
  'see device': '',
  'proxy web': 'service_not_found',
  'capability embeddings': letIn,
};

const services = ['web', 'hidden', 'db'];

async function cellsOf(peer: WirePeer, box: CocoonProcess, victim: string): Promise<Cells> {
  const { peerId } = box;
  const listed = peer.mesh.devices().find((device) => device.peerId === peerId);
  const names = new Set(listed?.services.map(({ name }) => name));
  const tasks = (verb: 'read' | 'run'): Promise<string> =>
    peer.stream(peerId, streamProtocols.tasks, encode(tasksOpenSchema, { verb }));
  const capability = (protocol: string): Promise<string> =>
    peer.stream(peerId, streamProtocols.capability, encode(capabilityOpenSchema, { protocol }));
  const owner = (request: Parameters<WirePeer['owner']>[1]): Promise<string> =>
    outcome(async () => (await peer.owner(peerId, request)).error?.code ?? 'ok');
  const before = await accepted(box, peer.peerId);
  const session = await peer.session(peerId);
  return {
    'see device': listed ? services.filter((name) => names.has(name)).join(' ') : 'nothing',
    introduction: (await accepted(box, peer.peerId)) > before ? 'ok' : 'none',
    session,
    'proxy web': await peer.proxy(peerId, 'web'),
    'proxy hidden': await peer.proxy(peerId, 'hidden'),
    'forward db': await peer.forward(peerId, 'db'),
    query: await peer.stream(peerId, streamProtocols.query, encode(queryOpenSchema, { type: 'list_tasks' })),
    'capability embeddings': await capability('embeddings'),
    'capability llm.chat': await capability('llm.chat'),
    'read tasks': await tasks('read'),
    'run tasks': await tasks('run'),
    'token making': await owner({
      op: 'token',
      token: { scope: 'enroll', expires_s: 60, admin: false, services: [], capabilities: [] },
    }),
    revoke: await owner({ op: 'revoke', device: victim }),
    'secret and configuration': await outcome(async () => {
      const codes = new Set<string>();
      for (const op of ['secret', 'rotate', 'config', 'plugins', 'services'])
        codes.add((await peer.ownerRaw(peerId, packedOp(op))).error?.code ?? 'ok');
      return [...codes].join(' ');
    }),
  };
}

interface AuditLine {
  readonly event: string;
  readonly peer?: string;
  readonly code?: string | null;
}

async function auditOf(cocoon: CocoonProcess): Promise<AuditLine[]> {
  const { stdout } = await cocoon.command(['audit', '--json']);
  return stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as AuditLine);
}

/** Introductions with a peer that the device accepted, by its own audit. */
async function accepted(cocoon: CocoonProcess, peerId: string): Promise<number> {
  return (await auditOf(cocoon)).filter(({ event, peer }) => event === 'introduction' && peer === peerId)
    .length;
}

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

/** MessagePack of `{ op }`, for requests that the schema has not. */
function packedOp(op: string): Uint8Array {
  const name = utf8(op);
  return concat(new Uint8Array([0x81, 0xa2]), utf8('op'), new Uint8Array([0xa0 | name.length]), name);
}

describe('the access matrix', () => {
  const parts = new AsyncDisposableStack();
  let origin: Origin;
  let signaling: CocoonProcess;
  let laptop: CocoonProcess;
  let box: CocoonProcess;

  before(async () => {
    origin = parts.use(await Origin.start());
    signaling = parts.use(await CocoonProcess.start({ command: 'signaling', args: ['--port', '0'] }));
    laptop = parts.use(await alone('laptop'));
    box = parts.use(
      await enroll(laptop, {
        name: 'box',
        engine: 'libdatachannel',
        args: services.flatMap((name) => [
          '--service',
          `${name}:${origin.port}${name === 'db' ? ':tcp' : ''}`,
        ]),
      }),
    );
    await sees(laptop, 'box');
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
    assert.deepEqual(await byCommand(device, await foreignName(device, box.peerId)), {
      ping: 0,
      web: 0,
      hidden: 3,
    });
  });

  test('a guest of one capability sees and reaches that', async () => {
    const { device, peer } = await guest('cleo', '--capability', 'embeddings');
    assert.deepEqual(await cellsOf(peer, box, laptop.peerId), guestOfCapability);
    assert.deepEqual(await byCommand(device, await foreignName(device, box.peerId)), {
      ping: 0,
      web: 3,
      hidden: 3,
    });
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

  test('a hostile signaling server introduces whom it likes, and nobody gets in', async () => {
    const hostile = await HostileSignaling.start();
    try {
      const anna = parts.use(await alone('hanna'));
      await using stolen = await WirePeer.of(laptop, 'stolen');
      const args = ['--gateway-port', '0', '--signaling', hostile.url];
      await box.restart({ args: ['--name', 'box', ...args], input: '' });
      await laptop.restart({ args: ['--name', 'laptop', ...args] });
      await anna.restart({ args: ['--name', 'hanna', ...args] });
      await hostile.online(box.peerId, laptop.peerId, anna.peerId);
      const before = (await auditOf(box)).length;
      const strangers = [
        // Another owner's device, as it is.
        hostile.entry(anna.peerId),
        // It shows the chain of a device that is welcome.
        { ...hostile.entry(anna.peerId), membership: hostile.entry(laptop.peerId).membership },
        // It bears the id of such a device, which it cannot prove.
        { ...hostile.entry(laptop.peerId), record: hostile.entry(anna.peerId).record },
        { ...hostile.entry(anna.peerId), peer_id: stolen.peerId },
      ];
      for (const entry of strangers)
        hostile.introduce(box.peerId, await hostile.mint(entry.peer_id, box.peerId), entry);
      const refusals = async (): Promise<AuditLine[]> =>
        (await auditOf(box)).slice(before).filter(({ event }) => event.startsWith('introduction'));
      for (
        const end = Date.now() + 20_000;
        Date.now() < end && (await refusals()).length < strangers.length;
      );
      assert.deepEqual(
        (await refusals()).map(({ event }) => event),
        strangers.map(() => 'introduction.refused'),
      );
      assert.equal((await box.json<{ sessions: number }>('status')).sessions, 0);
      const seen = await box.json<{ peer_id: string }[]>('devices');
      assert.ok(!seen.some(({ peer_id: peerId }) => peerId === anna.peerId || peerId === stolen.peerId));
      // The control: whoever belongs here gets in through the same server.
      assert.equal((await laptop.command(['ping', 'box', '--count', '1'])).code, 0);
    } finally {
      await hostile.close();
    }
  });
});
