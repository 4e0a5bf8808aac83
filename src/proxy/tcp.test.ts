/** Raw connections through the mesh: half-close, back-pressure, and what a client sees of a failure. */

import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import { test } from 'node:test';
import { limits, MeshError } from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import {
  closed,
  Devices,
  ended,
  freePort,
  listen,
  type MeshedOptions,
  quiet,
  RawClient,
} from './proxied-service.contract.ts';
import { forwardTcp, type ForwardTcpOptions, tcpServerOptions } from './tcp.node.ts';

test('bytes pass both ways and each direction ends on its own', async () => {
  await using forward = await Forward.to((socket) => {
    const pieces: Buffer[] = [];
    socket.on('data', (piece) => pieces.push(piece));
    // Speaks only after the client has ended.
    socket.on('end', () => {
      socket.write('you said ');
      socket.end(Buffer.concat(pieces));
    });
  });
  await using client = new RawClient(forward.port);
  client.send('\x00hello\xff');
  client.socket.end();
  assert.equal(await client.over(), 'ended');
  assert.equal(client.text, 'you said \x00hello\xff');
  await quiet(forward.devices);
  assert.equal(await forward.outcome.promise, null);
});

test('the service may end first and still listen', async () => {
  const heard = Promise.withResolvers<string>();
  await using forward = await Forward.to((socket) => {
    let text = '';
    socket.on('data', (piece) => (text += piece.toString()));
    socket.on('end', () => heard.resolve(text));
    socket.end('greeting');
  });
  await using client = new RawClient(forward.port);
  assert.equal(await client.over(), 'ended');
  assert.equal(client.text, 'greeting');
  client.send('last words');
  client.socket.end();
  assert.equal(await heard.promise, 'last words');
  await quiet(forward.devices);
});

test('16 MiB echo back unchanged', async () => {
  await using forward = await Forward.to((socket) => socket.pipe(socket));
  await using client = new RawClient(forward.port);
  const bytes = randomBytes(16 << 20);
  const hash = createHash('sha256');
  client.socket.on('data', (text: string) => hash.update(text, 'latin1'));
  client.socket.end(bytes);
  await client.over();
  assert.equal(hash.digest('hex'), createHash('sha256').update(bytes).digest('hex'));
  await quiet(forward.devices);
});

for (const breaker of ['client', 'service'] as const) {
  test(`when the ${breaker} breaks, the other side is broken too`, async () => {
    const taken = Promise.withResolvers<Socket>();
    await using forward = await Forward.to((socket) => {
      socket.write('hi');
      taken.resolve(socket);
    });
    await using client = new RawClient(forward.port);
    await client.until('hi');
    const service = await taken.promise;
    if (breaker === 'client') {
      const errored = once(service, 'error');
      service.resume();
      client.socket.resetAndDestroy();
      await errored;
    } else {
      service.resetAndDestroy();
      assert.equal(await client.over(), 'broken');
    }
    await quiet(forward.devices);
  });
}

test('a service that does not exist, or takes no connection, resets the client and says why', async () => {
  for (const [port, code] of [
    [null, 'service_not_found'],
    [await freePort(), 'service_refused'],
  ] as const) {
    await using forward = await Forward.to(() => undefined);
    if (port === null) forward.devices.services.clear();
    else forward.devices.services.set('db', { port });
    await using client = new RawClient(forward.port);
    assert.equal(await client.over(), 'broken');
    await quiet(forward.devices);
    assert.equal((await forward.outcome.promise)?.code, code);
  }
});

test('a device that cannot be reached resets the client and says why', async () => {
  await using forward = await Forward.to(() => undefined, {
    openStream: () => Promise.reject(new MeshError('device_offline')),
  });
  await using client = new RawClient(forward.port);
  assert.equal(await client.over(), 'broken');
  assert.equal((await forward.outcome.promise)?.code, 'device_offline');
});

test('a device that does not answer ends the wait', async () => {
  const clock = new SteppedClock();
  const opened = Promise.withResolvers<void>();
  await using forward = await Forward.to(() => undefined, { clock, accept: () => opened.resolve() });
  await using client = new RawClient(forward.port);
  await opened.promise;
  clock.step(limits.openTimeoutMs + limits.serviceConnectTimeoutMs);
  assert.equal(await client.over(), 'broken');
  await quiet(forward.devices);
  assert.equal((await forward.outcome.promise)?.code, 'gateway_timeout');
  assert.equal(clock.pendingTimers, 0);
});

test('a session that ends breaks both connections', async () => {
  const taken = Promise.withResolvers<Socket>();
  await using forward = await Forward.to((socket) => {
    socket.write('hi');
    taken.resolve(socket);
  });
  await using client = new RawClient(forward.port);
  await client.until('hi');
  const gone = ended(await taken.promise);
  forward.devices.asking.abort('cut');
  assert.equal(await client.over(), 'broken');
  await gone;
});

/** A local port whose connections go to a service of the other device. */
class Forward implements AsyncDisposable {
  readonly devices: Devices;
  /** Of the first connection. */
  readonly outcome = Promise.withResolvers<MeshError | null>();
  readonly port: number;
  readonly #servers: Server[];
  readonly #sockets = new Set<Socket>();

  private constructor(devices: Devices, port: number, servers: Server[]) {
    this.devices = devices;
    this.port = port;
    this.#servers = servers;
    for (const server of servers) {
      server.on('connection', (socket) => {
        this.#sockets.add(socket);
        socket.once('close', () => this.#sockets.delete(socket));
      });
    }
  }

  static async to(
    onConnection: (socket: Socket) => void,
    options: MeshedOptions & Partial<ForwardTcpOptions> = {},
  ): Promise<Forward> {
    const service = createServer({ allowHalfOpen: true }, (socket) => {
      socket.on('error', () => undefined);
      onConnection(socket);
    });
    const devices = new Devices({ services: new Map([['db', { port: await listen(service) }]]), ...options });
    const local = createServer(tcpServerOptions, (socket) => {
      const { openStream = async () => devices.openTcp('db') } = options;
      void forwardTcp(socket, { openStream, clock: devices.clock }).then(forward.outcome.resolve);
    });
    const forward = new Forward(devices, await listen(local), [service, local]);
    return forward;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.devices[Symbol.asyncDispose]();
    for (const socket of this.#sockets) socket.destroy();
    await Promise.all(this.#servers.map(closed));
  }
}
