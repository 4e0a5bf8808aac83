import assert from 'node:assert/strict';
import type { IncomingMessage } from 'node:http';
import { describe, test } from 'node:test';
import { dialledUrl } from './public-url.ts';

interface Arrival {
  readonly host?: string;
  readonly local: string;
  readonly remote: string;
  readonly port?: number;
}

function dialled({ host, local, remote, port = 7400 }: Arrival, secure = false): string | null {
  const socket = { localAddress: local, localPort: port, remoteAddress: remote };
  // Of a request, only these are looked at.
  const request = { headers: { host }, socket } as unknown as IncomingMessage;
  try {
    return dialledUrl(request, null, secure);
  } catch {
    return null;
  }
}

describe('without a configured address, a server takes itself for', () => {
  test('the address that a connection arrived at', () => {
    const lan = { local: '192.168.1.10', remote: '192.168.1.20' };
    assert.equal(dialled({ ...lan, host: '192.168.1.10:7400' }), 'ws://192.168.1.10:7400/ws');
    assert.equal(
      dialled({ ...lan, host: '192.168.1.10:7400', local: '::ffff:192.168.1.10' }),
      'ws://192.168.1.10:7400/ws',
    );
    assert.equal(
      dialled({ host: '[2001:db8::1]:7400', local: '2001:db8:0:0::1', remote: '2001:db8::2' }),
      'ws://[2001:db8::1]:7400/ws',
    );
    assert.equal(dialled({ ...lan, host: '192.168.1.11:7400' }), null);
  });

  test('a loopback name only where the connection comes from this machine', () => {
    for (const host of ['localhost:7400', 'mesh.localhost:7400', '127.0.0.1:7400', '[::1]:7400']) {
      assert.equal(dialled({ host, local: '127.0.0.1', remote: '127.0.0.1' }), `ws://${host}/ws`);
      // Whoever listens on the port of a device's own machine could relay that sign-in.
      assert.equal(dialled({ host, local: '192.168.1.10', remote: '192.168.1.20' }), null);
    }
  });

  test('the default port when the name has none', () => {
    const here = { local: '127.0.0.1', remote: '127.0.0.1', host: 'localhost' };
    assert.equal(dialled({ ...here, port: 80 }), 'ws://localhost/ws');
    assert.equal(dialled({ ...here, port: 443 }, true), 'wss://localhost/ws');
    assert.equal(dialled({ ...here, port: 443 }), null);
  });

  test('nothing when the request names no host', () => {
    assert.equal(dialled({ local: '127.0.0.1', remote: '127.0.0.1' }), null);
  });
});
