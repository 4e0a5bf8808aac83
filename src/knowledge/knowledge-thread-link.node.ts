/** The near end of the thread: calls with their answers, and what becomes of them when it ends. */

import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import type { ErrorDescription } from '@cocoon-mesh/protocol/errors.ts';
import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import type { AddProgress } from './indexer.node.ts';
import type {
  AnswerOf,
  FromThread,
  RequestOf,
  ThreadCall,
  ThreadSettings,
  ToThread,
} from './thread-messages.node.ts';

interface Waiting {
  readonly resolve: (value: unknown) => void;
  readonly reject: (reason: unknown) => void;
  readonly onProgress: ((progress: AddProgress) => void) | undefined;
}

export class KnowledgeThread {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, Waiting>();
  readonly #onProblem: (error: MeshError) => void;
  readonly #ended: Promise<unknown>;
  #calls = 0;
  #watches = 0;
  #over: MeshError | null = null;

  constructor(settings: ThreadSettings, onProblem: (error: MeshError) => void) {
    this.#onProblem = onProblem;
    this.#worker = new Worker(new URL('./knowledge-thread.node.ts', import.meta.url), {
      workerData: settings,
    });
    this.#ended = once(this.#worker, 'exit');
    this.#worker.on('message', (message: FromThread) => this.#hear(message));
    this.#worker.on('error', (cause) => this.#end(new MeshError('internal', undefined, { cause })));
    this.#worker.on('exit', () => this.#end(new MeshError('cancelled', 'The knowledge base was closed')));
  }

  /** Calls fail from now on; the next one needs a new thread. */
  get isOver(): boolean {
    return this.#over !== null;
  }

  get isIdle(): boolean {
    return this.#waiting.size === 0 && this.#watches === 0;
  }

  /** Rejects with the signal's reason at once, and the thread stops what it does for it at its next step. */
  async call<Name extends ThreadCall>(
    name: Name,
    request: RequestOf<Name>,
    signal?: AbortSignal,
    onProgress?: (progress: AddProgress) => void,
  ): Promise<AnswerOf<Name>> {
    if (this.#over) throw this.#over;
    const id = this.#calls++;
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    const cancel = (): void => {
      this.#waiting.delete(id);
      this.#send({ kind: 'cancel', id });
      reject(signal?.reason);
    };
    this.#waiting.set(id, { resolve, reject, onProgress });
    signal?.addEventListener('abort', cancel, { once: true });
    this.#send({ kind: 'call', id, name, request });
    try {
      return (await promise) as AnswerOf<Name>;
    } finally {
      signal?.removeEventListener('abort', cancel);
    }
  }

  async close(): Promise<void> {
    this.#send({ kind: 'close' });
    await this.#ended.catch(() => undefined);
  }

  #send(message: ToThread): void {
    this.#worker.postMessage(message);
  }

  #hear(message: FromThread): void {
    switch (message.kind) {
      case 'opened':
        return;
      case 'not_opened':
        return this.#end(errorOf(message.error));
      case 'problem':
        return this.#onProblem(errorOf(message.error));
      case 'progress':
        return this.#waiting.get(message.id)?.onProgress?.(message.progress);
      case 'answer':
      case 'error': {
        this.#watches = message.watches;
        const waiting = this.#waiting.get(message.id);
        this.#waiting.delete(message.id);
        if (message.kind === 'answer') waiting?.resolve(message.value);
        else waiting?.reject(errorOf(message.error));
      }
    }
  }

  #end(error: MeshError): void {
    this.#over ??= error;
    for (const { reject } of this.#waiting.values()) reject(this.#over);
    this.#waiting.clear();
  }
}

function errorOf({ code, message, hint }: ErrorDescription): MeshError {
  return new MeshError(code, message, { hint });
}
