import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { VectorEncoding } from './embeddings-json.node.ts';
import { embeddingsJson } from './embeddings-json.node.ts';

async function written(numbers: Float32Array, dimensions: number, encoding: VectorEncoding) {
  const pieces: string[] = [];
  const answer = {
    model: 'm',
    space: 'a'.repeat(64),
    semantic: true,
    dimensions,
    count: numbers.length / dimensions,
    usage: { prompt_tokens: 3, total_tokens: 3 },
    // As it comes from a socket: at any place of a buffer.
    packed: new Uint8Array([9, ...new Uint8Array(numbers.buffer)]).subarray(1),
  };
  for await (const piece of embeddingsJson(answer, encoding)) pieces.push(piece);
  const json = JSON.parse(pieces.join('')) as {
    object: string;
    data: { object: string; index: number; embedding: number[] | string }[];
  };
  return { pieces: pieces.length, json };
}

describe('embeddings as JSON', () => {
  it('have the shape of the API of OpenAI, and say of what space they are', async () => {
    const { json } = await written(Float32Array.of(1, 0.5, -1, 2), 2, 'float');
    assert.deepEqual(json, {
      object: 'list',
      data: [
        { object: 'embedding', index: 0, embedding: [1, 0.5] },
        { object: 'embedding', index: 1, embedding: [-1, 2] },
      ],
      model: 'm',
      usage: { prompt_tokens: 3, total_tokens: 3 },
      space: 'a'.repeat(64),
      semantic: true,
      dimensions: 2,
    });
  });

  it('are the same bits when they are read, as numbers and as base64', async () => {
    const bits = Uint32Array.from({ length: 4096 }, (_, i) => (i * 2_654_435_761) % 0x7f80_0000);
    const numbers = new Float32Array(bits.buffer);
    const { json } = await written(numbers, 4096, 'float');
    assert.deepEqual(Float32Array.from(json.data[0]?.embedding as number[]), numbers);
    const { json: packed } = await written(numbers, 4096, 'base64');
    const bytes = Buffer.from(packed.data[0]?.embedding as string, 'base64');
    assert.deepEqual(new Float32Array(new Uint8Array(bytes).buffer), numbers);
  });

  it('of many texts come in pieces, with turns of the event loop between them', async () => {
    let turns = 0;
    const count = (): void => {
      turns++;
      immediate = setImmediate(count);
    };
    let immediate = setImmediate(count);
    const { pieces, json } = await written(new Float32Array(2048 * 384), 384, 'float');
    clearImmediate(immediate);
    assert.equal(json.data.length, 2048);
    assert.ok(pieces > 50 && turns >= pieces - 1, `${pieces} pieces, ${turns} turns`);
  });

  it('of nothing are an empty list', async () => {
    assert.deepEqual((await written(new Float32Array(0), 2, 'float')).json.data, []);
  });
});
