/**
 * The index of a device's text and Markdown files in `knowledge.db`. The work is done in a thread, which is there only
 * while somebody needs it; a call fails at its deadline whatever the thread does.
 */

import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Clock, Timer } from '@cocoon-mesh/protocol/clock.ts';
import { deadline, systemClock } from '@cocoon-mesh/protocol/clock.ts';
import type { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import { toMeshError } from '@cocoon-mesh/protocol/errors.ts';
import { KnowledgeThread } from './knowledge-thread-link.node.ts';
import type { AddProgress, AddReport } from './indexer.node.ts';
import type { KnowledgeStats } from './knowledge-service.node.ts';
import type { ChunkRow, SourceRow, Space, StoredVector } from './knowledge-store.node.ts';
import type { KnowledgeRow } from '@cocoon-mesh/protocol/knowledge-row.ts';
import type { AnswerOf, RequestOf, ThreadCall } from './thread-messages.node.ts';

export interface KnowledgeOptions {
  readonly clock?: Clock;
  /** Of the database; absent: what the disk holds. */
  readonly maxBytes?: number;
  /** Of what nobody waits for: the scans of watched folders. */
  readonly onProblem?: (error: MeshError) => void;
}

export interface AddOptions {
  /** Only files with these extensions, with or without their dots; absent: every text. */
  readonly only?: readonly string[];
  readonly watch?: boolean;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: AddProgress) => void;
}

export interface SearchOptions {
  readonly limit?: number;
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  /** Of a space that `useSpace` named, to rank by meaning too, and not by words alone. */
  readonly vector?: { readonly fingerprint: string; readonly values: Float32Array };
}

/** A thread takes some 30 MB, and half a second to start. */
const idleMs = 5 * 60_000;
const defaultSearchTimeoutMs = 10_000;
export const maxSearchRows = 100;
/** More is no question but a document. */
export const maxQuestionLength = 4_096;

export class KnowledgeBase {
  readonly #path: string;
  readonly #options: KnowledgeOptions;
  readonly #clock: Clock;
  #thread: KnowledgeThread | null = null;
  #idle: Timer | null = null;
  #isClosed = false;

  private constructor(path: string, options: KnowledgeOptions) {
    this.#path = path;
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
  }

  /**
   * A base that does not exist yet is made by the first `add`.
   * @throws MeshError database_corrupt | database_newer | storage_full | storage_failed
   */
  static async open(path: string, options: KnowledgeOptions = {}): Promise<KnowledgeBase> {
    const base = new KnowledgeBase(path, options);
    // Also begins to watch what is to be watched.
    if (existsSync(path)) await base.stats();
    return base;
  }

  /** Is there a thread? */
  get isAwake(): boolean {
    return this.#thread?.isOver === false;
  }

  /**
   * Indexes a file or folder, or brings it up to date. What was done when it is cancelled stays.
   * @throws MeshError not_found | storage_full | storage_failed | cancelled
   */
  async add(path: string, options: AddOptions = {}): Promise<AddReport> {
    const { only, watch = false, signal, onProgress } = options;
    const extensions = only?.map((each) => each.replace(/^\./, '')) ?? null;
    return this.#call('add', { path: resolve(path), only: extensions, watch }, signal, onProgress);
  }

  /** Looks at everything that was added again. @throws MeshError storage_full | storage_failed | cancelled */
  async refresh(options: Pick<AddOptions, 'signal' | 'onProgress'> = {}): Promise<readonly AddReport[]> {
    return this.#call('refresh', null, options.signal, options.onProgress);
  }

  /** @throws MeshError not_found for what was never added */
  async watch(path: string, on: boolean, signal?: AbortSignal): Promise<void> {
    await this.#call('watch', { path: resolve(path), on }, signal);
  }

  /** Answers how many files were forgotten. @throws MeshError not_found for what was never added */
  async remove(path: string, signal?: AbortSignal): Promise<number> {
    return this.#call('remove', { path: resolve(path) }, signal);
  }

  async sources(signal?: AbortSignal): Promise<readonly SourceRow[]> {
    return existsSync(this.#path) ? this.#call('sources', null, signal) : [];
  }

  async stats(signal?: AbortSignal): Promise<KnowledgeStats> {
    if (!existsSync(this.#path)) return { sources: 0, files: 0, chunks: 0, bytes: 0, spaces: [] };
    return this.#call('stats', null, signal);
  }

  /**
   * The best first. Nothing in the text has a special meaning; the last word may be unfinished.
   * @throws MeshError bad_filter | timeout | cancelled
   */
  async search(text: string, options: SearchOptions = {}): Promise<readonly KnowledgeRow[]> {
    if (!existsSync(this.#path)) return [];
    const { limit = 10, timeoutMs = defaultSearchTimeoutMs, signal, vector = null } = options;
    const time = deadline(this.#clock, timeoutMs);
    const request = {
      text: text.slice(0, maxQuestionLength),
      limit: Math.max(1, Math.min(limit, maxSearchRows)),
      vector,
    };
    try {
      const either = signal ? AbortSignal.any([signal, time.signal]) : time.signal;
      return await this.#call('search', request, either);
    } finally {
      time.cancel();
    }
  }

  /** Announces a space whose vectors are computed elsewhere. */
  async useSpace(space: Space, signal?: AbortSignal): Promise<void> {
    await this.#call('useSpace', space, signal);
  }

  /** Chunks that have no vector in that space yet. @throws MeshError bad_filter for an unknown space */
  async chunksWithout(
    fingerprint: string,
    count: number,
    signal?: AbortSignal,
  ): Promise<readonly ChunkRow[]> {
    return this.#call('chunksWithout', { fingerprint, count }, signal);
  }

  /** Answers how many were kept: chunks may have gone meanwhile. @throws MeshError bad_filter | storage_full */
  async putVectors(
    fingerprint: string,
    vectors: readonly StoredVector[],
    signal?: AbortSignal,
  ): Promise<number> {
    return this.#call('putVectors', { fingerprint, vectors }, signal);
  }

  /** What runs is cancelled. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#rest();
  }

  async #call<Name extends ThreadCall>(
    name: Name,
    request: RequestOf<Name>,
    signal?: AbortSignal,
    onProgress?: (progress: AddProgress) => void,
  ): Promise<AnswerOf<Name>> {
    try {
      signal?.throwIfAborted();
      return await this.#awake().call(name, request, signal, onProgress);
    } catch (thrown) {
      throw toMeshError(thrown);
    } finally {
      this.#waitForRest();
    }
  }

  #awake(): KnowledgeThread {
    if (this.#isClosed) throw new DOMException('The knowledge base is closed', 'AbortError');
    this.#idle?.cancel();
    if (this.#thread?.isOver === true) this.#thread = null;
    const { maxBytes = null, onProblem = () => undefined } = this.#options;
    this.#thread ??= new KnowledgeThread({ path: this.#path, maxBytes }, onProblem);
    return this.#thread;
  }

  #waitForRest(): void {
    this.#idle?.cancel();
    if (this.#thread?.isIdle !== true) return;
    this.#idle = this.#clock.after(idleMs, () => void this.#rest());
  }

  async #rest(): Promise<void> {
    this.#idle?.cancel();
    const thread = this.#thread;
    this.#thread = null;
    await thread?.close();
  }
}
