/** Embeddings by a model in a folder, which runs in a process of its own. */

import type { Clock, Timer } from '@cocoon-mesh/protocol';
import { MeshError, toMeshError } from '@cocoon-mesh/protocol';
import type { BackendState, EmbeddingsBackend } from './embeddings-backend.ts';
import { Listeners } from './embeddings-backend.ts';
import { readEmbeddingsFolder } from './embeddings-folder.node.ts';
import type { EmbeddingsSpace, EmbeddingsTask } from './embeddings-payload.ts';
import { InferenceProcess } from './inference-process.node.ts';
import { fingerprintOf, stampOf } from './model-folder.node.ts';
import type {
  EmbeddingsDescription,
  EmbeddingsResult,
  EmbeddingsRun,
  EmbeddingsSource,
} from './onnx-embeddings.node.ts';
import { runtimeName, runtimeProblem } from './onnx-runtime.node.ts';
import type { Lane } from './tokens-lanes.ts';

export interface LocalEmbeddingsOptions {
  readonly folder: string;
  readonly clock: Clock;
  /** Name of the package with the ONNX runtime. */
  readonly runtime?: string;
  /** Without requests; then the memory of the model is given back. */
  readonly idleMs?: number;
  /** Padded tokens of a batch. */
  readonly maxBatchTokens?: number;
}

/** The process takes texts of several into one batch. */
const requestsAtOnce = 8;
const defaultIdleMs = 5 * 60_000;
/** Measured: 332 texts a second, against 33 in batches of 32 as they come. */
const defaultBatchTokens = 512;
/** Weights of some GB from a slow disk. */
const loadTimeoutMs = 120_000;
/** Somebody may just be copying the files. */
const lookAgainMs = 30_000;
/** More texts are no question of somebody who waits, but a job. */
const maxInteractiveTexts = 8;

/** What the files said when they were looked at. */
interface Inspected {
  readonly stamp: string;
  readonly space: EmbeddingsSpace;
}

export class LocalEmbeddings implements EmbeddingsBackend {
  readonly limit = requestsAtOnce;
  readonly #options: LocalEmbeddingsOptions;
  readonly #listeners = new Listeners();
  readonly #closed = new AbortController();
  readonly #process: InferenceProcess;
  #inspected: Inspected | { readonly problem: MeshError };
  #inspecting: Promise<void> | null = null;
  #timer: Timer | null = null;

  constructor(options: LocalEmbeddingsOptions) {
    this.#options = options;
    const { folder, clock, runtime = runtimeName, idleMs = defaultIdleMs } = options;
    const { maxBatchTokens = defaultBatchTokens } = options;
    const source: EmbeddingsSource = { folder, runtime, maxBatchTokens };
    this.#process = new InferenceProcess({
      module: import.meta.resolve('./onnx-embeddings.node.ts'),
      source: () => source,
      clock,
      idleMs,
      loadTimeoutMs,
      onChange: () => this.#listeners.tell(),
    });
    this.#inspected = { problem: new MeshError('model_unavailable', `The model ${folder} is being read`) };
    void this.#inspect();
  }

  get state(): BackendState {
    if ('problem' in this.#inspected) return { problem: this.#inspected.problem.message };
    const { problem, warm } = this.#process;
    return problem ? { problem: problem.message } : { space: this.#inspected.space, warm };
  }

  /** Null while it does not run. */
  get pid(): number | null {
    return this.#process.pid;
  }

  onChange(listener: () => void): () => void {
    return this.#listeners.add(listener);
  }

  async embed({ texts, truncate }: EmbeddingsTask, signal: AbortSignal) {
    const inspected = await this.#loaded(signal);
    const lane: Lane = texts.length <= maxInteractiveTexts ? 'interactive' : 'batch';
    const run: EmbeddingsRun = { texts, truncate, lane };
    const { vectors, tokens, stamp } = (await this.#process.run(run, { signal })) as EmbeddingsResult;
    // The process may have died meanwhile, and another have loaded other files.
    if (stamp !== inspected.stamp) throw changing();
    return { vectors, tokens, space: inspected.space };
  }

  async close(): Promise<void> {
    this.#closed.abort(new MeshError('cancelled', 'The model was closed'));
    this.#timer?.cancel();
    await this.#process.close();
    await this.#inspecting;
  }

  /** Its process has loaded the files that were looked at, or they are looked at again. */
  async #loaded(signal: AbortSignal): Promise<Inspected> {
    const { stamp } = (await this.#process.describe(signal)) as EmbeddingsDescription;
    if (!('stamp' in this.#inspected) || this.#inspected.stamp !== stamp) await this.#inspect();
    if ('problem' in this.#inspected) throw this.#inspected.problem;
    if (this.#inspected.stamp === stamp) return this.#inspected;
    throw changing();
  }

  /** Once for all who want it. */
  async #inspect(): Promise<void> {
    this.#timer?.cancel();
    this.#inspecting ??= this.#read().then((inspected) => {
      this.#inspecting = null;
      this.#inspected = inspected;
      if (this.#closed.signal.aborted) return;
      if ('problem' in inspected)
        this.#timer = this.#options.clock.after(lookAgainMs, () => void this.#inspect());
      this.#listeners.tell();
    });
    await this.#inspecting;
  }

  async #read(): Promise<Inspected | { readonly problem: MeshError }> {
    try {
      const missing = runtimeProblem(this.#options.runtime ?? runtimeName);
      if (missing !== null) throw new MeshError('model_unavailable', missing);
      const folder = await readEmbeddingsFolder(this.#options.folder);
      const stamp = await stampOf(folder.path, folder.files);
      const space = await fingerprintOf(folder.path, folder.files, this.#closed.signal);
      const { name, dimensions } = folder;
      return { stamp, space: { model: name, space, semantic: true, dimensions } };
    } catch (thrown) {
      return { problem: toMeshError(thrown, 'model_unavailable') };
    }
  }
}

function changing(): MeshError {
  return new MeshError('model_unavailable', 'The files of the model change while it is in use');
}
