/** What a client and a service see when something on the way goes wrong. */

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { Socket } from 'node:net';
import { test } from 'node:test';
import {
  encodeBody,
  encodeEnd,
  encodeRequestHead,
  limits,
  MeshError,
  type RequestHead,
  responseDecoder,
} from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import {
  ended,
  freePort,
  Gateway,
  listen,
  quiet,
  RawClient,
  type RawService,
  withRawService,
  withService,
} from './proxied-service.contract.ts';
import { RecordReceiver } from './record-stream.ts';

const get = ['GET / HTTP/1.1', 'Host: g', 'Connection: close', '', ''];
const post = ['POST / HTTP/1.1', 'Host: g', 'Content-Length: 3', 'Connection: close', '', 'abc'];

test('an unknown service is 404 with its code', async () => {
  await using gateway = await Gateway.open();
  await using client = new RawClient(gateway.port);
  client.send(...get);
  await client.over();
  assert.match(client.text, /^HTTP\/1.1 404 [^]*application\/problem\+json[^]*"code":"service_not_found"/);
  await quiet(gateway.devices);
});

test('a port that nobody listens on is 502 service_refused', async () => {
  await using gateway = await Gateway.open({ services: new Map([['web', { port: await freePort() }]]) });
  await using client = new RawClient(gateway.port);
  client.send(...post);
  await client.over();
  assert.match(client.text, /^HTTP\/1.1 502 [^]*"code":"service_refused"/);
  await quiet(gateway.devices);
});

test('an error of opening the stream is answered with its status, 503 with Retry-After', async () => {
  await using gateway = await Gateway.open({
    proxy: { openStream: () => Promise.reject(new MeshError('device_offline')) },
  });
  await using client = new RawClient(gateway.port);
  client.send(...get);
  await client.over();
  assert.match(client.text, /^HTTP\/1.1 503 [^]*Retry-After: 1[^]*"code":"device_offline"/);
});

test('a service that answers no HTTP is 502 bad_gateway', async () => {
  for (const answer of [
    'SSH-2.0-OpenSSH\r\n',
    'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n',
    'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n',
    `HTTP/1.1 200 OK\r\nX: ${'a'.repeat(limits.maxHttpHeadBytes)}\r\n\r\n`,
    'HTTP/1.1 101 Unasked\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n',
    '',
  ]) {
    await using proxied = await answering((socket) => socket.end(answer));
    await using client = new RawClient(proxied.port);
    client.send(...get);
    await client.over();
    assert.match(client.text, /^HTTP\/1.1 502 [^]*"code":"bad_gateway"/, answer.slice(0, 60));
    await quiet(proxied.devices);
  }
});

test('no response head within the limit is 504, and the service loses its connection', async () => {
  const clock = new SteppedClock();
  const asked = Promise.withResolvers<Socket>();
  await using proxied = await answering((socket) => asked.resolve(socket), clock);
  await using client = new RawClient(proxied.port);
  client.send(...post);
  const service = await asked.promise;
  const gone = ended(service);
  clock.step(limits.responseHeadTimeoutMs - 1);
  assert.equal(client.text, '');
  clock.step(1);
  await client.over();
  assert.match(client.text, /^HTTP\/1.1 504 [^]*"code":"gateway_timeout"/);
  await gone;
  await quiet(proxied.devices);
  assert.equal(clock.pendingTimers, 0);
});

test('a client that sends its body slowly does not use up the time of the service', async () => {
  const clock = new SteppedClock();
  const begun = Promise.withResolvers<void>();
  await using proxied = await withService(
    (incoming, response) => {
      incoming.on('data', () => begun.resolve());
      incoming.on('end', () => response.end('got it'));
    },
    { clock },
  );
  await using client = new RawClient(proxied.port);
  client.send('POST / HTTP/1.1', 'Host: g', 'Content-Length: 2', 'Connection: close', '', 'a');
  await begun.promise;
  clock.step(10 * limits.responseHeadTimeoutMs);
  client.send('b');
  await client.over();
  assert.match(client.text, /^HTTP\/1.1 200 [^]*got it/);
  await quiet(proxied.devices);
});

test('a service that dies in the middle of its body breaks the connection of the client', async () => {
  for (const [head, body] of [
    ['HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n', 'half'],
    ['HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n', '4\r\nhalf\r\n'],
  ]) {
    for (const version of ['HTTP/1.1', 'HTTP/1.0']) {
      const asked = Promise.withResolvers<Socket>();
      await using proxied = await answering((socket) => {
        socket.write(`${head}${body}`);
        asked.resolve(socket);
      });
      await using client = new RawClient(proxied.port);
      client.send(`GET / ${version}`, 'Host: g', '', '');
      await client.until('half');
      (await asked.promise).destroy();
      const how = await client.over();
      assert.doesNotMatch(client.text, /\r\n0\r\n/);
      // A length or chunks tell that something is missing; without them the reset does.
      if (version === 'HTTP/1.0' && head?.includes('chunked')) assert.equal(how, 'broken');
      await quiet(proxied.devices);
      assert.equal(proxied.gateway.outcomes[0]?.kind, 'failed');
    }
  }
});

test('a client that goes away ends the request at the service, before and after the response head', async () => {
  for (const answer of ['', 'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf']) {
    for (const lines of [get, post, ['POST / HTTP/1.1', 'Host: g', 'Content-Length: 9', '', 'abc']]) {
      const asked = Promise.withResolvers<Socket>();
      await using proxied = await answering((socket) => {
        if (answer !== '') socket.write(answer);
        asked.resolve(socket);
      });
      await using client = new RawClient(proxied.port);
      client.send(...lines);
      const service = await asked.promise;
      if (answer !== '') await client.until('half');
      const gone = ended(service);
      client.socket.destroy();
      await gone;
      await quiet(proxied.devices);
    }
  }
});

test('a client that goes away while the stream is being opened leaves no stream', async () => {
  const opening = Promise.withResolvers<void>();
  const opened = Promise.withResolvers<void>();
  const aborted = Promise.withResolvers<void>();
  await using proxied = await withService(() => assert.fail('the service was reached'), {
    proxy: {
      openStream: async (signal) => {
        signal.addEventListener('abort', () => aborted.resolve());
        opening.resolve();
        await opened.promise;
        return proxied.devices.open('web');
      },
    },
  });
  await using client = new RawClient(proxied.port);
  client.send(...get);
  await opening.promise;
  client.socket.destroy();
  await aborted.promise;
  opened.resolve();
  while (proxied.gateway.outcomes.length === 0) await new Promise((resolve) => setImmediate(resolve));
  await quiet(proxied.devices);
});

test('a session that ends in the middle breaks both connections', async () => {
  const asked = Promise.withResolvers<Socket>();
  await using proxied = await answering((socket) => {
    socket.write('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf');
    asked.resolve(socket);
  });
  await using client = new RawClient(proxied.port);
  client.send('GET / HTTP/1.1', 'Host: g', '', '');
  await client.until('half');
  const gone = ended(await asked.promise);
  proxied.devices.asking.abort('cut');
  await client.over();
  await gone;
  await quiet(proxied.devices);
});

test('a session that ends before the response head is answered cleanly', async () => {
  const asked = Promise.withResolvers<Socket>();
  await using proxied = await answering((socket) => asked.resolve(socket));
  await using client = new RawClient(proxied.port);
  client.send(...get);
  await asked.promise;
  proxied.devices.serving.abort('cut');
  await client.over();
  assert.match(client.text, /^HTTP\/1.1 50[23] [^]*"code":"(carrier_lost|session_closed)"/);
});

test('a kept connection that the service has closed is replaced for a GET', async () => {
  let connections = 0;
  const sockets: Socket[] = [];
  await using proxied = await withRawService((socket) => {
    connections++;
    sockets.push(socket);
    let requests = 0;
    // Each connection dies when it is used a second time, as when its idle limit passed at that moment.
    socket.on('data', () => {
      if (++requests > 1) socket.resetAndDestroy();
      else socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
    });
  });
  for (let i = 0; i < 4; i++) {
    await using client = new RawClient(proxied.port);
    client.send(...get);
    await client.over();
    assert.match(client.text, /^HTTP\/1.1 200 /);
    await quiet(proxied.devices);
  }
  assert.equal(connections, 4);
});

for (const lines of [post, ['DELETE / HTTP/1.1', 'Host: g', 'Connection: close', '', '']]) {
  test(`a ${lines[0]?.split(' ')[0]} is never sent twice and never on a connection that may be stale`, async () => {
    let heads = 0;
    await using proxied = await withRawService((socket) => {
      socket.on('data', (bytes) => {
        if (bytes.toString().startsWith(lines[0] ?? '')) heads++;
        if (bytes.toString().startsWith('GET')) socket.write('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n');
        else socket.resetAndDestroy();
      });
    });
    for (const one of [get, lines]) {
      await using client = new RawClient(proxied.port);
      client.send(...one);
      await client.over();
      await quiet(proxied.devices);
      if (one === lines) assert.match(client.text, /^HTTP\/1.1 502 /);
    }
    assert.equal(heads, 1);
    assert.equal(proxied.connections, 2);
  });
}

test('a service on ::1 alone is found', async (context) => {
  const proxied = await withService((_request, response) => response.end('six'));
  await using _ = proxied;
  const six = createServer((_request, response) => response.end('six'));
  let port: number;
  try {
    port = await listen(six, '::1');
  } catch {
    context.skip('this machine has no IPv6');
    return;
  }
  proxied.devices.services.set('web', { port });
  await using client = new RawClient(proxied.port);
  client.send(...get);
  await client.over();
  six.closeAllConnections();
  six.close();
  assert.match(client.text, /six/);
});

const head: RequestHead = { method: 'POST', target: '/', headers: ['Host', 'g'] };

for (const [what, records] of [
  [
    'a longer body than its length',
    [{ ...head, headers: ['Content-Length', '2'] }, 'GET / HTTP/1.1\r\n\r\n'],
  ],
  ['a shorter body than its length', [{ ...head, headers: ['Content-Length', '9'] }, 'abc']],
  ['a body that its head does not announce', [head, 'GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n']],
  ['a length and chunks', [{ ...head, headers: ['Content-Length', '3'], chunked: true }, 'abc']],
  ['two lengths', [{ ...head, headers: ['Content-Length', '3', 'content-length', '4'] }, 'abc']],
  ['a Transfer-Encoding of its own', [{ ...head, headers: ['Transfer-Encoding', 'chunked'] }, '0\r\n\r\n']],
  ['the method CONNECT', [{ ...head, method: 'CONNECT' }, '']],
] as const) {
  test(`a peer cannot smuggle with ${what}`, async () => {
    const seen: string[] = [];
    await using proxied = await withRawService((socket) => {
      socket.setEncoding('latin1').on('data', (text: string) => {
        seen.push(text);
      });
    });
    const stream = proxied.devices.open('web');
    const [requestHead, body] = records;
    stream.write(encodeRequestHead({ ...requestHead, headers: [...requestHead.headers] }));
    if (body !== '') stream.write(encodeBody(new TextEncoder().encode(body)));
    stream.write(encodeEnd([]));
    stream.end();
    const record = await new RecordReceiver(stream, responseDecoder()).next();
    assert.equal(record?.kind, 'error');
    await stream.read();
    await quiet(proxied.devices);
    assert.doesNotMatch(seen.join(''), /smuggled|\r\n\r\nGET|CONNECT/);
  });
}

test('a peer that opens with a header or a head of no sense is refused, and others go on', async () => {
  await using proxied = await withService((_request, response) => response.end('fine'));
  const junk = proxied.devices.asking.open('/cocoon/http/1', new Uint8Array([0xc1]));
  junk.write(encodeRequestHead({ ...head, method: 'GET' }));
  const refused = await new RecordReceiver(junk, responseDecoder()).next();
  assert.equal(refused?.kind, 'error');
  junk.end();
  const noise = proxied.devices.open('web');
  noise.write(new Uint8Array([9, 9, 9, 9, 9]));
  await assert.doesNotReject(new RecordReceiver(noise, responseDecoder()).next());
  noise.end();
  await using client = new RawClient(proxied.port);
  client.send(...get);
  await client.over();
  assert.match(client.text, /fine/);
  await quiet(proxied.devices);
});

test('a peer that sends no request head loses its stream', async () => {
  const clock = new SteppedClock();
  await using proxied = await withService((_request, response) => response.end(), { clock });
  const stream = proxied.devices.open('web');
  while (proxied.devices.serves.size === 0) await new Promise((resolve) => setImmediate(resolve));
  clock.step(limits.openTimeoutMs);
  await assert.rejects(stream.read(), { code: 'stream_reset' });
  await quiet(proxied.devices);
  assert.equal(clock.pendingTimers, 0);
});

/** Calls back once per connection, when a request has come. */
async function answering(onRequest: (socket: Socket) => void, clock?: SteppedClock): Promise<RawService> {
  return await withRawService(
    (socket) => socket.once('data', () => onRequest(socket)),
    clock ? { clock } : {},
  );
}
