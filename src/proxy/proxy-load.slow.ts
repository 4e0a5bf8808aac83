/** Large bodies in bounded memory, and many requests that leave nothing behind. */

import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { Agent, type IncomingMessage, request, type RequestOptions } from 'node:http';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { type Clock, systemClock, type Timer } from '@cocoon-mesh/protocol';
import { type ProxiedService, quiet, withService } from './proxied-service.contract.ts';

const full = process.env['COCOON_TEST_FULL'] === '1';
const bulkBytes = (full ? 256 : 64) << 20;
const concurrent = 200;
const sequential = full ? 2000 : 500;
/** What may lie in buffers of five sockets, two sessions and their replays, garbage included. */
const maxBufferedBytes = 150 << 20;
setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;
const block = randomBytes(64 << 10);

test('a large download is whole and memory stays bounded', async () => {
  await using proxied = await withService((_request, response) => {
    response.setHeader('Content-Length', bulkBytes);
    void pipeline(Readable.from(blocks()), response);
  });
  const memory = new MemoryWatch();
  const message = await ask(proxied.port, {});
  assert.equal(await hashOf(message, memory), await expectedHash());
  assert.ok(memory.grownBytes < maxBufferedBytes, `${memory.grownBytes >> 20} MiB`);
  await quiet(proxied.devices);
});

test('a large upload is whole and memory stays bounded', async () => {
  const memory = new MemoryWatch();
  await using proxied = await withService((incoming, response) => {
    void hashOf(incoming, memory).then((hash) => response.end(hash));
  });
  const outgoing = request({ port: proxied.port, host: '127.0.0.1', method: 'PUT', agent: false });
  const answered = once(outgoing, 'response') as Promise<[IncomingMessage]>;
  await pipeline(Readable.from(blocks()), outgoing);
  const [message] = await answered;
  assert.equal(await textOf(message), await expectedHash());
  assert.ok(memory.grownBytes < maxBufferedBytes, `${memory.grownBytes >> 20} MiB`);
  await quiet(proxied.devices);
});

test(`${concurrent} requests at once and ${sequential} one after the other leave nothing behind`, async () => {
  const clock = new CountingClock();
  await using proxied = await withService(
    (incoming, response) => {
      if (incoming.url === '/break') incoming.socket.destroy();
      else if (incoming.method === 'POST') incoming.pipe(response);
      else response.end('0123456789'.repeat(100));
    },
    { clock },
  );
  const warnings: Error[] = [];
  const onWarning = (warning: Error) => warnings.push(warning);
  process.on('warning', onWarning);
  const agent = new Agent({ keepAlive: true });
  const kinds: RequestOptions[] = [
    { path: '/' },
    { method: 'POST' },
    { path: '/break' },
    { path: '/', method: 'HEAD' },
  ];
  const one = async (i: number) => {
    await textOf(await ask(proxied.port, { agent, ...kinds[i % kinds.length] }));
  };
  await Promise.all(Array.from({ length: concurrent }, (_, i) => one(i)));
  await settled(proxied, clock);
  proxied.gateway.outcomes.length = 0;
  const heapBefore = heap();
  for (let i = 0; i < sequential; i++) await one(i);
  await settled(proxied, clock);
  proxied.gateway.outcomes.length = 0;
  const grown = heap() - heapBefore;
  assert.ok(grown < 4 << 20, `heap grew by ${grown >> 10} KiB`);
  agent.destroy();
  proxied.devices.connections.close();
  await noSockets();
  // Too many listeners on one socket would have been told.
  assert.deepEqual(warnings, []);
  process.off('warning', onWarning);
});

test('clients that go away at any moment leave nothing behind', async () => {
  const clock = new CountingClock();
  await using proxied = await withService(
    (incoming, response) => {
      incoming.on('error', () => undefined);
      incoming.resume();
      response.write('some');
      setImmediate(() => response.end('more'));
    },
    { clock },
  );
  for (let i = 0; i < sequential / 5; i++) {
    const outgoing = request({ port: proxied.port, host: '127.0.0.1', method: 'POST', agent: false });
    outgoing.on('error', () => undefined);
    const gone = new Promise((resolve) => outgoing.on('close', resolve));
    outgoing.write('begun');
    for (let turn = 0; turn < i % 25; turn++) await new Promise((resolve) => setImmediate(resolve));
    outgoing.destroy();
    await gone;
  }
  await settled(proxied, clock);
  proxied.devices.connections.close();
  await noSockets();
});

/** No streams, no exchanges, no timers. */
async function settled(proxied: ProxiedService, clock: CountingClock): Promise<void> {
  await quiet(proxied.devices);
  const limit = AbortSignal.timeout(10_000);
  while (clock.pending > 0 && !limit.aborted) await new Promise((resolve) => setImmediate(resolve));
  assert.equal(clock.pending, 0);
}

/** Every connection of this process is closed. */
async function noSockets(): Promise<void> {
  const limit = AbortSignal.timeout(10_000);
  const open = () => process.getActiveResourcesInfo().filter((name) => name === 'TCPSocketWrap').length;
  while (open() > 0 && !limit.aborted) await new Promise((resolve) => setImmediate(resolve));
  assert.equal(open(), 0);
}

function heap(): number {
  collectGarbage();
  return process.memoryUsage().heapUsed;
}

class CountingClock implements Clock {
  pending = 0;

  now(): number {
    return systemClock.now();
  }

  monotonic(): number {
    return systemClock.monotonic();
  }

  after(delayMs: number, callback: () => void): Timer {
    this.pending++;
    let state: 'waiting' | 'over' = 'waiting';
    const over = () => {
      if (state === 'waiting') this.pending--;
      state = 'over';
    };
    const timer = systemClock.after(delayMs, () => {
      over();
      callback();
    });
    return {
      cancel() {
        over();
        timer.cancel();
      },
    };
  }
}

/** The most that buffers grew over where they began. */
class MemoryWatch {
  readonly #before = process.memoryUsage().arrayBuffers;
  #most = 0;

  look(): void {
    this.#most = Math.max(this.#most, process.memoryUsage().arrayBuffers - this.#before);
  }

  get grownBytes(): number {
    return this.#most;
  }
}

function* blocks(): Generator<Buffer> {
  for (let sent = 0; sent < bulkBytes; sent += block.length) yield block;
}

async function expectedHash(): Promise<string> {
  const hash = createHash('sha256');
  for (const piece of blocks()) hash.update(piece);
  return hash.digest('hex');
}

async function hashOf(message: IncomingMessage, memory: MemoryWatch): Promise<string> {
  const hash = createHash('sha256');
  let pieces = 0;
  for await (const piece of message) {
    hash.update(piece as Uint8Array);
    if (++pieces % 64 === 0) memory.look();
  }
  return hash.digest('hex');
}

async function ask(port: number, options: RequestOptions): Promise<IncomingMessage> {
  const outgoing = request({ port, host: '127.0.0.1', ...options });
  outgoing.end(options.method === 'POST' ? 'posted' : '');
  const [message] = (await once(outgoing, 'response')) as [IncomingMessage];
  return message;
}

async function textOf(message: IncomingMessage): Promise<string> {
  let text = '';
  for await (const piece of message.setEncoding('utf8')) text += String(piece);
  return text;
}
