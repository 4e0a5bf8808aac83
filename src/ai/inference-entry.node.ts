/**
 * The process of one local model: a run of the ONNX runtime blocks its thread, and a thread that is ended during one
 * takes its whole process along. `argv` names the module of the model (`ModelModule`).
 */

import { constants, setPriority } from 'node:os';
import { MeshError, toMeshError } from '@cocoon-mesh/protocol/errors.ts';
import type { FromInference, LocalModel, ModelModule, ToInference } from './inference-messages.ts';

const running = new Map<number, AbortController>();

function tell(message: FromInference, sent: () => void = () => undefined): void {
  // Whom it was for may be gone; then this process ends too.
  if (process.connected) process.send?.(message, undefined, undefined, sent);
}

async function load(source: unknown): Promise<LocalModel | null> {
  try {
    const { openModel } = (await import(process.argv[2] ?? '')) as ModelModule;
    // The daemon and whoever sits at the machine come first. The runtime starts threads, and they inherit it.
    setPriority(constants.priority.PRIORITY_BELOW_NORMAL);
    const model = await openModel(source);
    tell({ kind: 'loaded', description: model.description });
    return model;
  } catch (thrown) {
    const error = toMeshError(thrown, 'model_unavailable');
    const reason =
      thrown instanceof MeshError ? error.message : `The model does not load: ${messageOf(thrown)}`;
    tell({ kind: 'not_loaded', error: { ...error.toJSON(), message: reason } }, () => process.disconnect());
    return null;
  }
}

async function run(model: Promise<LocalModel | null>, id: number, request: unknown): Promise<void> {
  const controller = new AbortController();
  running.set(id, controller);
  try {
    const { signal } = controller;
    const value = await (
      await model
    )?.run(request, { signal, chunk: (part) => tell({ kind: 'chunk', id, value: part }) });
    tell({ kind: 'answer', id, value });
  } catch (thrown) {
    const error = toMeshError(thrown, 'provider_failed');
    const message = thrown instanceof MeshError ? error.message : `The model failed: ${messageOf(thrown)}`;
    tell({ kind: 'error', id, error: { ...error.toJSON(), message } });
  } finally {
    running.delete(id);
  }
}

function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}

process.on('disconnect', () => process.exit(0));

let model: Promise<LocalModel | null> | null = null;
process.on('message', (message: ToInference) => {
  if (message.kind === 'load') model ??= load(message.source);
  else if (message.kind === 'cancel') running.get(message.id)?.abort(new MeshError('cancelled'));
  else if (model) void run(model, message.id, message.request);
});
