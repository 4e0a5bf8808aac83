/**
 * The knowledge base inside of its thread: changes take turns, searches go on between their steps. Every method takes
 * plain values, so that it can be called from another thread.
 */

import { realpathSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import type { Clock } from '@cocoon-mesh/protocol/clock.ts';
import { MeshError, toMeshError } from '@cocoon-mesh/protocol/errors.ts';
import { lexicalSpace, lexicalVector } from '@cocoon-mesh/vectors';
import type { WatchFolder } from './folder-watch.node.ts';
import { FolderWatch } from './folder-watch.node.ts';
import type { AddProgress, AddReport } from './indexer.node.ts';
import { Indexer } from './indexer.node.ts';
import type { ChunkRow, SourceRow, Space, StoredVector } from './knowledge-store.node.ts';
import { KnowledgeStore } from './knowledge-store.node.ts';
import type { KnowledgeRow } from '@cocoon-mesh/protocol/knowledge-row.ts';
import type { Question } from './searcher.node.ts';
import { searchChunks } from './searcher.node.ts';
import { SpaceTables } from './space-tables.node.ts';

/** Of one call. */
export interface CallContext {
  readonly signal: AbortSignal;
  readonly onProgress: (progress: AddProgress) => void;
}

export interface AddRequest {
  /** Absolute. */
  readonly path: string;
  /** Only files with these extensions, without their dots. Null: every text. */
  readonly only: readonly string[] | null;
  readonly watch: boolean;
}

export interface SearchRequest {
  readonly text: string;
  readonly limit: number;
  /** Of a space that `useSpace` named, beside the lexical one. */
  readonly vector: { readonly fingerprint: string; readonly values: Float32Array } | null;
}

export interface KnowledgeStats {
  readonly sources: number;
  readonly files: number;
  readonly chunks: number;
  readonly bytes: number;
  readonly spaces: readonly (Space & { readonly vectors: number })[];
}

export interface ServiceParts {
  readonly path: string;
  readonly clock: Clock;
  readonly maxBytes: number | null;
  /** Of what nobody waits for: the scans of watched folders. */
  readonly onProblem: (error: MeshError) => void;
  readonly watchFolder?: WatchFolder;
  readonly maxChunks?: number;
}

export class KnowledgeService {
  readonly #parts: ServiceParts;
  readonly #store: KnowledgeStore;
  readonly #spaces: SpaceTables;
  readonly #indexer: Indexer;
  readonly #closing = new AbortController();
  readonly #watches = new Map<number, { readonly watch: FolderWatch; isWaiting: boolean }>();
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(parts: ServiceParts, store: KnowledgeStore, spaces: SpaceTables) {
    this.#parts = parts;
    this.#store = store;
    this.#spaces = spaces;
    const { clock, maxChunks } = parts;
    this.#indexer = new Indexer({ store, spaces, clock, ...(maxChunks === undefined ? {} : { maxChunks }) });
  }

  /** @throws MeshError database_corrupt | database_newer | storage_full | storage_failed */
  static async open(parts: ServiceParts): Promise<KnowledgeService> {
    const store = await KnowledgeStore.open(parts.path, parts.maxBytes);
    try {
      const service = new KnowledgeService(parts, store, await SpaceTables.open(store));
      await service.#embedMissing();
      for (const source of await store.sources()) if (source.watched) service.#startWatch(source);
      return service;
    } catch (thrown) {
      await store.close();
      throw thrown;
    }
  }

  get watches(): number {
    return this.#watches.size;
  }

  /** @throws MeshError not_found | storage_full | storage_failed | cancelled */
  async add({ path, only, watch }: AddRequest, context: CallContext): Promise<AddReport> {
    const real = realPath(path);
    if (real === null)
      throw new MeshError('not_found', `There is no file or folder ${path}`, {
        hint: 'Check the spelling, and that the device may look into the folders above it.',
      });
    return this.#inTurn(context.signal, async (signal) => {
      await this.#store.putSource(
        real,
        only?.map((each) => each.toLowerCase()) ?? null,
        this.#parts.clock.now(),
      );
      const source = await this.#source(real);
      const { report, folders } = await this.#indexer.update(source, signal, context.onProgress);
      if (watch) await this.#watch(source, folders);
      return report;
    });
  }

  /** Looks at every source again. */
  async refresh(_request: null, context: CallContext): Promise<readonly AddReport[]> {
    return this.#inTurn(context.signal, async (signal) => {
      const reports: AddReport[] = [];
      for (const source of await this.#store.sources()) {
        const { report, folders } = await this.#indexer.update(source, signal, context.onProgress);
        this.#watches.get(source.id)?.watch.setFolders(watched(source, folders));
        reports.push(report);
      }
      return reports;
    });
  }

  /** Answers how many files were forgotten. @throws MeshError not_found */
  async remove({ path }: { readonly path: string }, { signal }: CallContext): Promise<number> {
    return this.#inTurn(signal, async () => {
      const source = await this.#source(realPath(path) ?? formerPath(path));
      this.#stopWatch(source.id);
      return this.#indexer.remove(source);
    });
  }

  /** @throws MeshError not_found */
  async watch(
    { path, on }: { readonly path: string; readonly on: boolean },
    context: CallContext,
  ): Promise<void> {
    await this.#inTurn(context.signal, async (signal) => {
      const source = await this.#source(realPath(path) ?? formerPath(path));
      if (on) {
        const { folders } = await this.#indexer.update(source, signal, context.onProgress);
        return this.#watch(source, folders);
      }
      this.#stopWatch(source.id);
      await this.#store.setWatched(source.id, false);
    });
  }

  async sources(): Promise<readonly SourceRow[]> {
    return this.#store.sources();
  }

  async stats(): Promise<KnowledgeStats> {
    const [sources, files, chunks] = [
      await this.#store.sources(),
      await this.#store.fileCount(),
      await this.#store.chunkCount(),
    ];
    const spaces = (await this.#store.spaces()).map(
      ({ name, fingerprint, dimensions, semantic, vectors }) => ({
        name,
        fingerprint,
        dimensions,
        semantic,
        vectors,
      }),
    );
    return { sources: sources.length, files, chunks, bytes: await this.#store.bytes(), spaces };
  }

  /** @throws MeshError bad_filter */
  async search({ text, limit, vector }: SearchRequest): Promise<readonly KnowledgeRow[]> {
    const questions: Question[] = [{ space: this.#spaces.lexical, vector: lexicalVector(text) }];
    if (vector) {
      const space = await this.#spaces.of(vector.fingerprint, [vector.values]);
      questions.push({ space, vector: vector.values });
    }
    return searchChunks(this.#store, text, limit, questions);
  }

  /** A space whose vectors are computed elsewhere. */
  async useSpace(space: Space): Promise<void> {
    await this.#spaces.use(space);
  }

  /** Chunks that have no vector in that space yet. @throws MeshError bad_filter */
  async chunksWithout(request: {
    readonly fingerprint: string;
    readonly count: number;
  }): Promise<readonly ChunkRow[]> {
    const { id } = await this.#spaces.of(request.fingerprint, []);
    return this.#store.chunksWithout(id, request.count);
  }

  /** Answers how many were kept: chunks may have gone meanwhile. @throws MeshError bad_filter | storage_full */
  async putVectors(
    request: { readonly fingerprint: string; readonly vectors: readonly StoredVector[] },
    { signal }: CallContext,
  ): Promise<number> {
    return this.#inTurn(signal, () => this.#spaces.put(request.fingerprint, request.vectors));
  }

  async close(): Promise<void> {
    this.#closing.abort(new MeshError('cancelled', 'The knowledge base was closed'));
    for (const { watch } of this.#watches.values()) watch.close();
    this.#watches.clear();
    await this.#turn;
    await this.#store.close();
  }

  /** A change that waits for its turn can be cancelled, too. */
  async #inTurn<T>(signal: AbortSignal, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const both = AbortSignal.any([signal, this.#closing.signal]);
    const mine = this.#turn.then(() => {
      both.throwIfAborted();
      return work(both);
    });
    this.#turn = mine.catch(() => undefined);
    try {
      return await mine;
    } catch (thrown) {
      throw toMeshError(thrown);
    }
  }

  async #source(path: string): Promise<SourceRow> {
    const source = (await this.#store.sources()).find((each) => each.path === path);
    if (!source)
      throw new MeshError('not_found', `${path} was never added`, { hint: 'See `cocoon kb list`.' });
    return source;
  }

  async #watch(source: SourceRow, folders: readonly string[]): Promise<void> {
    await this.#store.setWatched(source.id, true);
    this.#startWatch(source);
    this.#watches.get(source.id)?.watch.setFolders(watched(source, folders));
  }

  /** Its first scan finds what is to be watched. */
  #startWatch(source: SourceRow): void {
    if (this.#watches.has(source.id)) return;
    const { clock, watchFolder } = this.#parts;
    const watch = new FolderWatch(clock, () => void this.#rescan(source), watchFolder);
    this.#watches.set(source.id, { watch, isWaiting: false });
    if (source.watched) void this.#rescan(source);
  }

  #stopWatch(id: number): void {
    this.#watches.get(id)?.watch.close();
    this.#watches.delete(id);
  }

  async #rescan(source: SourceRow): Promise<void> {
    const known = this.#watches.get(source.id);
    if (!known || known.isWaiting) return;
    known.isWaiting = true;
    try {
      await this.#inTurn(this.#closing.signal, async (signal) => {
        known.isWaiting = false;
        if (this.#watches.get(source.id) !== known) return;
        const { folders } = await this.#indexer.update(source, signal, () => undefined);
        known.watch.setFolders(watched(source, folders));
      });
    } catch (thrown) {
      known.isWaiting = false;
      if (!this.#closing.signal.aborted) this.#parts.onProblem(toMeshError(thrown));
    }
  }

  /** Chunks that another version of the program added. */
  async #embedMissing(): Promise<void> {
    for (;;) {
      const chunks = await this.#store.chunksWithout(this.#spaces.lexical.id, 200);
      if (chunks.length === 0) return;
      const vectors = chunks.map(({ id, heading, text }) => ({
        id,
        vector: lexicalVector(`${heading}\n${text}`),
      }));
      await this.#spaces.put(lexicalSpace.fingerprint, vectors);
    }
  }
}

/** A file that editors replace is seen from its folder only. */
function watched({ path }: SourceRow, folders: readonly string[]): readonly string[] {
  return folders.length > 0 ? folders : [dirname(path)];
}

/** Null when there is nothing. */
function realPath(path: string): string | null {
  try {
    return realpathSync(path);
  } catch {
    return null;
  }
}

/** For what is gone: as it would have been called. */
function formerPath(path: string): string {
  for (let above = path, rest = ''; above !== dirname(above); above = dirname(above)) {
    rest = join(basename(above), rest);
    const real = realPath(dirname(above));
    if (real !== null) return join(real, rest);
  }
  return path;
}
