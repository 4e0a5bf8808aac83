/** A sentence encoder on the ONNX runtime: the module of its process (`inference-entry`). */

import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import { packVector } from '@cocoon-mesh/vectors';
import type { InferenceSession, Tensor } from 'onnxruntime-node';
import type { EmbeddingsFolder } from './embeddings-folder.node.ts';
import { readEmbeddingsFolder } from './embeddings-folder.node.ts';
import { EmbeddingsTokens } from './embeddings-tokens.node.ts';
import type { LocalModel, RunContext } from './inference-messages.ts';
import { stampOf, unavailable } from './model-folder.node.ts';
import { normalise, pool } from './onnx-pooling.ts';
import type { OnnxRuntime } from './onnx-runtime.node.ts';
import { loadRuntime, openSession } from './onnx-runtime.node.ts';
import type { Lane, WaitingText } from './tokens-lanes.ts';
import { TokenLanes } from './tokens-lanes.ts';

export interface EmbeddingsSource {
  readonly folder: string;
  /** Name of the package. */
  readonly runtime: string;
  /** Padded tokens of a batch; larger ones are slower, since they leave the processor's caches. */
  readonly maxBatchTokens: number;
}

export interface EmbeddingsDescription {
  /** Of the files when they were loaded (`stampOf`). */
  readonly stamp: string;
}

export interface EmbeddingsRun {
  readonly texts: readonly string[];
  readonly truncate: boolean;
  readonly lane: Lane;
}

export interface EmbeddingsResult {
  /** Packed, one after the other. */
  readonly vectors: Uint8Array;
  readonly tokens: number;
  /** Of the files that computed them (`EmbeddingsDescription`). */
  readonly stamp: string;
}

/** Tokenising lets others have their turn after so many characters. */
const charactersInARow = 20_000;

interface Job {
  readonly vectors: Float32Array;
  readonly done: PromiseWithResolvers<void>;
  left: number;
}

interface Text extends WaitingText {
  readonly ids: readonly number[];
  readonly request: Job;
  /** In the request. */
  readonly index: number;
}

/** @throws MeshError model_unavailable */
export async function openModel(source: EmbeddingsSource): Promise<OnnxEmbeddings> {
  const folder = await readEmbeddingsFolder(source.folder);
  // Before they are loaded: what is replaced meanwhile shows afterwards.
  const stamp = await stampOf(folder.path, folder.files);
  const runtime = await loadRuntime(source.runtime);
  const tokens = await EmbeddingsTokens.open(folder);
  const session = await openSession(runtime, `${folder.path}/${folder.modelFile}`);
  const graph = new EncoderGraph(runtime, session, folder);
  await graph.probe(tokens);
  return new OnnxEmbeddings({ stamp }, folder.dimensions, graph, tokens, source.maxBatchTokens);
}

class OnnxEmbeddings implements LocalModel<EmbeddingsRun, EmbeddingsResult, EmbeddingsDescription> {
  readonly description: EmbeddingsDescription;
  readonly #dimensions: number;
  readonly #graph: EncoderGraph;
  readonly #tokens: EmbeddingsTokens;
  readonly #maxBatchTokens: number;
  readonly #lanes = new TokenLanes<Text>();
  #isWorking = false;

  constructor(
    description: EmbeddingsDescription,
    dimensions: number,
    graph: EncoderGraph,
    tokens: EmbeddingsTokens,
    maxBatchTokens: number,
  ) {
    this.description = description;
    this.#dimensions = dimensions;
    this.#graph = graph;
    this.#tokens = tokens;
    this.#maxBatchTokens = maxBatchTokens;
  }

  async run({ texts, truncate, lane }: EmbeddingsRun, { signal }: RunContext): Promise<EmbeddingsResult> {
    const job: Job = {
      vectors: new Float32Array(texts.length * this.#dimensions),
      done: Promise.withResolvers(),
      left: texts.length,
    };
    const waiting: Text[] = [];
    let characters = 0;
    for (const [index, text] of texts.entries()) {
      const ids = this.#tokens.encode(text, truncate, `input[${index}]`);
      waiting.push({ lane, length: ids.length, request: job, ids, index });
      characters += text.length;
      if (characters < charactersInARow) continue;
      characters = 0;
      await new Promise<void>((resolve) => void setImmediate(resolve));
      signal.throwIfAborted();
    }
    this.#lanes.push(waiting);
    const cancel = (): void => {
      this.#lanes.remove(job);
      job.done.reject(signal.reason);
    };
    signal.addEventListener('abort', cancel, { once: true });
    void this.#work();
    try {
      await job.done.promise;
    } finally {
      signal.removeEventListener('abort', cancel);
    }
    const tokens = waiting.reduce((sum, { length }) => sum + length, 0);
    return { vectors: packVector(job.vectors), tokens, stamp: this.description.stamp };
  }

  async #work(): Promise<void> {
    if (this.#isWorking) return;
    this.#isWorking = true;
    for (;;) {
      const batch = this.#lanes.take(this.#maxBatchTokens);
      if (batch.length === 0) break;
      try {
        const vectors = await this.#graph.run(batch.map(({ ids }) => ids));
        for (const [i, { request, index }] of batch.entries()) {
          request.vectors.set(vectors[i] ?? [], index * this.#dimensions);
          if (--request.left === 0) request.done.resolve();
        }
      } catch (thrown) {
        for (const { request } of batch) {
          this.#lanes.remove(request);
          request.done.reject(thrown);
        }
      }
    }
    this.#isWorking = false;
  }
}

/** What the graph asks for and gives, and what is made of it. */
class EncoderGraph {
  readonly #runtime: OnnxRuntime;
  readonly #session: InferenceSession;
  readonly #folder: EmbeddingsFolder;
  readonly #output: string;

  /** @throws MeshError model_unavailable: it is not the graph of a sentence encoder */
  constructor(runtime: OnnxRuntime, session: InferenceSession, folder: EmbeddingsFolder) {
    this.#runtime = runtime;
    this.#session = session;
    this.#folder = folder;
    const known = ['input_ids', 'attention_mask', 'token_type_ids', 'position_ids'];
    const foreign = session.inputNames.find((name) => !known.includes(name));
    if (foreign !== undefined || !session.inputNames.includes('input_ids'))
      throw unavailable(
        `${folder.modelFile} is no sentence encoder: it asks for ${session.inputNames.join(', ')}`,
      );
    const names = session.outputNames;
    const output = ['sentence_embedding', 'last_hidden_state', 'token_embeddings'].find((name) =>
      names.includes(name),
    );
    if (output === undefined)
      throw unavailable(`${folder.modelFile} is no sentence encoder: it gives ${names.join(', ')}`);
    if (output !== 'sentence_embedding' && !folder.pooling)
      throw unavailable(
        'modules.json and 1_Pooling/config.json of the model are missing: they say how tokens become one vector',
      );
    this.#output = output;
  }

  /** Runs the first and the last token of its tokenizer. @throws MeshError model_unavailable */
  async probe(tokens: EmbeddingsTokens): Promise<void> {
    const { vocabulary, dimensions, modelFile } = this.#folder;
    if (vocabulary !== null && tokens.lastToken >= vocabulary)
      throw unavailable(
        `tokenizer.json has tokens up to ${tokens.lastToken}, config.json of the model ${vocabulary}: they are not of one model`,
      );
    let given = 0;
    try {
      given = (await this.run([[0, tokens.lastToken]]))[0]?.length ?? 0;
    } catch (thrown) {
      const why = thrown instanceof Error ? thrown.message : String(thrown);
      throw unavailable(`${modelFile} does not run: ${why}`, thrown);
    }
    if (given !== dimensions)
      throw unavailable(
        `${modelFile} gives ${given} dimensions, and the other files of the model say ${dimensions}`,
      );
  }

  /** @throws MeshError provider_failed */
  async run(texts: readonly (readonly number[])[]): Promise<readonly Float32Array[]> {
    const longest = texts.reduce((most, ids) => Math.max(most, ids.length), 1);
    const result = await this.#session.run(this.#feeds(texts, longest));
    const output = result[this.#output];
    const { dims, data } = output ?? { dims: [], data: null };
    const dimensions = dims.at(-1) ?? 0;
    if (!(data instanceof Float32Array))
      throw new MeshError('provider_failed', `${this.#folder.modelFile} gives ${output?.type}, not float32`);
    const perToken = dims.length === 3;
    if (data.length !== texts.length * (perToken ? longest : 1) * dimensions)
      throw new MeshError('provider_failed', `${this.#folder.modelFile} gives the shape ${dims.join('×')}`);
    return texts.map((ids, row) =>
      this.#vector(data, row * (perToken ? longest : 1), ids.length, dimensions, perToken),
    );
  }

  #vector(
    data: Float32Array,
    row: number,
    count: number,
    dimensions: number,
    perToken: boolean,
  ): Float32Array {
    const { pooling, normalises } = this.#folder;
    const start = row * dimensions;
    const vector = new Float32Array(dimensions);
    if (perToken) pool(pooling ?? 'mean', { values: data, start, count, dimensions }, vector);
    else vector.set(data.subarray(start, start + dimensions));
    if (normalises) normalise(vector);
    if (!vector.every(Number.isFinite))
      throw new MeshError('provider_failed', `${this.#folder.modelFile} gives values that are no numbers`);
    return vector;
  }

  #feeds(texts: readonly (readonly number[])[], longest: number): Record<string, Tensor> {
    const { Tensor } = this.#runtime;
    const shape = [texts.length, longest];
    const make = (value: (id: bigint, at: number) => bigint): Tensor => {
      const values = new BigInt64Array(texts.length * longest);
      for (const [row, ids] of texts.entries())
        for (const [at, id] of ids.entries()) values[row * longest + at] = value(BigInt(id), at);
      return new Tensor('int64', values, shape);
    };
    const makers: Record<string, () => Tensor> = {
      input_ids: () => make((id) => id),
      attention_mask: () => make(() => 1n),
      token_type_ids: () => make(() => 0n),
      position_ids: () => make((_, at) => BigInt(at)),
    };
    const feeds: Record<string, Tensor> = {};
    for (const name of this.#session.inputNames) {
      const tensor = makers[name]?.();
      if (tensor) feeds[name] = tensor;
    }
    return feeds;
  }
}
