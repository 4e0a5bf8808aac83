/**
 * onnxruntime-node, which may be absent: it has no build for every platform. Only processes of models import it
 * (`inference-entry`), since a run blocks the thread it is called from.
 */

import { availableParallelism } from 'node:os';
import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import type { InferenceSession } from 'onnxruntime-node';

export type OnnxRuntime = typeof import('onnxruntime-node');

export const runtimeName = 'onnxruntime-node';

/** More do not make small models faster. */
const maxThreads = 4;
/** Of the runtime's log: errors. */
const errorsOnly = 3;

/** Why there is none, in a sentence; null when it is installed. Loads nothing. */
export function runtimeProblem(name = runtimeName): string | null {
  try {
    import.meta.resolve(name);
    return null;
  } catch {
    return `${name} is not installed on this device: install it with \`npm install ${name}\``;
  }
}

/** @throws MeshError model_unavailable */
export async function loadRuntime(name = runtimeName): Promise<OnnxRuntime> {
  const problem = runtimeProblem(name);
  if (problem !== null) throw new MeshError('model_unavailable', problem);
  try {
    const module = (await import(name)) as OnnxRuntime & { readonly default?: OnnxRuntime };
    return module.default ?? module;
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new MeshError('model_unavailable', `${name} does not load: ${why}`, { cause });
  }
}

/** @param model a file, or its bytes. @throws MeshError model_unavailable */
export async function openSession(
  { InferenceSession }: OnnxRuntime,
  model: string | Uint8Array,
): Promise<InferenceSession> {
  const options: InferenceSession.SessionOptions = {
    executionProviders: ['cpu'],
    intraOpNumThreads: Math.min(maxThreads, availableParallelism()),
    logSeverityLevel: errorsOnly,
    // Threads that wait for work in a loop would take a core each.
    extra: { session: { intra_op: { allow_spinning: '0' }, inter_op: { allow_spinning: '0' } } },
  };
  try {
    return await (typeof model === 'string'
      ? InferenceSession.create(model, options)
      : InferenceSession.create(model, options));
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new MeshError('model_unavailable', `The model file does not load: ${why}`, { cause });
  }
}
