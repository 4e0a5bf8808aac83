import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { connect } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { WebSocket } from 'ws';
import type { CocoonProcess } from './cocoon-process.ts';
import { enginePairs, meshOfTwo, sees } from './cocoon-process.ts';
import { answer, bodyOf, get, open, textOf } from './gateway-client.ts';
import { Origin } from './origin.ts';

for (const engines of enginePairs) {
  describe(`HTTP to a service of another device (${engines.join(' and ')})`, () => {
    let laptop: CocoonProcess;
    let server: CocoonProcess;
    let origin: Origin;
    const started = new AsyncDisposableStack();

    before(async () => {
      origin = started.use(await Origin.start());
      ({ laptop, server } = await meshOfTwo({ engines, runArgs: ['--service', `web:${origin.port}`] }));
      started.use(laptop);
      started.use(server);
      await sees(laptop, 'server', 'web');
    });

    // Ends whatever was started, also when the start of the next part failed.
    after(() => started.disposeAsync());

    test('every event of a stream arrives before the next one is made', async () => {
      const response = await get(laptop, 'server/web/sse?count=5');
      assert.equal(response.headers['content-type'], 'text/event-stream');
      const parts: string[] = [];
      response.setEncoding('utf8');
      for (let i = 1; i <= 5; i++) {
        origin.release();
        const [part] = (await once(response, 'data')) as [string];
        parts.push(part);
      }
      assert.deepEqual(
        parts,
        [1, 2, 3, 4, 5].map((i) => `data: ${i}\n\n`),
      );
    });

    test('a WebSocket echoes text and binary and passes the close code both ways', async () => {
      const url = `${laptop.gateway.replace('http', 'ws')}/proxy/server/web/socket`;
      const headers = { authorization: `Bearer ${await laptop.gatewayToken()}` };
      const socket = new WebSocket(url, { headers });
      await once(socket, 'open');
      socket.send('grüße');
      const [text, textBinary] = (await once(socket, 'message')) as [Buffer, boolean];
      assert.deepEqual([text.toString(), textBinary], ['grüße', false]);
      const bytes = Buffer.from(Array.from({ length: 100_000 }, (_, i) => i & 255));
      socket.send(bytes);
      const [echo, binary] = (await once(socket, 'message')) as [Buffer, boolean];
      assert.ok(binary && echo.equals(bytes));
      socket.send('close 4321 enough');
      const [code, reason] = (await once(socket, 'close')) as [number, Buffer];
      assert.deepEqual([code, reason.toString()], [4321, 'enough']);
    });

    test('HEAD, 204 and 304 have the head the service gave and no body', async () => {
      const head = await get(laptop, 'server/web/big?bytes=12345', { method: 'HEAD' });
      assert.equal(head.headers['content-length'], '12345');
      assert.equal((await bodyOf(head)).length, 0);
      const empty = await get(laptop, 'server/web/no-content');
      assert.equal(empty.statusCode, 204);
      assert.equal((await bodyOf(empty)).length, 0);
      const unmodified = await get(laptop, 'server/web/not-modified');
      assert.equal(unmodified.statusCode, 304);
      assert.equal(unmodified.headers.etag, '"x"');
      assert.equal((await bodyOf(unmodified)).length, 0);
    });

    test('trailers pass in both directions, with chunked bodies', async () => {
      const request = await open(laptop, 'server/web/trailers', {
        method: 'POST',
        headers: { trailer: 'x-in', 'transfer-encoding': 'chunked' },
      });
      request.write('some');
      request.addTrailers({ 'x-in': '42' });
      const response = await answer(request);
      assert.equal(await textOf(response), 'body');
      assert.equal(response.trailers['x-sum'], '42');
    });

    test('informational answers arrive before the final one', async () => {
      const request = await open(laptop, 'server/web/early-hints');
      const informed = once(request, 'information') as Promise<[{ statusCode: number }]>;
      const response = await answer(request);
      assert.equal((await informed)[0].statusCode, 103);
      assert.equal(await textOf(response), 'after hints');
    });

    test('Expect: 100-continue is the service’s to answer, with yes or no', async () => {
      const willing = await open(laptop, 'server/web/upload', {
        method: 'POST',
        headers: { expect: '100-continue', 'content-length': '5' },
      });
      willing.flushHeaders();
      await once(willing, 'continue');
      willing.write('12345');
      assert.equal((JSON.parse(await textOf(await answer(willing))) as { bytes: number }).bytes, 5);
      const refused = await open(laptop, 'server/web/refuse-body', {
        method: 'POST',
        headers: { expect: '100-continue', 'content-length': '5' },
      });
      let continued = false;
      refused.on('continue', () => (continued = true));
      refused.flushHeaders();
      const [response] = (await once(refused, 'response')) as [IncomingMessage];
      assert.equal(response.statusCode, 417);
      assert.equal(continued, false);
      refused.destroy();
    });

    test('duplicate headers, their case and their order are kept', async () => {
      const response = await get(laptop, 'server/web/duplicates');
      const fields = response.rawHeaders.filter((_, i) => i % 2 === 0);
      assert.deepEqual(response.headers['set-cookie'], ['a=1', 'b=2']);
      assert.ok(fields.includes('X-Mixed-Case'));
      await bodyOf(response);
    });

    test('paths with percent signs and encoded letters beyond ASCII reach the service as they were sent', async () => {
      const path = `/caf%C3%A9/%E2%82%AC/a%2Fb?q=%20${encodeURIComponent('ü')}`;
      assert.equal(await textOf(await get(laptop, `server/web${path}`)), `hello from ${path.split('?')[0]}`);
      assert.equal(origin.seen.at(-1)?.url, path);
      // Bytes beyond ASCII must be percent-encoded (RFC 3986, 2.1); node's parser refuses them raw.
      assert.match(await rawRequest(laptop, 'GET /proxy/server/web/caf\xe9 HTTP/1.1'), /^HTTP\/1\.1 400 /);
    });

    test('64 KiB of headers pass both ways, and more is an error that says so', async () => {
      const large = 'x'.repeat(64 * 1024);
      const passed = await get(laptop, 'server/web/echo-head', { headers: { 'x-large': large } });
      assert.equal(passed.statusCode, 200);
      const { rawHeaders } = JSON.parse(await textOf(passed)) as { rawHeaders: string[] };
      assert.ok(rawHeaders.includes(large));
      const tooLarge = await open(laptop, 'server/web/echo-head', {
        headers: { 'x-large': 'x'.repeat(200 * 1024) },
      });
      const refused = await answer(tooLarge);
      // The gateway does not read the rest of it.
      tooLarge.on('error', () => undefined);
      assert.equal(refused.statusCode, 431);
    });

    test('an empty body stays empty, with and without a length', async () => {
      for (const headers of [{ 'content-length': '0' }, { 'transfer-encoding': 'chunked' }]) {
        const response = await answer(await open(laptop, 'server/web/upload', { method: 'PUT', headers }));
        assert.equal((JSON.parse(await textOf(response)) as { bytes: number }).bytes, 0);
      }
    });

    test('every other method passes, and CONNECT and TRACE do not', async () => {
      for (const method of ['PUT', 'PATCH', 'DELETE', 'OPTIONS', 'PROPFIND', 'REPORT', 'QUERY']) {
        const response = await get(laptop, 'server/web/echo-head', { method });
        assert.equal((JSON.parse(await textOf(response)) as { method: string }).method, method);
      }
      assert.equal((await get(laptop, 'server/web/echo-head', { method: 'TRACE' })).statusCode, 405);
      assert.match(await rawRequest(laptop, 'CONNECT example.org:443 HTTP/1.1'), /^HTTP\/1\.1 405 /);
    });

    test('a client that goes away ends the request at the service', async (t) => {
      for (const path of ['hang', 'endless']) {
        origin.ended = Promise.withResolvers();
        const count = origin.seen.length;
        const request = await open(laptop, `server/web/${path}`);
        request.on('error', () => undefined);
        request.end();
        if (path === 'endless') await once(request, 'response');
        else while (origin.seen.length === count) await new Promise((resolve) => setImmediate(resolve));
        const began = performance.now();
        request.destroy();
        await origin.ended.promise;
        const took = performance.now() - began;
        t.diagnostic(`/${path}: ${took.toFixed(1)} ms from cancel to the end at the service`);
        assert.ok(took < 1_000);
      }
    });

    test('a service that breaks off breaks the client’s answer, too', async () => {
      const response = await get(laptop, 'server/web/break');
      await assert.rejects(bodyOf(response));
    });

    test('an unknown service, one nobody listens on, and an unknown device each say so', async () => {
      assert.equal(await code(get(laptop, 'server/nothing/')), '404 service_not_found');
      assert.equal(await code(get(laptop, 'nowhere/web/')), '404 device_not_found');
      await server.json('services', 'add', 'dead:1');
      await sees(laptop, 'server', 'dead');
      assert.equal(await code(get(laptop, 'server/dead/')), '502 service_refused');
      await server.json('services', 'remove', 'dead');
    });
  });
}

async function code(pending: Promise<IncomingMessage>): Promise<string> {
  const response = await pending;
  assert.equal(response.headers['content-type'], 'application/problem+json');
  return `${response.statusCode} ${(JSON.parse(await textOf(response)) as { code: string }).code}`;
}

/** The answer to a request line that no client library would send; bytes are Latin-1. */
async function rawRequest(cocoon: CocoonProcess, line: string): Promise<string> {
  const { hostname, port, host } = new URL(cocoon.gateway);
  const socket = connect(Number(port), hostname);
  const token = await cocoon.gatewayToken();
  socket.end(
    Buffer.from(
      `${line}\r\nHost: ${host}\r\nAuthorization: Bearer ${token}\r\nConnection: close\r\n\r\n`,
      'latin1',
    ),
  );
  const parts: Buffer[] = [];
  for await (const part of socket) parts.push(part as Buffer);
  return Buffer.concat(parts).toString('latin1');
}
