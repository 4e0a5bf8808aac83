import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { createServer, request as httpRequest } from 'node:http';
import type { IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, test } from 'node:test';
import type { Device } from '@cocoon-mesh/mesh';
import { MeshError, toMeshError, utf8 } from '@cocoon-mesh/protocol';
import { sampleTask } from '@cocoon-mesh/protocol/sample-messages.ts';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import type { LogPiece, TaskService } from '../tasks/task-service.ts';
import type { FeatureRoutes } from './feature-routes.ts';
import { answerFeatures, splitUrl } from './feature-routes.ts';

const device = { name: 'laptop', peerId: 'peer-1' } as Device;
const { id } = sampleTask;
const ndjson = { accept: 'application/x-ndjson' };

interface Parts {
  readonly task?: TaskService['task'];
  readonly logs?: (signal: AbortSignal, response: ServerResponse) => AsyncGenerator<LogPiece>;
  readonly run?: (signal: AbortSignal) => Promise<never>;
}

interface Served extends AsyncDisposable {
  readonly url: string;
  readonly clock: SteppedClock;
}

/** The routes alone, in front of parts that do as a test wants. */
async function serve({ task, logs, run }: Parts): Promise<Served> {
  const clock = new SteppedClock();
  const server = createServer((request, response) => {
    const routes = {
      clock,
      delegation: {},
      service: {
        device: () => device,
        task: task ?? (async () => ({ device, task: sampleTask })),
        logs: (_device: Device, _request: object, signal: AbortSignal) => logs?.(signal, response),
      },
      queries: { prepare: () => ({ devices: [], run }) },
    } as unknown as FeatureRoutes;
    answerFeatures(request, response, splitUrl(request.url ?? ''), routes).catch((thrown: unknown) => {
      if (response.headersSent) return response.destroy();
      const error = toMeshError(thrown);
      return response.writeHead(error.status).end(JSON.stringify({ code: error.code }));
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    clock,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

const piece = (bytes: Uint8Array, offset = 0): LogPiece => ({ bytes, offset });

describe('a log at the gateway', { timeout: 20_000 }, () => {
  test('keeps a character whole that is cut by the end of a piece', async () => {
    const [butterfly, rest] = [utf8('🦋').subarray(0, 2), utf8('🦋').subarray(2)];
    await using served = await serve({
      logs: async function* () {
        yield piece(butterfly);
        yield piece(rest, 2);
      },
    });
    const response = await fetch(`${served.url}/tasks/${id}/logs`, { headers: ndjson });
    const lines = (await response.text()).trim().split('\n');
    assert.equal(lines.map((line) => (JSON.parse(line) as { log: string }).log).join(''), '🦋');
  });

  test('that breaks off does not look like one that has ended', async () => {
    const logs = async function* (): AsyncGenerator<LogPiece> {
      yield piece(utf8('half'));
      throw new MeshError('carrier_lost');
    };
    await using served = await serve({ logs });
    const text = await fetch(`${served.url}/tasks/${id}/logs`);
    assert.equal(text.status, 200);
    await assert.rejects(text.text());
    const lines = await fetch(`${served.url}/tasks/${id}/logs`, { headers: ndjson });
    const last = (await lines.text()).trim().split('\n').at(-1) ?? '';
    assert.equal((JSON.parse(last) as { error: { code: string } }).error.code, 'carrier_lost');
  });

  test('is left when whoever reads it is gone', async () => {
    const left = Promise.withResolvers<void>();
    await using served = await serve({
      logs: async function* (signal) {
        yield piece(utf8('first'));
        signal.addEventListener('abort', () => left.resolve());
        await left.promise;
      },
    });
    const request = httpRequest(`${served.url}/tasks/${id}/logs?follow=1`).end();
    request.on('error', () => undefined);
    const [response] = (await once(request, 'response')) as [IncomingMessage];
    await once(response, 'data');
    request.destroy();
    await left.promise;
  });

  test('waits for a reader that is slower', async () => {
    const size = 64 * 1024;
    let most = 0;
    await using served = await serve({
      logs: async function* (_signal, response) {
        for (let count = 0; count < 200; count++) {
          yield piece(new Uint8Array(size), count * size);
          most = Math.max(most, response.writableLength);
        }
      },
    });
    const response = await fetch(`${served.url}/tasks/${id}/logs`);
    assert.equal((await response.bytes()).length, 200 * size);
    assert.ok(most <= 2 * size, String(most));
  });

  test('refuses parameters that it does not know', async () => {
    await using served = await serve({});
    for (const path of [
      `/tasks/${id}/logs?tail=5`,
      `/tasks/${id}/logs?follow=maybe`,
      '/tasks/hosts?need=gpu',
    ])
      assert.equal((await fetch(`${served.url}${path}`)).status, 400, path);
    const many = Array.from({ length: 33 }, () => 'requires=gpu').join('&');
    for (const query of [many, 'requires=', `requires=${'x'.repeat(129)}`])
      assert.equal((await fetch(`${served.url}/tasks/hosts?${query}`)).status, 400, query.slice(0, 30));
  });
});

describe('a request about a task', { timeout: 20_000 }, () => {
  test('is answered after thirty seconds, whatever the device does', async () => {
    const asked = Promise.withResolvers<void>();
    await using served = await serve({
      task: (_device, _request, signal) =>
        new Promise((_resolve, reject) => {
          signal.addEventListener('abort', () => reject(signal.reason as Error));
          asked.resolve();
        }),
    });
    const answer = fetch(`${served.url}/tasks/${id}`);
    await asked.promise;
    served.clock.step(30_000);
    assert.equal(((await (await answer).json()) as { code: string }).code, 'timeout');
  });
});

describe('a query', { timeout: 20_000 }, () => {
  test('is given up everywhere when whoever asked is gone', async () => {
    const asked = Promise.withResolvers<void>();
    const left = Promise.withResolvers<void>();
    await using served = await serve({
      run: (signal) =>
        new Promise((_resolve, reject) => {
          signal.addEventListener('abort', () => {
            left.resolve();
            reject(signal.reason as Error);
          });
          asked.resolve();
        }),
    });
    const request = httpRequest(`${served.url}/query`, { method: 'POST' });
    request.on('error', () => undefined);
    request.end(JSON.stringify({ query_type: 'list_tasks' }));
    await asked.promise;
    request.destroy();
    await left.promise;
  });

  test('that nobody could mean is refused before anybody is asked', async () => {
    let asked = 0;
    await using served = await serve({
      run: async () => {
        asked++;
        throw new MeshError('internal');
      },
    });
    let deep: object = {};
    for (let level = 0; level < 20; level++) deep = { deep };
    const refusals: string[] = [];
    for (const body of [
      { limit: 0 },
      { limit: 1001 },
      { limit: 1.5 },
      { timeout_ms: 60_001 },
      { params: { limit: 'ten' } },
      { params: { cursor: 5 } },
      { params: deep },
      { params: { text: 'x'.repeat(1_000_000) } },
      { cursor: 'x'.repeat(1_000_000) },
      { devices: [] },
      { devices: Array.from({ length: 1001 }, () => 'a') },
      { devices: ['x'.repeat(257)] },
      { cursor: 'x'.repeat(70_000) },
    ]) {
      const sent = JSON.stringify({ query_type: 'list_tasks', ...body });
      const response = await fetch(`${served.url}/query`, { method: 'POST', body: sent });
      refusals.push(((await response.json()) as { code: string }).code);
    }
    const expected = refusals.map((_, index) =>
      [7, 8].includes(index) ? 'message_too_large' : 'bad_filter',
    );
    assert.deepEqual(refusals, expected);
    assert.equal(asked, 0);
  });
});
