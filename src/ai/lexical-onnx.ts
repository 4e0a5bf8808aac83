/**
 * Rule 5 of `cocoon-lexical-v1` as an ONNX graph: hashes and sums of features become vectors. The daemon computes
 * them itself; this is what shows whether the ONNX runtime of a device computes what it should.
 */

import { lexicalFeatures, lexicalSpace, lexicalWords } from '@cocoon-mesh/vectors';
import { OnnxGraph } from './onnx-graph.ts';

/**
 * `hashes` int64 and `sums` float32, [texts, features] → `vectors` float32 [texts, 512].
 * Unused places have the sum 0. 18 is the first version of the operators that can add while scattering.
 */
export function lexicalGraph(): Uint8Array {
  const { dimensions } = lexicalSpace;
  const graph = new OnnxGraph(lexicalSpace.name, 18);
  const hashes = graph.input('hashes', 'int64', ['texts', 'features']);
  const sums = graph.input('sums', 'float32', ['texts', 'features']);
  const isNegative = graph.op('GreaterOrEqual', [hashes, graph.int(2 ** 31)]);
  const sign = graph.op('Where', [isNegative, graph.float(-1), graph.float(1)]);
  const values = graph.op('Mul', [sign, graph.op('Sqrt', [sums])]);
  const texts = graph.op('Gather', [graph.op('Shape', [hashes]), graph.int([0])]);
  const shape = graph.op('Concat', [texts, graph.int([dimensions])], { axis: 0 });
  const zeros = graph.op('Expand', [graph.float(0), shape]);
  const places = graph.op('Mod', [hashes, graph.int(dimensions)]);
  const added = graph.op('ScatterElements', [zeros, places, values], { axis: 1, reduction: 'add' });
  const length = graph.op('ReduceL2', [added, graph.int([1])], { keepdims: 1 });
  // The zero vector stays what it is.
  const divisor = graph.op('Max', [length, graph.float(1e-30)]);
  graph.op('Div', [added, divisor], {}, 'vectors');
  graph.output('vectors', 'float32', ['texts', dimensions]);
  return graph.build();
}

export interface LexicalInputs {
  readonly shape: readonly [texts: number, features: number];
  readonly hashes: BigInt64Array;
  readonly sums: Float32Array;
}

export function lexicalInputs(texts: readonly string[]): LexicalInputs {
  const features = texts.map((text) => {
    const found: [bigint, number][] = [];
    lexicalFeatures(lexicalWords(text)).each((hash, sum) => found.push([BigInt(hash), sum]));
    return found;
  });
  const most = features.reduce((count, found) => Math.max(count, found.length), 1);
  const hashes = new BigInt64Array(texts.length * most);
  const sums = new Float32Array(texts.length * most);
  for (const [row, found] of features.entries())
    for (const [column, [hash, sum]] of found.entries()) {
      hashes[row * most + column] = hash;
      sums[row * most + column] = sum;
    }
  return { shape: [texts.length, most], hashes, sums };
}
