/** The files of a language model in Hugging Face's layout, read and checked. */

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as z from 'zod/mini';
import {
  assertContent,
  assertFolder,
  findModelFile,
  maxTokenizerBytes,
  readModelJson,
  unavailable,
} from './model-folder.node.ts';

const tokenIds = z.optional(z.nullable(z.union([z.int(), z.array(z.int())])));

const configSchema = z.looseObject({
  model_type: z.string(),
  num_attention_heads: z.int().check(z.positive()),
  num_key_value_heads: z.optional(z.nullable(z.int().check(z.positive()))),
  hidden_size: z.int().check(z.positive()),
  head_dim: z.optional(z.nullable(z.int().check(z.positive()))),
  max_position_embeddings: z.int().check(z.positive()),
  eos_token_id: tokenIds,
});

const generationSchema = z.looseObject({
  eos_token_id: tokenIds,
  do_sample: z.optional(z.nullable(z.boolean())),
  temperature: z.optional(z.nullable(z.number())),
  top_p: z.optional(z.nullable(z.number())),
  top_k: z.optional(z.nullable(z.int())),
});
export type GenerationDefaults = z.infer<typeof generationSchema>;

const specialToken = z.optional(z.nullable(z.union([z.string(), z.looseObject({ content: z.string() })])));
const tokenizerConfigSchema = z.looseObject({
  chat_template: z.optional(
    z.nullable(z.union([z.string(), z.array(z.looseObject({ name: z.string(), template: z.string() }))])),
  ),
  bos_token: specialToken,
  eos_token: specialToken,
  pad_token: specialToken,
  unk_token: specialToken,
});

export interface LlmFolder {
  /** Path of the ONNX file. */
  readonly modelFile: string;
  readonly heads: number;
  readonly headSize: number;
  /** Tokens of prompt and answer together. */
  readonly contextLength: number;
  readonly eosIds: readonly number[];
  readonly defaults: GenerationDefaults;
  readonly tokenizer: object;
  readonly tokenizerConfig: object;
  readonly template: string;
  /** `bos_token` and the like, for the template. */
  readonly specialTokens: Readonly<Record<string, string>>;
}

/** @throws MeshError model_unavailable with the file that is wrong */
export async function readLlmFolder(folder: string): Promise<LlmFolder> {
  await assertFolder(folder);
  const config = await readModelJson(folder, 'config.json', configSchema);
  if (!config) throw unavailable('config.json of the model is missing');
  const tokenizer = await readModelJson(folder, 'tokenizer.json', z.looseObject({}), maxTokenizerBytes);
  if (!tokenizer) throw unavailable('tokenizer.json of the model is missing');
  const tokenizerConfig = await readModelJson(folder, 'tokenizer_config.json', tokenizerConfigSchema);
  if (!tokenizerConfig) throw unavailable('tokenizer_config.json of the model is missing');
  const defaults = (await readModelJson(folder, 'generation_config.json', generationSchema)) ?? {};
  const modelFile = await findModelFile(folder);
  await assertContent(folder, modelFile);
  const { num_attention_heads: heads, hidden_size: size } = config;
  return {
    modelFile: join(folder, modelFile),
    heads: config.num_key_value_heads ?? heads,
    headSize: config.head_dim ?? Math.floor(size / heads),
    contextLength: config.max_position_embeddings,
    eosIds: [defaults.eos_token_id ?? config.eos_token_id ?? []].flat(),
    defaults,
    tokenizer,
    tokenizerConfig,
    template: await templateOf(folder, tokenizerConfig.chat_template ?? null),
    specialTokens: specialTokens(tokenizerConfig),
  };
}

async function templateOf(
  folder: string,
  inside: string | readonly { readonly name: string; readonly template: string }[] | null,
): Promise<string> {
  if (typeof inside === 'string') return inside;
  const named = inside?.find(({ name }) => name === 'default') ?? inside?.[0];
  if (named) return named.template;
  try {
    return await readFile(join(folder, 'chat_template.jinja'), 'utf8');
  } catch (cause) {
    throw unavailable('The model has no chat template: it completes texts, and does not chat', cause);
  }
}

function specialTokens(config: z.infer<typeof tokenizerConfigSchema>): Record<string, string> {
  const tokens: Record<string, string> = {};
  for (const name of ['bos_token', 'eos_token', 'pad_token', 'unk_token'] as const) {
    const token = config[name];
    if (typeof token === 'string') tokens[name] = token;
    else if (token) tokens[name] = token.content;
  }
  return tokens;
}
