/** The lexical space on the ONNX runtime: a model that is always at hand (`ModelModule`), to try the runtime with. */

import { packVector } from '@cocoon-mesh/vectors';
import type { LocalModel } from './inference-messages.ts';
import { lexicalGraph, lexicalInputs } from './lexical-onnx.ts';
import { loadRuntime, openSession } from './onnx-runtime.node.ts';

export interface LexicalModelSource {
  /** Name of the package. */
  readonly runtime: string;
}

/** Takes texts, gives their packed vectors. @throws MeshError model_unavailable */
export async function openModel(
  source: LexicalModelSource,
): Promise<LocalModel<readonly string[], Uint8Array, null>> {
  const runtime = await loadRuntime(source.runtime);
  const session = await openSession(runtime, lexicalGraph());
  const run = async (texts: readonly string[]): Promise<Uint8Array> => {
    const { shape, hashes, sums } = lexicalInputs(texts);
    const { vectors } = await session.run({
      hashes: new runtime.Tensor('int64', hashes, shape),
      sums: new runtime.Tensor('float32', sums, shape),
    });
    return packVector(vectors?.data instanceof Float32Array ? vectors.data : new Float32Array());
  };
  return { description: null, run };
}
