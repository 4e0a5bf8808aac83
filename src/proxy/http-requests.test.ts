/** Requests and responses through the proxy, byte for byte where it matters. */

import assert from 'node:assert/strict';
import { type IncomingMessage, request, type RequestOptions } from 'node:http';
import { test } from 'node:test';
import type { RawHeaders } from '@cocoon-mesh/protocol';
import {
  quiet,
  RawClient,
  type RawService,
  withRawService,
  withService,
} from './proxied-service.contract.ts';

test('a GET passes with path, query, status, reason and body', async () => {
  await using proxied = await withService((request, response) => {
    response.writeHead(203, 'Quite All Right', { 'X-Path': request.url });
    response.end('hello');
  });
  await using client = new RawClient(proxied.port);
  client.send('GET /a/b?c=1 HTTP/1.1', 'Host: gateway', 'Connection: close', '', '');
  await client.over();
  assert.match(client.text, /^HTTP\/1.1 203 Quite All Right\r\n/);
  assert.match(client.text, /X-Path: \/a\/b\?c=1\r\n/);
  assert.match(client.text, /hello/);
  await quiet(proxied.devices);
});

for (const method of ['POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'PROPFIND', 'REPORT', 'QUERY', 'PURGE']) {
  test(`${method} passes with its body`, async () => {
    await using proxied = await withService((incoming, response) => {
      response.setHeader('X-Method', incoming.method ?? '');
      incoming.pipe(response);
    });
    const { message, body } = await ask(proxied.port, { method, headers: { 'Content-Length': 5 } }, 'bytes');
    assert.equal(message.headers['x-method'], method);
    assert.equal(body, 'bytes');
  });
}

for (const method of ['GET', 'DELETE', 'POST']) {
  test(`a chunked body of a ${method} stays chunked`, async () => {
    await using proxied = await withService((incoming, response) => {
      response.setHeader('X-Coding', incoming.headers['transfer-encoding'] ?? 'none');
      response.setHeader('X-Length', incoming.headers['content-length'] ?? 'none');
      incoming.pipe(response);
    });
    await using client = new RawClient(proxied.port);
    client.send(`${method} / HTTP/1.1`, 'Host: g', 'Transfer-Encoding: chunked', 'Connection: close', '', '');
    client.send('3\r\nabc\r\n0\r\n\r\n');
    await client.over();
    assert.match(client.text, /X-Coding: chunked\r\n/);
    assert.match(client.text, /X-Length: none\r\n/);
    assert.match(client.text, /abc/);
  });
}

test('CONNECT and TRACE are refused with 405 and never reach the service', async () => {
  let reached = 0;
  await using proxied = await withService((_request, response) => {
    reached++;
    response.end();
  });
  for (const line of ['TRACE / HTTP/1.1', 'CONNECT example:443 HTTP/1.1']) {
    await using client = new RawClient(proxied.port);
    client.send(line, 'Host: gateway', 'Connection: close', '', '');
    await client.over();
    assert.match(client.text, /^HTTP\/1.1 405 /);
  }
  assert.equal(reached, 0);
});

test('the fields of a request pass in order, case and number, and as the bytes they are', async () => {
  const heads: string[] = [];
  await using proxied = await rawAnswer('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n', (head) =>
    heads.push(head),
  );
  await using client = new RawClient(proxied.port);
  client.send(
    'GET /a%c3%A9%2F..//./b?q=%FF&"<> HTTP/1.1',
    'Host: gateway:1',
    'x-LOWER-Upper: 1',
    'Cookie: a=1',
    'X-Bytes: \xe9\x80\xff',
    'cookie: b=2',
    'X-Empty:',
    'Range: bytes=1-2,5-',
    'Connection: close',
    '',
    '',
  );
  await client.over();
  const [line, ...fields] = heads[0]?.split('\r\n') ?? [];
  assert.equal(line, 'GET /a%c3%A9%2F..//./b?q=%FF&"<> HTTP/1.1');
  assert.deepEqual(fields.slice(0, 7), [
    `Host: localhost:${proxied.servicePort}`,
    'x-LOWER-Upper: 1',
    'Cookie: a=1',
    'X-Bytes: \xe9\x80\xff',
    'cookie: b=2',
    'X-Empty: ',
    'Range: bytes=1-2,5-',
  ]);
  assert.ok(fields.includes('X-Forwarded-Host: gateway:1'));
  assert.ok(fields.includes('X-Forwarded-Proto: http'));
});

test('a path with raw bytes beyond ASCII, which node:http cannot read, is refused with 400', async () => {
  await using proxied = await withService((_request, response) => response.end());
  await using client = new RawClient(proxied.port);
  client.send('GET /\xc3\xa9 HTTP/1.1', 'Host: g', 'Connection: close', '', '');
  await client.over();
  assert.match(client.text, /^HTTP\/1.1 400 /);
});

test('the fields of a response pass in order, case and number, and as the bytes they are', async () => {
  const fields = [
    'set-COOKIE: a=1',
    'X-Bytes: \xe9\x80',
    'Set-Cookie: b=2',
    'content-length: 2',
    'X-Last: 1',
  ];
  await using proxied = await rawAnswer(`HTTP/1.1 200 Sch\xf6n\r\n${fields.join('\r\n')}\r\n\r\nok`);
  await using client = new RawClient(proxied.port);
  client.send('GET / HTTP/1.1', 'Host: g', 'Connection: close', '', '');
  await client.over();
  assert.equal(client.text, `HTTP/1.1 200 Sch\xf6n\r\n${fields.join('\r\n')}\r\nConnection: close\r\n\r\nok`);
});

test('hop-by-hop fields end at the hop, those that Connection lists too, and framing fields never do', async () => {
  const heads: string[] = [];
  await using proxied = await rawAnswer(
    'HTTP/1.1 200 OK\r\nConnection: X-Secret, Content-Length\r\nX-Secret: 1\r\nKeep-Alive: timeout=99\r\n' +
      'Proxy-Authenticate: Basic\r\nContent-Length: 2\r\nX-Kept: 1\r\n\r\nok',
    (head) => heads.push(head),
  );
  await using client = new RawClient(proxied.port);
  client.send(
    'GET / HTTP/1.1',
    'Host: g',
    'Connection: close, X-Drop',
    'X-Drop: 1',
    'Keep-Alive: 1',
    'Proxy-Authorization: x',
    'Proxy-Connection: x',
    'Upgrade: h2c',
    'TE: trailers, gzip',
    'X-Kept: 1',
    '',
    '',
  );
  await client.over();
  const request = heads[0] ?? '';
  assert.doesNotMatch(request, /x-drop|keep-alive:|proxy-|upgrade|gzip/i);
  assert.match(request, /\r\nX-Kept: 1\r\n/);
  assert.match(request, /\r\nTE: trailers$/);
  assert.doesNotMatch(client.text, /x-secret|timeout=99|proxy-/i);
  assert.match(client.text, /\r\nContent-Length: 2\r\n/);
  assert.match(client.text, /\r\nX-Kept: 1\r\n/);
});

test('who asked is said by the proxy alone, and a page of the service stays same-origin', async () => {
  const heads: string[] = [];
  await using proxied = await rawAnswer('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n', (head) =>
    heads.push(head),
  );
  const fields = (origin: string) => [
    'Host: Gateway:7',
    `Origin: ${origin}`,
    'X-Forwarded-For: 10.0.0.1',
    'X-Forwarded-Host: bank',
    'Forwarded: for=1',
    'Connection: close',
  ];
  for (const origin of ['http://gateway:7', 'https://gateway:7', 'http://elsewhere']) {
    await using client = new RawClient(proxied.port);
    client.send('GET / HTTP/1.1', ...fields(origin), '', '');
    await client.over();
  }
  const origins = heads.map((head) => /\r\nOrigin: (.*)\r\n/.exec(head)?.[1]);
  assert.deepEqual(origins, [
    `http://localhost:${proxied.servicePort}`,
    'https://gateway:7',
    'http://elsewhere',
  ]);
  for (const head of heads) {
    assert.match(head, /\r\nX-Forwarded-Host: Gateway:7\r\n/);
    assert.doesNotMatch(head, /bank|10\.0\.0\.1|\nForwarded/i);
  }
});

test('a POST without a body announces none', async () => {
  const heads: string[] = [];
  await using proxied = await rawAnswer('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n', (head) =>
    heads.push(head),
  );
  await using client = new RawClient(proxied.port);
  client.send('POST / HTTP/1.1', 'Host: g', 'Connection: close', '', '');
  await client.over();
  assert.match(heads[0] ?? '', /\r\nContent-Length: 0/);
  assert.doesNotMatch(heads[0] ?? '', /transfer-encoding/i);
});

test('answers to HEAD, 204 and 304 have no body and the length that the service sent', async () => {
  for (const [line, length] of [
    ['HEAD / HTTP/1.1', 'HTTP/1.1 200 OK\r\nContent-Length: 1234567'],
    ['GET / HTTP/1.1', 'HTTP/1.1 304 Not Modified\r\nContent-Length: 42'],
    ['GET / HTTP/1.1', 'HTTP/1.1 204 No Content\r\nX-A: 1'],
    ['HEAD / HTTP/1.1', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\nX-A: 1'],
  ] as const) {
    await using proxied = await rawAnswer(`${length}\r\n\r\n`);
    await using client = new RawClient(proxied.port);
    client.send(line, 'Host: g', 'Connection: close', '', '');
    assert.equal(await client.over(), 'ended');
    const expected = length.replace(/\r\nTransfer-Encoding: chunked\r\nTrailer: X-T/, '');
    assert.equal(client.text, `${expected}\r\nConnection: close\r\n\r\n`);
  }
});

test('an empty chunked response is empty and whole', async () => {
  await using proxied = await rawAnswer('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n');
  await using client = new RawClient(proxied.port);
  client.send('GET / HTTP/1.1', 'Host: g', 'Connection: close', '', '');
  await client.over();
  assert.match(client.text, /Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n$/);
});

test('a body that ends with its connection passes whole', async () => {
  await using proxied = await rawAnswer('HTTP/1.0 200 OK\r\n\r\nto the end');
  await using client = new RawClient(proxied.port);
  client.send('GET / HTTP/1.1', 'Host: g', 'Connection: close', '', '');
  await client.over();
  assert.match(client.text, /a\r\nto the end\r\n0\r\n\r\n$/);
});

test('an HTTP/1.0 client gets the body without chunks', async () => {
  await using proxied = await withService((_request, response) => {
    response.setHeader('Trailer', 'X-T');
    response.write('first ');
    response.end('second');
  });
  await using client = new RawClient(proxied.port);
  client.send('GET / HTTP/1.0', 'Host: g', '', '');
  assert.equal(await client.over(), 'ended');
  assert.match(client.text, /\r\n\r\nfirst second$/);
});

test('trailers pass both ways, and framing fields among them do not', async () => {
  await using proxied = await withRawService((socket) => {
    let text = '';
    socket.setEncoding('latin1').on('data', (piece: string) => {
      text += piece;
      if (!text.endsWith('\r\n\r\n') || !text.includes('\r\n0\r\n')) return;
      const sum = /X-Sum: (\w+)/.exec(text)?.[1] ?? 'none';
      const smuggled = text.includes('evil');
      socket.end(
        'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\n' +
          `x-SUM: ${sum}\r\nX-Smuggled: ${smuggled}\r\nHost: evil\r\n\r\n`,
      );
    });
  });
  await using client = new RawClient(proxied.port);
  client.send(
    'POST / HTTP/1.1',
    'Host: g',
    'Transfer-Encoding: chunked',
    'Trailer: X-Sum',
    'TE: trailers',
    '',
  );
  client.send('Connection: close', '', '3', 'abc', '0', 'X-Sum: abc123', 'Host: evil', '', '');
  await client.over();
  assert.match(client.text, /\r\nTrailer: X-Sum\r\n/);
  assert.match(client.text, /2\r\nok\r\n0\r\nx-SUM: abc123\r\nX-Smuggled: false\r\n\r\n$/);
});

test('64 KiB of header fields pass both ways, non-ASCII ones too', async () => {
  const value = 'é'.repeat(64 * 1024);
  const manyNames = Array.from({ length: 4000 }, (_, i) => `X-${i}: v`);
  await using proxied = await withService((incoming, response) => {
    const echoed = incoming.headers['x-large'];
    const count = incoming.rawHeaders.length / 2;
    if (typeof echoed === 'string') response.writeHead(200, ['X-Large', echoed, 'X-Count', String(count)]);
    else response.writeHead(200, incoming.rawHeaders.concat(['X-Count', String(count)]));
    response.end();
  });
  await using client = new RawClient(proxied.port);
  client.send('GET / HTTP/1.1', 'Host: g', `X-Large: ${value}`, 'Connection: close', '', '');
  await client.over();
  assert.ok(client.text.includes(`\r\nX-Large: ${value}\r\n`));
  await using second = new RawClient(proxied.port);
  second.send('GET / HTTP/1.1', 'Host: g', ...manyNames, 'Connection: close', '', '');
  await second.over();
  assert.ok(second.text.includes(manyNames.join('\r\n')));
});

test('a head beyond the limit is refused with 431', async () => {
  await using proxied = await withService((_request, response) => response.end());
  await using client = new RawClient(proxied.port);
  client.send('GET / HTTP/1.1', 'Host: g', `X-Large: ${'a'.repeat(100 * 1024)}`, 'Connection: close', '', '');
  await client.over();
  assert.match(client.text, /^HTTP\/1.1 431 /);
});

test('two requests of one kept connection are answered in order', async () => {
  await using proxied = await withService((incoming, response) => response.end(incoming.url));
  await using client = new RawClient(proxied.port);
  client.send(
    'GET /one HTTP/1.1',
    'Host: g',
    '',
    'GET /two HTTP/1.1',
    'Host: g',
    'Connection: close',
    '',
    '',
  );
  await client.over();
  assert.match(client.text, /\/one[^]*\/two/);
});

for (const [what, fields] of [
  ['Content-Length with Transfer-Encoding', ['Content-Length: 3', 'Transfer-Encoding: chunked']],
  ['two Content-Length fields', ['Content-Length: 3', 'Content-Length: 4']],
  ['two equal Content-Length fields', ['Content-Length: 3', 'Content-Length: 3']],
  ['a Content-Length that is no number', ['Content-Length: +3']],
  ['a Transfer-Encoding that does not end in chunked', ['Transfer-Encoding: chunked, identity']],
] as const) {
  test(`a request with ${what} is refused with 400 and never reaches the service`, async () => {
    let reached = 0;
    await using proxied = await withService((_request, response) => {
      reached++;
      response.end();
    });
    await using client = new RawClient(proxied.port);
    client.send('POST / HTTP/1.1', 'Host: g', ...fields, '', 'abc');
    await client.over();
    assert.match(client.text, /^HTTP\/1.1 400 /);
    assert.equal(reached, 0);
  });
}

test('the gateway can drop its own fields and add to the response', async () => {
  const heads: string[] = [];
  await using proxied = await rawAnswer(
    'HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-A: 1\r\n\r\n',
    (head) => heads.push(head),
    {
      headers: ['Host', 'shown', 'X-Only', '1'],
      responseHeaders: (headers: RawHeaders) => [...headers, 'Content-Security-Policy', 'sandbox'],
    },
  );
  await using client = new RawClient(proxied.port);
  client.send('GET / HTTP/1.1', 'Host: g', 'Authorization: Bearer ours', 'Connection: close', '', '');
  await client.over();
  assert.doesNotMatch(heads[0] ?? '', /ours/);
  assert.match(heads[0] ?? '', /X-Only: 1/);
  assert.match(client.text, /X-A: 1\r\nContent-Security-Policy: sandbox\r\n/);
});

/** A service that answers every request with these bytes and ends its connection. */
function rawAnswer(
  answer: string,
  onHead: (head: string) => void = () => undefined,
  proxy = {},
): Promise<RawService> {
  return withRawService(
    (socket) => {
      let text = '';
      socket.setEncoding('latin1').on('data', (piece: string) => {
        text += piece;
        if (!text.includes('\r\n\r\n')) return;
        onHead(text.slice(0, text.indexOf('\r\n\r\n')));
        socket.end(answer, 'latin1');
      });
    },
    { proxy },
  );
}

async function ask(
  port: number,
  options: RequestOptions,
  body = '',
): Promise<{ message: IncomingMessage; body: string }> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  const outgoing = request({ port, host: '127.0.0.1', agent: false, ...options }, resolve);
  outgoing.on('error', reject);
  outgoing.end(body);
  const message = await promise;
  let text = '';
  for await (const piece of message.setEncoding('utf8')) text += String(piece);
  return { message, body: text };
}
