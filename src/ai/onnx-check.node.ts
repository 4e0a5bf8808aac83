/** Whether the ONNX runtime of this device works: what is built into it says little, so something is computed. */

import type { Clock } from '@cocoon-mesh/protocol';
import { deadline, toMeshError } from '@cocoon-mesh/protocol';
import { lexicalSpace, lexicalVector, unpackVector } from '@cocoon-mesh/vectors';
import { InferenceProcess } from './inference-process.node.ts';
import { runtimeName, runtimeProblem } from './onnx-runtime.node.ts';

export interface RuntimeCheckOptions {
  readonly clock: Clock;
  /** Name of the package. */
  readonly runtime?: string;
}

const checkTimeoutMs = 30_000;
const texts = ['A cocoon answers for its owner', 'and nobody else'];
const tolerance = 1e-6;

/** In a process that ends with it. @returns what is wrong, in a sentence; null: models in folders can run */
export async function checkOnnxRuntime(options: RuntimeCheckOptions): Promise<string | null> {
  const { clock, runtime = runtimeName } = options;
  const missing = runtimeProblem(runtime);
  if (missing !== null) return missing;
  const limit = deadline(clock, checkTimeoutMs);
  const process = new InferenceProcess({
    module: import.meta.resolve('./lexical-model.node.ts'),
    source: () => ({ runtime }),
    clock,
    idleMs: checkTimeoutMs,
    loadTimeoutMs: checkTimeoutMs,
    onChange: () => undefined,
  });
  try {
    const vectors = unpackVector((await process.run(texts, { signal: limit.signal })) as Uint8Array);
    return isRight(vectors) ? null : `${runtime} computes wrong results on this device`;
  } catch (thrown) {
    return toMeshError(thrown).message;
  } finally {
    limit.cancel();
    await process.close();
  }
}

function isRight(vectors: Float32Array): boolean {
  const { dimensions } = lexicalSpace;
  return (
    vectors.length === texts.length * dimensions &&
    texts.every((text, row) =>
      lexicalVector(text).every(
        (value, i) => Math.abs(value - (vectors[row * dimensions + i] ?? NaN)) <= tolerance,
      ),
    )
  );
}
