/** What one plugin asks of other capabilities: put to the mesh in its name, the answers sent as fast as it reads. */

import type { CapabilityRequest, RequestCapability } from '@cocoon-mesh/capabilities';
import { MeshError, toMeshError } from '@cocoon-mesh/protocol';
import type { FromPlugin, ToPlugin } from './plugin-messages.ts';
import { SendCredit } from './send-credit.ts';

type Ask = FromPlugin & { kind: 'ask' };

/** Of one plugin at once. */
const maxAsks = 64;

interface Running {
  readonly controller: AbortController;
  readonly credit: SendCredit;
}

export class AskServer {
  readonly #request: RequestCapability;
  readonly #send: (message: ToPlugin) => number;
  readonly #running = new Map<number, Running>();

  constructor(request: RequestCapability, send: (message: ToPlugin) => number) {
    this.#request = request;
    this.#send = send;
  }

  /** @throws MeshError protocol_violation */
  ask(message: Ask): void {
    if (this.#running.has(message.id))
      throw new MeshError('protocol_violation', 'Two questions of a plugin have the same number');
    void this.#serve(message);
  }

  cancel(id: number): void {
    this.#running.get(id)?.controller.abort(new MeshError('cancelled'));
  }

  grant(id: number, bytes: number): void {
    this.#running.get(id)?.credit.grant(bytes);
  }

  /** The plugin is gone: nobody reads. */
  close(): void {
    for (const { controller } of this.#running.values()) controller.abort(new MeshError('cancelled'));
  }

  async #serve(message: Ask): Promise<void> {
    const { id } = message;
    if (this.#running.size >= maxAsks) {
      this.#fail(id, new MeshError('overloaded', `A plugin asks ${maxAsks} things at once at most`));
      return;
    }
    const running = { controller: new AbortController(), credit: new SendCredit(message.window) };
    this.#running.set(id, running);
    try {
      await this.#answer(message, running);
    } catch (thrown) {
      this.#fail(id, toMeshError(thrown));
    } finally {
      this.#running.delete(id);
    }
  }

  async #answer(message: Ask, { controller, credit }: Running): Promise<void> {
    const { id } = message;
    const { signal } = controller;
    const answer = this.#request(requestOf(message, signal));
    answer.end.catch(() => undefined);
    answer.device.then(
      ({ device, deviceId, attempts }) =>
        this.#send({ kind: 'asked_device', id, device, device_id: deviceId, attempts }),
      () => undefined,
    );
    for await (const { payload, parts } of answer.chunks) {
      await credit.room(signal);
      credit.spend(this.#send({ kind: 'asked_chunk', id, payload, parts: [...parts] }));
    }
    const { payload, parts, source } = await answer.end;
    this.#send({ kind: 'asked_end', id, payload, parts: [...parts], source });
  }

  #fail(id: number, { code, message, hint }: MeshError): void {
    this.#send({ kind: 'asked_error', id, code, message: cut(message), hint: cut(hint) });
  }
}

function cut(text: string): string {
  return text.slice(0, 4096).toWellFormed();
}

function requestOf(message: Ask, signal: AbortSignal): CapabilityRequest {
  const { protocol, version, payload, parts, features, session } = message;
  return {
    protocol,
    version,
    payload,
    parts,
    features,
    signal,
    ...(session === null ? {} : { session }),
    ...(message.prefer_device === null ? {} : { preferDevice: message.prefer_device }),
    ...(message.only_device === null ? {} : { onlyDevice: message.only_device }),
    ...(message.timeout_ms === null ? {} : { timeoutMs: message.timeout_ms }),
    ...(message.first_answer_ms === null ? {} : { firstAnswerMs: message.first_answer_ms }),
  };
}
