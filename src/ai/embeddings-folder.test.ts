import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { describe, it } from 'node:test';
import { readEmbeddingsFolder } from './embeddings-folder.node.ts';
import { fingerprintOf } from './model-folder.node.ts';
import type { TextModelOptions } from './text-models.contract.ts';
import { writeTextModel } from './text-models.contract.ts';

function modelFolder(options: TextModelOptions = {}) {
  const path = mkdtempSync(join(tmpdir(), 'cocoon-model-'));
  writeTextModel(path, options);
  const write = (name: string, content: unknown): void =>
    writeFileSync(join(path, name), typeof content === 'string' ? content : JSON.stringify(content));
  const remove = (name: string): void => rmSync(join(path, name), { recursive: true });
  return { path, write, remove, [Symbol.dispose]: () => rmSync(path, { recursive: true }) };
}

const fingerprint = async (path: string): Promise<string> =>
  fingerprintOf(path, (await readEmbeddingsFolder(path)).files, new AbortController().signal);

describe('the folder of a sentence encoder', () => {
  it('says how it is used', async () => {
    using folder = modelFolder({ pooling: 'cls', normalises: false });
    const { files, ...read } = await readEmbeddingsFolder(folder.path);
    assert.deepEqual(read, {
      path: folder.path,
      name: basename(folder.path),
      modelFile: 'onnx/model.onnx',
      dimensions: 32,
      maxTokens: 64,
      vocabulary: 108,
      pooling: 'cls',
      normalises: false,
      prompt: '',
    });
    assert.ok(files.includes('tokenizer.json') && files.includes('1_Pooling/config.json'));
  });

  it('has its quantised file used where there are both', async () => {
    using folder = modelFolder({ quantised: true });
    assert.equal((await readEmbeddingsFolder(folder.path)).modelFile, 'onnx/model_quantized.onnx');
  });

  it('takes the shortest length that a file names, and less where positions are shifted', async () => {
    using folder = modelFolder();
    folder.write('sentence_bert_config.json', { max_seq_length: 48 });
    assert.equal((await readEmbeddingsFolder(folder.path)).maxTokens, 48);
    folder.remove('sentence_bert_config.json');
    folder.write('tokenizer_config.json', { model_max_length: 1e30 });
    folder.write('config.json', { model_type: 'xlm-roberta', max_position_embeddings: 514, hidden_size: 32 });
    assert.equal((await readEmbeddingsFolder(folder.path)).maxTokens, 512);
  });

  it('has the prompt that comes before every text', async () => {
    using folder = modelFolder();
    folder.write('config_sentence_transformers.json', {
      prompts: { query: 'query: ', document: '' },
      default_prompt_name: 'query',
    });
    assert.equal((await readEmbeddingsFolder(folder.path)).prompt, 'query: ');
  });

  it('has the same fingerprint wherever it lies, and another one with other files', async () => {
    using one = modelFolder();
    using same = modelFolder();
    using weights = modelFolder({ seed: 2 });
    using pooling = modelFolder({ pooling: 'cls' });
    const all = await Promise.all([one, same, weights, pooling].map(async ({ path }) => fingerprint(path)));
    assert.match(all[0] ?? '', /^[0-9a-f]{64}$/);
    assert.equal(all[1], all[0]);
    assert.equal(new Set(all).size, 3);
  });

  it('is refused with the name of the file that is missing, corrupt or foreign', async () => {
    type Folder = ReturnType<typeof modelFolder>;
    const cases: readonly (readonly [RegExp, (folder: Folder) => void])[] = [
      [/^config\.json of the model is missing/, (folder) => folder.remove('config.json')],
      [/^config\.json of the model is not JSON/, (folder) => folder.write('config.json', '<html>')],
      [/^config\.json .*: vocab_size/, (folder) => folder.write('config.json', { vocab_size: 'many' })],
      [/^tokenizer\.json of the model is missing/, (folder) => folder.remove('tokenizer.json')],
      [/^tokenizer\.json of the model is empty/, (folder) => folder.write('tokenizer.json', '')],
      [/has none of onnx\/model_quantized\.onnx/, (folder) => folder.remove('onnx')],
      [
        /^onnx\/model\.onnx of the model is a pointer of Git LFS/,
        (folder) =>
          folder.write('onnx/model.onnx', 'version https://git-lfs.github.com/spec/v1\noid sha256:0'),
      ],
      [/^1_Pooling\/config\.json of the model is missing/, (folder) => folder.remove('1_Pooling')],
      [
        /asks for pooling that is not supported: cls and mean/,
        (folder) =>
          folder.write('1_Pooling/config.json', {
            pooling_mode_cls_token: true,
            pooling_mode_mean_tokens: true,
          }),
      ],
      [/not supported: none/, (folder) => folder.write('1_Pooling/config.json', {})],
      [
        /^modules\.json of the model names Dense/,
        (folder) =>
          folder.write('modules.json', [{ path: '2_Dense', type: 'sentence_transformers.models.Dense' }]),
      ],
      [/^modules\.json of the model names no Pooling/, (folder) => folder.write('modules.json', [])],
      [/^modules\.json of the model is not what it should be/, (folder) => folder.write('modules.json', {})],
    ];
    for (const [message, spoil] of cases) {
      using folder = modelFolder();
      spoil(folder);
      await assert.rejects(readEmbeddingsFolder(folder.path), { code: 'model_unavailable', message });
    }
  });

  it('has to be there, and to be a folder', async () => {
    using folder = modelFolder();
    const unavailable = { code: 'model_unavailable' };
    await assert.rejects(readEmbeddingsFolder(join(folder.path, 'nowhere')), unavailable);
    await assert.rejects(readEmbeddingsFolder(join(folder.path, 'config.json')), unavailable);
  });
});
