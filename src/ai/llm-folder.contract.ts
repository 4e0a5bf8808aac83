/**
 * A small language model in Hugging Face's layout, made up for tests: Llama's architecture (RMSNorm, rotary
 * positions, grouped keys and values, SwiGLU) with random weights. What it writes is nonsense, but always the same.
 */

import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { OnnxGraph } from './onnx-graph.ts';

export interface ModelSize {
  readonly hidden: number;
  readonly layers: number;
  readonly heads: number;
  readonly keyHeads: number;
  readonly inner: number;
  readonly positions: number;
}

const small: ModelSize = { hidden: 64, layers: 2, heads: 4, keyHeads: 2, inner: 128, positions: 2048 };

const specials = ['<|pad|>', '<|bos|>', '<|eos|>', '<|user|>', '<|assistant|>', '<|system|>', '<|tool|>'];
const plainTemplate =
  "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|eos|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";

export async function writeLlmFolder(
  folder: string,
  { size = small, template = plainTemplate, seed = 3 } = {},
): Promise<void> {
  const vocabulary = byteVocabulary();
  const vocab = Object.keys(vocabulary).length;
  await mkdir(join(folder, 'onnx'), { recursive: true });
  const write = (name: string, value: unknown): Promise<void> =>
    writeFile(join(folder, name), JSON.stringify(value));
  await write('config.json', {
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    hidden_size: size.hidden,
    num_hidden_layers: size.layers,
    num_attention_heads: size.heads,
    num_key_value_heads: size.keyHeads,
    intermediate_size: size.inner,
    vocab_size: vocab,
    max_position_embeddings: size.positions,
    bos_token_id: 1,
    eos_token_id: 2,
  });
  await write('generation_config.json', { bos_token_id: 1, eos_token_id: [2] });
  await write('tokenizer.json', tokenizerOf(vocabulary));
  await write('tokenizer_config.json', {
    tokenizer_class: 'PreTrainedTokenizerFast',
    bos_token: '<|bos|>',
    eos_token: { content: '<|eos|>' },
    chat_template: template,
  });
  await writeFile(join(folder, 'onnx', 'model.onnx'), llama(vocab, size, seed));
}

/** Every byte is a token, in the letters that GPT-2 gave to bytes: any text goes in and comes out. */
function byteVocabulary(): Record<string, number> {
  const shown = (byte: number): boolean =>
    (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  const vocabulary: Record<string, number> = {};
  let id = 0;
  for (const token of specials) vocabulary[token] = id++;
  let hidden = 256;
  for (let byte = 0; byte < 256; byte++)
    vocabulary[String.fromCodePoint(shown(byte) ? byte : hidden++)] = id++;
  return vocabulary;
}

function tokenizerOf(vocab: Readonly<Record<string, number>>): object {
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true };
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: specials.map((content, id) => ({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      vocab,
      merges: [],
    },
  };
}

function llama(vocab: number, size: ModelSize, seed: number): Uint8Array {
  const { hidden, layers, heads, keyHeads, inner, positions } = size;
  const headSize = hidden / heads;
  const g = new OnnxGraph('llama', 17);
  const random = normals(seed);
  const weights = (...dims: number[]): string =>
    g.tensor('float32', dims, random(dims.reduce((a, b) => a * b, 1)));
  const linear = (x: string, from: number, to: number): string => g.op('MatMul', [x, weights(from, to)]);

  const ids = g.input('input_ids', 'int64', ['batch', 'sequence']);
  const mask = g.input('attention_mask', 'int64', ['batch', 'total']);
  const at = g.input('position_ids', 'int64', ['batch', 'sequence']);
  const past = Array.from({ length: layers }, (_, layer) => {
    const kept = (kind: string): string =>
      g.input(`past_key_values.${layer}.${kind}`, 'float32', ['batch', keyHeads, 'past', headSize]);
    return { key: kept('key'), value: kept('value') };
  });
  const rotate = rotary(g, at, headSize, positions);
  const bias = causalBias(g, ids, mask);
  const norm = (x: string): string => {
    const square = g.op('ReduceMean', [g.op('Mul', [x, x])], { axes: [-1], keepdims: 1 });
    return g.op('Div', [x, g.op('Sqrt', [g.op('Add', [square, g.float(1e-5)])])]);
  };
  const split = (x: string, count: number): string =>
    g.op('Transpose', [g.op('Reshape', [x, g.int([0, 0, count, headSize])])], { perm: [0, 2, 1, 3] });
  const repeat = (x: string): string => {
    const copies = Array.from({ length: heads / keyHeads }, () => g.op('Unsqueeze', [x, g.int([2])]));
    return g.op('Reshape', [g.op('Concat', copies, { axis: 2 }), g.int([0, heads, -1, headSize])]);
  };

  let x = g.op('Gather', [weights(vocab, hidden), ids]);
  for (const [layer, { key: oldKeys, value: oldValues }] of past.entries()) {
    const h = norm(x);
    const query = rotate(split(linear(h, hidden, hidden), heads));
    const newKeys = rotate(split(linear(h, hidden, keyHeads * headSize), keyHeads));
    const newValues = split(linear(h, hidden, keyHeads * headSize), keyHeads);
    const keys = g.op('Concat', [oldKeys, newKeys], { axis: 2 }, `present.${layer}.key`);
    const values = g.op('Concat', [oldValues, newValues], { axis: 2 }, `present.${layer}.value`);
    const scores = g.op('Div', [
      g.op('MatMul', [query, g.op('Transpose', [repeat(keys)], { perm: [0, 1, 3, 2] })]),
      g.float(Math.sqrt(headSize)),
    ]);
    const attention = g.op('Softmax', [g.op('Add', [scores, bias])], { axis: -1 });
    const mixed = g.op('Transpose', [g.op('MatMul', [attention, repeat(values)])], { perm: [0, 2, 1, 3] });
    x = g.op('Add', [x, linear(g.op('Reshape', [mixed, g.int([0, 0, hidden])]), hidden, hidden)]);
    const m = norm(x);
    const gate = linear(m, hidden, inner);
    const gated = g.op('Mul', [g.op('Mul', [gate, g.op('Sigmoid', [gate])]), linear(m, hidden, inner)]);
    x = g.op('Add', [x, linear(gated, inner, hidden)]);
  }
  g.op('MatMul', [norm(x), weights(hidden, vocab)], {}, 'logits');
  g.output('logits', 'float32', ['batch', 'sequence', vocab]);
  for (let layer = 0; layer < layers; layer++)
    for (const kind of ['key', 'value'])
      g.output(`present.${layer}.${kind}`, 'float32', ['batch', keyHeads, 'total', headSize]);
  return g.build();
}

/** https://arxiv.org/abs/2104.09864, with halves as Llama has them. */
function rotary(g: OnnxGraph, at: string, size: number, positions: number): (x: string) => string {
  const table = (of: (angle: number) => number): string => {
    const values = new Float32Array(positions * size);
    for (let position = 0; position < positions; position++)
      for (let i = 0; i < size; i++)
        values[position * size + i] = of(position / 10_000 ** ((2 * (i % (size / 2))) / size));
    const rows = g.op('Gather', [g.tensor('float32', [positions, size], values), at]);
    return g.op('Unsqueeze', [rows, g.int([1])]);
  };
  const cos = table(Math.cos);
  const sin = table(Math.sin);
  let halves = 0;
  return (x) => {
    const [a, b] = [`half_${halves++}`, `half_${halves++}`];
    g.ops('Split', [x, g.int([size / 2, size / 2])], [a, b], { axis: -1 });
    const turned = g.op('Concat', [g.op('Neg', [b]), a], { axis: -1 });
    return g.op('Add', [g.op('Mul', [x, cos]), g.op('Mul', [turned, sin])]);
  };
}

/** 0 for what a token may look at, the tokens before it; else so little that nothing comes of it. */
function causalBias(g: OnnxGraph, ids: string, mask: string): string {
  const length = (x: string): string => g.op('Gather', [g.op('Shape', [x]), g.int(1)]);
  const total = length(mask);
  const first = g.op('Sub', [total, length(ids)]);
  const row = g.op('Unsqueeze', [g.op('Range', [g.int(0), total, g.int(1)]), g.int([0])]);
  const column = g.op('Unsqueeze', [g.op('Range', [first, total, g.int(1)]), g.int([1])]);
  const shown = g.op('Cast', [g.op('Unsqueeze', [mask, g.int([1, 2])])], { to: 9 });
  const allowed = g.op('And', [g.op('LessOrEqual', [row, column]), shown]);
  return g.op('Where', [allowed, g.float(0), g.float(-1e9)]);
}

/** Normally distributed numbers, the same for the same seed. */
function normals(seed: number): (count: number) => Float32Array {
  let state = seed >>> 0;
  const next = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state + 1) / 2 ** 32;
  };
  return (count) =>
    Float32Array.from(
      { length: count },
      () => 0.3 * Math.sqrt(-2 * Math.log(next())) * Math.cos(2 * Math.PI * next()),
    );
}
