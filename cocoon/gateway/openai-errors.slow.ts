import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { delta } from '@cocoon-mesh/ai/model-server.contract.ts';
import type { Content, ProviderCall } from '@cocoon-mesh/capabilities';
import { content, scriptedProvider } from '@cocoon-mesh/capabilities/scripted-provider.contract.ts';
import type { Json } from '@cocoon-mesh/protocol';
import { MeshError, limits } from '@cocoon-mesh/protocol';
import { Ollama } from 'ollama';
import OpenAI from 'openai';
import type { ModelGateway } from './model-mesh.contract.ts';
import { ModelMesh, serveModels } from './model-mesh.contract.ts';

const messages = [{ role: 'user' as const, content: 'Hi' }];

type Script = (call: ProviderCall) => AsyncIterable<Content> | Promise<Content>;

async function gatewayOf(protocol: string, handle: Script): Promise<ModelGateway> {
  const mesh = new ModelMesh();
  mesh.add('gpu', scriptedProvider({ protocol, state: { features: ['model:m'] }, handle }));
  return serveModels(mesh);
}

const piece = (text: string): Content => content(delta({ content: text }) as unknown as Json);

async function post(gateway: ModelGateway, path: string, body: string): Promise<Response> {
  return fetch(gateway.url + path, { method: 'POST', body, headers: { 'content-type': 'application/json' } });
}

describe('an error behind the API of OpenAI', () => {
  it('in the middle of a stream is one for the clients, and no end of the answer', async () => {
    await using gateway = await gatewayOf('llm.chat', async function* () {
      yield piece('Hel');
      throw new MeshError('provider_failed', 'The GPU fell off');
    });
    const client = new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey: 'x', maxRetries: 0 });
    const stream = await client.chat.completions.create({ model: 'm', messages, stream: true });
    await assert.rejects(async () => {
      for await (const _chunk of stream);
    }, /The GPU fell off/);
    const ollama = new Ollama({ host: gateway.url });
    await assert.rejects(async () => {
      for await (const _part of await ollama.chat({ model: 'm', messages, stream: true }));
    }, /The GPU fell off/);
    // Without a stream there is a status to say it with.
    await assert.rejects(client.chat.completions.create({ model: 'm', messages }), {
      status: 502,
      code: 'provider_failed',
      type: 'server_error',
    });
    const raw = await (
      await post(gateway, '/v1/chat/completions', JSON.stringify({ model: 'm', messages, stream: true }))
    ).text();
    assert.ok(!raw.includes('[DONE]'));
  });

  it('says when to come back', async () => {
    await using gateway = await gatewayOf('llm.chat', async () => {
      throw new MeshError('overloaded', 'gpu is busy', { retryAfterMs: 2_400 });
    });
    const response = await post(gateway, '/v1/chat/completions', JSON.stringify({ model: 'm', messages }));
    assert.deepEqual([response.status, response.headers.get('retry-after')], [503, '3']);
    assert.deepEqual(await response.json(), {
      error: {
        message: 'gpu is busy. Try again in a moment.',
        type: 'server_error',
        param: null,
        code: 'overloaded',
      },
    });
  });

  it('in what a client sends names the field', async () => {
    await using gateway = await gatewayOf('llm.chat', async () => content(null));
    for (const [body, status, said] of [
      ['{', 400, 'not JSON'],
      ['[]', 400, 'chat request'],
      [
        JSON.stringify({ model: 'm', messages: [{ role: 'user', content: [{ text: 'x' }] }] }),
        400,
        'messages.0.content',
      ],
      [JSON.stringify({ model: 'm', messages, tools: [{ type: 'function' }] }), 400, 'tools.0.function'],
      [
        JSON.stringify({
          model: 'm',
          messages: [{ role: 'user', content: 'x'.repeat(limits.maxCapabilityJsonBytes) }],
        }),
        413,
        'bytes',
      ],
    ] as const) {
      const response = await post(gateway, '/v1/chat/completions', body);
      const { error } = (await response.json()) as { error: { message: string } };
      assert.equal(response.status, status, error.message);
      assert.ok(error.message.includes(said), error.message);
    }
    const response = await post(gateway, '/v1/nothing', '{}');
    assert.equal(response.status, 404);
    assert.equal(((await response.json()) as { error: { code: string } }).error.code, 'not_found');
  });

  it('in vectors that are not what they are said to be reaches nobody as vectors', async () => {
    const right = {
      model: 'm',
      space: 'a'.repeat(64),
      semantic: true,
      dimensions: 3,
      count: 1,
      usage: { prompt_tokens: 1, total_tokens: 1 },
    };
    for (const [payload, ...parts] of [
      [right, new Uint8Array(8)],
      [right],
      [{ ...right, dimensions: 0 }, new Uint8Array(0)],
      [{ ...right, count: 2 }, new Uint8Array(24)],
      [{ ...right, space: 'none' }, new Uint8Array(12)],
      ['vectors', new Uint8Array(12)],
    ] as [Json, ...Uint8Array[]][]) {
      await using gateway = await gatewayOf('embeddings', async () => content(payload, ...parts));
      const response = await post(gateway, '/v1/embeddings', JSON.stringify({ model: 'm', input: 'x' }));
      assert.equal(response.status, 502);
      assert.equal(((await response.json()) as { error: { code: string } }).error.code, 'bad_answer');
    }
  });
});

describe('a client that reads slowly', () => {
  it('slows the model down', async () => {
    let sent = 0;
    const text = 'x'.repeat(64 * 1024);
    await using gateway = await gatewayOf('llm.chat', async function* () {
      for (; sent < 4096; sent++) yield piece(text);
      yield content(delta({}, 'stop') as unknown as Json);
    });
    const response = await post(
      gateway,
      '/v1/chat/completions',
      JSON.stringify({ model: 'm', messages, stream: true }),
    );
    const reader = response.body!.getReader();
    await reader.read();
    let before = -1;
    // Until nothing moves any more.
    while (before !== sent) {
      before = sent;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    assert.ok(sent < 1024, `${sent} pieces of 64 KiB were taken`);
    await reader.cancel();
  });
});
