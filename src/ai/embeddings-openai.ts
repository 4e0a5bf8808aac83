/**
 * Embeddings by any server with the API of OpenAI: vLLM, llama.cpp, text-embeddings-inference, LM Studio, a cloud.
 * https://platform.openai.com/docs/api-reference/embeddings
 */

import { MeshError } from '@cocoon-mesh/protocol';
import { unpackVector } from '@cocoon-mesh/vectors';
import * as z from 'zod/mini';
import type { EmbeddingsServer } from './embeddings-remote.ts';
import type { ModelServer } from './llm-server.ts';

const modelsSchema = z.looseObject({
  data: z.array(z.looseObject({ id: z.string().check(z.minLength(1)) })).check(z.maxLength(10_000)),
});
const count = z.int().check(z.nonnegative());
const answerSchema = z.looseObject({
  /** Numbers, where a server does not know base64. */
  data: z.array(z.looseObject({ index: count, embedding: z.union([z.string(), z.array(z.number())]) })),
  usage: z.optional(z.nullable(z.looseObject({ prompt_tokens: z.optional(count) }))),
});

export interface OpenAiEmbeddingsOptions {
  readonly server: ModelServer;
  /** Null: the only one it has. */
  readonly model: string | null;
  /** Of whom the server is: its address, or this device. Models of one name are the same there. */
  readonly home: string;
}

export class OpenAiEmbeddings implements EmbeddingsServer {
  readonly #server: ModelServer;
  readonly #model: string | null;
  readonly #home: string;

  constructor({ server, model, home }: OpenAiEmbeddingsOptions) {
    this.#server = server;
    this.#model = model;
    this.#home = home;
  }

  get name(): string {
    return this.#server.name;
  }

  async describe(signal: AbortSignal) {
    const model = this.#model ?? (await this.#onlyModel(signal));
    return { model, identity: `openai ${this.#home} ${model}` };
  }

  /** Cutting off is not part of the API: what is too long is refused there. */
  async embed(model: string, texts: readonly string[], _truncate: boolean, signal: AbortSignal) {
    const body = { model, input: texts, encoding_format: 'base64' };
    const { data, usage } = await this.#server.askJson('/embeddings', body, answerSchema, signal);
    const vectors: Float32Array[] = [];
    for (const { index, embedding } of data) vectors[index] = vectorOf(embedding, this.name);
    if (
      data.length !== texts.length ||
      Object.keys(vectors).length !== texts.length ||
      vectors.length !== texts.length
    )
      throw new MeshError('bad_answer', `${this.name} sent ${data.length} vectors for ${texts.length} texts`);
    return { vectors, tokens: usage?.prompt_tokens ?? 0 };
  }

  async #onlyModel(signal: AbortSignal): Promise<string> {
    const { data } = await this.#server.askJson('/models', undefined, modelsSchema, signal);
    const [first] = data;
    if (first && data.length === 1) return first.id;
    const names = data.slice(0, 5).map(({ id }) => id);
    throw new MeshError(
      'model_unavailable',
      first
        ? `${this.name} has several models: add one to COCOON_EMBEDDING_MODEL as \`#NAME\`, such as #${names.join(', #')}`
        : `${this.name} has no model`,
    );
  }
}

function vectorOf(embedding: string | readonly number[], server: string): Float32Array {
  if (typeof embedding !== 'string') return Float32Array.from(embedding);
  try {
    return unpackVector(Uint8Array.from(atob(embedding), (character) => character.charCodeAt(0)));
  } catch (cause) {
    throw new MeshError('bad_answer', `${server} sent a vector that is not base64`, { cause });
  }
}
