/** One process of a local model from its start to its end: requests with their answers, and what becomes of them. */

import type { ChildProcess } from 'node:child_process';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import type { ErrorDescription } from '@cocoon-mesh/protocol/errors.ts';
import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import type { FromInference, ToInference } from './inference-messages.ts';
import { pipeFd } from './inference-messages.ts';
import type { ValuePipeOptions } from './value-pipe.node.ts';
import { ValuePipe } from './value-pipe.node.ts';

/** Of what it wrote to stderr, for the reason of its end. */
const keptErrorText = 2048;

interface Waiting {
  readonly resolve: (value: unknown) => void;
  readonly reject: (reason: unknown) => void;
  readonly onChunk: ((value: unknown) => void) | undefined;
}

export interface RunOptions {
  readonly signal?: AbortSignal;
  readonly onChunk?: (value: unknown) => void;
}

export class InferenceChild {
  /** What the model says of itself. Rejects with model_unavailable. */
  readonly loaded: Promise<unknown>;
  /** Resolves when the process is gone, however it ended. */
  readonly ended: Promise<void>;
  readonly #process: ChildProcess;
  readonly #stream: Socket | null;
  readonly #pipe: ValuePipe | null;
  readonly #waiting = new Map<number, Waiting>();
  readonly #load = Promise.withResolvers<unknown>();
  readonly #end = Promise.withResolvers<void>();
  #isLoaded = false;
  #isStopping = false;
  #answered = 0;
  #calls = 0;
  #over: MeshError | null = null;
  #errorText = '';

  /**
   * @param module URL of a `ModelModule`
   * @param source for its `openModel`
   */
  constructor(module: string, source: unknown) {
    this.loaded = this.#load.promise;
    this.ended = this.#end.promise;
    // Who waits for it hears of it; that nobody does is no mistake.
    this.loaded.catch(() => undefined);
    const entry = fileURLToPath(new URL('./inference-entry.node.ts', import.meta.url));
    this.#process = spawn(process.execPath, [entry, module], { stdio: ['ignore', 'ignore', 'pipe', 'pipe'] });
    // Null when it does not start, which `error` tells.
    const stream = this.#process.stdio[pipeFd];
    this.#stream = stream instanceof Socket ? stream : null;
    this.#pipe = this.#stream && new ValuePipe(this.#stream, this.#listener());
    this.#process.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#errorText = (this.#errorText + text).slice(-keptErrorText);
    });
    this.#process.on('error', (cause) => {
      this.kill();
      this.#ended(new MeshError('provider_failed', 'The process of the model does not start', { cause }));
    });
    // An `error` ends the wait too, and is heard above.
    this.#watch().catch(() => undefined);
    this.#send({ kind: 'load', source });
    this.#hold();
  }

  get pid(): number | undefined {
    return this.#process.pid;
  }

  get isLoaded(): boolean {
    return this.#isLoaded && this.#over === null;
  }

  get isOver(): boolean {
    return this.#over !== null;
  }

  /** Requests under way. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /** Answers and errors it has given. */
  get answered(): number {
    return this.#answered;
  }

  /** @throws MeshError of the model, provider_failed when the process ends, the signal's reason at once */
  async run(request: unknown, { signal, onChunk }: RunOptions = {}): Promise<unknown> {
    if (this.#over) throw this.#over;
    signal?.throwIfAborted();
    const id = this.#calls++;
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    const cancel = (): void => {
      this.#send({ kind: 'cancel', id });
      reject(signal?.reason);
    };
    this.#waiting.set(id, { resolve, reject, onChunk });
    signal?.addEventListener('abort', cancel, { once: true });
    this.#hold();
    this.#send({ kind: 'run', id, request });
    try {
      return await promise;
    } finally {
      signal?.removeEventListener('abort', cancel);
      this.#waiting.delete(id);
      this.#hold();
    }
  }

  /** Lets it end by itself. */
  stop(): void {
    this.#stream?.end();
    this.#isStopping = true;
    this.#hold();
  }

  kill(): void {
    this.#process.kill('SIGKILL');
  }

  /** `exit` may come before its last messages. */
  async #watch(): Promise<void> {
    const { stderr } = this.#process;
    const [[code, signal]] = await Promise.all([
      once(this.#process, 'exit') as Promise<[number | null, string | null]>,
      this.#stream && closed(this.#stream),
      stderr && once(stderr, 'close'),
    ]);
    this.#ended(this.#reason(code, signal));
  }

  #send(message: ToInference): void {
    // A process that is gone tells so by its end.
    this.#pipe?.send(message);
  }

  #listener(): ValuePipeOptions {
    return {
      onValue: (value) => this.#hear(value as FromInference),
      onEnd: (isBroken) => {
        if (!isBroken) return;
        this.#errorText = 'Error: it sent what is no message';
        this.kill();
      },
    };
  }

  #hear(message: FromInference): void {
    switch (message.kind) {
      case 'loaded':
        this.#isLoaded = true;
        this.#load.resolve(message.description);
        return this.#hold();
      case 'not_loaded':
        return this.#load.reject(errorOf(message.error));
      case 'chunk':
        return this.#waiting.get(message.id)?.onChunk?.(message.value);
      case 'answer':
        this.#answered++;
        return this.#waiting.get(message.id)?.resolve(message.value);
      case 'error':
        this.#answered++;
        this.#waiting.get(message.id)?.reject(errorOf(message.error));
    }
  }

  /** A process that only waits for work holds nobody up who wants to end. */
  #hold(): void {
    const isComingOrGoing = !this.#isLoaded || this.#isStopping;
    const busy = this.#over === null && (this.#waiting.size > 0 || isComingOrGoing);
    const pipe = this.#process.stderr as { ref?(): void; unref?(): void } | null;
    for (const held of [this.#process, this.#stream, pipe]) {
      if (busy) held?.ref?.();
      else held?.unref?.();
    }
  }

  #ended(reason: MeshError): void {
    if (this.#over) return;
    this.#over = reason;
    this.#load.reject(new MeshError('model_unavailable', reason.message, { cause: reason }));
    for (const { reject } of this.#waiting.values()) reject(reason);
    this.#end.resolve();
  }

  #reason(code: number | null, signal: string | null): MeshError {
    const how = signal ?? `exit code ${code}`;
    const said = this.#errorText
      .trim()
      .split('\n')
      .findLast((line) => /error|abort|terminat|memory/i.test(line));
    return new MeshError(
      'provider_failed',
      `The process of the model ended (${how})${said === undefined ? '' : `: ${said.trim()}`}`,
    );
  }
}

/** `once` would give up at an error, which comes first when the process dies while it is written to. */
async function closed(stream: Socket): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  stream.once('close', () => resolve());
  await promise;
}

function errorOf({ code, message, hint }: ErrorDescription): MeshError {
  return new MeshError(code, message, { hint });
}
