/** What the files of a sentence encoder say of how it is to be used. The weights are not looked at. */

import { basename, join, resolve } from 'node:path';
import * as z from 'zod/mini';
import {
  assertContent,
  assertFolder,
  findModelFile,
  readModelJson,
  unavailable,
  withExternalData,
} from './model-folder.node.ts';
import type { PoolingMode } from './onnx-pooling.ts';
import { poolingModes } from './onnx-pooling.ts';

export interface EmbeddingsFolder {
  readonly path: string;
  /** Of the folder. */
  readonly name: string;
  /** Of a vector. */
  readonly dimensions: number;
  /** Below the folder, as are `files`. */
  readonly modelFile: string;
  /** Those that decide about its vectors. */
  readonly files: readonly string[];
  /** Tokens of one text. */
  readonly maxTokens: number;
  readonly vocabulary: number | null;
  /** Null: no file says it, so the graph itself has to pool. */
  readonly pooling: PoolingMode | null;
  readonly normalises: boolean;
  /** Comes before every text. */
  readonly prompt: string;
}

const count = z.int().check(z.positive());

const configSchema = z.object({
  model_type: z.optional(z.string()),
  hidden_size: z.optional(count),
  max_position_embeddings: z.optional(count),
  vocab_size: z.optional(count),
});
/** Huge numbers stand for "not known". */
const tokenizerConfigSchema = z.object({ model_max_length: z.optional(z.nullable(z.number())) });
const lengthSchema = z.object({ max_seq_length: z.optional(z.nullable(count)) });
const modulesSchema = z.array(z.object({ path: z.string(), type: z.string() }));
const promptsSchema = z.object({
  prompts: z.optional(z.nullable(z.record(z.string(), z.nullable(z.string())))),
  default_prompt_name: z.optional(z.nullable(z.string())),
});
const flag = z.optional(z.boolean());
const poolingSchema = z.object({
  word_embedding_dimension: z.optional(count),
  embedding_dimension: z.optional(count),
  pooling_mode: z.optional(z.union([z.string(), z.array(z.string())])),
  pooling_mode_cls_token: flag,
  pooling_mode_mean_tokens: flag,
  pooling_mode_max_tokens: flag,
  pooling_mode_mean_sqrt_len_tokens: flag,
  pooling_mode_weightedmean_tokens: flag,
  pooling_mode_lasttoken: flag,
  include_prompt: flag,
});
type PoolingConfig = z.infer<typeof poolingSchema>;

/** Their positions begin behind that of padding. */
const shiftedPositions = /^(xlm-)?roberta|^camembert|^mpnet|^longformer/;
const shift = 2;
/** Where no file names a length. */
const usualTokens = 512;
/** Beyond it memory for one text is gigabytes. */
const mostTokens = 8192;

/** @throws MeshError model_unavailable naming the file */
export async function readEmbeddingsFolder(path: string): Promise<EmbeddingsFolder> {
  const folder = resolve(path);
  await assertFolder(folder);
  const config = await readModelJson(folder, 'config.json', configSchema);
  if (!config) throw unavailable('config.json of the model is missing');
  await assertContent(folder, 'tokenizer.json');
  const modelFile = await findModelFile(folder);
  const modelFiles = await withExternalData(folder, modelFile);
  for (const file of modelFiles) await assertContent(folder, file);
  const modules = await readModelJson(folder, 'modules.json', modulesSchema);
  const pooling = modules ? await readPooling(folder, modules) : null;
  const dimensions = pooling?.dimensions ?? config.hidden_size;
  if (dimensions === undefined) throw unavailable('config.json of the model has no hidden_size');
  const prompt = await readPrompt(folder);
  if (prompt !== '' && pooling?.includesPrompt === false)
    throw unavailable('The model leaves its prompt out when it pools, which is not supported');
  return {
    path: folder,
    name: basename(folder),
    dimensions,
    modelFile,
    files: [...modelFiles, ...(await presentOf(folder, pooling?.file))],
    maxTokens: await readLength(folder, config),
    vocabulary: config.vocab_size ?? null,
    pooling: pooling?.mode ?? null,
    normalises: modules?.some(({ type }) => kindOf(type) === 'Normalize') ?? false,
    prompt,
  };
}

async function readPooling(folder: string, modules: z.infer<typeof modulesSchema>) {
  const kinds = modules.map(({ type }) => kindOf(type));
  const foreign = kinds.find((kind) => !['Transformer', 'Pooling', 'Normalize'].includes(kind));
  if (foreign !== undefined)
    throw unavailable(`modules.json of the model names ${foreign}, which is not supported`);
  const module = modules[kinds.indexOf('Pooling')];
  if (!module) throw unavailable('modules.json of the model names no Pooling: it is no sentence encoder');
  const file = join(module.path, 'config.json');
  const config = await readModelJson(folder, file, poolingSchema);
  if (!config) throw unavailable(`${file} of the model is missing`);
  const modes = modesOf(config);
  const mode = poolingModes.find((known) => known === modes[0]);
  if (modes.length !== 1 || mode === undefined)
    throw unavailable(
      `${file} of the model asks for pooling that is not supported: ${modes.join(' and ') || 'none'}`,
    );
  const dimensions = config.word_embedding_dimension ?? config.embedding_dimension;
  return { file, mode, dimensions, includesPrompt: config.include_prompt ?? true };
}

function modesOf(config: PoolingConfig): readonly string[] {
  if (config.pooling_mode !== undefined) return [config.pooling_mode].flat();
  const flags: Record<PoolingMode, boolean | undefined> = {
    cls: config.pooling_mode_cls_token,
    mean: config.pooling_mode_mean_tokens,
    max: config.pooling_mode_max_tokens,
    lasttoken: config.pooling_mode_lasttoken,
    mean_sqrt_len_tokens: config.pooling_mode_mean_sqrt_len_tokens,
    weightedmean: config.pooling_mode_weightedmean_tokens,
  };
  return poolingModes.filter((mode) => flags[mode] === true);
}

async function readLength(folder: string, config: z.infer<typeof configSchema>): Promise<number> {
  const tokenizer = await readModelJson(folder, 'tokenizer_config.json', tokenizerConfigSchema);
  const sentences = await readModelJson(folder, 'sentence_bert_config.json', lengthSchema);
  const positions = config.max_position_embeddings;
  const lengths = [
    positions === undefined ? null : positions - (shiftedPositions.test(config.model_type ?? '') ? shift : 0),
    tokenizer?.model_max_length,
    sentences?.max_seq_length,
  ].filter((length) => typeof length === 'number' && length >= 1 && length <= 1e6);
  return Math.floor(Math.min(mostTokens, ...(lengths.length === 0 ? [usualTokens] : (lengths as number[]))));
}

async function readPrompt(folder: string): Promise<string> {
  const config = await readModelJson(folder, 'config_sentence_transformers.json', promptsSchema);
  const name = config?.default_prompt_name ?? null;
  return name === null ? '' : (config?.prompts?.[name] ?? '');
}

async function presentOf(folder: string, poolingFile: string | undefined): Promise<readonly string[]> {
  const present = ['tokenizer.json'];
  const others = ['tokenizer_config.json', 'modules.json', 'config_sentence_transformers.json'];
  for (const name of [...others, ...(poolingFile === undefined ? [] : [poolingFile])])
    if ((await readModelJson(folder, name, z.unknown())) !== null) present.push(name);
  return present;
}

function kindOf(type: string): string {
  return type.slice(type.lastIndexOf('.') + 1);
}
