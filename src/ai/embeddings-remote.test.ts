import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { MeshError } from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { embed, until } from './embeddings-calls.contract.ts';
import { BackendEmbeddingsProvider } from './embeddings-provider.ts';
import type { EmbeddingsServer } from './embeddings-remote.ts';
import { RemoteEmbeddings } from './embeddings-remote.ts';

class ServerDouble implements EmbeddingsServer {
  readonly name = 'The server';
  identity = 'model 1';
  problem: MeshError | null = null;
  asked: number[] = [];
  vectorOf: (text: string) => readonly number[] = (text) => [text.length, 1];

  async describe() {
    if (this.problem) throw this.problem;
    return { model: 'mini', identity: this.identity };
  }

  async embed(_model: string, texts: readonly string[]) {
    if (this.problem) throw this.problem;
    this.asked.push(texts.length);
    return { vectors: texts.map((text) => Float32Array.from(this.vectorOf(text))), tokens: texts.length };
  }
}

async function start(server = new ServerDouble()) {
  const clock = new SteppedClock();
  const backend = new RemoteEmbeddings(server, clock);
  const provider = new BackendEmbeddingsProvider(backend);
  await backend.refresh();
  const space = (): string | undefined =>
    provider.state.features.find((feature) => feature.startsWith('space:'));
  return { clock, backend, provider, server, space, [Symbol.asyncDispose]: async () => provider.close() };
}

describe('embeddings of a server', () => {
  it('are offered once it was asked for one', async () => {
    const clock = new SteppedClock();
    const provider = new BackendEmbeddingsProvider(new RemoteEmbeddings(new ServerDouble(), clock));
    assert.match(provider.state.problem ?? '', /has not answered yet/);
    await until(provider, ({ problem }) => problem === null);
    assert.deepEqual(provider.state.features.length, 3);
    await provider.close();
  });

  it('come in order, a few texts at once', async () => {
    await using each = await start();
    each.server.asked = [];
    const texts = Array.from({ length: 70 }, (_, i) => 'x'.repeat(i + 1));
    const { vectors, usage } = await embed(each.provider, texts);
    assert.deepEqual(
      vectors.map(([first]) => first),
      texts.map(({ length }) => length),
    );
    assert.deepEqual(each.server.asked, [32, 32, 6]);
    assert.equal(usage.prompt_tokens, 70);
  });

  it('are not offered while it is down, and are again when it is back', async () => {
    await using each = await start();
    each.server.problem = new MeshError('provider_failed', 'The server cannot be reached');
    await assert.rejects(embed(each.provider, ['a']), { code: 'provider_failed' });
    await until(each.provider, ({ problem }) => problem === 'The server cannot be reached');
    await assert.rejects(embed(each.provider, ['a']), { code: 'model_unavailable' });
    each.server.problem = null;
    each.clock.step(5_000);
    await until(each.provider, ({ problem }) => problem === null);
    await embed(each.provider, ['a']);
  });

  it('are of another space when its model is another one, also if it has the name of the first', async () => {
    await using each = await start();
    const before = each.space() ?? '';
    each.server.identity = 'model 2';
    each.clock.step(6_000);
    await assert.rejects(embed(each.provider, ['a'], { features: [before] }), {
      code: 'capability_not_found',
    });
    const { space } = await embed(each.provider, ['a']);
    assert.notEqual(`space:${space}`, before);
    assert.equal(each.space(), `space:${space}`);
    each.server.identity = 'model 1';
    each.clock.step(6_000);
    assert.equal(`space:${(await embed(each.provider, ['a'])).space}`, before);
  });

  it('that are garbage are refused', async () => {
    await using each = await start();
    for (const vector of [[1], [1, 2, 3], [1, NaN], [Infinity, 0]]) {
      each.server.vectorOf = () => vector;
      await assert.rejects(embed(each.provider, ['a']), { code: 'bad_answer' });
    }
    each.server.vectorOf = (text) => [text.length, 1];
    await each.backend.refresh();
    await embed(each.provider, ['a']);
  });

  it('of a text that it does not take name which one', async () => {
    await using each = await start();
    each.server.vectorOf = () => {
      throw new MeshError('text_too_long');
    };
    await assert.rejects(embed(each.provider, ['a']), {
      code: 'text_too_long',
      message: /^input\[0\] is longer than mini takes/,
    });
    await assert.rejects(embed(each.provider, ['a', 'b']), {
      code: 'text_too_long',
      message: /^One of input\[0\] to input\[1\]/,
    });
    assert.equal(each.provider.state.problem, null);
  });

  it('leave no timer when they are closed', async () => {
    const each = await start();
    await each.provider.close();
    assert.equal(each.clock.pendingTimers, 0);
  });

  it('that somebody left are not worked on until the server says which model it has', async () => {
    await using each = await start();
    const { clock, server, provider } = each;
    const asked = Promise.withResolvers<void>();
    const hanging = Promise.withResolvers<never>();
    server.describe = async () => {
      asked.resolve();
      return hanging.promise;
    };
    clock.step(6_000);
    const asker = new AbortController();
    const answer = embed(provider, ['a'], { signal: asker.signal });
    await asked.promise;
    asker.abort(new MeshError('cancelled'));
    await assert.rejects(answer, { code: 'cancelled' });
    hanging.reject(new MeshError('provider_failed'));
  });
});
