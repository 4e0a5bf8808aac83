/**
 * One call of a provider as messages of an answer. Ends with the signal or the deadline even where the provider does
 * not; its place stays taken until it does, or a peer could start any number that do not end.
 */

import type { CapabilityAnswerMessage, Clock, ErrorCode } from '@cocoon-mesh/protocol';
import { MeshError, capabilityAnswerSchema, check, deadline, toMeshError } from '@cocoon-mesh/protocol';
import type { Content, ProviderCall } from './provider.ts';
import type { Place, ProviderLane } from './provider-lane.ts';

/** What is asked of this device, by itself or by a peer. */
export interface LocalCall extends Omit<ProviderCall, 'signal'> {
  readonly timeoutMs: number;
}

/** Never throws: what goes wrong is the last message. @param failed told what its provider threw, for the log only */
export async function* answerOf(
  lane: ProviderLane,
  call: LocalCall,
  clock: Clock,
  signal: AbortSignal,
  failed: (thrown: unknown) => void,
): AsyncGenerator<CapabilityAnswerMessage, void, undefined> {
  const { protocol, version } = lane.provider;
  const limit = deadline(clock, call.timeoutMs);
  const left = new AbortController();
  const patience = AbortSignal.any([signal, limit.signal, left.signal]);
  let place: Place | null = null;
  let running: Running | null = null;
  try {
    place = await lane.enter(patience);
    running = start(lane, { ...call, signal: patience });
    for (;;) {
      const { value, isLast } = await untilAborted(running.next(), patience);
      const content = copied(value);
      if (!isLast) {
        yield checked({ kind: 'chunk', ...content });
        continue;
      }
      const { queueMs } = place;
      place.leave(true);
      yield checked({ kind: 'end', ...content, version, queue_ms: queueMs, load: lane.load });
      return;
    }
  } catch (thrown) {
    const error = errorOf(thrown, protocol);
    if (place && !patience.aborted && (error !== thrown || error.code === 'bad_answer')) failed(thrown);
    yield failure(error, lane);
  } finally {
    limit.cancel();
    left.abort(new DOMException('The answer was left', 'AbortError'));
    // What the provider still does is not waited for, but counted.
    if (running) void running.over().finally(() => place?.leave(false));
    else place?.leave(false);
  }
}

const nothing: Content = { payload: null, parts: [] };

interface Step {
  readonly value: Content;
  readonly isLast: boolean;
}

interface Running {
  next(): Promise<Step>;
  /** Resolves when the provider has ended. Never rejects. */
  over(): Promise<void>;
}

function start(lane: ProviderLane, call: ProviderCall): Running {
  const given = lane.provider.handle(call);
  if (!(Symbol.asyncIterator in given)) {
    const whole = Promise.resolve(given);
    const settled = whole.then(
      () => undefined,
      () => undefined,
    );
    return { next: async () => ({ value: await whole, isLast: true }), over: () => settled };
  }
  const chunks = given[Symbol.asyncIterator]();
  let last: Promise<unknown> = Promise.resolve();
  return {
    next: () => {
      const step = Promise.resolve(chunks.next());
      last = step;
      return step.then(({ done, value }) =>
        // What a generator returns follows its last chunk.
        done === true ? { value: value ?? nothing, isLast: true } : { value, isLast: false },
      );
    },
    over: async () => {
      try {
        await last;
        await chunks.return?.();
      } catch {
        // It has ended, in whatever way.
      }
    },
  };
}

/** Only what a content has, whatever else the provider put there. @throws MeshError bad_answer */
function copied(content: Content): Content & { readonly parts: Uint8Array[] } {
  // A provider may be a plugin: its types promise nothing.
  const { payload, parts } = (content ?? {}) as Partial<Content>;
  if (payload === undefined || !Array.isArray(parts)) throw badAnswer();
  return { payload, parts };
}

/** @throws MeshError bad_answer */
function checked(message: CapabilityAnswerMessage): CapabilityAnswerMessage {
  try {
    return check(capabilityAnswerSchema, message);
  } catch (cause) {
    throw badAnswer(cause);
  }
}

function badAnswer(cause?: unknown): MeshError {
  return new MeshError('bad_answer', 'The provider gave an answer that cannot be sent', { cause });
}

function failure(error: MeshError, lane: ProviderLane | null): CapabilityAnswerMessage {
  const { code, message, hint, retryAfterMs } = error;
  return {
    kind: 'error',
    code,
    message: message.slice(0, maxErrorText),
    ...(hint === '' ? {} : { hint: hint.slice(0, maxErrorText) }),
    ...(retryAfterMs === null ? {} : { retry_after_ms: retryAfterMs }),
    load: lane?.load ?? null,
  };
}

/** Of an answer that no provider gives. */
export function failureMessage(thrown: unknown): CapabilityAnswerMessage {
  return failure(toMeshError(thrown), null);
}

const maxErrorText = 1024;

/** Errors of the mesh have a code to tell; what others say may hold anything. */
function errorOf(thrown: unknown, protocol: string): MeshError {
  if (thrown instanceof MeshError && !broken.has(thrown.code)) return thrown;
  const { code } = toMeshError(thrown);
  if (code === 'timeout' || code === 'cancelled') return toMeshError(thrown);
  return new MeshError('provider_failed', `The provider of ${protocol} failed`, { cause: thrown });
}

/** Codes of streams and of the inside: of a provider they would say something about the wrong device. */
const broken: ReadonlySet<ErrorCode> = new Set<ErrorCode>(['internal', 'stream_reset', 'session_closed']);

async function untilAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  const aborted = Promise.withResolvers<never>();
  const abort = (): void => aborted.reject(signal.reason);
  signal.addEventListener('abort', abort, { once: true });
  if (signal.aborted) abort();
  try {
    return await Promise.race([promise, aborted.promise]);
  } finally {
    signal.removeEventListener('abort', abort);
    promise.catch(() => undefined);
    aborted.promise.catch(() => undefined);
  }
}
