/** The requests of one process: what comes for which, what is cancelled, and what does not end though it was. */

import type { Clock, Timer } from '@cocoon-mesh/protocol';
import { MeshError, isErrorCode, toMeshError } from '@cocoon-mesh/protocol';
import { AnswerReader } from './answer-reader.ts';
import type { FromPlugin, ToPlugin } from './plugin-messages.ts';
import { answerWindowBytes } from './plugin-messages.ts';
import type { PluginAnswer, PluginRequest } from './request-answer.ts';

type Answered = Extract<FromPlugin, { kind: 'chunk' | 'end' | 'error' }>;

export interface RunningRequestsOptions {
  /** Of the plugin, for errors. */
  readonly name: string;
  readonly clock: Clock;
  /** @throws MeshError bad_message | message_too_large */
  readonly send: (message: ToPlugin) => number;
  /** Too many were cancelled and go on. */
  readonly stuck: (count: number) => void;
}

interface Running {
  readonly reader: AnswerReader;
  readonly settled: PromiseWithResolvers<void>;
  readonly forgetSignal: () => void;
  /** Was cancelled; its place is given away when this is over. */
  patience: Timer | null;
}

/** A plugin that was told to end a request may take this long. */
const settleMs = 10_000;
/** After that it is left alone, but not so many times. */
const maxStuck = 16;

export class RunningRequests {
  readonly #options: RunningRequestsOptions;
  readonly #running = new Map<number, Running>();
  readonly #stuck = new Set<number>();
  #lastId = 0;

  constructor(options: RunningRequestsOptions) {
    this.#options = options;
  }

  start(request: PluginRequest): PluginAnswer {
    const id = ++this.#lastId;
    const { signal } = request;
    const abort = (): void => this.#cancel(id, toMeshError(signal.reason, 'cancelled'));
    const reader = new AnswerReader({
      windowBytes: answerWindowBytes,
      grant: (bytes) => this.#options.send({ kind: 'grant', id, bytes }),
      left: () => this.#cancel(id, new MeshError('cancelled')),
    });
    const settled = Promise.withResolvers<void>();
    const forgetSignal = (): void => signal.removeEventListener('abort', abort);
    this.#running.set(id, { reader, settled, forgetSignal, patience: null });
    try {
      signal.throwIfAborted();
      const { target, payload, parts, from, session, features } = request;
      const content = { payload, parts: [...parts], from, session, features: [...features] };
      this.#options.send({ kind: 'request', id, target, ...content, window: answerWindowBytes });
      signal.addEventListener('abort', abort, { once: true });
    } catch (thrown) {
      const error = toMeshError(thrown, 'cancelled');
      this.#settle(id);
      reader.fail(error.code === 'bad_message' ? new MeshError('bad_payload', error.message) : error);
    }
    return { reader, settled: settled.promise };
  }

  /** @throws MeshError protocol_violation */
  take(message: Answered, bytes: number): void {
    const { id } = message;
    if (message.kind !== 'chunk') this.#stuck.delete(id);
    const running = this.#running.get(id);
    if (!running) return;
    const { reader } = running;
    if (message.kind === 'chunk') {
      reader.push({ payload: message.payload, parts: message.parts }, bytes);
      return;
    }
    if (message.kind === 'end') reader.finish({ payload: message.payload, parts: message.parts });
    else reader.fail(this.#errorOf(message));
    this.#settle(id);
  }

  /** The process is gone. */
  endAll(error: MeshError): void {
    for (const [id, { reader }] of this.#running) {
      reader.fail(error);
      this.#settle(id);
    }
  }

  get count(): number {
    return this.#running.size;
  }

  #cancel(id: number, reason: MeshError): void {
    const running = this.#running.get(id);
    if (!running || running.patience) return;
    running.patience = this.#options.clock.after(settleMs, () => this.#giveUp(id));
    this.#options.send({ kind: 'cancel', id, code: reason.code });
    running.reader.cancel(reason);
  }

  #giveUp(id: number): void {
    this.#stuck.add(id);
    this.#settle(id);
    if (this.#stuck.size >= maxStuck) this.#options.stuck(this.#stuck.size);
  }

  #settle(id: number): void {
    const running = this.#running.get(id);
    this.#running.delete(id);
    running?.forgetSignal();
    running?.patience?.cancel();
    running?.settled.resolve();
  }

  #errorOf({ code, message }: Answered & { kind: 'error' }): MeshError {
    if (code !== null && isErrorCode(code)) return new MeshError(code, message);
    return new MeshError('plugin_failed', `The plugin ${this.#options.name} failed: ${message}`);
  }
}
