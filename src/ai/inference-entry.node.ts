/**
 * The process of one local model: a run of the ONNX runtime blocks its thread, and a thread that is ended during one
 * takes its whole process along. `argv` names the module of the model (`ModelModule`).
 */

import { Socket } from 'node:net';
import { constants, setPriority } from 'node:os';
import { MeshError, toMeshError } from '@cocoon-mesh/protocol/errors.ts';
import type { FromInference, LocalModel, ModelModule, ToInference } from './inference-messages.ts';
import { pipeFd } from './inference-messages.ts';
import { ValuePipe } from './value-pipe.node.ts';

const running = new Map<number, AbortController>();

function tell(message: FromInference, sent?: () => void): void {
  pipe.send(message, sent);
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
    tell({ kind: 'not_loaded', error: { ...error.toJSON(), message: reason } }, () => process.exit(0));
    return null;
  }
}

async function run(model: Promise<LocalModel | null>, id: number, request: unknown): Promise<void> {
  const controller = new AbortController();
  running.set(id, controller);
  try {
    const { signal } = controller;
    const loaded = await model;
    // Its asker may have given it up in the same breath.
    signal.throwIfAborted();
    const value = await loaded?.run(request, {
      signal,
      chunk: (part) => tell({ kind: 'chunk', id, value: part }),
    });
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

let model: Promise<LocalModel | null> | null = null;
const pipe = new ValuePipe(new Socket({ fd: pipeFd }), {
  onValue: (value) => {
    const message = value as ToInference;
    if (message.kind === 'load') model ??= load(message.source);
    else if (message.kind === 'cancel') running.get(message.id)?.abort(new MeshError('cancelled'));
    else if (model) void run(model, message.id, message.request);
  },
  // Whom it works for is gone.
  onEnd: () => process.exit(0),
});
