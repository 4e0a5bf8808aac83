/**
 * Small sentence encoders for tests and benchmarks, written to a folder in Hugging Face's layout: a BERT with random
 * weights by a fixed seed and a WordPiece tokenizer. They are real models to everything that loads them; what
 * their vectors mean is nothing.
 */

import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { OnnxGraph } from './onnx-graph.ts';

export interface BertSize {
  readonly hidden: number;
  readonly layers: number;
  readonly heads: number;
  readonly intermediate: number;
  readonly maxTokens: number;
  /** At least as many as the tokenizer has; the others are never used. */
  readonly vocabulary: number;
}

export const tinyBert: BertSize = {
  hidden: 32,
  layers: 2,
  heads: 4,
  intermediate: 64,
  maxTokens: 64,
  vocabulary: 0,
};

/** As all-MiniLM-L6-v2. */
export const miniLmSize: BertSize = {
  hidden: 384,
  layers: 6,
  heads: 12,
  intermediate: 1536,
  maxTokens: 512,
  vocabulary: 30_522,
};

export interface TextModelOptions {
  readonly size?: BertSize;
  readonly seed?: number;
  /** Writes `onnx/model_quantized.onnx` too. */
  readonly quantised?: boolean;
  readonly pooling?: 'mean' | 'cls';
  readonly normalises?: boolean;
}

export function writeTextModel(folder: string, options: TextModelOptions = {}): void {
  const {
    size: wanted = tinyBert,
    seed = 1,
    quantised = false,
    pooling = 'mean',
    normalises = true,
  } = options;
  const vocabulary = wordPieces();
  const size = { ...wanted, vocabulary: Math.max(wanted.vocabulary, vocabulary.length) };
  const write = (name: string, content: string | Uint8Array): void => {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), content);
  };
  const writeJson = (name: string, value: unknown): void =>
    write(name, `${JSON.stringify(value, null, 1)}\n`);
  writeJson('config.json', {
    architectures: ['BertModel'],
    model_type: 'bert',
    hidden_size: size.hidden,
    num_hidden_layers: size.layers,
    num_attention_heads: size.heads,
    intermediate_size: size.intermediate,
    max_position_embeddings: size.maxTokens,
    vocab_size: size.vocabulary,
    type_vocab_size: 2,
  });
  writeJson('tokenizer.json', tokenizer(vocabulary));
  writeJson('tokenizer_config.json', {
    tokenizer_class: 'BertTokenizer',
    do_lower_case: true,
    model_max_length: size.maxTokens,
  });
  writeJson('modules.json', [
    { idx: 0, name: '0', path: '', type: 'sentence_transformers.models.Transformer' },
    { idx: 1, name: '1', path: '1_Pooling', type: 'sentence_transformers.models.Pooling' },
    ...(normalises
      ? [{ idx: 2, name: '2', path: '2_Normalize', type: 'sentence_transformers.models.Normalize' }]
      : []),
  ]);
  writeJson('1_Pooling/config.json', {
    word_embedding_dimension: size.hidden,
    pooling_mode_cls_token: pooling === 'cls',
    pooling_mode_mean_tokens: pooling === 'mean',
  });
  write('onnx/model.onnx', bertGraph(size, seed, false));
  if (quantised) write('onnx/model_quantized.onnx', bertGraph(size, seed, true));
}

/** Two values of [0, 1) are never equal for long: mulberry32. */
export function randomNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Normally distributed. */
export function randomWeights(count: number, deviation: number, random: () => number): Float32Array {
  const weights = new Float32Array(count);
  for (let i = 0; i < count; i++) {
    const radius = Math.sqrt(-2 * Math.log(random() || 1e-9));
    weights[i] = deviation * radius * Math.cos(2 * Math.PI * random());
  }
  return weights;
}

function bertGraph(size: BertSize, seed: number, quantised: boolean): Uint8Array {
  const { hidden, heads, layers, intermediate } = size;
  const deviation = 0.08;
  const headSize = hidden / heads;
  const random = randomNumbers(seed);
  const graph = new OnnxGraph('bert', 17);
  const weights = (...dimensions: number[]): Float32Array =>
    randomWeights(
      dimensions.reduce((product, each) => product * each, 1),
      deviation,
      random,
    );
  const table = (rows: number): string => graph.tensor('float32', [rows, hidden], weights(rows, hidden));
  const ids = graph.input('input_ids', 'int64', ['texts', 'tokens']);
  const mask = graph.input('attention_mask', 'int64', ['texts', 'tokens']);
  const types = graph.input('token_type_ids', 'int64', ['texts', 'tokens']);
  const length = graph.op('Gather', [graph.op('Shape', [ids]), graph.int(1)]);
  const positions = graph.op('Range', [graph.int(0), length, graph.int(1)]);
  const add = (a: string, b: string): string => graph.op('Add', [a, b]);
  const lookUp = (rows: number, at: string): string => graph.op('Gather', [table(rows), at]);
  const filled = (count: number, value: number): string =>
    graph.tensor('float32', [count], new Float32Array(count).fill(value));
  const layerNorm = (x: string, name?: string): string =>
    graph.op(
      'LayerNormalization',
      [x, filled(hidden, 1), filled(hidden, 0)],
      { axis: -1, epsilon: { float: 1e-12 } },
      name,
    );
  const steps = new Map<string, readonly [string, string, string]>();
  const quantisedProduct = (x: string, from: number, to: number): string => {
    const exact = weights(from, to);
    const scale = exact.reduce((most, value) => Math.max(most, Math.abs(value)), 0) / 127;
    const table = graph.tensor(
      'int8',
      [from, to],
      Int8Array.from(exact, (value) => Math.round(value / scale)),
    );
    const outputs = steps.get(x) ?? ([`${x}_q`, `${x}_scale`, `${x}_zero`] as const);
    if (!steps.has(x)) graph.ops('DynamicQuantizeLinear', [x], outputs);
    steps.set(x, outputs);
    const [values, step, zero] = outputs;
    const noZero = graph.tensor('int8', [], Int8Array.of(0));
    const product = graph.op('Cast', [graph.op('MatMulInteger', [values, table, zero, noZero])], { to: 1 });
    return graph.op('Mul', [product, graph.op('Mul', [step, graph.float(scale)])]);
  };
  const linear = (x: string, from: number, to: number): string =>
    add(
      quantised
        ? quantisedProduct(x, from, to)
        : graph.op('MatMul', [x, graph.tensor('float32', [from, to], weights(from, to))]),
      filled(to, 0),
    );
  const split = (x: string, order: readonly number[]): string =>
    graph.op('Transpose', [graph.op('Reshape', [x, graph.int([0, 0, heads, headSize])])], { perm: order });
  const gelu = (x: string): string => {
    const error = graph.op('Erf', [graph.op('Div', [x, graph.float(Math.SQRT2)])]);
    return graph.op('Mul', [graph.op('Mul', [x, add(error, graph.float(1))]), graph.float(0.5)]);
  };
  const present = graph.op('Cast', [graph.op('Unsqueeze', [mask, graph.int([1, 2])])], { to: 1 });
  const hiding = graph.op('Mul', [graph.op('Sub', [graph.float(1), present]), graph.float(-1e4)]);
  let x = layerNorm(
    add(add(lookUp(size.vocabulary, ids), lookUp(2, types)), lookUp(size.maxTokens, positions)),
  );
  for (let layer = 1; layer <= layers; layer++) {
    const query = split(linear(x, hidden, hidden), [0, 2, 1, 3]);
    const key = split(linear(x, hidden, hidden), [0, 2, 3, 1]);
    const value = split(linear(x, hidden, hidden), [0, 2, 1, 3]);
    const scores = graph.op('Div', [graph.op('MatMul', [query, key]), graph.float(Math.sqrt(headSize))]);
    const attention = graph.op('Softmax', [add(scores, hiding)], { axis: -1 });
    const mixed = graph.op('Transpose', [graph.op('MatMul', [attention, value])], { perm: [0, 2, 1, 3] });
    const joined = graph.op('Reshape', [mixed, graph.int([0, 0, hidden])]);
    x = layerNorm(add(linear(joined, hidden, hidden), x));
    const wide = gelu(linear(x, hidden, intermediate));
    const sum = add(linear(wide, intermediate, hidden), x);
    x = layerNorm(sum, layer === layers ? 'last_hidden_state' : undefined);
  }
  graph.output('last_hidden_state', 'float32', ['texts', 'tokens', hidden]);
  return graph.build();
}

const specialTokens = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]'];

/** Every letter alone and as a continuation, and some words. */
function wordPieces(): readonly string[] {
  const letters = Array.from("abcdefghijklmnopqrstuvwxyz0123456789.,!?'-");
  const words =
    'the of to and in is mesh node device model vector peer hello world owner ##ing ##ed ##s ##er';
  return [...specialTokens, ...letters, ...letters.map((letter) => `##${letter}`), ...words.split(' ')];
}

function tokenizer(vocabulary: readonly string[]): unknown {
  const idOf = (token: string): number => vocabulary.indexOf(token);
  const special = (token: string) => ({ SpecialToken: { id: token, type_id: 0 } });
  const named = (token: string) => ({ id: token, ids: [idOf(token)], tokens: [token] });
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: specialTokens.map((content) => ({
      id: idOf(content),
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: {
      type: 'BertNormalizer',
      clean_text: true,
      handle_chinese_chars: true,
      strip_accents: null,
      lowercase: true,
    },
    pre_tokenizer: { type: 'BertPreTokenizer' },
    post_processor: {
      type: 'TemplateProcessing',
      single: [special('[CLS]'), { Sequence: { id: 'A', type_id: 0 } }, special('[SEP]')],
      pair: [
        special('[CLS]'),
        { Sequence: { id: 'A', type_id: 0 } },
        special('[SEP]'),
        { Sequence: { id: 'B', type_id: 1 } },
      ],
      special_tokens: { '[CLS]': named('[CLS]'), '[SEP]': named('[SEP]') },
    },
    decoder: { type: 'WordPiece', prefix: '##', cleanup: true },
    model: {
      type: 'WordPiece',
      unk_token: '[UNK]',
      continuing_subword_prefix: '##',
      max_input_chars_per_word: 100,
      vocab: Object.fromEntries(vocabulary.map((token, id) => [token, id])),
    },
  };
}
