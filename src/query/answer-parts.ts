/**
 * A device's answer as parts: rows of an answerer, gathered into messages of a good size, cut at what was
 * asked for, ended at the deadline. It never throws: what goes wrong is the last part. Sizes are of rows as JSON.
 */

import type { Clock, QueryPart, QueryRequest, QueryRow } from '@cocoon-mesh/protocol';
import { MeshError, deadline, jsonBytes, limits, toMeshError } from '@cocoon-mesh/protocol';

/** Which device asks; null: this one. */
export interface Asker {
  readonly id: string;
  readonly name: string;
}

/**
 * Rows behind `request.after`, in the order of their keys, one by one or in batches, for as long as there are any:
 * it is read lazily and left after one row more than `request.limit`, which tells that there are more. So a batch
 * of `limit + 1` is enough. Ends soon after the signal.
 * @throws MeshError bad_cursor for a position it does not know, bad_filter, …
 */
export type Answerer = (
  request: QueryRequest,
  signal: AbortSignal,
  from: Asker | null,
) => AsyncIterable<QueryRow | readonly QueryRow[]>;

export interface AnswerUnderWay {
  readonly parts: AsyncGenerator<QueryPart, void, undefined>;
  /** The answerer has ended, some time after the parts. Never rejects. */
  readonly over: Promise<void>;
}

/** A part is sent when it has this much. */
const partBytes = 64 * 1024;
/** Or when the next row is not there after this long: people watch rows come. */
const partDelayMs = 20;
/** Of a part without its rows, at most. */
const envelopeBytes = 64;

export function startAnswer(
  answerer: Answerer,
  request: QueryRequest,
  clock: Clock,
  signal: AbortSignal,
  from: Asker | null,
): AnswerUnderWay {
  const over = Promise.withResolvers<void>();
  const rows: Rows = (patience) => answerer(request, patience, from);
  return { parts: answerParts(rows, request, clock, signal, over.resolve), over: over.promise };
}

/** An answerer that has been told what is asked, and by whom. */
type Rows = (signal: AbortSignal) => ReturnType<Answerer>;

async function* answerParts(
  rows: Rows,
  request: QueryRequest,
  clock: Clock,
  signal: AbortSignal,
  over: () => void,
): AsyncGenerator<QueryPart, void, undefined> {
  const limit = deadline(clock, request.timeout_ms);
  const left = new AbortController();
  const patience = AbortSignal.any([limit.signal, left.signal, signal]);
  const batches = new Batches(rows, patience, clock);
  const gathered = new Gathered(request);
  try {
    while (!gathered.full) {
      const batch = await batches.next(gathered.waiting);
      if (batch === 'ended') break;
      if (batch === 'late') yield gathered.part();
      else for (const row of batch) if (gathered.add(row)) yield gathered.part();
    }
    yield gathered.lastPart();
  } catch (thrown) {
    // Nobody reads any more where the asker has gone.
    if (!signal.aborted) yield errorPart(limit.signal.aborted ? limit.signal.reason : thrown);
  } finally {
    limit.cancel();
    left.abort(new MeshError('cancelled'));
    void batches.close().then(over);
  }
}

export function errorPart(thrown: unknown): QueryPart {
  const { code, message } = toMeshError(thrown);
  return { kind: 'error', code, message: message.slice(0, 1024) };
}

/** The answerer's rows, with an eye on the time. */
class Batches {
  readonly #iterator: AsyncIterator<QueryRow | readonly QueryRow[]>;
  readonly #clock: Clock;
  readonly #aborted = Promise.withResolvers<never>();
  #next: Promise<IteratorResult<QueryRow | readonly QueryRow[]>> | null = null;

  constructor(rows: Rows, signal: AbortSignal, clock: Clock) {
    this.#clock = clock;
    this.#aborted.promise.catch(() => undefined);
    if (signal.aborted) this.#aborted.reject(signal.reason);
    else signal.addEventListener('abort', () => this.#aborted.reject(signal.reason), { once: true });
    this.#iterator = begun(rows, signal);
  }

  /** @param hurry somebody waits for what is there: `late` when nothing comes soon */
  async next(hurry: boolean): Promise<readonly QueryRow[] | 'late' | 'ended'> {
    this.#next ??= this.#iterator.next();
    const step = hurry
      ? await this.#soon(this.#next)
      : await Promise.race([this.#next, this.#aborted.promise]);
    if (step === 'late') return step;
    this.#next = null;
    if (step.done === true) return 'ended';
    return isBatch(step.value) ? step.value : [step.value];
  }

  /** Resolves when the answerer has ended. */
  async close(): Promise<void> {
    await Promise.allSettled([this.#next, this.#iterator.return?.()]);
  }

  async #soon<T>(next: Promise<T>): Promise<T | 'late'> {
    const late = Promise.withResolvers<'late'>();
    const timer = this.#clock.after(partDelayMs, () => late.resolve('late'));
    try {
      return await Promise.race([next, this.#aborted.promise, late.promise]);
    } finally {
      timer.cancel();
    }
  }
}

/** Whatever kind of iterable it is, and wherever it throws. */
async function* begun(rows: Rows, signal: AbortSignal) {
  yield* rows(signal);
}

function isBatch(rows: QueryRow | readonly QueryRow[]): rows is readonly QueryRow[] {
  return Array.isArray(rows);
}

/** What the asker wanted, part by part. */
class Gathered {
  readonly #request: QueryRequest;
  #rows: QueryRow[] = [];
  #bytes = 0;
  #allBytes = envelopeBytes;
  #count = 0;
  #seq = 0;
  #more = false;

  constructor(request: QueryRequest) {
    this.#request = request;
  }

  /** No row fits any more, and there is one that did not. */
  get full(): boolean {
    return this.#more;
  }

  /** Rows are there that no part has. */
  get waiting(): boolean {
    return this.#rows.length > 0;
  }

  /** True: a part should go. @throws MeshError message_too_large */
  add(row: QueryRow): boolean {
    if (this.#more) return false;
    if (this.#count === this.#request.limit) {
      this.#more = true;
      return false;
    }
    const length = jsonBytes(row);
    if (length > limits.maxQueryRowBytes) throw tooLarge(length, limits.maxQueryRowBytes);
    if (this.#allBytes + length > this.#request.max_bytes) {
      if (this.#count === 0) throw tooLarge(length, this.#request.max_bytes);
      this.#more = true;
      return false;
    }
    this.#rows.push(row);
    this.#count++;
    this.#bytes += length;
    this.#allBytes += length;
    return this.#bytes >= partBytes;
  }

  part(): QueryPart {
    return this.#next(false);
  }

  lastPart(): QueryPart {
    return this.#next(true);
  }

  #next(isFinal: boolean): QueryPart {
    const rows = this.#rows;
    this.#rows = [];
    this.#bytes = 0;
    this.#allBytes += envelopeBytes;
    const part = { kind: 'part' as const, seq: this.#seq++, rows, is_final: isFinal };
    return isFinal ? { ...part, more: this.#more } : part;
  }
}

function tooLarge(length: number, limit: number): MeshError {
  return new MeshError('message_too_large', `A row of ${length} bytes is over its limit of ${limit}`);
}
