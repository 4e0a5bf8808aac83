/**
 * Embeddings as JSON, for programs that read nothing else: the shape of OpenAI's API, and with it what tells whether
 * two vectors can be compared. The numbers are those that were computed: read as float32 they are the same bits.
 */

import { unpackVector } from '@cocoon-mesh/vectors';
import type { PackedEmbeddings } from './embeddings-payload.ts';
import { packedVectors } from './embeddings-payload.ts';

export type VectorEncoding = 'float' | 'base64';

/** Numbers that are written between two turns of the event loop: some 2 ms. */
const numbersAtOnce = 8192;

/** Pieces of one JSON text: many vectors are megabytes, and everything else has its turn between two pieces. */
export async function* embeddingsJson(
  embeddings: PackedEmbeddings,
  encoding: VectorEncoding,
): AsyncGenerator<string, void, undefined> {
  const { model, usage, space, semantic, dimensions } = embeddings;
  const vectors = packedVectors(embeddings);
  const atOnce = Math.max(1, Math.floor(numbersAtOnce / dimensions));
  let text = '{"object":"list","data":[';
  for (let from = 0; from < vectors.length; from += atOnce) {
    const entries = vectors
      .slice(from, from + atOnce)
      .map((vector, i) => JSON.stringify(entryOf(vector, from + i, encoding)));
    yield `${text}${from === 0 ? '' : ','}${entries.join(',')}`;
    text = '';
    await new Promise<void>((resolve) => void setImmediate(resolve));
  }
  const rest = JSON.stringify({ model, usage, space, semantic, dimensions });
  yield `${text}],${rest.slice(1)}`;
}

function entryOf(vector: Uint8Array, index: number, encoding: VectorEncoding) {
  const embedding =
    encoding === 'base64'
      ? Buffer.from(vector.buffer, vector.byteOffset, vector.length).toString('base64')
      : Array.from(unpackVector(vector));
  return { object: 'embedding', index, embedding };
}
