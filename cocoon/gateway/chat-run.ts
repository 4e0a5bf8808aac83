/**
 * A chat through the mesh for clients that know nothing of it. Until the first piece of the answer is there, another
 * device may still answer instead: that is longer than a capability request waits, to whom a chunk that only names
 * the role is an answer already. After that, what breaks is an error.
 */

import type { ChatChunk, ChatRequest } from '@cocoon-mesh/ai/chat-payload.ts';
import {
  chatChunkSchema,
  chatCompletionSchema,
  chatProtocol,
  readShape,
} from '@cocoon-mesh/ai/chat-payload.ts';
import { hasContent } from '@cocoon-mesh/ai/chat-content.ts';
import { chunksOf } from '@cocoon-mesh/ai/chat-gather.ts';
import type { CapabilityAnswer, RequestCapability } from '@cocoon-mesh/capabilities';
import type { Clock, ErrorCode, Json, Timer } from '@cocoon-mesh/protocol';
import { MeshError, limits, toMeshError } from '@cocoon-mesh/protocol';
import type { ModelChoice, ModelOffer } from './openai-models.ts';
import { modelFeature, modelNotFound } from './openai-models.ts';

export interface ChatRunOptions {
  readonly requestCapability: RequestCapability;
  readonly clock: Clock;
  /** Devices in the order in which they are tried, when the first fails behind its first word. */
  readonly offers: () => Promise<readonly ModelOffer[]>;
  readonly choice: ModelChoice;
  readonly request: ChatRequest;
  /** Requests of one session go to one device while it can take them. */
  readonly session: string | null;
  /** How long a device may take to say anything, and then to say something that is content. */
  readonly firstTokenMs: number;
  /** The client is gone. */
  readonly signal: AbortSignal;
}

export interface StartedChat {
  readonly device: string;
  readonly deviceId: string;
  /** Devices that were asked. */
  readonly attempts: number;
  /** Those before the first content too. Leaving them early cancels the chat. @throws MeshError */
  readonly chunks: AsyncIterable<ChatChunk>;
}

/** The first device, and two more. */
const maxTries = 3;
/** Chunks without content before the first that has some: the role, and what keeps a connection alive. */
const maxHeld = 8;

/** What another device would say as well. */
const final: ReadonlySet<ErrorCode> = new Set([
  'bad_payload',
  'text_too_long',
  'message_too_large',
  'not_found',
  'cancelled',
]);

/**
 * Resolves when the answer has begun.
 * @throws MeshError of the last device that was tried
 */
export async function startChat(options: ChatRunOptions): Promise<StartedChat> {
  const { choice, offers, signal } = options;
  const tried = new Set<string>();
  let attempts = 0;
  let device = choice.device;
  for (;;) {
    signal.throwIfAborted();
    const attempt = new ChatAttempt(options, device);
    try {
      const started = await attempt.start();
      return { ...started, attempts: attempts + started.attempts };
    } catch (thrown) {
      const error = toMeshError(thrown, 'provider_failed');
      if (signal.aborted) throw error;
      if (error.code === 'capability_not_found') throw modelNotFound(choice, chatProtocol, await offers());
      const { source } = attempt;
      attempts += source?.attempts ?? 1;
      if (source) tried.add(source.deviceId);
      // Before a chunk, whoever chose the device has tried others already.
      const isOver = choice.device !== null || (device === null && !source) || final.has(error.code);
      const next = isOver || attempts >= maxTries ? null : await nextDevice(options, tried);
      if (next === null) throw error;
      device = next;
      tried.add(device);
    }
  }
}

async function nextDevice(
  { choice, offers }: ChatRunOptions,
  tried: ReadonlySet<string>,
): Promise<string | null> {
  const next = (await offers()).find(
    ({ model, protocol, deviceId, foreign }) =>
      protocol === chatProtocol &&
      !foreign &&
      (choice.model === null || model === choice.model) &&
      !tried.has(deviceId),
  );
  return next?.deviceId ?? null;
}

class ChatAttempt {
  readonly #options: ChatRunOptions;
  readonly #answer: CapabilityAnswer;
  readonly #stop = new AbortController();
  /** Who said something. */
  source: { device: string; deviceId: string; attempts: number } | null = null;
  #hadChunk = false;
  /** It let the time for the first content pass. */
  #wasSilent = false;
  #limit: Timer | null = null;

  constructor(options: ChatRunOptions, device: string | null) {
    const { requestCapability, request, choice, session, firstTokenMs, signal } = options;
    this.#options = options;
    this.#answer = requestCapability({
      protocol: chatProtocol,
      version: '^1.0.0',
      payload: {
        ...(request as Record<string, Json>),
        ...(choice.model === null ? {} : { model: choice.model }),
        stream: true,
      },
      parts: [],
      features: [
        ...(choice.model === null ? [] : [modelFeature + choice.model]),
        ...(request.tools && request.tools.length > 0 ? ['tools'] : []),
      ],
      ...(device === null ? {} : { onlyDevice: device }),
      ...(session === null ? {} : { session }),
      timeoutMs: limits.maxCapabilityTimeoutMs,
      firstAnswerMs: firstTokenMs,
      signal: AbortSignal.any([signal, this.#stop.signal]),
    });
    // Both are asked for only when they are needed; the chunks throw the same.
    this.#answer.device.then(
      (source) => (this.source = source),
      () => undefined,
    );
    this.#answer.end.catch(() => undefined);
  }

  async start(): Promise<StartedChat> {
    const chunks = this.#chunks();
    const held: ChatChunk[] = [];
    try {
      for (;;) {
        const next = await chunks.next();
        if (next.done === true) break;
        const isContent = hasContent(next.value);
        if (isContent || held.length < maxHeld) held.push(next.value);
        if (isContent) break;
      }
    } catch (thrown) {
      throw this.#wasSilent ? new MeshError('timeout', this.#silence(), { cause: thrown }) : thrown;
    } finally {
      this.#limit?.cancel();
    }
    const source = await this.#answer.device;
    return { ...source, chunks: this.#whole(held, chunks) };
  }

  /** From the first word on: those before it are whoever chooses the device's matter. */
  #expectContent(): void {
    const { clock, firstTokenMs } = this.#options;
    this.#limit = clock.after(firstTokenMs, () => {
      this.#wasSilent = true;
      this.#stop.abort(new MeshError('timeout', this.#silence()));
    });
  }

  #silence(): string {
    const { device } = this.source ?? { device: 'the device' };
    return `Nothing of an answer came from ${device} within ${this.#options.firstTokenMs} ms`;
  }

  async *#whole(held: readonly ChatChunk[], rest: AsyncGenerator<ChatChunk>): AsyncGenerator<ChatChunk> {
    try {
      yield* held;
      yield* rest;
    } finally {
      this.#stop.abort(new DOMException('The answer is not read on', 'AbortError'));
      await rest.return(undefined);
    }
  }

  async *#chunks(): AsyncGenerator<ChatChunk> {
    for await (const { payload } of this.#answer.chunks) {
      if (!this.#hadChunk) this.#expectContent();
      this.#hadChunk = true;
      yield readShape(chatChunkSchema, payload, 'bad_answer', 'A piece of the answer');
    }
    if (this.#hadChunk) return;
    // A provider that does not stream.
    const { payload } = await this.#answer.end;
    yield* chunksOf(readShape(chatCompletionSchema, payload, 'bad_answer', 'The answer'));
  }
}
