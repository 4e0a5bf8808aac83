/** Embeddings by Ollama's own API: https://github.com/ollama/ollama/blob/main/docs/api.md#generate-embeddings */

import { MeshError } from '@cocoon-mesh/protocol';
import * as z from 'zod/mini';
import type { EmbeddingsServer } from './embeddings-remote.ts';
import type { ModelServer } from './llm-server.ts';
import { shortName } from './model-address.ts';

const tagsSchema = z.looseObject({
  models: z
    .array(z.looseObject({ name: z.string(), digest: z.optional(z.string()) }))
    .check(z.maxLength(10_000)),
});
const embedSchema = z.looseObject({
  embeddings: z.array(z.array(z.number())),
  prompt_eval_count: z.optional(z.int().check(z.nonnegative())),
});

export class OllamaEmbeddings implements EmbeddingsServer {
  readonly #server: ModelServer;
  readonly #model: string;

  constructor(server: ModelServer, model: string) {
    this.#server = server;
    this.#model = model;
  }

  get name(): string {
    return this.#server.name;
  }

  async describe(signal: AbortSignal) {
    const { models } = await this.#server.askJson('/api/tags', undefined, tagsSchema, signal);
    const found = models.find(({ name }) => shortName(name) === shortName(this.#model));
    if (!found)
      throw new MeshError(
        'model_unavailable',
        `${this.name} has no model ${this.#model}: fetch it with \`ollama pull ${this.#model}\``,
      );
    const model = shortName(found.name);
    // The digest is that of the model's files: the same model has the same space on every device.
    return { model, identity: `ollama ${found.digest ?? model}` };
  }

  async embed(model: string, texts: readonly string[], truncate: boolean, signal: AbortSignal) {
    const body = { model, input: texts, truncate };
    const answer = await this.#server.askJson('/api/embed', body, embedSchema, signal);
    return {
      vectors: answer.embeddings.map((vector) => Float32Array.from(vector)),
      tokens: answer.prompt_eval_count ?? 0,
    };
  }
}
