/** The vectors of each space in memory, one table for each: what is of different spaces never meets. */

import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import { lexicalSpace } from '@cocoon-mesh/vectors';
import type { KnowledgeStore, Space, StoredVector } from './knowledge-store.node.ts';
import type { SearchedSpace } from './searcher.node.ts';
import { VectorTable } from './vector-table.ts';

const loadedAtOnce = 500;

export class SpaceTables {
  readonly #store: KnowledgeStore;
  readonly lexical: SearchedSpace;
  /** By fingerprint. Those of models are loaded when somebody searches in them. */
  readonly #spaces = new Map<string, SearchedSpace>();

  private constructor(store: KnowledgeStore, lexical: SearchedSpace) {
    this.#store = store;
    this.lexical = lexical;
    this.#spaces.set(lexicalSpace.fingerprint, lexical);
  }

  static async open(store: KnowledgeStore): Promise<SpaceTables> {
    return new SpaceTables(store, await load(store, await store.putSpace(lexicalSpace), lexicalSpace));
  }

  async use(space: Space): Promise<void> {
    await this.#store.putSpace(space);
  }

  /** @throws MeshError bad_filter for a space that nothing is in, or vectors of another length */
  async of(fingerprint: string, vectors: readonly Float32Array[]): Promise<SearchedSpace> {
    let space = this.#spaces.get(fingerprint);
    if (!space) {
      const known = (await this.#store.spaces()).find((each) => each.fingerprint === fingerprint);
      if (!known) throw new MeshError('bad_filter', 'The knowledge base has no vectors of that space');
      space = await load(this.#store, known.id, known);
      this.#spaces.set(fingerprint, space);
    }
    const { dimensions } = space.table;
    if (vectors.some((vector) => vector.length !== dimensions))
      throw new MeshError('bad_filter', `Vectors of ${space.name} have ${dimensions} dimensions`);
    return space;
  }

  async put(fingerprint: string, vectors: readonly StoredVector[]): Promise<number> {
    const space = await this.of(
      fingerprint,
      vectors.map(({ vector }) => vector),
    );
    const kept = new Set(await this.#store.putVectors(space.id, vectors));
    for (const { id, vector } of vectors) if (kept.has(id)) space.table.set(id, vector);
    return kept.size;
  }

  forget(chunkIds: readonly number[]): void {
    for (const { table } of this.#spaces.values()) for (const id of chunkIds) table.delete(id);
  }
}

async function load(store: KnowledgeStore, id: number, space: Space): Promise<SearchedSpace> {
  const table = new VectorTable(space.dimensions);
  for (let after = 0; ;) {
    const vectors = await store.vectorsAfter(id, after, loadedAtOnce);
    for (const { id, vector } of vectors) table.set(id, vector);
    const last = vectors.at(-1);
    if (!last) return { id, name: space.name, table };
    after = last.id;
  }
}
