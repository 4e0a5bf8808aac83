/**
 * The HTTP server of a model, as both kinds of chat provider use it: one request, its failures as errors of ours.
 * The key goes into the header and nowhere else; where a server repeats it, it is taken out of what we say.
 */

import type { Schema } from '@cocoon-mesh/protocol';
import { MeshError, limits } from '@cocoon-mesh/protocol';
import { chatErrorSchema, readShape } from './chat-payload.ts';

/** What a server says of an error is shown up to here. */
const maxSaidLength = 400;
/** Read of an answer that is an error. */
const maxErrorBytes = 64 * 1024;

export interface ModelServerOptions {
  /** For people: `Ollama`. */
  readonly kind: string;
  readonly baseUrl: string;
  readonly apiKey: string | null;
}

export class ModelServer {
  /** `Ollama at http://127.0.0.1:11434`. */
  readonly name: string;
  readonly #baseUrl: string;
  readonly #apiKey: string | null;

  constructor({ kind, baseUrl, apiKey }: ModelServerOptions) {
    this.name = `${kind} at ${baseUrl}`;
    this.#baseUrl = baseUrl;
    this.#apiKey = apiKey;
  }

  /**
   * @returns once the head of the answer is there and good
   * @throws MeshError bad_payload (the server refuses the request) · not_found · overloaded · text_too_long ·
   *   timeout · provider_failed
   */
  async ask(path: string, body: unknown, signal: AbortSignal): Promise<Response> {
    let response: Response;
    try {
      response = await fetch(this.#baseUrl + path, {
        method: body === undefined ? 'GET' : 'POST',
        headers: {
          ...(body === undefined ? {} : { 'content-type': 'application/json' }),
          ...(this.#apiKey === null ? {} : { authorization: `Bearer ${this.#apiKey}` }),
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        // A chat and a key go to the server that was named, not to where it points.
        redirect: 'manual',
        signal,
      });
    } catch (thrown) {
      throw this.failure(thrown, signal, 'cannot be reached');
    }
    if (!response.ok) throw await this.#refusal(response);
    return response;
  }

  /** @throws MeshError as `ask`, and bad_answer: it is not JSON of that shape */
  async askJson<T>(path: string, body: unknown, schema: Schema<T>, signal: AbortSignal): Promise<T> {
    const response = await this.ask(path, body, signal);
    return this.json(response, schema, signal);
  }

  /** @throws MeshError bad_answer · provider_failed · cancelled */
  async json<T>(response: Response, schema: Schema<T>, signal: AbortSignal): Promise<T> {
    const text = await readText(this.body(response, signal), limits.maxCapabilityJsonBytes);
    if (text === null) throw this.#bad(`sent more than ${limits.maxCapabilityJsonBytes} bytes`);
    return this.parse(text, schema);
  }

  /** @throws MeshError bad_answer, or what the server says of itself */
  parse<T>(text: string, schema: Schema<T>): T {
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch {
      throw this.#bad('sent something that is not JSON');
    }
    this.assertNoError(value);
    return readShape(schema, value, 'bad_answer', `The answer of ${this.name}`);
  }

  /** Servers put errors into a stream that began well. @throws MeshError */
  assertNoError(value: unknown): void {
    if (typeof value !== 'object' || value === null || !('error' in value) || value.error === null) return;
    const said = this.#said(value);
    throw new MeshError('provider_failed', `${this.name} failed${said === '' ? '' : `: ${said}`}`);
  }

  /** The body, whose breaking off is an error of ours. Leaving it early closes the connection. */
  async *body(response: Response, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    if (!response.body) return;
    try {
      for await (const bytes of response.body as unknown as AsyncIterable<Uint8Array>) yield bytes;
    } catch (thrown) {
      throw this.failure(thrown, signal, 'broke off its answer');
    }
  }

  brokeOff(): MeshError {
    return new MeshError('provider_failed', `${this.name} ended its answer before it was complete`);
  }

  /** Whatever fetch throws. Whoever cancelled is told what they said. */
  failure(thrown: unknown, signal: AbortSignal, what: string): MeshError {
    if (thrown instanceof MeshError) return thrown;
    if (signal.aborted) return abortError(signal);
    const reason = systemReason(thrown);
    const code = /TIMEOUT/.test(reason) && what === 'broke off its answer' ? 'timeout' : 'provider_failed';
    return new MeshError(code, `${this.name} ${what}${reason === '' ? '' : ` (${reason})`}`);
  }

  async #refusal(response: Response): Promise<MeshError> {
    const { status } = response;
    let said = '';
    try {
      const text = await readText(response.body as unknown as AsyncIterable<Uint8Array>, maxErrorBytes);
      said = this.#said(parsed(text));
    } catch {
      // It broke off; the status says enough.
    }
    const why = said === '' ? '' : `: ${said}`;
    if (status === 401 || status === 403)
      return new MeshError('provider_failed', `${this.name} refuses the API key (HTTP ${status})`, {
        hint: 'Check COCOON_LLM_API_KEY on the device that offers the model.',
      });
    if (status === 404) return new MeshError('not_found', `${this.name} has no such model or path${why}`);
    if (/context.{0,20}(length|window|size)|too many tokens|prompt is too long/i.test(said) && status < 500)
      return new MeshError('text_too_long', `The chat is longer than the model takes${why}`);
    if (status === 400 || status === 413 || status === 422)
      return new MeshError('bad_payload', `${this.name} refuses the request${why}`);
    if (status === 429 || status === 503)
      return new MeshError('overloaded', `${this.name} is busy${why}`, {
        retryAfterMs: retryAfterMs(response.headers.get('retry-after')),
      });
    return new MeshError('provider_failed', `${this.name} answered HTTP ${status}${why}`);
  }

  #bad(what: string): MeshError {
    return new MeshError('bad_answer', `${this.name} ${what}`);
  }

  #said(value: unknown): string {
    const shape = chatErrorSchema.safeParse(value);
    if (!shape.success) return '';
    const { error } = shape.data;
    const text = typeof error === 'string' ? error : (error.message ?? String(error.code ?? ''));
    const shown = this.#apiKey === null ? text : text.replaceAll(this.#apiKey, '***');
    return shown.toWellFormed().slice(0, maxSaidLength);
  }
}

/** What `signal` was aborted with, as an error of ours. */
export function abortError(signal: AbortSignal): MeshError {
  const { reason } = signal as { reason: unknown };
  if (reason instanceof MeshError) return reason;
  const isTimeout = reason instanceof DOMException && reason.name === 'TimeoutError';
  return new MeshError(isTimeout ? 'timeout' : 'cancelled', undefined, { cause: reason });
}

/** Seconds; dates, which hardly any server sends, are taken as a moment. */
function retryAfterMs(value: string | null): number {
  const seconds = value !== null && /^\d{1,5}(\.\d+)?$/.test(value) ? Number(value) : 1;
  return Math.round(seconds * 1000);
}

function parsed(text: string | null): unknown {
  try {
    return JSON.parse(text ?? '') as unknown;
  } catch {
    return null;
  }
}

/** Null: it is longer. */
async function readText(body: AsyncIterable<Uint8Array>, maxBytes: number): Promise<string | null> {
  const decoder = new TextDecoder();
  let text = '';
  let length = 0;
  for await (const bytes of body) {
    length += bytes.length;
    if (length > maxBytes) return null;
    text += decoder.decode(bytes, { stream: true });
  }
  return text + decoder.decode();
}

/** fetch says only that it failed; its cause has the code of the system. */
function systemReason(thrown: unknown): string {
  const cause = thrown instanceof Error ? thrown.cause : null;
  for (const each of [cause, thrown])
    if (typeof each === 'object' && each !== null && 'code' in each && typeof each.code === 'string')
      return each.code;
  return '';
}
