/**
 * One question to many devices at once. Each answers for itself: it has its own deadline, its own checks and its
 * own status, and nothing that it does delays or breaks another's answer. All of it is there when the last one has
 * answered, or at the deadline. What is held is bounded by the limit of rows and `max_bytes` of each device.
 */

import type { Clock, DeviceAnswer, QueryRequest, QueryRow } from '@cocoon-mesh/protocol';
import { MeshError, deadline, limits, toMeshError } from '@cocoon-mesh/protocol';
import { AnswerCheck } from './answer-check.ts';
import { failureOf, toldFailure } from './device-status.ts';
import type { Failure } from './device-status.ts';
import type { Ask, QueryTarget } from './target.ts';

export interface FanOutOptions {
  readonly targets: readonly AskedTarget[];
  readonly request: Omit<QueryRequest, 'after' | 'max_bytes'>;
  readonly clock: Clock;
  /** Cancels the query at every device. */
  readonly signal?: AbortSignal;
  /** Called as parts come, each once; must not throw. */
  readonly onPart?: (part: DevicePart) => void;
}

export interface AskedTarget extends QueryTarget {
  /** Position behind which its rows are wanted. */
  readonly after: string | null;
}

export interface DevicePart {
  readonly target: QueryTarget;
  readonly seq: number;
  readonly rows: readonly QueryRow[];
  readonly isFinal: boolean;
}

export interface DeviceRows {
  readonly answer: DeviceAnswer;
  /** Those that came before a failure, too. */
  readonly rows: readonly QueryRow[];
  /** It said that there are rows behind these. */
  readonly more: boolean;
}

/**
 * In the order of the targets.
 * @throws MeshError cancelled, or the reason of the signal
 */
export async function fanOut(options: FanOutOptions): Promise<readonly DeviceRows[]> {
  if (options.signal?.aborted === true) throw toMeshError(options.signal.reason, 'cancelled');
  const share = Math.floor(limits.maxQueryBytes / Math.max(1, options.targets.length));
  const maxBytes = Math.max(1, Math.min(limits.maxQueryAnswerBytes, share));
  return Promise.all(options.targets.map((target) => askDevice(target, maxBytes, options)));
}

async function askDevice(
  target: AskedTarget,
  maxBytes: number,
  { request, clock, signal, onPart }: FanOutOptions,
): Promise<DeviceRows> {
  const started = clock.monotonic();
  const check = new AnswerCheck(request.limit);
  const answered = (failure: Failure | null): DeviceRows => ({
    answer: {
      id: target.peerId,
      name: target.name,
      status: failure?.status ?? 'ok',
      count: check.rows.length,
      ms: Math.round(clock.monotonic() - started),
      ...(failure ? { error: failure.error } : {}),
    },
    rows: check.rows,
    more: check.more,
  });
  if (!target.ask) return answered(failureOf(new MeshError('device_offline')));

  const limit = deadline(clock, request.timeout_ms);
  const patience = signal ? AbortSignal.any([limit.signal, signal]) : limit.signal;
  try {
    const asked: QueryRequest = { ...request, after: target.after, max_bytes: maxBytes };
    for await (const part of untilAborted(target.ask, asked, patience)) {
      if (part.kind === 'error') return answered(toldFailure(part));
      if (!check.take(part)) continue;
      onPart?.({ target, seq: part.seq, rows: part.rows, isFinal: part.is_final });
      if (check.done) return answered(null);
    }
    throw new MeshError('bad_message', 'The answer ended without its last part');
  } catch (thrown) {
    if (signal?.aborted === true) throw toMeshError(signal.reason, 'cancelled');
    return answered(failureOf(patience.aborted ? patience.reason : thrown));
  } finally {
    limit.cancel();
  }
}

/** Ends with the signal even where the other side does not, and never waits for its end. */
async function* untilAborted(
  ask: Ask,
  request: QueryRequest,
  signal: AbortSignal,
): ReturnType<typeof partsOf> {
  const aborted = Promise.withResolvers<never>();
  aborted.promise.catch(() => undefined);
  const abort = (): void => aborted.reject(signal.reason);
  signal.addEventListener('abort', abort, { once: true });
  const parts = partsOf(ask, request, signal);
  try {
    for (;;) {
      const step = await Promise.race([parts.next(), aborted.promise]);
      if (step.done === true) return;
      yield step.value;
    }
  } finally {
    signal.removeEventListener('abort', abort);
    parts.return().catch(() => undefined);
  }
}

/** Whatever kind of iterable it is, and wherever it throws. */
async function* partsOf(ask: Ask, request: QueryRequest, signal: AbortSignal) {
  yield* ask(request, signal);
}
