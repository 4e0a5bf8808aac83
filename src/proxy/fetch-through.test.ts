/** Requests without a gateway, as a browser tab and the CLI make them. */

import assert from 'node:assert/strict';
import type { ServerResponse } from 'node:http';
import { test } from 'node:test';
import {
  encodeBody,
  encodeEnd,
  encodeProxyError,
  encodeResponseHead,
  fromUtf8,
  limits,
  MeshError,
  systemClock,
  utf8,
} from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { type FetchRequest, type FetchResponse, fetchThrough } from './fetch-through.ts';
import { settle } from './record-stream.ts';
import { Devices, quiet, withRawService, withService } from './proxied-service.contract.ts';

const clock = systemClock;

test('a GET brings status, fields, body and trailers', async () => {
  await using proxied = await withService((incoming, response) => {
    response.writeHead(201, 'Made', [
      ['X-Path', incoming.url ?? ''],
      ['Set-Cookie', 'a=1'],
      ['Set-Cookie', 'b=2'],
      ['Trailer', 'X-Sum'],
    ]);
    response.addTrailers({ 'X-Sum': '42' });
    response.end('body');
  });
  const response = await fetchThrough(proxied.devices.open('web'), { path: '/a?b=%C3%A9' }, { clock });
  assert.equal(response.status, 201);
  assert.equal(response.reason, 'Made');
  assert.deepEqual(response.values('X-PATH'), ['/a?b=%C3%A9']);
  assert.deepEqual(response.values('set-cookie'), ['a=1', 'b=2']);
  assert.equal(await text(response), 'body');
  assert.deepEqual(response.trailers(), ['X-Sum', '42']);
  await quiet(proxied.devices);
});

test('bodies of every kind reach the service', async () => {
  await using proxied = await withService((incoming, response) => {
    response.setHeader('X-Length', incoming.headers['content-length'] ?? 'none');
    incoming.pipe(response);
  });
  async function* iterable() {
    yield utf8('by');
    yield utf8('tes');
  }
  const web = () => new Blob(['bytes']).stream();
  const headers = ['Content-Length', '5'];
  const requests: [Partial<FetchRequest>, string][] = [
    [{ body: utf8('bytes') }, '5'],
    [{ body: iterable() }, 'none'],
    [{ body: web() }, 'none'],
    [{ body: web(), headers }, '5'],
  ];
  for (const [request, length] of requests) {
    const stream = proxied.devices.open('web');
    const response = await fetchThrough(stream, { method: 'POST', path: '/', ...request }, { clock });
    assert.equal(await text(response), 'bytes');
    assert.deepEqual(response.values('x-length'), [length]);
  }
  const none = await fetchThrough(
    proxied.devices.open('web'),
    { method: 'POST', path: '/', body: null },
    { clock },
  );
  assert.equal(await text(none), '');
  await quiet(proxied.devices);
});

test('what the device answers is thrown with its code, and nothing stays open', async () => {
  await using proxied = await withService((_request, response) => response.end());
  await assert.rejects(fetchThrough(proxied.devices.open('nope'), { path: '/' }, { clock }), {
    code: 'service_not_found',
  });
  await assert.rejects(fetchThrough(proxied.devices.open('web'), { path: '/', method: 'TRACE' }, { clock }), {
    code: 'method_not_allowed',
  });
  await assert.rejects(fetchThrough(proxied.devices.open('web'), { path: 'no slash' }, { clock }), {
    code: 'bad_message',
  });
  const headers = ['X-Large', 'a'.repeat(3 * limits.maxHttpHeadBytes)];
  await assert.rejects(fetchThrough(proxied.devices.open('web'), { path: '/', headers }, { clock }), {
    code: 'header_too_large',
  });
  await quiet(proxied.devices);
});

test('an abort ends the request before its head and in its body', async () => {
  const answered: ServerResponse[] = [];
  await using proxied = await withService((_request, response) => void answered.push(response));
  for (const when of ['at once', 'before', 'within'] as const) {
    const aborter = new AbortController();
    const asked = new Promise((resolve) => proxied.service.once('request', resolve));
    if (when === 'at once') aborter.abort();
    const fetched = fetchThrough(
      proxied.devices.open('web'),
      { path: '/' },
      { clock, signal: aborter.signal },
    );
    if (when === 'within') {
      await asked;
      answered.at(-1)?.write('some');
      const response = await fetched;
      const reader = response.body.getReader();
      await reader.read();
      const rest = reader.read();
      aborter.abort();
      await assert.rejects(rest, { code: 'cancelled' });
    } else {
      if (when === 'before') await asked;
      aborter.abort();
      await assert.rejects(fetched, { code: 'cancelled' });
    }
    await quiet(proxied.devices);
  }
});

test('a body that is cancelled ends the request at the service', async () => {
  const closed = Promise.withResolvers<void>();
  await using proxied = await withService((_request, response) => {
    response.on('close', () => closed.resolve());
    response.write('some');
  });
  const response = await fetchThrough(proxied.devices.open('web'), { path: '/' }, { clock });
  await response.body.cancel();
  await closed.promise;
  await quiet(proxied.devices);
});

test('a body that breaks off is an error, never an end', async () => {
  await using proxied = await withRawService((socket) => {
    socket.once('data', () => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf'));
  });
  const response = await fetchThrough(proxied.devices.open('web'), { path: '/' }, { clock });
  await assert.rejects(text(response), { code: 'bad_gateway' });
  await quiet(proxied.devices);
});

test('a device cannot send a longer or shorter body than its head says', async () => {
  for (const [headers, body] of [
    [['Content-Length', '4'], 'longer'],
    [['Content-Length', '4'], 'no'],
    [['Content-Length', '4', 'Content-Length', '2'], 'no'],
    [['Transfer-Encoding', 'chunked'], 'no'],
  ] as const) {
    await using devices = new Devices({
      accept: (stream) => {
        stream.write(encodeResponseHead({ status: 200, reason: '', headers: [...headers] }));
        stream.write(encodeBody(utf8(body)));
        stream.write(encodeEnd([]));
        stream.end();
        void settle(stream, clock);
      },
    });
    const fetched = fetchThrough(devices.open('web'), { path: '/' }, { clock });
    await assert.rejects(fetched.then(text), /length|Content-Length|longer|shorter|Transfer-Encoding/);
    await quiet(devices);
  }
});

test('a device cannot answer with codes that are not about the request', async () => {
  await using devices = new Devices({
    accept: (stream) => {
      stream.write(encodeProxyError(new MeshError('unauthorized')));
      stream.end();
      void settle(stream, clock);
    },
  });
  await assert.rejects(fetchThrough(devices.open('web'), { path: '/' }, { clock }), { code: 'bad_gateway' });
  await quiet(devices);
});

test('no answer within the limit is gateway_timeout', async () => {
  const stepped = new SteppedClock();
  await using proxied = await withService(() => undefined);
  const asked = new Promise((resolve) => proxied.service.once('request', resolve));
  const fetched = fetchThrough(proxied.devices.open('web'), { path: '/' }, { clock: stepped });
  const refused = assert.rejects(fetched, { code: 'gateway_timeout' });
  await asked;
  stepped.step(limits.responseHeadTimeoutMs + limits.serviceConnectTimeoutMs);
  await refused;
  await quiet(proxied.devices);
  assert.equal(stepped.pendingTimers, 0);
});

test('a reader that stops stops the sender', async () => {
  let written = 0;
  await using proxied = await withService((_request, response) => {
    const piece = Buffer.alloc(64 << 10);
    const write = () => {
      do written += piece.length;
      while (response.write(piece));
      response.once('drain', write);
    };
    write();
  });
  const response = await fetchThrough(proxied.devices.open('web'), { path: '/' }, { clock });
  for (let before = -1; before !== written;) {
    before = written;
    for (let turn = 0; turn < 200; turn++) await new Promise((resolve) => setImmediate(resolve));
  }
  assert.ok(written < 32 << 20, `${written} bytes`);
  await response.body.cancel();
  await quiet(proxied.devices);
});

async function text(response: FetchResponse): Promise<string> {
  let all = '';
  for await (const piece of response.body) all += fromUtf8(piece);
  return all;
}
