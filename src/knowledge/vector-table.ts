/**
 * All vectors of one space in memory, a byte for each dimension: enough to find candidates, a quarter of the memory.
 * Who asks ranks the candidates again by the stored vectors.
 */

const blockRows = 4096;

interface Block {
  readonly values: Int8Array;
  /** What a step of each row is worth. */
  readonly steps: Float32Array;
  /** 0 where there is none. */
  readonly ids: Float64Array;
}

export interface Candidate {
  readonly id: number;
  readonly similarity: number;
}

export class VectorTable {
  readonly dimensions: number;
  readonly #blocks: Block[] = [];
  readonly #slots = new Map<number, number>();
  readonly #free: number[] = [];

  constructor(dimensions: number) {
    this.dimensions = dimensions;
  }

  get size(): number {
    return this.#slots.size;
  }

  /** @param id positive */
  set(id: number, vector: Float32Array): void {
    const slot = this.#slots.get(id) ?? this.#free.pop() ?? this.#slots.size;
    const block = this.#blockOf(slot);
    const row = slot % blockRows;
    const step = vector.reduce((most, value) => Math.max(most, Math.abs(value)), 0) / 127;
    block.ids[row] = id;
    block.steps[row] = step;
    const base = row * this.dimensions;
    for (let i = 0; i < this.dimensions; i++)
      block.values[base + i] = step === 0 ? 0 : Math.round((vector[i] ?? 0) / step);
    this.#slots.set(id, slot);
  }

  delete(id: number): void {
    const slot = this.#slots.get(id);
    if (slot === undefined) return;
    this.#slots.delete(id);
    this.#free.push(slot);
    this.#blockOf(slot).ids[slot % blockRows] = 0;
  }

  /** The `count` nearest by cosine, nearest first; of unit vectors. */
  nearest(query: Float32Array, count: number): readonly Candidate[] {
    // A short question leaves most dimensions of a hashed space at zero.
    const dimensions = Uint16Array.from([...query.keys()].filter((i) => query[i] !== 0));
    const weights = Float32Array.from(dimensions, (i) => query[i] ?? 0);
    const best = new Best(count);
    for (const { values, steps, ids } of this.#blocks)
      for (let row = 0; row < blockRows; row++) {
        const id = ids[row] ?? 0;
        if (id === 0) continue;
        const base = row * this.dimensions;
        let sum = 0;
        for (let i = 0; i < dimensions.length; i++)
          sum += (weights[i] ?? 0) * (values[base + (dimensions[i] ?? 0)] ?? 0);
        best.offer(id, sum * (steps[row] ?? 0));
      }
    return best.sorted();
  }

  #blockOf(slot: number): Block {
    const at = Math.floor(slot / blockRows);
    return (this.#blocks[at] ??= {
      values: new Int8Array(blockRows * this.dimensions),
      steps: new Float32Array(blockRows),
      ids: new Float64Array(blockRows),
    });
  }
}

/** Sorting everything would take longer than finding it. */
class Best {
  readonly #count: number;
  #kept: Candidate[] = [];
  #least = 0;

  constructor(count: number) {
    this.#count = count;
  }

  offer(id: number, similarity: number): void {
    if (similarity <= this.#least) return;
    this.#kept.push({ id, similarity });
    if (this.#kept.length < this.#count * 4) return;
    this.#kept = this.sorted();
    this.#least = this.#kept.at(-1)?.similarity ?? 0;
  }

  sorted(): Candidate[] {
    return this.#kept.toSorted((a, b) => b.similarity - a.similarity || a.id - b.id).slice(0, this.#count);
  }
}
