import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { limits, systemClock } from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { isHealthy } from './service-health.ts';
import type { ServiceSpec } from './service-spec.ts';
import { parseServices } from './service-spec.ts';
import { Services } from './services.ts';

let folder: string;
let path: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cocoon-services-'));
  path = join(folder, 'services.json');
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

interface Given {
  readonly configured?: readonly string[];
  readonly insisted?: boolean;
  readonly clock?: SteppedClock;
  readonly health?: (service: ServiceSpec) => Promise<boolean>;
  readonly changed?: () => void;
}

function open({
  configured = [],
  insisted = false,
  clock = new SteppedClock(),
  health,
  changed,
}: Given = {}): Promise<Services> {
  return Services.open({
    path,
    configured: parseServices(configured),
    insisted,
    clock,
    changed: async () => changed?.(),
    health: health ?? (async () => true),
  });
}

function names(services: Services): string[] {
  return services.list().map(({ name }) => name);
}

describe('the services of a device', () => {
  test('that were added and removed at run time stay so after a restart', async () => {
    const first = await open({ configured: ['web:80', 'db:5432'] });
    await first.add({ name: 'extra', port: 90, type: 'http' });
    await first.remove('db');
    assert.deepEqual(names(first), ['extra', 'web']);
    assert.deepEqual(names(await open({ configured: ['web:80', 'db:5432'] })), ['extra', 'web']);
  });

  test('that a start asks for by flag are there, whatever was done at run time', async () => {
    const first = await open({ configured: ['web:80'] });
    await first.remove('web');
    await first.add({ name: 'api', port: 90, type: 'http' });
    const second = await open({ configured: ['web:81', 'api:91'], insisted: true });
    assert.deepEqual(
      second.list().map(({ name, port }) => `${name}:${port}`),
      ['api:91', 'web:81'],
    );
  });

  test('have one name each, and are told to others when they change', async () => {
    let told = 0;
    const services = await open({ configured: ['web:80'], changed: () => told++ });
    await assert.rejects(services.add({ name: 'web', port: 81, type: 'http' }), { code: 'service_exists' });
    await assert.rejects(services.remove('nothing'), { code: 'service_not_found' });
    assert.equal(told, 0);
    await services.remove('web');
    await services.add({ name: 'web', port: 81, type: 'http' });
    assert.equal(told, 2);
    assert.equal(services.get('web')?.port, 81);
  });

  test('in a damaged file are refused, and the file is left as it is', async () => {
    for (const text of ['{', '{}', '{"added":["web"],"removed":[]}', '{"added":[1],"removed":[]}']) {
      await writeFile(path, text);
      await assert.rejects(open(), { code: 'database_corrupt' }, text);
      assert.equal(await readFile(path, 'utf8'), text);
    }
  });

  test('are asked how they do at the start and then every fifteen seconds, until the device ends', async () => {
    const clock = new SteppedClock();
    let asked = 0;
    const services = await open({ configured: ['web:80'], clock, health: async () => ++asked % 2 === 0 });
    assert.equal(services.get('web')?.healthy, null);
    services.start();
    await settled();
    assert.equal(services.get('web')?.healthy, false);
    clock.step(limits.healthIntervalMs);
    await settled();
    assert.equal(services.get('web')?.healthy, true);
    services.close();
    clock.step(10 * limits.healthIntervalMs);
    assert.equal(asked, 2);
    assert.equal(clock.pendingTimers, 0);
  });
});

describe('a service is well', () => {
  test('when its health path answers below 500, and without a path when it takes connections', async () => {
    let status = 200;
    const http = createServer((request, response) => {
      assert.equal(request.headers.host, `localhost:${port}`);
      response.writeHead(request.url === '/up' ? status : 404).end();
    }).listen(0, '127.0.0.1');
    await once(http, 'listening');
    const { port } = http.address() as AddressInfo;
    const spec = { name: 'web', port, type: 'http', health: '/up' } as const;
    assert.equal(await isHealthy(spec, systemClock), true);
    status = 401;
    assert.equal(await isHealthy(spec, systemClock), true);
    status = 503;
    assert.equal(await isHealthy(spec, systemClock), false);
    assert.equal(await isHealthy({ name: 'web', port, type: 'tcp' }, systemClock), true);
    http.closeAllConnections();
    http.close();
    await once(http, 'close');
    assert.equal(await isHealthy({ name: 'web', port, type: 'tcp' }, systemClock), false);
    assert.equal(await isHealthy(spec, systemClock), false);
  });

  test('no longer when it does not answer in time', async () => {
    const silent = createServer(() => clock.step(limits.healthTimeoutMs)).listen(0, '127.0.0.1');
    await once(silent, 'listening');
    const clock = new SteppedClock();
    const { port } = silent.address() as AddressInfo;
    assert.equal(await isHealthy({ name: 'web', port, type: 'http', health: '/' }, clock), false);
    silent.closeAllConnections();
    silent.close();
  });
});

/** Answers that are ready have been taken. */
async function settled(): Promise<void> {
  for (let i = 0; i < 5; i++) await Promise.resolve();
}
