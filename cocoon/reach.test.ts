import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { Server } from 'node:http';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { LocalCapabilities } from '@cocoon-mesh/capabilities';
import { scriptedProvider } from '@cocoon-mesh/capabilities/scripted-provider.contract.ts';
import type { Mesh, ProvenPeer } from '@cocoon-mesh/mesh';
import type { Rights } from '@cocoon-mesh/protocol';
import {
  adminRights,
  describeProtocol,
  descriptionSchema,
  decode,
  encodeServiceOpen,
  httpProtocol,
  memberRights,
  narrowRights,
  systemClock,
  tcpProtocol,
} from '@cocoon-mesh/protocol';
import { fetchThrough } from '@cocoon-mesh/proxy';
import { Capabilities } from './capabilities.ts';
import { localStreamPair } from './local-stream.ts';
import { Reach } from './reach.ts';
import { Services } from './services.ts';

type Handler = Parameters<Mesh['handle']>[1];

let origin: Server;
const handlers = new Map<string, Handler>();
/** What was asked for by somebody who may not use it. */
let denied: string[] = [];

before(async () => {
  origin = createServer((_request, response) => response.end('served')).listen(0, '127.0.0.1');
  await once(origin, 'listening');
  const { port } = origin.address() as AddressInfo;
  const services = await Services.open({
    path: '/nonexistent/services.json',
    configured: [
      { name: 'web', port, type: 'http' },
      { name: 'other', port, type: 'http' },
      { name: 'db', port, type: 'tcp' },
    ],
    insisted: true,
    clock: systemClock,
    changed: async () => undefined,
  });
  const mesh = {
    handle: (protocol: string, handler: Handler) => handlers.set(protocol, handler),
    on: () => () => undefined,
  };
  const reach = new Reach(
    mesh as unknown as Mesh,
    services,
    systemClock,
    ({ peerId }, { protocol, verb, name }) => denied.push(`${peerId} ${protocol} ${verb} ${name}`),
  );
  const [clock, log] = [systemClock, () => undefined];
  const local = new LocalCapabilities({ clock, log });
  local.add(scriptedProvider());
  const capabilities = new Capabilities({ mesh: mesh as unknown as Mesh, services, local, clock, log });
  assert.deepEqual(capabilities.servicesOf({ peerId: 'nobody', online: true } as never), []);
  after(() => reach.close());
});

after(() => {
  origin.closeAllConnections();
  origin.close();
});

/** Of another owner: what its own owner lets it do is worth nothing here. */
function peer(rights: Rights): ProvenPeer {
  const membership = {
    owner: 'o',
    epoch: 0,
    peerId: 'p',
    rights: memberRights,
    granted: 0,
    expires: null,
    until: null,
    jti: null,
    grantHash: null,
    serial: 0,
    provisional: false,
  };
  return { peerId: 'p', name: 'guest', owner: 'o', relation: 'guest', membership, rights };
}

/** What a peer with these rights gets of a service: the status, or the code of the error. */
async function get(rights: Rights, service: string): Promise<string> {
  const [asking, serving] = localStreamPair(httpProtocol, encodeServiceOpen({ service }));
  handlers.get(httpProtocol)?.(serving, peer(rights));
  try {
    const { status, body } = await fetchThrough(asking, { path: '/' }, { clock: systemClock });
    for await (const _ of body) void _;
    return String(status);
  } catch (thrown) {
    return (thrown as { code: string }).code;
  }
}

/** The first record that a peer with these rights gets when it asks for a connection: 6 is `connected`. */
async function connect(rights: Rights, service: string): Promise<number | undefined> {
  const [asking, serving] = localStreamPair(tcpProtocol, encodeServiceOpen({ service }));
  handlers.get(tcpProtocol)?.(serving, peer(rights));
  asking.end();
  const first = (await asking.read())?.[0];
  while ((await asking.read().catch(() => null)) !== null);
  return first;
}

describe('a service of this device', () => {
  test('is served to whoever may use it, and looks like none to everybody else', async () => {
    assert.equal(await get(memberRights, 'web'), '200');
    assert.equal(await get(narrowRights(['web'], []), 'web'), '200');
    assert.equal(await get(narrowRights(['web'], []), 'other'), 'service_not_found');
    assert.equal(await get(narrowRights(['web'], []), 'nothing'), 'service_not_found');
    assert.equal(await get([], 'web'), 'service_not_found');
    assert.equal(await get(adminRights, 'web'), 'service_not_found');
    assert.equal(await get([{ protocol: 'tcp', verbs: ['use'], names: ['*'] }], 'web'), 'service_not_found');
    assert.equal(
      await get([{ protocol: 'http', verbs: ['read'], names: ['*'] }], 'web'),
      'service_not_found',
    );
  });

  test('that somebody may not use is told to this device, and what is not here is not', async () => {
    denied = [];
    await get(narrowRights(['web'], []), 'web');
    await get(narrowRights(['web'], []), 'nothing');
    assert.deepEqual(denied, []);
    await get(narrowRights(['web'], []), 'other');
    await connect(narrowRights(['web'], []), 'db');
    assert.deepEqual(denied, ['p http use other', 'p tcp use db']);
  });

  test('of type tcp has no HTTP, and says so only to those who may use it', async () => {
    assert.equal(await get(memberRights, 'db'), 'wrong_service_type');
    assert.equal(await get(narrowRights(['web'], []), 'db'), 'service_not_found');
  });

  test('is connected to by whoever may, of either type', async () => {
    assert.equal(await connect(memberRights, 'db'), 6);
    assert.equal(await connect(memberRights, 'web'), 6);
    assert.equal(await connect(narrowRights(['web'], []), 'db'), 5);
    assert.equal(await connect([{ protocol: 'http', verbs: ['use'], names: ['*'] }], 'db'), 5);
  });

  test('is described to those who may use it, as is a provider, and to nobody else', async () => {
    const described = async (rights: Rights) => {
      const [asking, serving] = localStreamPair(describeProtocol, new Uint8Array());
      handlers.get(describeProtocol)?.(serving, peer(rights));
      asking.end();
      const bytes = await asking.read();
      assert.equal(await asking.read(), null);
      const { services, capabilities } = decode(descriptionSchema, bytes ?? new Uint8Array(), 10_000);
      return [...services.map(({ name }) => name), ...capabilities.map(({ protocol }) => protocol)];
    };
    assert.deepEqual(await described(memberRights), ['db', 'other', 'web', 'demo.echo']);
    assert.deepEqual(await described(narrowRights(['web'], [])), ['web']);
    assert.deepEqual(await described(narrowRights([], ['demo.echo'])), ['demo.echo']);
    assert.deepEqual(await described(narrowRights([], ['demo.other'])), []);
    assert.deepEqual(await described([]), []);
  });
});
