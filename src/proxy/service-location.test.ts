/** Where a service's answers lead: to the service as the client knows it, never to the client's own localhost. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ServiceTarget } from './service-connections.node.ts';
import { RawClient, withRawService } from './proxied-service.contract.ts';

for (const field of ['Location', 'Content-Location', 'LOCATION']) {
  test(`a ${field} at the service itself becomes a path`, async () => {
    for (const origin of ['localhost', '127.0.0.1', '[::1]'])
      assert.equal(
        await passed((port) => `http://${origin}:${port}/a%2Fb/../c?d=http://x/#e`, { field }),
        '/a%2Fb/../c?d=http://x/#e',
      );
  });
}

test('a Location at the service without a path leads to its root', async () => {
  assert.equal(await passed((port) => `http://localhost:${port}`), '/');
  assert.equal(await passed((port) => `http://localhost:${port}/`), '/');
  assert.equal(await passed((port) => `http://localhost:${port}?a=1#b`), '/?a=1#b');
  assert.equal(await passed((port) => `HTTP://LocalHost:${port}#b`), '/#b');
});

test('a Location keeps bytes beyond ASCII as they came', async () => {
  assert.equal(
    await passed((port) => `http://localhost:${port}/caf\xc3\xa9\xc3\xa0`),
    '/caf\xc3\xa9\xc3\xa0',
  );
});

test('a path of the service that begins with two slashes does not become the name of another host', async () => {
  assert.equal(await passed((port) => `http://localhost:${port}//evil.example/`), '/.//evil.example/');
});

test('a Location at the service by the name it was given becomes a path, and at localhost does not', async () => {
  const target = { hostHeader: 'wiki.example' };
  assert.equal(await passed(() => 'http://wiki.example/a', { target }), '/a');
  const own = await passed((port) => `http://localhost:${port}/a`, { target });
  assert.match(own, /^http:\/\/localhost:\d+\/a$/);
});

test('any other Location passes byte for byte', async () => {
  const others = (port: number) => [
    `https://localhost:${port}/a`,
    `http://localhost:${port + 1}/a`,
    `http://localhost:${port}0/a`,
    'http://localhost/a',
    `http://localhost.evil.example:${port}/a`,
    `http://localhost:${port}@evil.example/a`,
    `http://user@localhost:${port}/a`,
    `//localhost:${port}/a`,
    'https://login.example/?next=http://localhost/',
    '/a//b/../c?d#e',
    '../up',
    'a',
    '?b',
    '',
  ];
  for (let i = 0; i < others(1).length; i++) await same((port) => others(port)[i] ?? '');
});

test('a malformed Location passes byte for byte', async () => {
  const malformed = (port: number) => [
    'http://',
    'http:///a',
    'http://[::1',
    `http:/localhost:${port}/a`,
    `http:localhost:${port}/a`,
    `http://localhost:${port}x/a`,
    `http://localhost:${port}\\a`,
    `http://localhost:${port}/\\evil.example`,
    `http://localhost:${port}/\t/evil.example`,
    `http://localhost:${port}/a b`,
    `http://localhost:${port}/a, http://localhost:${port}/b`,
  ];
  for (let i = 0; i < malformed(1).length; i++) await same((port) => malformed(port)[i] ?? '');
});

test('an address in any other field of the answer stays', async () => {
  await same((port) => `http://localhost:${port}/a`, 'X-Location');
  await same((port) => `<http://localhost:${port}/a>; rel=next`, 'Link');
});

interface PassedOptions {
  readonly field?: string;
  readonly target?: Partial<ServiceTarget>;
}

async function same(value: (port: number) => string, field = 'Location'): Promise<void> {
  let sent = '';
  const received = await passed((port) => (sent = value(port)), { field });
  assert.equal(received, sent);
}

/** The value with which a field of an answer arrives that the service sends with this one. */
async function passed(
  value: (port: number) => string,
  { field = 'Location', target = {} }: PassedOptions = {},
): Promise<string> {
  await using proxied = await withRawService((socket) => {
    socket.once('data', () => {
      const { servicePort } = proxied;
      const head = `HTTP/1.1 302 Found\r\n${field}: ${value(servicePort)}\r\nContent-Length: 0\r\n\r\n`;
      socket.end(head, 'latin1');
    });
  });
  proxied.devices.services.set('web', { port: proxied.servicePort, ...target });
  await using client = new RawClient(proxied.port);
  client.send('GET / HTTP/1.1', 'Host: gateway', 'Connection: close', '', '');
  await client.over();
  const line = client.text.split('\r\n').find((text) => text.startsWith(`${field}:`));
  assert.ok(line !== undefined, client.text);
  return line.slice(field.length + 1).replace(/^ /, '');
}
