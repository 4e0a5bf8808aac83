/**
 * A Llama-style decoder on the ONNX runtime, as Optimum exports it: one token after the other, keys and values of
 * those before kept, so that each costs the same however long the text is.
 */

import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import type { InferenceSession, Tensor } from 'onnxruntime-node';
import type { OnnxRuntime } from './onnx-runtime.node.ts';

/** Of a prompt at once: between two of these it can be cancelled, and the logits of all of them are in memory. */
const promptStep = 256;

export interface DecoderShape {
  /** Heads of the keys and values. */
  readonly heads: number;
  readonly headSize: number;
}

export interface GenerateOptions {
  /** False: everything is computed anew for each token. */
  readonly cache?: boolean;
  readonly signal?: AbortSignal;
}

type Tensors = Record<string, Tensor>;

const pastPrefix = 'past_key_values.';

export class LlmDecoder {
  readonly #runtime: OnnxRuntime;
  readonly #session: InferenceSession;
  readonly #shape: DecoderShape;
  readonly #past: readonly string[];

  /** @throws MeshError model_unavailable: it is not such a model */
  constructor(runtime: OnnxRuntime, session: InferenceSession, shape: DecoderShape) {
    this.#runtime = runtime;
    this.#session = session;
    this.#shape = shape;
    this.#past = session.inputNames.filter((name) => name.startsWith(pastPrefix));
    assertKnown(session, this.#past);
  }

  /**
   * Tokens without end: whoever takes them knows when to stop.
   * @param choose a token by the logits of all of them
   * @throws the signal's reason, between two tokens
   */
  async *generate(
    prompt: readonly number[],
    choose: (logits: Float32Array) => number,
    { cache = true, signal }: GenerateOptions = {},
  ): AsyncGenerator<number> {
    const all = [...prompt];
    let past: Tensors | null = null;
    let cached = 0;
    try {
      for (;;) {
        let logits: Float32Array = new Float32Array();
        if (!cache) cached = 0;
        const step = cache ? promptStep : all.length;
        while (cached < all.length) {
          // The run blocks this process; messages of whoever cancels come in between.
          await new Promise(setImmediate);
          signal?.throwIfAborted();
          const ids = all.slice(cached, cached + step);
          const outputs = await this.#run(ids, cached, cache ? past : null);
          release(past);
          past = this.#present(outputs);
          cached += ids.length;
          logits = lastLogits(outputs);
        }
        const next = choose(logits);
        yield next;
        all.push(next);
      }
    } finally {
      release(past);
    }
  }

  async #run(ids: readonly number[], before: number, past: Tensors | null): Promise<Tensors> {
    const { Tensor } = this.#runtime;
    const total = before + ids.length;
    const int64 = (values: readonly number[], dims = [1, values.length]): Tensor =>
      new Tensor('int64', BigInt64Array.from(values.map(BigInt)), dims);
    const feeds: Tensors = { input_ids: int64(ids), ...(past ?? this.#empty()) };
    const has = (name: string): boolean => this.#session.inputNames.includes(name);
    if (has('attention_mask')) feeds['attention_mask'] = int64(Array.from({ length: total }, () => 1));
    if (has('position_ids')) feeds['position_ids'] = int64(ids.map((_id, i) => before + i));
    // Exports that have both ways in one file.
    if (has('use_cache_branch')) feeds['use_cache_branch'] = new Tensor('bool', [past !== null], [1]);
    if (has('num_logits_to_keep')) feeds['num_logits_to_keep'] = int64([1], []);
    return this.#session.run(feeds);
  }

  #empty(): Tensors {
    const { heads, headSize } = this.#shape;
    return Object.fromEntries(
      this.#past.map((name) => [
        name,
        new this.#runtime.Tensor('float32', new Float32Array(), [1, heads, 0, headSize]),
      ]),
    );
  }

  #present(outputs: Tensors): Tensors {
    return Object.fromEntries(
      this.#past.map((name) => {
        const tensor = outputs[`present.${name.slice(pastPrefix.length)}`];
        if (!tensor) throw unsuited(`gives nothing to keep for ${name}`);
        return [name, tensor];
      }),
    );
  }
}

const knownInputs = new Set([
  'input_ids',
  'attention_mask',
  'position_ids',
  'use_cache_branch',
  'num_logits_to_keep',
]);

function assertKnown(session: InferenceSession, past: readonly string[]): void {
  if (!session.inputNames.includes('input_ids') || !session.outputNames.includes('logits'))
    throw unsuited('takes no input_ids or gives no logits');
  if (past.length === 0) throw unsuited('keeps nothing of the text before (no past_key_values)');
  const strange = session.inputNames.find((name) => !knownInputs.has(name) && !past.includes(name));
  if (strange !== undefined) throw unsuited(`needs ${strange}, which nobody here knows`);
  for (const input of session.inputMetadata)
    if (past.includes(input.name) && (!input.isTensor || input.type !== 'float32'))
      throw unsuited(
        'keeps its keys and values in another form than float32; take model.onnx or a quantised one',
      );
}

function unsuited(what: string): MeshError {
  return new MeshError(
    'model_unavailable',
    `The model is no language model of a kind that runs here: it ${what}`,
  );
}

/** Those of the last position. */
function lastLogits({ logits }: Tensors): Float32Array {
  const data: unknown = logits?.data;
  const size = logits?.dims.at(-1) ?? 0;
  if (!(data instanceof Float32Array) || size === 0) throw unsuited('gives no float32 logits');
  return data.subarray(data.length - size);
}

function release(tensors: Tensors | null): void {
  for (const tensor of Object.values(tensors ?? {})) tensor.dispose();
}
