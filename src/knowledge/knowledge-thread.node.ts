/** The thread of the knowledge base: SQLite and the comparing of vectors would hold up everything else of a daemon. */

import { parentPort, workerData } from 'node:worker_threads';
import { systemClock } from '@cocoon-mesh/protocol/clock.ts';
import { MeshError, toMeshError } from '@cocoon-mesh/protocol/errors.ts';
import { KnowledgeService } from './knowledge-service.node.ts';
import type { AnyCall, FromThread, ThreadSettings, ToThread } from './thread-messages.node.ts';

const running = new Map<number, AbortController>();

function tell(message: FromThread): void {
  parentPort?.postMessage(message);
}

async function open(): Promise<KnowledgeService | null> {
  const { path, maxBytes } = workerData as ThreadSettings;
  try {
    const onProblem = (error: MeshError): void => tell({ kind: 'problem', error: error.toJSON() });
    const service = await KnowledgeService.open({ path, maxBytes, clock: systemClock, onProblem });
    tell({ kind: 'opened' });
    return service;
  } catch (thrown) {
    tell({ kind: 'not_opened', error: toMeshError(thrown).toJSON() });
    return null;
  }
}

async function answer(
  service: KnowledgeService,
  { id, name, request }: Extract<ToThread, { kind: 'call' }>,
): Promise<void> {
  const controller = new AbortController();
  running.set(id, controller);
  // What was cancelled while others ran is not begun: its message has come by then.
  await new Promise<void>((resolve) => void setImmediate(resolve));
  try {
    controller.signal.throwIfAborted();
    const call = (service[name] as AnyCall).bind(service);
    const value = await call(request, {
      signal: controller.signal,
      onProgress: (progress) => tell({ kind: 'progress', id, progress }),
    });
    tell({ kind: 'answer', id, value, watches: service.watches });
  } catch (thrown) {
    tell({ kind: 'error', id, error: toMeshError(thrown).toJSON(), watches: service.watches });
  } finally {
    running.delete(id);
  }
}

async function close(service: KnowledgeService): Promise<void> {
  for (const controller of running.values()) controller.abort(new MeshError('cancelled'));
  await service.close();
  parentPort?.close();
}

const service = await open();
if (service)
  parentPort?.on('message', (message: ToThread) => {
    if (message.kind === 'call') void answer(service, message);
    else if (message.kind === 'cancel') running.get(message.id)?.abort(new MeshError('cancelled'));
    else void close(service);
  });
