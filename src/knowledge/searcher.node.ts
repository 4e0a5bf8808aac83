/** Finds chunks by their words and by their vectors of each space, and fuses the ranks. */

import type { KnowledgeRow } from '@cocoon-mesh/protocol/knowledge-row.ts';
import { fuseRanks } from '@cocoon-mesh/query/fuse.ts';
import { fullTextQuery } from './full-text.ts';
import type { ChunkRow, KnowledgeStore } from './knowledge-store.node.ts';
import { snippetOf } from './snippet.ts';
import type { VectorTable } from './vector-table.ts';

/** Vectors of one space, as they are searched. */
export interface SearchedSpace {
  readonly id: number;
  readonly name: string;
  readonly table: VectorTable;
}

export interface Question {
  readonly space: SearchedSpace;
  readonly vector: Float32Array;
}

/** Of each kind; ranks further down add nothing to a fused one. */
const candidates = 100;
/** The rounding to bytes puts some in the wrong order. */
const roundedCandidates = 2 * candidates;
/** Texts that have nothing in common come to ±0.04 in 512 hashed dimensions, the luckiest of many to four times that. */
const minSimilarity = 0.2;
/** Further ones of the same file hide other files. */
const maxRowsOfFile = 3;

/** @param questions the text in each space that is searched; the last one names the answer */
export async function searchChunks(
  store: KnowledgeStore,
  text: string,
  limit: number,
  questions: readonly Question[],
): Promise<readonly KnowledgeRow[]> {
  const query = fullTextQuery(text);
  const ranks = [query === null ? [] : await store.fullText(query, candidates)];
  for (const { space, vector } of questions) ranks.push(await nearest(store, space, vector));
  const fused = fuseRanks(ranks, String);
  const name = questions.at(-1)?.space.name ?? '';
  const scores = new Map(fused.map(({ item, score }) => [item, score]));
  const chunks = await store.chunks(fused.map(({ item }) => item));
  return [...spread(chunks)].slice(0, limit).map(({ id, file, heading, line, text: chunk }) => ({
    file,
    heading,
    line,
    snippet: snippetOf(chunk, text),
    score: scores.get(id) ?? 0,
    space: name,
  }));
}

async function nearest(
  store: KnowledgeStore,
  space: SearchedSpace,
  vector: Float32Array,
): Promise<readonly number[]> {
  const rough = space.table.nearest(vector, roundedCandidates);
  const exact = await store.vectors(
    space.id,
    rough.map(({ id }) => id),
  );
  return exact
    .map(({ id, vector: other }) => ({ id, similarity: product(vector, other) }))
    .filter(({ similarity }) => similarity >= minSimilarity)
    .toSorted((a, b) => b.similarity - a.similarity || a.id - b.id)
    .slice(0, candidates)
    .map(({ id }) => id);
}

function* spread(chunks: readonly ChunkRow[]): Generator<ChunkRow> {
  const counts = new Map<string, number>();
  for (const chunk of chunks) {
    const count = (counts.get(chunk.file) ?? 0) + 1;
    counts.set(chunk.file, count);
    if (count <= maxRowsOfFile) yield chunk;
  }
}

function product(a: Float32Array, b: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i] ?? 0) * (b[i] ?? 0);
  return sum;
}
