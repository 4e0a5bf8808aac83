/** Brings the index to what lies on the disk: files that did not change cost a stat, the others are cut anew. */

import { basename, extname } from 'node:path';
import type { Clock } from '@cocoon-mesh/protocol/clock.ts';
import { lexicalVector } from '@cocoon-mesh/vectors';
import type { Chunk } from './chunks.ts';
import { chunkText } from './chunks.ts';
import { syntaxOf } from './headings.ts';
import type { KnowledgeStore, SourceRow } from './knowledge-store.node.ts';
import type { SkipReason } from './read-text.node.ts';
import { readText } from './read-text.node.ts';
import type { Found } from './scan-folder.node.ts';
import { scan } from './scan-folder.node.ts';
import type { SpaceTables } from './space-tables.node.ts';

export interface SkippedFile {
  readonly path: string;
  readonly reason: SkipReason;
}

export interface AddProgress {
  /** Files looked at so far. */
  readonly files: number;
  /** Of them, added or changed. */
  readonly indexed: number;
  readonly path: string;
}

export interface AddReport {
  /** The real path of what was added. */
  readonly source: string;
  /** Files, counted. */
  readonly added: number;
  readonly changed: number;
  readonly unchanged: number;
  readonly removed: number;
  readonly skipped: Readonly<Partial<Record<SkipReason, number>>>;
  /** Some of those that somebody may want to know of. */
  readonly examples: readonly SkippedFile[];
  readonly ms: number;
}

export interface Update {
  readonly report: AddReport;
  readonly folders: readonly string[];
}

/** Of chunks: the vectors of all are held in memory while searches go on, 512 bytes each. */
export const maxIndexedChunks = 200_000;
const maxExamples = 20;
const progressEveryMs = 100;
/** Searches that wait are answered this often. */
const sliceMs = 5;
/** File systems count time in ticks of up to two seconds. */
const settledAfterMs = 2_000;
const expectedReasons = new Set<SkipReason>(['hidden', 'other_name', 'binary', 'link']);

interface IndexerParts {
  readonly store: KnowledgeStore;
  readonly spaces: SpaceTables;
  readonly clock: Clock;
  readonly maxChunks?: number;
}

export class Indexer {
  readonly #store: KnowledgeStore;
  readonly #spaces: SpaceTables;
  readonly #clock: Clock;
  readonly #maxChunks: number;
  #sliceEnds = 0;

  constructor({ store, spaces, clock, maxChunks = maxIndexedChunks }: IndexerParts) {
    this.#store = store;
    this.#spaces = spaces;
    this.#clock = clock;
    this.#maxChunks = maxChunks;
  }

  /**
   * What was done when it is cancelled or fails stays; the next one goes on from there.
   * @throws MeshError storage_full | storage_failed, or the signal's reason
   */
  async update(
    source: Pick<SourceRow, 'id' | 'path' | 'only'>,
    signal: AbortSignal,
    onProgress: (progress: AddProgress) => void,
  ): Promise<Update> {
    const run = new Run(source.path, this.#clock.monotonic());
    const before = await this.#store.fileIdsOf(source.id);
    for (const found of scan(source.path, { only: source.only })) {
      if (this.#clock.monotonic() >= this.#sliceEnds) await this.#letOthers();
      signal.throwIfAborted();
      if (found.kind === 'folder') run.folders.push(found.path);
      else if (found.kind === 'skipped') await this.#skip(source.id, found, run);
      else {
        run.files++;
        await this.#file(source.id, found, before, run, signal);
        const nowMs = this.#clock.monotonic();
        if (nowMs - run.toldMs < progressEveryMs) continue;
        run.toldMs = nowMs;
        onProgress({ files: run.files, indexed: run.added + run.changed, path: found.path });
      }
    }
    const gone = [...before].filter((id) => !run.seen.has(id));
    if (gone.length > 0) this.#spaces.forget((await this.#store.unlink(source.id, gone)).chunks);
    await this.#store.scanned(source.id, this.#clock.now(), run.skipped);
    return { report: run.report(gone.length, this.#clock.monotonic()), folders: run.folders };
  }

  /** Answers how many files were forgotten; those of other sources are kept. */
  async remove(source: SourceRow): Promise<number> {
    const { files, chunks } = await this.#store.removeSource(source.id);
    this.#spaces.forget(chunks);
    return files;
  }

  async #skip(sourceId: number, found: Extract<Found, { kind: 'skipped' }>, run: Run): Promise<void> {
    run.skip(found.path, found.reason);
    if (!found.isFolder || found.reason !== 'unreadable') return;
    // Not seen is not the same as gone.
    for (const id of await this.#store.fileIdsBelow(sourceId, found.path)) run.seen.add(id);
  }

  async #file(
    sourceId: number,
    found: Extract<Found, { kind: 'file' }>,
    before: ReadonlySet<number>,
    run: Run,
    signal: AbortSignal,
  ): Promise<void> {
    const { path } = found;
    const known = await this.#store.file(path);
    const keep = async (id: number): Promise<void> => {
      run.seen.add(id);
      run.unchanged++;
      if (!before.has(id)) await this.#store.link(sourceId, id);
    };
    if (known?.settled === 1 && known.stamp === found.stamp) return keep(known.id);
    const read = readText(path);
    if (read.kind === 'skipped') {
      run.skip(path, read.reason);
      // It is read when it rests; until then the old words are better than none.
      if (read.reason === 'changing' && known && before.has(known.id)) run.seen.add(known.id);
      return;
    }
    const { text, hash, stamp } = read;
    const settled = this.#clock.now() - found.modifiedMs > settledAfterMs;
    if (known?.hash === hash) {
      await this.#store.touchFile(known.id, stamp, settled);
      return keep(known.id);
    }
    const name = basename(path);
    const { title, chunks } = chunkText(text, syntaxOf(extname(name).slice(1).toLowerCase(), text), name);
    const { id: spaceId, table } = this.#spaces.lexical;
    if (table.size + chunks.length > this.#maxChunks) return run.skip(path, 'too_many');
    const withVectors = await this.#embed(chunks, signal);
    const titled = title === name ? title : `${title} (${name})`;
    const file = { path, hash, stamp, settled, title: titled, chunks: withVectors };
    const change = await this.#store.replaceFile(sourceId, spaceId, file);
    this.#spaces.forget(change.removed);
    change.added.forEach((id, i) => {
      const vector = withVectors[i]?.vector;
      if (vector) table.set(id, vector);
    });
    run.seen.add(change.fileId);
    if (known) run.changed++;
    else run.added++;
  }

  async #embed(chunks: readonly Chunk[], signal: AbortSignal) {
    const embedded: (Chunk & { readonly vector: Float32Array })[] = [];
    for (const chunk of chunks) {
      if (this.#clock.monotonic() >= this.#sliceEnds) {
        await this.#letOthers();
        signal.throwIfAborted();
      }
      embedded.push({ ...chunk, vector: lexicalVector(`${chunk.heading}\n${chunk.text}`) });
    }
    return embedded;
  }

  async #letOthers(): Promise<void> {
    await new Promise<void>((resolve) => void setImmediate(resolve));
    this.#sliceEnds = this.#clock.monotonic() + sliceMs;
  }
}

class Run {
  readonly source: string;
  readonly startMs: number;
  readonly folders: string[] = [];
  readonly seen = new Set<number>();
  readonly skipped: Partial<Record<SkipReason, number>> = {};
  readonly examples: SkippedFile[] = [];
  files = 0;
  added = 0;
  changed = 0;
  unchanged = 0;
  toldMs = -Infinity;

  constructor(source: string, startMs: number) {
    this.source = source;
    this.startMs = startMs;
  }

  skip(path: string, reason: SkipReason): void {
    this.skipped[reason] = (this.skipped[reason] ?? 0) + 1;
    // Of what was named itself, every reason is news.
    const isNews = path === this.source || !expectedReasons.has(reason);
    if (isNews && this.examples.length < maxExamples) this.examples.push({ path, reason });
  }

  report(removed: number, nowMs: number): AddReport {
    const { source, added, changed, unchanged, skipped, examples } = this;
    return { source, added, changed, unchanged, removed, skipped, examples, ms: nowMs - this.startMs };
  }
}
