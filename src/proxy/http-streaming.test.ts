/** Bodies as they flow, interim responses, WebSockets: what comes when, and what it waits for. */

import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { type IncomingMessage, request, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { test } from 'node:test';
import type { Stream } from '@cocoon-mesh/mesh';
import { encodeResponseHead, limits, requestDecoder } from '@cocoon-mesh/protocol';
import { RecordReceiver } from './record-stream.ts';
import { ended, Gateway, quiet, RawClient, withRawService, withService } from './proxied-service.contract.ts';

test('events of a stream arrive one by one, and the head before the first', async () => {
  let events: ServerResponse | undefined;
  await using proxied = await withService((_request, response) => {
    response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    response.flushHeaders();
    events = response;
  });
  await using client = new RawClient(proxied.port);
  client.send('GET / HTTP/1.1', 'Host: g', '', '');
  await client.until('Transfer-Encoding: chunked\r\n\r\n');
  assert.ok(!client.text.includes('data:'));
  for (const data of ['one', 'two', 'three']) {
    events?.write(`data: ${data}\n\n`);
    await client.until(`data: ${data}\n\n`);
  }
  events?.end();
  await client.until('0\r\n\r\n');
  await quiet(proxied.devices);
});

test('a request body reaches the service piece by piece, and the response answers while it flows', async () => {
  await using proxied = await withService((incoming, response) => {
    response.flushHeaders();
    incoming.pipe(response);
  });
  await using client = new RawClient(proxied.port);
  client.send('POST / HTTP/1.1', 'Host: g', 'Transfer-Encoding: chunked', '', '3\r\none\r\n');
  await client.until('one');
  client.send('3\r\ntwo\r\n');
  await client.until('two');
  client.send('0\r\n\r\n');
  await client.until('0\r\n\r\n');
  await quiet(proxied.devices);
});

test('the head of a request reaches the service before its body, bytes beyond ASCII as they are', async () => {
  const head = Promise.withResolvers<string>();
  await using proxied = await withRawService((socket) => {
    socket.setEncoding('latin1').once('data', (text: string) => {
      head.resolve(text);
      socket.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n');
      socket.once('data', () => socket.end('0\r\n\r\n'));
    });
  });
  await using client = new RawClient(proxied.port);
  client.send('POST / HTTP/1.1', 'Host: g', 'X-A: \xe9', 'Content-Length: 1', 'Connection: close', '', '');
  assert.match(await head.promise, /\r\nX-A: \xe9\r\n/);
  await client.until('HTTP/1.1 200 OK');
  client.send('x');
  await client.over();
  await quiet(proxied.devices);
});

test('8 MiB echo back unchanged, with a length and in chunks', async () => {
  await using proxied = await withService((incoming, response) => incoming.pipe(response));
  const bytes = randomBytes(8 << 20);
  for (const headers of [{ 'Content-Length': bytes.length }, { 'Transfer-Encoding': 'chunked' }]) {
    const outgoing = request({ port: proxied.port, host: '127.0.0.1', method: 'PUT', headers, agent: false });
    outgoing.end(bytes);
    const [message] = (await once(outgoing, 'response')) as [IncomingMessage];
    const hash = createHash('sha256');
    for await (const piece of message) hash.update(piece as Uint8Array);
    assert.equal(hash.digest('hex'), createHash('sha256').update(bytes).digest('hex'));
  }
  await quiet(proxied.devices);
});

test('a slow reader stops the service, and reading on lets it finish', async () => {
  let written = 0;
  const total = 64 << 20;
  const piece = Buffer.alloc(64 << 10);
  let stopped = Promise.withResolvers<void>();
  await using proxied = await withService((_request, response) => {
    response.setHeader('Content-Length', total);
    const write = () => {
      while (written < total) {
        written += piece.length;
        if (!response.write(piece)) {
          stopped.resolve();
          response.once('drain', write);
          return;
        }
      }
      response.end();
    };
    write();
  });
  const outgoing = request({ port: proxied.port, host: '127.0.0.1', agent: false });
  outgoing.end();
  const [message] = (await once(outgoing, 'response')) as [IncomingMessage];
  message.pause();
  // Until a whole second turn of the loop brings nothing more, the buffers on the way are filling.
  for (let before = -1; before !== written;) {
    before = written;
    stopped = Promise.withResolvers<void>();
    for (let turn = 0; turn < 200; turn++) await new Promise((resolve) => setImmediate(resolve));
  }
  assert.ok(written < total / 2, `${written} bytes were written ahead of a reader that read none`);
  let read = 0;
  for await (const part of message) read += (part as Uint8Array).length;
  assert.equal(read, total);
  await quiet(proxied.devices);
});

test('103 Early Hints pass with their fields before the response', async () => {
  await using proxied = await withRawService((socket) => {
    socket.once('data', () =>
      socket.end(
        'HTTP/1.1 103 Early Hints\r\nlink: </a>\r\nLINK: </b>\r\nConnection: x\r\n\r\n' +
          'HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok',
      ),
    );
  });
  await using client = new RawClient(proxied.port);
  client.send('GET / HTTP/1.1', 'Host: g', 'Connection: close', '', '');
  await client.over();
  assert.ok(
    client.text.startsWith(
      'HTTP/1.1 103 Early Hints\r\nlink: </a>\r\nLINK: </b>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\n',
    ),
    client.text,
  );
});

test('a client that expects 100 Continue gets it when the service sends it, and not before', async () => {
  const { promise: asked, resolve } = Promise.withResolvers<[Socket, string]>();
  await using proxied = await withRawService((socket) => {
    socket.setEncoding('latin1').once('data', (head: string) => resolve([socket, head]));
  });
  await using client = new RawClient(proxied.port);
  client.send(
    'PUT / HTTP/1.1',
    'Host: g',
    'Content-Length: 4',
    'Expect: 100-continue',
    'Connection: close',
    '',
    '',
  );
  const [service, head] = await asked;
  assert.match(head, /\r\nExpect: 100-continue\r\n/);
  assert.equal(client.text, '');
  service.write('HTTP/1.1 100 Continue\r\n\r\n');
  await client.until('HTTP/1.1 100 Continue\r\n\r\n');
  client.send('body');
  const [body] = (await once(service, 'data')) as [string];
  assert.equal(body, 'body');
  service.end('HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n');
  await client.until('HTTP/1.1 201 Created');
  await quiet(proxied.devices);
});

test('a client that expects 100 Continue gets a refusal without sending its body, and the connection ends', async () => {
  await using proxied = await withRawService((socket) => {
    socket.once('data', () => socket.end('HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n'));
  });
  await using client = new RawClient(proxied.port);
  client.send('PUT / HTTP/1.1', 'Host: g', 'Content-Length: 4', 'Expect: 100-continue', '', '');
  await client.over();
  assert.match(client.text, /^HTTP\/1.1 417 No\r\n/);
  assert.doesNotMatch(client.text, /100 Continue/);
  assert.match(client.text, /\r\nConnection: close\r\n/);
  await quiet(proxied.devices);
});

test('an answer that comes before the whole body was sent passes, and the service still gets the body', async () => {
  const whole = Promise.withResolvers<number>();
  await using proxied = await withService((incoming, response) => {
    response.end('early');
    let bytes = 0;
    incoming.on('data', (piece: Uint8Array) => (bytes += piece.length));
    incoming.on('end', () => whole.resolve(bytes));
  });
  await using client = new RawClient(proxied.port);
  client.send('POST / HTTP/1.1', 'Host: g', 'Content-Length: 6', '', 'abc');
  await client.until('early');
  client.send('def');
  assert.equal(await whole.promise, 6);
  client.send('GET / HTTP/1.1', 'Host: g', '', '');
  await client.until(/early[^]*early/);
  await quiet(proxied.devices);
});

test('an upgraded connection carries raw bytes both ways, those sent along with the heads first', async () => {
  await using proxied = await withService(() => undefined);
  proxied.service.on('upgrade', (incoming: IncomingMessage, socket: Socket, early: Buffer) => {
    socket.write(
      `HTTP/1.1 101 Switching\r\nUpgrade: ${incoming.headers.upgrade}\r\nConnection: Upgrade\r\nX-Key: ${String(incoming.headers['sec-websocket-key'])}\r\n\r\nwelcome `,
    );
    socket.write(early);
    socket.pipe(socket);
  });
  await using client = new RawClient(proxied.port);
  client.send(
    'GET /chat HTTP/1.1',
    'Host: g',
    'Connection: keep-alive, Upgrade',
    'Upgrade: websocket',
    'Sec-WebSocket-Key: abc',
    '',
    'early ',
  );
  await client.until('welcome early ');
  assert.match(
    client.text,
    /^HTTP\/1.1 101 Switching\r\nX-Key: abc\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n/,
  );
  client.send('\x00\xff\x80late');
  await client.until('\x00\xff\x80late');
  client.socket.end();
  assert.equal(await client.over(), 'ended');
  await quiet(proxied.devices);
  assert.deepEqual(proxied.gateway.outcomes, [{ kind: 'upgraded' }]);
});

test('what a client sends before it closes reaches a device that reads it later', async () => {
  const accepted = Promise.withResolvers<Stream>();
  await using gateway = await Gateway.open({
    accept: (stream) => {
      const headers = ['Sec-WebSocket-Accept', 'x'];
      stream.write(encodeResponseHead({ status: 101, reason: '', headers, upgrade: 'x' }));
      stream.end();
      accepted.resolve(stream);
    },
  });
  await using client = new RawClient(gateway.port);
  client.send('GET / HTTP/1.1', 'Host: g', 'Connection: Upgrade', 'Upgrade: x', '', '');
  await client.until('\r\n\r\n');
  // More than the device's credit, so that some of it waits at the gateway when the connection closes.
  const total = limits.streamWindowBytes + limits.streamQueueBytes / 2;
  const closed = once(client.socket, 'close');
  client.socket.end(Buffer.alloc(total));
  await closed;
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
  const receiver = new RecordReceiver(await accepted.promise, requestDecoder());
  assert.equal((await receiver.next())?.kind, 'head');
  let received = 0;
  for (let record = await receiver.next(); record; record = await receiver.next()) {
    if (record.kind === 'raw') received += record.bytes.length;
  }
  assert.equal(received, total);
  await quiet(gateway.devices);
});

test('a refused upgrade is an ordinary response', async () => {
  await using proxied = await withService((_request, response) => {
    response.writeHead(426, { 'X-A': '1' });
    response.end('not here');
  });
  await using client = new RawClient(proxied.port);
  client.send('GET / HTTP/1.1', 'Host: g', 'Connection: Upgrade', 'Upgrade: websocket', '', '');
  await client.over();
  assert.match(client.text, /^HTTP\/1.1 426 [^]*X-A: 1[^]*not here/);
  await quiet(proxied.devices);
});

test('an upgrade of a service that is not there is answered with 404', async () => {
  await using proxied = await withService(() => undefined);
  proxied.devices.services.clear();
  await using client = new RawClient(proxied.port);
  client.send('GET / HTTP/1.1', 'Host: g', 'Connection: Upgrade', 'Upgrade: websocket', '', '');
  await client.over();
  assert.match(client.text, /^HTTP\/1.1 404 /);
  await quiet(proxied.devices);
});

test('when either end of an upgraded connection breaks, the other breaks', async () => {
  for (const breaker of ['client', 'service'] as const) {
    const upgraded = Promise.withResolvers<Socket>();
    await using proxied = await withService(() => undefined);
    proxied.service.on('upgrade', (_incoming: IncomingMessage, socket: Socket) => {
      socket.on('error', () => undefined);
      socket.write('HTTP/1.1 101 S\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n');
      upgraded.resolve(socket);
    });
    await using client = new RawClient(proxied.port);
    client.send('GET / HTTP/1.1', 'Host: g', 'Connection: Upgrade', 'Upgrade: x', '', '');
    await client.until('\r\n\r\n');
    const service = await upgraded.promise;
    if (breaker === 'client') {
      const gone = ended(service);
      client.socket.resetAndDestroy();
      await gone;
    } else {
      service.resetAndDestroy();
      assert.equal(await client.over(), 'broken');
    }
    await quiet(proxied.devices);
  }
});
