import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Provider } from '@cocoon-mesh/capabilities';
import { MeshError, systemClock } from '@cocoon-mesh/protocol';
import { packVector } from '@cocoon-mesh/vectors';
import { embed, until } from './embeddings-calls.contract.ts';
import type { EmbeddingsOptions } from './embeddings.node.ts';
import { embeddingsProvider } from './embeddings.node.ts';
import type { Answer } from './model-server.contract.ts';
import { ScriptedModelServer, answerJson } from './model-server.contract.ts';

function vectorOf(text: string): Float32Array {
  return Float32Array.of(text.length, text.codePointAt(0) ?? 0, 0.25);
}

function base64(text: string): string {
  return Buffer.from(packVector(vectorOf(text))).toString('base64');
}

async function start(options: Pick<EmbeddingsOptions, 'setting'> & Partial<EmbeddingsOptions>) {
  const provider = embeddingsProvider({ apiKey: null, device: 'here', clock: systemClock, ...options });
  await until(provider, ({ problem }) => problem === null || !problem.includes('has not answered yet'));
  return Object.assign(provider, { [Symbol.asyncDispose]: async (): Promise<void> => provider.close() });
}

const spaceOf = (provider: Provider): string | undefined =>
  provider.state.features.find((feature) => feature.startsWith('space:'));

const texts = ['one', 'twenty', 'three'];
const asked = (body: Readonly<Record<string, unknown>>): readonly string[] => body['input'] as string[];

function ollama(digest = 'sha256:1'): Record<string, Answer> {
  return {
    'GET /api/tags': ({ response }) =>
      answerJson(response, 200, {
        models: [
          { name: 'llama3:8b', digest: 'x' },
          { name: 'nomic:latest', digest },
        ],
      }),
    'POST /api/embed': ({ body, response }) => {
      if (body['truncate'] === false && asked(body).some((text) => text.length > 1_000))
        return answerJson(response, 400, { error: 'the input length exceeds the context length' });
      const embeddings = asked(body).map((text) => [...vectorOf(text.slice(0, 1_000))]);
      answerJson(response, 200, {
        model: body['model'],
        embeddings,
        prompt_eval_count: embeddings.length * 2,
      });
    },
  };
}

function openAi(models: readonly string[], asNumbers = false): Record<string, Answer> {
  return {
    'GET /v1/models': ({ response }) =>
      answerJson(response, 200, { object: 'list', data: models.map((id) => ({ id, object: 'model' })) }),
    'POST /v1/embeddings': ({ body, response, headers }) => {
      if (headers.authorization !== 'Bearer key')
        return answerJson(response, 401, { error: { message: 'bad key' } });
      // In another order than asked: `index` says which is which.
      const data = asked(body).map((text, index) => ({
        object: 'embedding',
        index,
        embedding: asNumbers ? [...vectorOf(text)] : base64(text),
      }));
      answerJson(response, 200, { object: 'list', data: data.toReversed(), usage: { prompt_tokens: 9 } });
    },
  };
}

describe('embeddings by Ollama', { timeout: 60_000 }, () => {
  it('are those of its model, whose digest is the space', async () => {
    await using server = await ScriptedModelServer.start(ollama());
    await using other = await ScriptedModelServer.start(ollama());
    await using newer = await ScriptedModelServer.start(ollama('sha256:2'));
    await using provider = await start({ setting: 'ollama:nomic', ollamaHost: server.url });
    await using same = await start({ setting: 'ollama:nomic:latest', ollamaHost: other.url });
    await using another = await start({ setting: 'ollama:nomic', ollamaHost: newer.url });
    const { vectors, ...answer } = await embed(provider, texts);
    assert.deepEqual(vectors, texts.map(vectorOf));
    assert.deepEqual([answer.model, answer.semantic, answer.dimensions], ['nomic', true, 3]);
    assert.deepEqual(answer.usage, { prompt_tokens: 6, total_tokens: 6 });
    assert.equal(spaceOf(provider), `space:${answer.space}`);
    assert.equal(spaceOf(same), spaceOf(provider));
    assert.notEqual(spaceOf(another), spaceOf(provider));
    assert.deepEqual(server.newest('POST /api/embed'), { model: 'nomic', input: texts, truncate: false });
  });

  it('of a text that is too long are an error, unless it may be cut off', async () => {
    await using server = await ScriptedModelServer.start(ollama());
    await using provider = await start({ setting: 'ollama:nomic', ollamaHost: server.url });
    const long = 'x'.repeat(2_000);
    await assert.rejects(embed(provider, [long]), { code: 'text_too_long', message: /^input\[0\]/ });
    await provider.handle({
      payload: { input: [long], truncate: true },
      parts: [],
      signal: new AbortController().signal,
      session: null,
      features: [],
      from: { id: 'x', name: 'x' },
    });
    assert.equal(provider.state.problem, null);
  });

  it('are not offered without the model, and the reason says how to get it', async () => {
    await using server = await ScriptedModelServer.start(ollama());
    await using provider = await start({ setting: 'ollama:mxbai', ollamaHost: server.url });
    assert.match(provider.state.problem ?? '', /has no model mxbai: fetch it with `ollama pull mxbai`/);
  });

  it('are not offered while nobody listens there', async () => {
    const server = await ScriptedModelServer.start(ollama());
    const { url } = server;
    await server.stop();
    await using provider = await start({ setting: 'ollama:nomic', ollamaHost: url });
    assert.match(provider.state.problem ?? '', /Ollama at .* cannot be reached \(ECONNREFUSED\)/);
    await assert.rejects(embed(provider, ['a']), { code: 'model_unavailable' });
  });

  it('that are garbage are an error, and nothing else', async () => {
    await using server = await ScriptedModelServer.start(ollama());
    await using provider = await start({ setting: 'ollama:nomic', ollamaHost: server.url });
    const good = server.routes.get('POST /api/embed');
    assert.ok(good);
    for (const [status, value] of [
      [200, { embeddings: [] }],
      [200, { embeddings: [['a']] }],
      [200, 'nothing'],
      [500, { error: 'out of memory' }],
    ] as const) {
      server.routes.set('POST /api/embed', ({ response }) => answerJson(response, status, value));
      await assert.rejects(
        embed(provider, ['a']),
        (thrown) => thrown instanceof MeshError && ['bad_answer', 'provider_failed'].includes(thrown.code),
      );
      server.routes.set('POST /api/embed', good);
      await until(provider, ({ problem }) => problem === null);
      await embed(provider, ['a']);
    }
  });

  it('are given up at the server when nobody wants them any more', async () => {
    await using server = await ScriptedModelServer.start(ollama());
    await using provider = await start({ setting: 'ollama:nomic', ollamaHost: server.url });
    const controller = new AbortController();
    const left = Promise.withResolvers<void>();
    server.routes.set('POST /api/embed', ({ gone }) => {
      gone.addEventListener('abort', () => left.resolve());
      controller.abort(new MeshError('cancelled'));
    });
    await assert.rejects(embed(provider, ['a'], { signal: controller.signal }), { code: 'cancelled' });
    await left.promise;
  });
});

describe("embeddings by a server with OpenAI's API", { timeout: 60_000 }, () => {
  it('come in the order of the texts, as base64 or as numbers, with the key', async () => {
    for (const asNumbers of [false, true]) {
      await using server = await ScriptedModelServer.start(openAi(['mini'], asNumbers));
      for (const path of ['', '/v1', '/v1/', '/v1/embeddings', '/v1#mini']) {
        await using provider = await start({ setting: server.url + path, apiKey: 'key' });
        const { vectors, model, usage } = await embed(provider, texts);
        assert.deepEqual(vectors, texts.map(vectorOf));
        assert.deepEqual([model, usage.prompt_tokens], ['mini', 9]);
        const { body } = server.seen.at(-1) ?? assert.fail();
        assert.deepEqual(body, { model: 'mini', input: texts, encoding_format: 'base64' });
      }
    }
  });

  it('are of the model behind #, which has to be named where there are several', async () => {
    await using server = await ScriptedModelServer.start(openAi(['mini', 'maxi']));
    await using nameless = await start({ setting: server.url, apiKey: 'key' });
    assert.match(
      nameless.state.problem ?? '',
      /several models: add one to COCOON_EMBEDDING_MODEL as `#NAME`, such as #mini, #maxi/,
    );
    await using maxi = await start({ setting: `${server.url}/v1#maxi`, apiKey: 'key' });
    assert.equal((await embed(maxi, ['a'])).model, 'maxi');
  });

  it('of a server on this machine are a space of this device', async () => {
    await using server = await ScriptedModelServer.start(openAi(['mini']));
    await using here = await start({ setting: server.url, apiKey: 'key' });
    await using there = await start({ setting: server.url, apiKey: 'key', device: 'there' });
    await using again = await start({ setting: `${server.url}/v1`, apiKey: 'key' });
    assert.equal(spaceOf(again), spaceOf(here));
    assert.notEqual(spaceOf(there), spaceOf(here));
  });

  it('are not offered with a wrong key, which nobody is told', async () => {
    await using server = await ScriptedModelServer.start(openAi(['mini']));
    await using provider = await start({ setting: server.url, apiKey: 'wrong-key' });
    assert.match(provider.state.problem ?? '', /refuses the API key/);
    assert.doesNotMatch(provider.state.problem ?? '', /wrong-key/);
  });

  it('are not offered with a URL that is none', async () => {
    await using provider = await start({ setting: 'http://user:password@host/v1' });
    assert.match(provider.state.problem ?? '', /no URL that can be asked/);
    assert.doesNotMatch(provider.state.problem ?? '', /password/);
  });
});
