/** From texts to the tokens of a model, by its own `tokenizer.json`. */

import { MeshError } from '@cocoon-mesh/protocol/errors.ts';
import * as z from 'zod/mini';
import type { EmbeddingsFolder } from './embeddings-folder.node.ts';
import { maxTokenizerBytes, readModelJson, unavailable } from './model-folder.node.ts';

/** No language has longer tokens on average; what is longer need not be tokenised to be too long. */
const maxCharactersPerToken = 64;

/** What is needed of a tokenizer of `@huggingface/tokenizers`. */
interface Encoder {
  encode(text: string, options?: { add_special_tokens?: boolean }): { ids: number[] };
}

export class EmbeddingsTokens {
  readonly maxTokens: number;
  /** The largest number a token can have. */
  readonly lastToken: number;
  readonly #encoder: Encoder;
  readonly #prompt: string;
  /** Tokens that the model wants behind the last of the text. */
  readonly #ending: number;

  private constructor(encoder: Encoder, { maxTokens, prompt }: EmbeddingsFolder, lastToken: number) {
    this.maxTokens = maxTokens;
    this.lastToken = lastToken;
    this.#encoder = encoder;
    this.#prompt = prompt;
    this.#ending = endingOf(encoder);
  }

  /** @throws MeshError model_unavailable */
  static async open(folder: EmbeddingsFolder): Promise<EmbeddingsTokens> {
    const { Tokenizer } = await import('@huggingface/tokenizers');
    const object = z.looseObject({});
    const json = await readModelJson(folder.path, 'tokenizer.json', object, maxTokenizerBytes);
    const config = await readModelJson(folder.path, 'tokenizer_config.json', object);
    try {
      const tokenizer = new Tokenizer(json ?? {}, config ?? {});
      const vocabulary = tokenizer.get_vocab() as ReadonlyMap<string, number>;
      const lastToken = vocabulary.values().reduce((last, id) => Math.max(last, id), 0);
      return new EmbeddingsTokens(tokenizer, folder, lastToken);
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause);
      throw unavailable(`tokenizer.json of the model is not one: ${why}`, cause);
    }
  }

  /**
   * @param where names the text in errors
   * @throws MeshError text_too_long, unless it may be truncated
   */
  encode(text: string, truncate: boolean, where: string): readonly number[] {
    const { maxTokens } = this;
    const maxCharacters = maxTokens * maxCharactersPerToken;
    const isFarTooLong = text.length > maxCharacters;
    if (isFarTooLong && !truncate) throw tooLong(where, `more than ${maxTokens}`, maxTokens);
    const head = isFarTooLong ? text.slice(0, maxCharacters).toWellFormed() : text;
    const { ids } = this.#encoder.encode(this.#prompt + head);
    if (ids.length <= maxTokens) return ids;
    if (!truncate) throw tooLong(where, String(ids.length), maxTokens);
    return [...ids.slice(0, maxTokens - this.#ending), ...ids.slice(ids.length - this.#ending)];
  }
}

function tooLong(where: string, has: string, maxTokens: number): MeshError {
  return new MeshError('text_too_long', `${where} has ${has} tokens, and the model takes ${maxTokens}`, {
    hint: 'Send shorter texts, or `truncate: true` to have them cut off.',
  });
}

function endingOf(encoder: Encoder): number {
  const { ids } = encoder.encode('a');
  const bare = encoder.encode('a', { add_special_tokens: false }).ids;
  const last = bare.at(-1);
  return last === undefined ? 0 : ids.length - 1 - ids.lastIndexOf(last);
}
