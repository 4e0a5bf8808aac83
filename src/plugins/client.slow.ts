/** The client against a real HTTP server that answers as the gateway does. */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { Json } from '@cocoon-mesh/protocol';
import type { Client } from './client.node.ts';
import { connect } from './client.node.ts';
import { makeFolder, writeFiles } from './plugin-doubles.contract.ts';

interface Seen {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingMessage['headers'];
  readonly body: Json;
}

async function withGateway(
  answer: (seen: Seen, response: ServerResponse) => void,
  body: (client: Client, seen: readonly Seen[]) => Promise<void>,
): Promise<void> {
  await using folder = await makeFolder();
  await writeFiles(folder.path, { 'gateway.token': 'the-token\n' });
  const all: Seen[] = [];
  const server = createServer((request, response) => {
    let text = '';
    request.on('data', (piece: Buffer) => (text += piece.toString()));
    request.on('end', () => {
      const { method = '', url = '', headers } = request;
      const seen = { method, url, headers, body: text === '' ? null : (JSON.parse(text) as Json) };
      all.push(seen);
      answer(seen, response);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  try {
    await body(await connect({ home: folder.path, url: `http://127.0.0.1:${port}/` }), all);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

const from = {
  'cocoon-device': 'gpu',
  'cocoon-device-id': 'gpu-id',
  'cocoon-version': '1.2.0',
  'cocoon-attempts': '2',
  'cocoon-queue-ms': '3',
  'cocoon-total-ms': '40',
};
const wanted = { protocol: 'demo.work', version: '^1.0.0' };

describe('a program that asks its gateway', () => {
  it('gets an answer, its parts, and where it came from', async () => {
    await withGateway(
      (_seen, response) => {
        response.writeHead(200, { 'content-type': 'application/json', ...from });
        response.end(JSON.stringify({ result: { text: 'HI' }, parts: ['AQI='] }));
      },
      async (client, seen) => {
        const { result, parts, source } = await client.requestCapability(
          wanted,
          { text: 'hi' },
          {
            preferDevice: 'gpu',
            timeoutMs: 500,
            parts: [Uint8Array.of(255)],
          },
        );
        assert.deepEqual(result, { text: 'HI' });
        assert.deepEqual(parts, [Uint8Array.of(1, 2)]);
        assert.deepEqual(source, {
          device: 'gpu',
          deviceId: 'gpu-id',
          version: '1.2.0',
          attempts: 2,
          queueMs: 3,
          totalMs: 40,
          insteadOf: null,
        });
        const [{ method, url, headers, body } = assert.fail()] = seen;
        assert.deepEqual(
          [method, url, headers['cocoon-authorization']],
          ['POST', '/capabilities/demo.work', 'Bearer the-token'],
        );
        assert.deepEqual(body, {
          version: '^1.0.0',
          payload: { text: 'hi' },
          parts: ['/w=='],
          prefer_device: 'gpu',
          timeout_ms: 500,
        });
      },
    );
  });

  it('gets a stream as it comes, also where the network cuts it', async () => {
    await withGateway(
      (_seen, response) => {
        response.writeHead(200, { 'content-type': 'text/event-stream', ...from });
        const text = `event: chunk\ndata: {"payload":"ä1"}\n\nevent: chunk\r\ndata: {"payload":2,"parts":["AQ=="]}\r\n\r\nevent: done\ndata: {"result":{"n":2},"total_ms":99}\n\n`;
        const bytes = Buffer.from(text);
        for (let at = 0; at < bytes.length; at += 3) response.write(bytes.subarray(at, at + 3));
        response.end();
      },
      async (client) => {
        const answer = client.streamCapability(wanted, null);
        const chunks = [];
        for await (const { payload, parts } of answer.chunks) chunks.push([payload, parts.length]);
        assert.deepEqual(chunks, [
          ['ä1', 0],
          [2, 1],
        ]);
        const { payload, source } = await answer.end;
        assert.deepEqual([payload, source.totalMs, (await answer.device).device], [{ n: 2 }, 99, 'gpu']);
        assert.deepEqual((await client.requestCapability(wanted, null)).result, { n: 2 });
      },
    );
  });

  it('gets errors with their code, before and in the middle of a stream, and when it breaks off', async () => {
    await withGateway(
      ({ body }, response) => {
        const { payload } = body as { payload: Json };
        if (payload === 'busy') {
          response.writeHead(503, { 'content-type': 'application/problem+json', 'retry-after': '2' });
          return response.end(
            JSON.stringify({ code: 'overloaded', title: 'All places are taken', hint: 'Later' }),
          );
        }
        response.writeHead(200, { 'content-type': 'text/event-stream', ...from });
        response.write('event: chunk\ndata: {"payload":1}\n\n');
        if (payload === 'error')
          response.write('event: error\ndata: {"error":{"code":"provider_failed","message":"half way"}}\n\n');
        response.end();
      },
      async (client) => {
        await assert.rejects(client.requestCapability(wanted, 'busy'), {
          code: 'overloaded',
          message: 'All places are taken',
          hint: 'Later',
          retryAfterMs: 2000,
        });
        await assert.rejects(client.requestCapability(wanted, 'error'), {
          code: 'provider_failed',
          message: 'half way',
        });
        await assert.rejects(client.requestCapability(wanted, 'nothing'), { code: 'carrier_lost' });
      },
    );
  });

  it('that leaves a stream closes the request', async () => {
    const closed = Promise.withResolvers<void>();
    await withGateway(
      (_seen, response) => {
        response.on('close', () => closed.resolve());
        response.writeHead(200, { 'content-type': 'text/event-stream', ...from });
        response.write('event: chunk\ndata: {"payload":1}\n\n');
      },
      async (client) => {
        for await (const _ of client.streamCapability(wanted, null).chunks) break;
        await closed.promise;
      },
    );
  });

  it('is told what does not fit its schemas', async () => {
    await withGateway(
      (_seen, response) => response.end('{"result":"text"}'),
      async (client, seen) => {
        const typed = { ...wanted, payload: { type: 'integer' }, answer: { type: 'integer' } } as const;
        // @ts-expect-error the payload is no number
        await assert.rejects(client.requestCapability(typed, 'text'), { code: 'bad_payload' });
        assert.equal(seen.length, 0);
        await assert.rejects(client.requestCapability(typed, 1), { code: 'bad_answer' });
      },
    );
  });

  it('queries all devices, and sees rows as they come', async () => {
    await withGateway(
      (_seen, response) => {
        const part = { device: 'gpu', device_id: 'gpu-id', seq: 0, rows: [1], is_final: true };
        response.write(`${JSON.stringify({ part })}\n`);
        response.end(`${JSON.stringify({ result: { rows: [1], devices: [], partial: false } })}\n`);
      },
      async (client, seen) => {
        const parts: unknown[] = [];
        const result = await client.query(
          'custom',
          { name: 'shouted' },
          { limit: 3, onPart: (part) => parts.push(part) },
        );
        assert.deepEqual([result.rows, parts.length], [[1], 1]);
        assert.deepEqual(seen[0]?.body, { query_type: 'custom', params: { name: 'shouted' }, limit: 3 });
      },
    );
  });

  it('fetches from services with its own headers, and gets whatever they answer', async () => {
    await withGateway(
      (_seen, response) => response.writeHead(418).end('short and stout'),
      async (client, seen) => {
        const response = await client.fetch('gpu/grafana/api?x=1', {
          headers: { authorization: 'Basic eDp5' },
        });
        assert.deepEqual([response.status, await response.text()], [418, 'short and stout']);
        const [{ url, headers } = assert.fail()] = seen;
        assert.deepEqual([url, headers.authorization], ['/proxy/gpu/grafana/api?x=1', 'Basic eDp5']);
        await assert.rejects(client.fetch('gpu'), { code: 'usage' });
      },
    );
  });

  it('lists devices', async () => {
    await withGateway(
      (_seen, response) => response.end('{"cocoons":[{"name":"gpu"}]}'),
      async (client) =>
        assert.deepEqual(
          (await client.devices()).map(({ name }) => name),
          ['gpu'],
        ),
    );
  });

  it('is told when no device runs here', async () => {
    await using folder = await makeFolder();
    await assert.rejects(connect({ home: join(folder.path, 'nothing') }), { code: 'not_running' });
    const client = await connect({ token: 'x', url: 'http://127.0.0.1:9' });
    await assert.rejects(client.devices(), { code: 'not_running' });
    await assert.rejects(client.requestCapability(wanted, null), { code: 'not_running' });
  });
});
