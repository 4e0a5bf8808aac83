import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { systemClock } from '@cocoon-mesh/protocol';
import { lexicalSpace, lexicalVector } from '@cocoon-mesh/vectors';
import { call, embed } from './embeddings-calls.contract.ts';
import { checkEmbeddings } from './embeddings-check.node.ts';
import { embeddingsProvider } from './embeddings.node.ts';

const provider = embeddingsProvider({ setting: null, apiKey: null, device: 'here', clock: systemClock });

describe('embeddings without a model', () => {
  it('are lexical, and say so in their name, their features and every answer', async () => {
    assert.deepEqual(provider.state, {
      problem: null,
      warm: true,
      isStandIn: true,
      features: ['model:cocoon-lexical-v1', `space:${lexicalSpace.fingerprint}`],
    });
    const { vectors, ...answer } = await embed(provider, ['Revoking a device', 'two words', ' …!']);
    assert.deepEqual(answer, {
      model: 'cocoon-lexical-v1',
      space: lexicalSpace.fingerprint,
      semantic: false,
      dimensions: 512,
      count: 3,
      usage: { prompt_tokens: 5, total_tokens: 5 },
    });
    assert.deepEqual(vectors[0], lexicalVector('Revoking a device'));
    assert.deepEqual(vectors[1], lexicalVector('two words'));
  });

  it('can be tried out', async () => {
    const { name, fingerprint, semantic, dimensions } = lexicalSpace;
    assert.deepEqual(await checkEmbeddings(provider, systemClock), {
      model: name,
      space: fingerprint,
      semantic,
      dimensions,
    });
  });

  it('never stand in for others', async () => {
    for (const features of [['semantic'], ['space:another'], ['model:mini']])
      await assert.rejects(embed(provider, ['a'], { features }), { code: 'capability_not_found' });
    await embed(provider, ['a'], { features: [`space:${lexicalSpace.fingerprint}`] });
  });

  it('of a text that is too long are cut off only when asked for', async () => {
    const words = 'word '.repeat(4096);
    await embed(provider, [words]);
    for (const long of [`${words} more`, 'x'.repeat(1_000_000)]) {
      await assert.rejects(embed(provider, ['short', long]), {
        code: 'text_too_long',
        message: /^input\[1\] has more than 4096 words/,
      });
      const cut = await provider.handle(call({ input: long, truncate: true }));
      assert.ok('payload' in cut);
    }
  });

  it('let others have their turn, and stop when nobody wants them any more', async () => {
    const controller = new AbortController();
    const input = Array.from({ length: 2048 }, (_, i) => `text ${i} ${'word '.repeat(200)}`);
    const answer = embed(provider, input, { signal: controller.signal });
    setImmediate(() => controller.abort(new Error('gone')));
    await assert.rejects(answer, { message: 'gone' });
  });
});
