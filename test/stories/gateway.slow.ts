import assert from 'node:assert/strict';
import { once } from 'node:events';
import { stat } from 'node:fs/promises';
import { createServer, request as httpRequest } from 'node:http';
import type { IncomingHttpHeaders, OutgoingHttpHeaders } from 'node:http';
import { after, before, describe, test } from 'node:test';
import type { CocoonProcess } from './cocoon-process.ts';
import { CocoonProcess as Cocoon, StartError, meshOfTwo, sees } from './cocoon-process.ts';
import { textOf } from './gateway-client.ts';
import { Origin } from './origin.ts';

describe('the gateway', () => {
  let laptop: CocoonProcess;
  let server: CocoonProcess;
  let origin: Origin;
  let token: string;
  const started = new AsyncDisposableStack();

  before(async () => {
    origin = started.use(await Origin.start());
    ({ laptop, server } = await meshOfTwo({
      engines: ['libdatachannel', 'libdatachannel'],
      runArgs: ['--service', `web:${origin.port}`],
    }));
    started.use(laptop);
    started.use(server);
    await sees(laptop, 'server', 'web');
    token = await laptop.gatewayToken();
  });

  // Ends whatever was started, also when the start of the next part failed.
  after(() => started.disposeAsync());

  async function ask(
    path: string,
    headers: OutgoingHttpHeaders,
    method = 'GET',
  ): Promise<{ status: number; headers: IncomingHttpHeaders; text: string }> {
    const { hostname, port } = new URL(laptop.gateway);
    const request = httpRequest({ hostname, port, path, method, headers, agent: false });
    request.end();
    const [response] = (await once(request, 'response')) as [Parameters<typeof textOf>[0]];
    return { status: response.statusCode ?? 0, headers: response.headers, text: await textOf(response) };
  }

  const reached = (): number => origin.seen.length;

  test('keeps its token in a file that only the user can read', async () => {
    const { mode } = await stat(String(laptop.ready['gateway_token_file']));
    assert.equal(mode & 0o777, 0o600);
  });

  test('refuses a program without the token, with a wrong one, and one that guesses its length', async () => {
    const count = reached();
    for (const authorization of [
      undefined,
      'Bearer wrong',
      `Bearer ${'x'.repeat(token.length)}`,
      `Basic ${token}`,
    ]) {
      const { status } = await ask('/proxy/server/web/', authorization ? { authorization } : {});
      assert.equal(status, 401);
    }
    assert.equal((await ask(`/proxy/server/web/?token=${token}`, {})).status, 401);
    assert.equal((await ask('/proxy/server/web/', { cookie: `token=${token}` })).status, 401);
    assert.equal(reached(), count);
  });

  test('refuses a web page on another origin and a rebinding name, even with the token', async () => {
    const count = reached();
    const authorization = `Bearer ${token}`;
    const page = await ask('/proxy/server/web/', { authorization, origin: 'https://evil.example' });
    assert.equal(page.status, 403);
    assert.equal(page.headers['access-control-allow-origin'], undefined);
    const preflight = await ask(
      '/proxy/server/web/',
      { origin: 'https://evil.example', 'access-control-request-method': 'GET' },
      'OPTIONS',
    );
    assert.ok(preflight.status >= 400);
    assert.equal(preflight.headers['access-control-allow-origin'], undefined);
    for (const host of ['rebind.example', `rebind.example:${new URL(laptop.gateway).port}`, 'localhost:1'])
      assert.equal((await ask('/proxy/server/web/', { authorization, host })).status, 403);
    assert.equal(reached(), count);
  });

  test('passes the service its own Authorization, and never our token in any field', async () => {
    const own = await ask('/proxy/server/web/echo-head', {
      authorization: 'Basic dXNlcjpwYXNz',
      'cocoon-authorization': `Bearer ${token}`,
    });
    assert.equal(own.status, 200);
    const ours = await ask('/proxy/server/web/echo-head', { authorization: `Bearer ${token}` });
    assert.equal(ours.status, 200);
    const fields = origin.seen.flatMap(({ rawHeaders }) => rawHeaders);
    assert.ok(fields.includes('Basic dXNlcjpwYXNz'));
    assert.ok(!fields.some((field) => field.includes(token)));
    assert.ok(!fields.some((field) => field.toLowerCase() === 'cocoon-authorization'));
  });

  test('sandboxes what it proxies', async () => {
    const { headers } = await ask('/proxy/server/web/', { authorization: `Bearer ${token}` });
    assert.match(String(headers['content-security-policy']), /sandbox/);
    assert.equal(headers['x-content-type-options'], 'nosniff');
  });

  test('answers the same to what is unknown and what is not yours', async () => {
    const authorization = `Bearer ${token}`;
    const unknown = await ask('/proxy/nobody/web/', { authorization });
    const other = await ask('/proxy/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp/web/', {
      authorization,
    });
    assert.equal(unknown.status, 404);
    assert.equal(other.status, 404);
    assert.equal(JSON.parse(unknown.text).code, JSON.parse(other.text).code);
  });

  test('lists devices and services with the live path', async () => {
    const authorization = `Bearer ${token}`;
    await ask('/proxy/server/web/', { authorization });
    const { cocoons } = JSON.parse((await ask('/cocoons', { authorization })).text) as {
      cocoons: { name: string; path: string | null; engine: string | null }[];
    };
    const row = cocoons.find(({ name }) => name === 'server');
    assert.ok(row?.path === 'lan' || row?.path === 'direct');
    assert.equal(row.engine, 'libdatachannel');
    const services = JSON.parse((await ask('/cocoons/server/services', { authorization })).text) as {
      services: { name: string; type: string }[];
    };
    assert.deepEqual(
      services.services.map(({ name, type }) => `${name}:${type}`),
      ['web:http'],
    );
    assert.equal((await ask('/healthz', {})).status, 200);
    assert.equal((await ask('/cocoons', {})).status, 401);
  });

  test('says when its port is taken, and commands never hand the token to whoever holds a port', async () => {
    const thief = createServer((request, response) => {
      stolen.push(request.headers.authorization ?? '');
      response.end('{}');
    });
    const stolen: string[] = [];
    thief.listen(0, '127.0.0.1');
    await once(thief, 'listening');
    const { port } = thief.address() as { port: number };
    await assert.rejects(
      Cocoon.start({
        command: 'run',
        args: ['--name', 'third', '--gateway-port', String(port), '--signaling', laptop.signaling],
      }),
      (error: StartError) => error.code === 'port_in_use' && error.message.includes(String(port)),
    );
    const done = await laptop.command(['devices', '--json']);
    assert.equal(done.code, 0);
    assert.deepEqual(stolen, []);
    thief.close();
  });
});
