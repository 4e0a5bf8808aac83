/** The knowledge base of this device: what its user adds to it, and what it answers to a search. */

import type { AddOptions, AddReport, SourceRow } from '@cocoon-mesh/knowledge';
import { KnowledgeBase, maxSearchRows } from '@cocoon-mesh/knowledge';
import type { Provider } from '@cocoon-mesh/capabilities';
import type { Clock, QueryRequest } from '@cocoon-mesh/protocol';
import { MeshError } from '@cocoon-mesh/protocol';
import type { Answerer } from '@cocoon-mesh/query';
import type { Home } from './home.ts';
import { KnowledgeVectors } from './knowledge-vectors.ts';
import type { IndexTold, IndexedView, SourceView, VectorsView } from './knowledge-view.ts';
import { LatePart } from './late-part.ts';
import type { Log } from './logs.ts';
import { asJson, paramsOf, searchSchema } from './queries/query-sources.ts';

export interface KnowledgePartOptions {
  readonly home: Home;
  readonly clock: Clock;
  readonly log: Log;
  /** Of this device; null: switched off. */
  readonly embeddings: Provider | null;
}

export class Knowledge {
  readonly #base: LatePart<KnowledgeBase>;
  readonly #enabled: boolean;
  readonly #vectors: KnowledgeVectors;

  /** @param enabled false: the capability was switched off */
  constructor({ home, clock, log, embeddings }: KnowledgePartOptions, enabled: boolean) {
    this.#enabled = enabled;
    this.#vectors = new KnowledgeVectors(embeddings, clock);
    this.#base = new LatePart({
      what: 'The knowledge base',
      open: () =>
        KnowledgeBase.open(home.knowledge, {
          clock,
          onProblem: ({ code, message }) =>
            log('warn', `A watched folder was not indexed: ${message}`, { code }),
        }),
      close: (base) => base.close(),
      clock,
      log,
    });
  }

  start(): void {
    if (this.#enabled) void this.#base.start();
  }

  /** Idempotent. */
  async close(): Promise<void> {
    await this.#base.close();
  }

  /** @throws MeshError not_found | storage_full | storage_failed | cancelled */
  async add(
    paths: readonly string[],
    options: Pick<AddOptions, 'watch' | 'only' | 'signal'> & {
      readonly onProgress?: (progress: IndexTold['progress']) => void;
    },
  ): Promise<IndexedView> {
    const base = await this.#use();
    const reports: AddReport[] = [];
    for (const path of paths) reports.push(await base.add(path, options));
    const sum = (count: (report: AddReport) => number): number =>
      reports.reduce((total, report) => total + count(report), 0);
    return {
      added: sum(({ added }) => added),
      changed: sum(({ changed }) => changed),
      unchanged: sum(({ unchanged }) => unchanged),
      removed: sum(({ removed }) => removed),
      sources: reports.map(({ source }) => source),
      skipped: sum(({ skipped }) => Object.values(skipped).reduce((total, count) => total + count, 0)),
      examples: reports.flatMap(({ examples }) => examples),
      vectors: await this.#vectors.embedMissing(base, options.signal, (embedded) =>
        options.onProgress?.({ files: sum(filesOf), indexed: sum(indexedOf), embedded }),
      ),
    };
  }

  async list(): Promise<{ sources: readonly SourceView[]; vectors: Omit<VectorsView, 'embedded'> }> {
    const { model, problem } = this.#vectors.view;
    return {
      sources: (await (await this.#use()).sources()).map(sourceView),
      vectors: { model, problem },
    };
  }

  /** @throws MeshError not_found for what was never added */
  async remove(paths: readonly string[]): Promise<{ sources: readonly string[] }> {
    const base = await this.#use();
    for (const path of paths) await base.remove(path);
    return { sources: paths };
  }

  /** For `search_knowledgebase`. */
  readonly answerer: Answerer = async function* (
    this: Knowledge,
    request: QueryRequest,
    signal: AbortSignal,
  ) {
    const { text } = paramsOf(searchSchema, request);
    const from = offsetOf(request.after);
    const base = await this.#use();
    const limit = Math.min(from + request.limit + 1, maxSearchRows);
    const vector = await this.#vectors.of(base, text, signal);
    const found = await base.search(text, {
      limit,
      timeoutMs: request.timeout_ms,
      signal,
      ...(vector ? { vector } : {}),
    });
    yield found.slice(from).map((row, i) => ({
      key: [row.score],
      at: String(from + i + 1),
      value: asJson(row),
    }));
  }.bind(this);

  #use(): Promise<KnowledgeBase> {
    if (!this.#enabled) throw new MeshError('capability_off');
    return this.#base.use();
  }
}

function indexedOf({ added, changed }: AddReport): number {
  return added + changed;
}

function filesOf(report: AddReport): number {
  return indexedOf(report) + report.unchanged;
}

/** @throws MeshError bad_cursor */
function offsetOf(position: string | null): number {
  if (position === null) return 0;
  if (/^[1-9]\d{0,4}$/.test(position)) return Number(position);
  throw new MeshError('bad_cursor');
}

function sourceView({ path, files, watched, addedMs, scannedMs }: SourceRow): SourceView {
  return {
    path,
    files,
    watched,
    added_at: new Date(addedMs).toISOString(),
    scanned_at: scannedMs === null ? null : new Date(scannedMs).toISOString(),
  };
}
