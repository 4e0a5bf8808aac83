import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Json } from '@cocoon-mesh/protocol';
import { packVector } from '@cocoon-mesh/vectors';
import type { EmbeddingsSpace } from './embeddings-payload.ts';
import { embeddingsContent, readEmbeddingsAnswer, readEmbeddingsRequest } from './embeddings-payload.ts';

const here: EmbeddingsSpace = { model: 'mini', space: 'ab'.repeat(32), semantic: true, dimensions: 2 };

function read(payload: Json, space = here) {
  return readEmbeddingsRequest({ payload, parts: [] }, space);
}

describe('a request for embeddings', () => {
  it('is one text or many, as OpenAI has it', () => {
    assert.deepEqual(read({ input: 'a' }), { texts: ['a'], truncate: false });
    assert.deepEqual(read({ input: ['a', 'b'], model: 'mini', dimensions: 2, truncate: true, user: 'x' }), {
      texts: ['a', 'b'],
      truncate: true,
    });
    assert.deepEqual(read({ input: 'a', model: null, dimensions: null, truncate: null }).texts, ['a']);
  });

  it('is refused with the name of the field that is wrong', () => {
    const wrong: readonly (readonly [Json, RegExp])[] = [
      [null, /an object with an `input`/],
      ['text', /an object with an `input`/],
      [{}, /^input: is missing/],
      [{ input: '' }, /^input: must not be empty/],
      [{ input: [] }, /^input: must not be empty/],
      [{ input: 7 }, /^input: has to be a text or a list of texts/],
      [{ input: ['a', 7] }, /^input\[1\]: has to be a text/],
      [{ input: ['a', 'b', ''] }, /^input\[2\]: must not be empty/],
      [{ input: [[1, 2]] }, /^input\[0\]: has to be a text/],
      [{ input: ['a', 'half \ud800'] }, /^input\[1\]: has half a character/],
      [{ input: Array.from({ length: 2049 }, () => 'a') }, /^input: has 2049 texts, more than 2048/],
      [{ input: 'a', truncate: 'yes' }, /^truncate: has to be true or false/],
      [{ input: 'a', model: 7 }, /^model: has to be a text/],
      [{ input: 'a', dimensions: 1.5 }, /^dimensions: /],
      [{ input: 'a', dimensions: 3 }, /^dimensions: mini has 2, not 3/],
    ];
    for (const [payload, message] of wrong)
      assert.throws(
        () => read(payload),
        { code: 'bad_payload', message },
        JSON.stringify(payload)?.slice(0, 60),
      );
    assert.throws(() => readEmbeddingsRequest({ payload: { input: 'a' }, parts: [Uint8Array.of(1)] }, here), {
      code: 'bad_payload',
    });
  });

  it('for another model is refused', () => {
    assert.throws(() => read({ input: 'a', model: 'maxi' }), {
      code: 'capability_not_found',
      message: /mini.*maxi/,
    });
  });

  it('asks for no more vectors than fit into an answer', () => {
    const wide = { ...here, dimensions: 8192 };
    const input = Array.from({ length: 600 }, () => 'a');
    assert.throws(() => read({ input }, wide), {
      code: 'bad_payload',
      message: /^input: has 600 texts.*room for 510/,
    });
    assert.equal(read({ input: input.slice(0, 510) }, wide).texts.length, 510);
  });
});

describe('an answer with embeddings', () => {
  const vectors = packVector(Float32Array.of(1, 0, 0.5, -0.5));

  it('is read as it was made', () => {
    const { vectors: read, usage, ...answer } = readEmbeddingsAnswer(embeddingsContent(here, vectors, 7), 2);
    assert.deepEqual(answer, { ...here, count: 2 });
    assert.deepEqual(usage, { prompt_tokens: 7, total_tokens: 7 });
    assert.deepEqual(
      read.map((vector) => [...vector]),
      [
        [1, 0],
        [0.5, -0.5],
      ],
    );
  });

  it('is refused when its vectors are not those it tells of', () => {
    const { payload } = embeddingsContent(here, vectors, 7);
    const bad = { code: 'bad_answer' };
    assert.throws(() => readEmbeddingsAnswer({ payload, parts: [vectors] }, 3), { ...bad, message: /count/ });
    assert.throws(() => readEmbeddingsAnswer({ payload, parts: [] }, 2), bad);
    assert.throws(() => readEmbeddingsAnswer({ payload, parts: [vectors, vectors] }, 2), bad);
    assert.throws(() => readEmbeddingsAnswer({ payload, parts: [vectors.subarray(1)] }, 2), bad);
    const nameless = { ...(payload as object), space: 'mini' };
    assert.throws(() => readEmbeddingsAnswer({ payload: nameless, parts: [vectors] }, 2), {
      ...bad,
      message: /space/,
    });
  });
});
