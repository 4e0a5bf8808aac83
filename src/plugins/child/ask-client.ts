/** What a plugin asks of other capabilities, over the pipe to its daemon. */

import type { AnswerSource, CapabilityAnswer, CapabilityRequest, Content } from '@cocoon-mesh/capabilities';
import { MeshError, isErrorCode, toMeshError } from '@cocoon-mesh/protocol/errors.ts';
import { AnswerReader } from '../answer-reader.ts';
import type { FromPlugin, ToPlugin } from '../plugin-messages.ts';
import { answerWindowBytes } from '../plugin-messages.ts';
import { plainJson } from './plain-json.ts';

type Asked = Extract<ToPlugin, { kind: 'asked_device' | 'asked_chunk' | 'asked_end' | 'asked_error' }>;
type End = Content & { readonly source: AnswerSource };

interface Waiting {
  readonly reader: AnswerReader<End>;
  readonly device: PromiseWithResolvers<Pick<AnswerSource, 'device' | 'deviceId' | 'attempts'>>;
  readonly over: () => void;
}

export class AskClient {
  readonly #send: (message: FromPlugin) => number;
  readonly #waiting = new Map<number, Waiting>();
  #lastId = 0;

  constructor(send: (message: FromPlugin) => number) {
    this.#send = send;
  }

  readonly ask = (request: CapabilityRequest): CapabilityAnswer => {
    const id = ++this.#lastId;
    const cancel = (error: unknown): void => {
      if (!this.#waiting.has(id)) return;
      this.#send({ kind: 'ask_cancel', id });
      reader.cancel(error);
      this.#fail(id, error);
    };
    const reader = new AnswerReader<End>({
      windowBytes: answerWindowBytes,
      grant: (bytes) => this.#send({ kind: 'ask_grant', id, bytes }),
      left: () => cancel(new MeshError('cancelled')),
    });
    const device: Waiting['device'] = Promise.withResolvers();
    device.promise.catch(() => undefined);
    const { signal } = request;
    const abort = (): void => cancel(toMeshError(signal?.reason, 'cancelled'));
    this.#waiting.set(id, { reader, device, over: () => signal?.removeEventListener('abort', abort) });
    try {
      signal?.throwIfAborted();
      this.#send({
        kind: 'ask',
        id,
        protocol: request.protocol,
        version: request.version,
        payload: plainJson(request.payload, `The payload for ${request.protocol}`, 'bad_payload'),
        parts: [...request.parts],
        prefer_device: request.preferDevice ?? null,
        only_device: request.onlyDevice ?? null,
        session: request.session ?? null,
        features: [...(request.features ?? [])],
        timeout_ms: request.timeoutMs ?? null,
        first_answer_ms: request.firstAnswerMs ?? null,
        window: answerWindowBytes,
      });
      signal?.addEventListener('abort', abort, { once: true });
    } catch (thrown) {
      this.#fail(id, notSent(thrown));
    }
    return { device: device.promise, chunks: reader.chunks(), end: reader.end };
  };

  take(message: Asked, bytes: number): void {
    const waiting = this.#waiting.get(message.id);
    if (!waiting) return;
    const { reader, device } = waiting;
    if (message.kind === 'asked_device')
      device.resolve({ device: message.device, deviceId: message.device_id, attempts: message.attempts });
    else if (message.kind === 'asked_chunk') reader.push(message, bytes);
    else if (message.kind === 'asked_end') {
      const { payload, parts, source } = message;
      reader.finish({ payload, parts, source });
      this.#forget(message.id);
    } else {
      const code = isErrorCode(message.code) ? message.code : 'internal';
      this.#fail(message.id, new MeshError(code, message.message, { hint: message.hint }));
    }
  }

  #fail(id: number, error: unknown): void {
    const waiting = this.#waiting.get(id);
    this.#forget(id);
    waiting?.device.reject(error);
    waiting?.reader.fail(error);
  }

  #forget(id: number): void {
    this.#waiting.get(id)?.over();
    this.#waiting.delete(id);
  }
}

/** Of a question, or it would look like an answer of the plugin that cannot be sent. */
function notSent(thrown: unknown): MeshError {
  const error = toMeshError(thrown, 'bad_payload');
  const isOurs = error.code === 'bad_message' || error.code === 'message_too_large';
  return isOurs ? new MeshError('bad_payload', `The question cannot be sent: ${error.message}`) : error;
}
