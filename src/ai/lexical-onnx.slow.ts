import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { lexicalSpace, lexicalVector } from '@cocoon-mesh/vectors';
import { lexicalGraph, lexicalInputs } from './lexical-onnx.ts';
import { loadRuntime, openSession } from './onnx-runtime.node.ts';

describe('the lexical space as an ONNX graph', () => {
  it('gives the vectors of the space within 1e-6', { timeout: 60_000 }, async () => {
    const runtime = await loadRuntime();
    const session = await openSession(runtime, lexicalGraph());
    const texts = [
      'Revoking a stolen device, and what its peers then know of it',
      'x',
      ' …!',
      'Über die Straße: 中文字 camelCase 1998',
      'the same words the same words the same words the same words',
      'many words '.repeat(3_000),
    ];
    const { shape, hashes, sums } = lexicalInputs(texts);
    const feeds = {
      hashes: new runtime.Tensor('int64', hashes, shape),
      sums: new runtime.Tensor('float32', sums, shape),
    };
    const { vectors } = await session.run(feeds);
    const values = vectors?.data as Float32Array;
    for (const [row, text] of texts.entries())
      for (const [i, expected] of lexicalVector(text).entries()) {
        const actual = values[row * lexicalSpace.dimensions + i] ?? NaN;
        assert.ok(
          Math.abs(actual - expected) <= 1e-6,
          `dimension ${i} of ${text.slice(0, 40)}: ${actual} ${expected}`,
        );
      }
  });
});
