import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { PoolingMode } from './onnx-pooling.ts';
import { normalise, pool } from './onnx-pooling.ts';

/** Three tokens of two dimensions, with something else before and after them. */
const values = Float32Array.of(9, 9, 1, 10, 2, -20, 6, 40, 9, 9);

function pooled(mode: PoolingMode): number[] {
  const into = Float32Array.of(7, 7);
  pool(mode, { values, start: 2, count: 3, dimensions: 2 }, into);
  return [...into].map((value) => Math.round(value * 1e4) / 1e4);
}

describe('the vectors of tokens', () => {
  it('become one as the model says', () => {
    assert.deepEqual(pooled('cls'), [1, 10]);
    assert.deepEqual(pooled('lasttoken'), [6, 40]);
    assert.deepEqual(pooled('mean'), [3, 10]);
    assert.deepEqual(pooled('max'), [6, 40]);
    assert.deepEqual(pooled('mean_sqrt_len_tokens'), [5.1962, 17.3205]);
    assert.deepEqual(pooled('weightedmean'), [3.8333, 15]);
  });

  it('get length one, unless there is nothing', () => {
    const vector = Float32Array.of(3, 4);
    normalise(vector);
    assert.deepEqual([...vector], [...Float32Array.of(0.6, 0.8)]);
    const zero = Float32Array.of(0, 0);
    normalise(zero);
    assert.deepEqual([...zero], [0, 0]);
  });
});
