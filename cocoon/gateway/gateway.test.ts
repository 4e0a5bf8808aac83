import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { IncomingMessage, OutgoingHttpHeaders, Server } from 'node:http';
import { createServer, request as httpRequest } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, beforeEach, describe, test } from 'node:test';
import type { Device, Mesh, MeshEvents } from '@cocoon-mesh/mesh';
import { MeshError, systemClock } from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { deviceView } from '../device-view.ts';
import { Reach } from '../reach.ts';
import { Services } from '../services.ts';
import type { FeatureRoutes } from './feature-routes.ts';
import { Gateway } from './gateway.ts';

const token = 'test-token-of-the-gateway-that-is-long-enough';
const peerId = '12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp';
const mine = `own_${'m'.repeat(43)}`;
const theirs = `own_Th-_${'t'.repeat(39)}`;

/** What a service saw. */
interface Seen {
  readonly method: string;
  readonly url: string;
  readonly rawHeaders: readonly string[];
}

interface Answer {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  readonly text: string;
}

const clock = new SteppedClock();
/** Tasks and queries have tests of their own. */
const noFeatures = {} as FeatureRoutes;
let origin: Server;
let gateway: Gateway;
let services: Services;
let seen: Seen[] = [];
/** Fields that the service's answers have besides those that they always have. */
let answered: string[] = [];

/** What `lonelyMesh` knows besides itself; nobody of these can be reached. */
let others: Device[] = [];
/** To whom streams were to be opened. */
let dialled: string[] = [];

/** A device that reaches nobody but itself: its own services go the whole way, only no session lies in between. */
function lonelyMesh(): Mesh {
  const own = () => ({
    peerId,
    kind: 'cocoon' as const,
    name: 'laptop',
    owner: mine,
    foreign: false,
    online: true,
    self: true,
    services: services.list().map(({ name, type }) => ({ name, type })),
    capabilities: [{ protocol: 'proxy.http', version: '1.0.0' }],
    location: null,
    load: 0,
    path: null,
    engine: null,
    rttMs: null,
    problem: null,
  });
  const refuse = async () => {
    throw new MeshError('device_offline');
  };
  const unused = () => {
    throw new MeshError('internal');
  };
  return {
    peerId,
    instance: 'x',
    owner: mine,
    signaling: { state: 'connecting' },
    sessionCount: 0,
    streamCount: 0,
    devices: () => [own(), ...others],
    resolve: (name) => {
      const found = [own(), ...others].find((device) => device.name === name || device.peerId === name);
      if (found) return found;
      throw new MeshError('device_not_found', `No device called ${name} is known`);
    },
    start: () => undefined,
    ready: async () => undefined,
    openStream: async (peer) => {
      dialled.push(peer);
      throw new MeshError('device_offline');
    },
    ping: refuse,
    handle: () => undefined,
    disconnect: () => undefined,
    ownerRecords: null,
    membership: null,
    isRevoked: false,
    signedMembership: () => null,
    members: () => [],
    shares: () => [],
    provisional: () => ({ memberships: [], shares: [] }),
    issueMembership: unused,
    issueShare: unused,
    revocations: () => [],
    tellOwner: unused,
    claim: unused,
    signers: () => [],
    describe: async () => undefined,
    acceptName: async () => undefined,
    on:
      <K extends keyof MeshEvents>(_event: K, _listener: MeshEvents[K]) =>
      () =>
        undefined,
    close: async () => undefined,
  };
}

before(async () => {
  origin = createServer((request, response) => {
    seen.push({ method: request.method ?? '', url: request.url ?? '', rawHeaders: request.rawHeaders });
    response.writeHead(200, [
      'Set-Cookie',
      'own=1; Domain=mesh.localhost; Path=/',
      'Set-Cookie',
      'cocoon_app=stolen; Path=/',
      'X-Content-Type-Options',
      'whatever',
      'Content-Security-Policy',
      "default-src 'self'",
      ...answered,
    ]);
    response.end('hello');
  });
  origin.on('upgrade', (request: IncomingMessage, socket) => {
    seen.push({ method: 'UPGRADE', url: request.url ?? '', rawHeaders: request.rawHeaders });
    socket.end('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n');
  });
  origin.listen(0, '127.0.0.1');
  await once(origin, 'listening');
  const { port } = origin.address() as AddressInfo;
  services = await Services.open({
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
  const mesh = lonelyMesh();
  gateway = await Gateway.start({
    port: 0,
    token,
    mesh,
    reach: new Reach(mesh, services, systemClock),
    clock,
    devices: () => mesh.devices().map((device) => deviceView(device, services.list(), [])),
    features: noFeatures,
  });
});

after(async () => {
  const closed = gateway.close();
  clock.step(10_000);
  await closed;
  origin.closeAllConnections();
  origin.close();
});

beforeEach(() => {
  seen = [];
  answered = [];
  others = [];
  dialled = [];
});

function other(name: string, changes: Partial<Device>): Device {
  const own = lonelyMesh().resolve('laptop');
  return { ...own, self: false, name, peerId: `peer-of-${name.replace('@', '-')}`, ...changes };
}

/** A cocoon that another owner shares with this one. */
function shared(name: string, changes: Partial<Device> = {}): Device {
  return other(`${name}@${theirs.slice(4, 12)}`, { owner: theirs, foreign: true, ...changes });
}

async function ask(
  path: string,
  headers: OutgoingHttpHeaders = {},
  { method = 'GET', host = '127.0.0.1' }: { method?: string; host?: string } = {},
): Promise<Answer> {
  const request = httpRequest({ host, port: gateway.port, path, method, headers, agent: false });
  request.end();
  const answered = once(request, 'response') as Promise<[IncomingMessage]>;
  const upgraded = once(request, 'upgrade') as Promise<[IncomingMessage]>;
  answered.catch(() => undefined);
  upgraded.catch(() => undefined);
  const [response] = await Promise.race([answered, upgraded]);
  let text = '';
  if (response.statusCode === 101) response.socket.destroy();
  else for await (const chunk of response) text += String(chunk);
  return { status: response.statusCode ?? 0, headers: response.headers, text };
}

function fieldsSeen(): string {
  return JSON.stringify(seen.map(({ rawHeaders, url }) => [rawHeaders, url]));
}

const bearer = { authorization: `Bearer ${token}` };

describe('the token of the gateway', () => {
  test('is needed for everything but health and metrics', async () => {
    for (const path of [
      '/cocoons',
      '/events',
      '/proxy/laptop/web/',
      '/nothing',
      '/cocoons/laptop/services',
    ]) {
      const { status, text } = await ask(path);
      assert.equal(status, 401, path);
      assert.equal((JSON.parse(text) as { code: string }).code, 'unauthorized');
    }
    assert.equal((await ask('/healthz')).status, 200);
    assert.match((await ask('/metrics')).text, /^cocoon_streams_open 0$/m);
    assert.deepEqual(seen, []);
  });

  test('is not guessed, not taken from a cookie, a query or another scheme, and not taken twice', async () => {
    for (const headers of [
      { authorization: 'Bearer wrong' },
      { authorization: `Bearer ${token}x` },
      { authorization: `Bearer ${token.slice(1)}` },
      { authorization: `Basic ${token}` },
      { authorization: token },
      { cookie: `token=${token}` },
      { 'cocoon-authorization': 'Bearer wrong', ...bearer },
      { 'cocoon-authorization': [`Bearer ${token}`, 'Bearer x'] },
    ])
      assert.equal((await ask('/proxy/laptop/web/', headers)).status, 401, JSON.stringify(headers));
    assert.equal((await ask(`/proxy/laptop/web/?token=${token}`)).status, 401);
    assert.deepEqual(seen, []);
  });

  test('never reaches a service, in whichever field it came, and the service’s own Authorization does', async () => {
    assert.equal((await ask('/proxy/laptop/web/a', bearer)).status, 200);
    const own = { authorization: 'Basic b3du', 'cocoon-authorization': `bearer ${token}` };
    assert.equal((await ask('/proxy/laptop/web/b', own)).status, 200);
    const both = { ...bearer, 'cocoon-authorization': `Bearer ${token}` };
    assert.equal((await ask('/proxy/laptop/web/c', both)).status, 200);
    assert.equal(seen.length, 3);
    assert.ok(!fieldsSeen().includes(token));
    assert.ok(!/cocoon-authorization/i.test(fieldsSeen()));
    assert.ok(fieldsSeen().includes('Basic b3du'));
  });
});

describe('a web page', () => {
  test('of another origin is refused, with the token or without, and told nothing by CORS', async () => {
    const { port } = gateway;
    for (const headers of [
      { origin: 'https://evil.example' },
      { origin: 'null' },
      { origin: `http://localhost:${port + 1}` },
      { origin: `https://127.0.0.1:${port}` },
      { 'sec-fetch-site': 'cross-site' },
      { 'sec-fetch-site': 'same-site' },
    ])
      for (const path of ['/proxy/laptop/web/', '/cocoons', '/metrics', '/healthz']) {
        const answer = await ask(path, { ...bearer, ...headers });
        assert.equal(answer.status, 403, `${path} ${JSON.stringify(headers)}`);
        assert.equal(answer.headers['access-control-allow-origin'], undefined);
      }
    assert.deepEqual(seen, []);
  });

  test('gets nothing by a name that was made to point here', async () => {
    const { port } = gateway;
    for (const host of [
      'evil.example',
      `evil.example:${port}`,
      'localhost',
      '127.0.0.1',
      `127.0.0.1:${port + 1}`,
      `localhost.:${port}`,
      `mesh.localhost:${port}`,
      `a.b.mesh.localhost:${port}`,
      `mesh.localhost.evil.example:${port}`,
      `web--laptop-0.mesh.localhost:${port + 1}`,
    ]) {
      const { status, text } = await ask('/proxy/laptop/web/', { ...bearer, host });
      assert.equal(status, 403, host);
      assert.equal((JSON.parse(text) as { code: string }).code, 'foreign_host');
    }
    assert.deepEqual(seen, []);
  });

  test('that came through /proxy runs in a sandbox, whatever the service says', async () => {
    const { headers } = await ask('/proxy/laptop/web/', bearer);
    assert.ok(String(headers['content-security-policy']).split(', ').includes('sandbox'));
    assert.equal(headers['x-content-type-options'], 'nosniff');
  });
});

describe('the gateway', () => {
  test('answers by each of its names and on both families', async () => {
    const { port } = gateway;
    for (const host of [`127.0.0.1:${port}`, `localhost:${port}`, `[::1]:${port}`, `LOCALHOST:${port}`])
      assert.equal((await ask('/cocoons', { ...bearer, host })).status, 200, host);
    const six = await ask('/cocoons', bearer, { host: '::1' }).catch((error: NodeJS.ErrnoException) => error);
    if (six instanceof Error) assert.equal(six.code, 'EADDRNOTAVAIL');
    else assert.equal(six.status, 200);
  });

  test('lists devices, their services, and who can do what', async () => {
    const { cocoons } = JSON.parse((await ask('/cocoons', bearer)).text) as {
      cocoons: Record<string, unknown>[];
    };
    assert.equal(cocoons[0]?.['name'], 'laptop');
    assert.equal(cocoons[0]?.['this'], true);
    for (const device of ['laptop', peerId]) {
      const { text } = await ask(`/cocoons/${device}/services`, bearer);
      assert.equal((JSON.parse(text) as { services: unknown[] }).services.length, 3);
    }
    const able = async (query: string) => {
      const { status, text } = await ask(`/cocoons/by-capability?${query}`, bearer);
      return status === 200 ? (JSON.parse(text) as { cocoons: unknown[] }).cocoons.length : status;
    };
    assert.equal(await able('protocol=proxy.http&version=^1.0.0'), 1);
    assert.equal(await able('protocol=proxy.http'), 1);
    assert.equal(await able('protocol=proxy.http&version=^2.0.0'), 0);
    assert.equal(await able('protocol=tasks'), 0);
    assert.equal(await able('protocol=tasks&version=nonsense'), 400);
    assert.equal(await able('version=1'), 400);
  });

  test('names the least loaded first that can do it, and nobody who is not asked unless named', async () => {
    const tasks = [{ protocol: 'tasks', version: '1.2.0' }];
    others = [
      other('busy', { load: 0.9, capabilities: tasks }),
      other('idle', { load: 0.1, capabilities: [{ protocol: 'tasks', version: '1.0.0' }, ...tasks] }),
      other('next', { load: 0, capabilities: [{ protocol: 'tasks', version: '2.0.0' }] }),
      other('off', { load: 0, online: false, capabilities: tasks }),
      other('taken', { load: 0, problem: 'The name belongs to another device', capabilities: tasks }),
      // A foreign cocoon called like one of mine, idle and with a high version.
      shared('idle', { load: 0, capabilities: [{ protocol: 'tasks', version: '1.99.0' }] }),
    ];
    const able = async (version: string) => {
      const { text } = await ask(`/cocoons/by-capability?protocol=tasks&version=${version}`, bearer);
      return (JSON.parse(text) as { cocoons: { name: string }[] }).cocoons.map(({ name }) => name);
    };
    assert.deepEqual(await able('^1.0.0'), ['idle', 'busy']);
    assert.deepEqual(await able('%5E1.1.0'), ['idle', 'busy']);
    assert.deepEqual(await able('%3E%3D1'), ['next', 'idle', 'busy']);
    assert.deepEqual(await able('1.0.x'), ['idle']);
    for (const version of ['nonsense', '^^1', '1.0.0%20or', '1'.repeat(300)]) {
      const answer = await ask(`/cocoons/by-capability?protocol=tasks&version=${version}`, bearer);
      assert.equal(answer.status, 400);
      assert.equal(answer.headers['content-type'], 'application/problem+json');
      // As at signaling.
      assert.equal((JSON.parse(answer.text) as { code: string }).code, 'bad_message');
    }
  });

  test('knows a cocoon of another owner as name@owner, escaped or not, and by its PeerId', async () => {
    const gpu = shared('gpu');
    others = [other('gpu', {}), gpu];
    const { cocoons } = JSON.parse((await ask('/cocoons', bearer)).text) as {
      cocoons: { name: string; owner: string; foreign: boolean }[];
    };
    assert.deepEqual(
      cocoons.map(({ name, owner, foreign }) => [name, owner, foreign]),
      [
        ['laptop', mine, false],
        ['gpu', mine, false],
        [gpu.name, theirs, true],
      ],
    );
    for (const name of [gpu.name, encodeURIComponent(gpu.name), gpu.peerId]) {
      assert.equal((await ask(`/cocoons/${name}/services`, bearer)).status, 200, name);
      assert.equal((await ask(`/proxy/${name}/web/x`, bearer)).status, 503, name);
    }
    assert.deepEqual(dialled, [gpu.peerId, gpu.peerId, gpu.peerId]);
    await ask('/proxy/gpu/web/', bearer);
    assert.equal(dialled.at(-1), 'peer-of-gpu');
  });

  test('says the same of what is unknown and what is nobody’s to know', async () => {
    const code = async (path: string) => {
      const { status, text } = await ask(path, bearer);
      return `${status} ${(JSON.parse(text) as { code: string }).code}`;
    };
    assert.equal(await code('/proxy/nobody/web/'), '404 device_not_found');
    assert.equal(await code('/cocoons/nobody/services'), '404 device_not_found');
    assert.equal(await code('/proxy/laptop%40Th-_tttt/web/'), '404 device_not_found');
    assert.equal(await code('/cocoons/laptop@Th-_tttt/services'), '404 device_not_found');
    assert.equal(await code('/cocoons/%E0%A4%A/services'), '404 device_not_found');
    assert.equal(await code('/proxy/%2e%2E/web/'), '404 device_not_found');
    assert.equal(await code('/proxy/laptop/nothing/'), '404 service_not_found');
    assert.equal(await code('/proxy/laptop/No%2Fthing/'), '404 service_not_found');
    assert.equal(await code('/proxy/laptop/db/'), '400 wrong_service_type');
    assert.equal(await code('/tasks'), '404 not_found');
    assert.equal(await code('/proxy/laptop'), '404 not_found');
  });

  test('passes path and query on as they are, and an empty path as the root', async () => {
    for (const path of ['', '/', '?a=1', '/a/../b//c%2Fd?x=/y#', '/?'])
      assert.equal((await ask(`/proxy/laptop/web${path}`, bearer)).status, 200, path);
    assert.deepEqual(
      seen.map(({ url }) => url),
      ['/', '/', '/?a=1', '/a/../b//c%2Fd?x=/y#', '/?'],
    );
  });

  test('keeps a client that follows a path of the service at the service', async () => {
    const { port } = origin.address() as AddressInfo;
    for (const [sent, received] of [
      ['/', '/proxy/laptop/web/'],
      ['/after?a=/b#c', '/proxy/laptop/web/after?a=/b#c'],
      ['/a//b%2F', '/proxy/laptop/web/a//b%2F'],
      ['/.hidden/a..b?up=/../', '/proxy/laptop/web/.hidden/a..b?up=/../'],
      [`http://localhost:${port}/after`, '/proxy/laptop/web/after'],
      [`http://localhost:${port}//after`, '/proxy/laptop/web//after'],
    ] as const) {
      answered = ['Location', sent, 'content-location', sent, 'X-Location', sent];
      const { headers } = await ask('/proxy/laptop/web/x', bearer);
      assert.equal(headers.location, received);
      assert.equal(headers['content-location'], received);
      assert.equal(headers['x-location'], sent);
    }
  });

  test('lets no path of a service lead a client that follows it to another service', async () => {
    for (const path of [
      '/../other/',
      '/a/../../../../cocoons',
      '/%2e%2E/other/',
      '/..\\other/',
      '/.\t./other/',
    ]) {
      answered = ['Location', path];
      const { location = '' } = (await ask('/proxy/laptop/web/x', bearer)).headers;
      const followed = new URL(location, `http://127.0.0.1:${gateway.port}/proxy/laptop/web/x`);
      assert.ok(followed.pathname.startsWith('/proxy/laptop/web/'), `${path} led to ${followed.href}`);
    }
  });

  test('leaves a Location that is no path of the service as it is', async () => {
    for (const location of ['//cdn.example/a', 'https://login.example/', 'next', '../up', '?page=2', '#a']) {
      answered = ['Location', location, 'Content-Location', location];
      const { headers } = await ask('/proxy/laptop/web/x', bearer);
      assert.equal(headers.location, location);
      assert.equal(headers['content-location'], location);
    }
  });

  test('upgrades a connection for whoever may, and for nobody else', async () => {
    const upgrade = { connection: 'Upgrade', upgrade: 'echo' };
    assert.equal((await ask('/proxy/laptop/web/', { ...upgrade, ...bearer })).status, 101);
    assert.equal(seen.length, 1);
    assert.equal((await ask('/proxy/laptop/web/', upgrade)).status, 401);
    assert.equal(
      (await ask('/proxy/laptop/web/', { ...upgrade, ...bearer, origin: 'http://evil.example' })).status,
      403,
    );
    assert.equal(
      (await ask('/proxy/laptop/web/', { ...upgrade, ...bearer, host: 'evil.example' })).status,
      403,
    );
    assert.equal(seen.length, 1);
  });
});

describe('an origin of a service', () => {
  async function signIn(service = 'web'): Promise<{ host: string; cookie: string; url: URL }> {
    const device = lonelyMesh().resolve('laptop');
    const url = new URL(gateway.appLink(device, service));
    const { status, headers } = await ask(url.pathname + url.search, { host: url.host });
    assert.equal(status, 303);
    const [cookie = ''] = headers['set-cookie'] ?? [];
    assert.match(cookie, /; HttpOnly; SameSite=Strict$/);
    assert.ok(!/domain/i.test(cookie));
    return { host: url.host, cookie: cookie.split(';')[0] ?? '', url };
  }

  test('lets a browser in by a link that works once and for a minute', async () => {
    const { host, cookie, url } = await signIn();
    assert.equal((await ask('/', { host, cookie })).status, 200);
    assert.equal((await ask('/', { host })).status, 401);
    assert.equal((await ask('/', { host, cookie: 'cocoon_app=wrong' })).status, 401);
    assert.equal((await ask(url.pathname + url.search, { host })).status, 401);
    const late = new URL(gateway.appLink(lonelyMesh().resolve('laptop'), 'web'));
    clock.step(61_000);
    assert.equal((await ask(late.pathname + late.search, { host })).status, 401);
  });

  test('opens that service only: not another one, not a route of the gateway', async () => {
    const { host, cookie } = await signIn('web');
    const other = await signIn('other');
    assert.notEqual(other.host, host);
    assert.equal((await ask('/', { host: other.host, cookie })).status, 401);
    const foreign = new URL(gateway.appLink(lonelyMesh().resolve('laptop'), 'other'));
    assert.equal((await ask(foreign.pathname + foreign.search, { host })).status, 401);
    assert.equal((await ask('/cocoons', { cookie })).status, 401);
    seen = [];
    assert.equal((await ask('/cocoons', { host, cookie })).status, 200);
    assert.equal(seen[0]?.url, '/cocoons');
  });

  test('keeps its cookie and our token from the service, and the service’s cookies to itself', async () => {
    const { host, cookie } = await signIn();
    const { headers } = await ask('/', {
      host,
      cookie: `a=1; ${cookie}; b=2`,
      'cocoon-authorization': `Bearer ${token}`,
      ...bearer,
    });
    assert.ok(!fieldsSeen().includes('cocoon_app'));
    assert.ok(!fieldsSeen().includes(token));
    assert.match(fieldsSeen(), /a=1; {2}?b=2|a=1; b=2/);
    assert.deepEqual(headers['set-cookie'], ['own=1; Path=/']);
    assert.equal(headers['content-security-policy'], "default-src 'self'");
  });

  test('has the paths of the service, so a Location that is one stays as it is', async () => {
    const { host, cookie } = await signIn();
    const { port } = origin.address() as AddressInfo;
    for (const location of ['/after?a#b', `http://127.0.0.1:${port}/after?a#b`]) {
      answered = ['Location', location];
      assert.equal((await ask('/', { host, cookie })).headers.location, '/after?a#b');
    }
  });

  test('takes what changes something, and WebSockets, only from pages of its own', async () => {
    const { host, cookie } = await signIn();
    const own = { host, cookie, origin: `http://${host}` };
    const foreign = { host, cookie, origin: 'http://mesh.localhost:7400' };
    const upgrade = { connection: 'Upgrade', upgrade: 'echo' };
    assert.equal((await ask('/', own, { method: 'POST' })).status, 200);
    assert.equal((await ask('/', { ...own, ...upgrade })).status, 101);
    seen = [];
    assert.equal((await ask('/', { host, cookie }, { method: 'POST' })).status, 403);
    assert.equal((await ask('/', foreign, { method: 'DELETE' })).status, 403);
    assert.equal((await ask('/', foreign)).status, 403);
    assert.equal((await ask('/', { host, cookie, ...upgrade })).status, 403);
    assert.equal((await ask('/', { ...foreign, ...upgrade })).status, 403);
    assert.equal(
      (await ask('/', { host, cookie, 'sec-fetch-site': 'same-site', 'sec-fetch-dest': 'image' })).status,
      403,
    );
    assert.deepEqual(seen, []);
    assert.equal(
      (await ask('/', { host, cookie, 'sec-fetch-site': 'same-site', 'sec-fetch-dest': 'document' })).status,
      200,
    );
  });

  test('of a foreign device is a host name too, and another one than that of a device of mine', () => {
    const hostOf = (device: Device) => new URL(gateway.appLink(device, 'web')).hostname;
    const foreign = hostOf(shared('laptop'));
    assert.match(foreign, /^web--laptop-[0-9a-f]{10}\.mesh\.localhost$/);
    assert.notEqual(foreign, hostOf(lonelyMesh().resolve('laptop')));
  });

  test('is refused for names that are too long for a host', () => {
    const device = { ...lonelyMesh().resolve('laptop'), name: 'a'.repeat(31) };
    assert.throws(() => gateway.appLink(device, 'b'.repeat(31)), { code: 'unsupported' });
  });
});
