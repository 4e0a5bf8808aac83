/*
 * What COCOON_EMBEDDING_MODEL names, good and bad: model servers that answer, refuse and talk nonsense, folders that
 * hold no model, an installation that cannot run one. A device whose model does not serve says why and embeds nothing;
 * everything else of it works.
 */

import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { lexicalSpace } from '@cocoon-mesh/vectors';
import type { Answer } from '../../src/ai/model-server.contract.ts';
import { ScriptedModelServer, answerJson } from '../../src/ai/model-server.contract.ts';
import { writeTextModel } from '../../src/ai/text-models.contract.ts';
import { CocoonProcess, full } from './cocoon-process.ts';
import { askEmbeddings, modelProcesses, vectorsIn } from './embeddings-client.ts';
import { installedWithout } from './other-installation.ts';

let signaling: CocoonProcess;
let folders: string;

before(async () => {
  folders = mkdtempSync(join(tmpdir(), 'cocoon-models-'));
  signaling = await CocoonProcess.start({ command: 'signaling', args: ['--port', '0'] });
});

after(async () => {
  await signaling?.[Symbol.asyncDispose]();
  rmSync(folders, { recursive: true, force: true });
});

async function device(
  setting: string,
  more: { env?: Record<string, string>; program?: string } = {},
): Promise<CocoonProcess> {
  return CocoonProcess.start({
    command: 'run',
    args: ['--gateway-port', '0', '--signaling', signaling.signaling],
    env: { ...(setting === '' ? {} : { COCOON_EMBEDDING_MODEL: setting }), ...more.env },
    ...(more.program === undefined ? {} : { program: more.program }),
  });
}

interface Status {
  readonly capabilities: readonly { readonly protocol: string }[];
  readonly unavailable: readonly { readonly protocol: string; readonly problem: string }[];
}

interface Finding {
  readonly check: string;
  readonly state: string;
  readonly detail: string;
  readonly hint: string;
}

async function findings(cocoon: CocoonProcess): Promise<ReadonlyMap<string, Finding>> {
  const { stdout } = await cocoon.command(['doctor', '--json']);
  const { findings: all } = JSON.parse(stdout) as { findings: Finding[] };
  return new Map(all.map((finding) => [finding.check, finding]));
}

/** A request is answered, whatever the device was told of its model server before. */
async function untilAnswered(cocoon: CocoonProcess): Promise<void> {
  for (const end = Date.now() + 20_000; Date.now() < end;)
    if ((await askEmbeddings(cocoon, { input: 'x' })).status === 200) return;
  throw new Error('it does not embed again');
}

function model(name: string, spoil: (folder: string) => void = () => undefined): string {
  const folder = join(folders, name);
  writeTextModel(folder);
  spoil(folder);
  return folder;
}

function spoiled(name: string, file: string, content: string | Uint8Array): string {
  return model(name, (folder) => {
    mkdirSync(dirname(join(folder, file)), { recursive: true });
    writeFileSync(join(folder, file), content);
  });
}

// Each of them waits for its own start more than it computes.
describe('a model that does not load', { concurrency: 4 }, () => {
  const cases: readonly (readonly [name: string, setting: () => string, reason: RegExp])[] = [
    ['is not there', () => join(folders, 'nowhere'), /There is no model folder/],
    [
      'is a file',
      () => {
        writeFileSync(join(folders, 'model.onnx'), 'x');
        return join(folders, 'model.onnx');
      },
      /is a file; a model is a folder/,
    ],
    [
      'is an empty folder',
      () => {
        mkdirSync(join(folders, 'empty'));
        return join(folders, 'empty');
      },
      /config.json of the model is missing/,
    ],
    [
      'has no tokenizer',
      () => model('no-tokenizer', (folder) => rmSync(join(folder, 'tokenizer.json'))),
      /tokenizer.json of the model is missing/,
    ],
    [
      'has a tokenizer that is none',
      () => spoiled('bad-tokenizer', 'tokenizer.json', '{"model":7}'),
      /tokenizer/,
    ],
    [
      'has weights that are none',
      () => spoiled('bad-weights', 'onnx/model.onnx', Buffer.alloc(4096, 7)),
      /model file does not load/,
    ],
    [
      'has vectors of another length than its files say',
      () => spoiled('bad-length', '1_Pooling/config.json', poolingOf(48)),
      /48/,
    ],
    [
      'is of another kind',
      () => spoiled('foreign', 'modules.json', '[{"path":"","type":"sentence_transformers.models.CLIPModel"}]'),
      /CLIPModel, which is not supported/,
    ],
    ['is not known to Ollama, which is not there', () => 'ollama:nomic', /Ollama at .* cannot be reached/],
    ['is at an address where nobody answers', () => 'http://127.0.0.1:9/v1', /cannot be reached/],
    ['is at an address that is none', () => 'http://', /no URL that can be asked/],
  ]; // prettier-ignore

  const doctored = new Set(['is not there', 'has weights that are none']);

  for (const [name, setting, reason] of cases)
    test(`because it ${name} is never replaced, and status, doctor and requests say why`, async () => {
      await using cocoon = await device(setting(), { env: { OLLAMA_HOST: 'http://127.0.0.1:9' } });
      const asked = await askEmbeddings(cocoon, { input: 'x' });
      assert.deepEqual([asked.status, asked.code], [503, 'model_unavailable'], asked.said);
      assert.match(asked.said, reason);
      const status = await cocoon.json<Status>('status');
      assert.deepEqual(
        status.capabilities.filter(({ protocol }) => protocol === 'embeddings'),
        [],
      );
      const [unavailable] = status.unavailable;
      assert.equal(unavailable?.protocol, 'embeddings');
      assert.match(unavailable.problem, reason);
      if (full || doctored.has(name)) {
        const found = (await findings(cocoon)).get('embeddings');
        assert.equal(found?.state, 'fail');
        assert.match(found.detail, reason);
        assert.match(found.hint, /COCOON_EMBEDDING_MODEL/);
      }
      assert.deepEqual((await cocoon.json<{ tasks: unknown[] }>('tasks', 'list')).tasks, []);
    });
});

function poolingOf(dimensions: number): string {
  return JSON.stringify({ word_embedding_dimension: dimensions, pooling_mode_mean_tokens: true });
}

describe('an installation without the ONNX runtime', () => {
  test('starts, compares words, and doctor says what is missing and who needs it', async () => {
    await using installed = await installedWithout('onnxruntime-node');
    const { program } = installed;
    {
      await using cocoon = await device('', { program });
      const { result } = await askEmbeddings(cocoon, { input: ['a word', 'two'] });
      assert.deepEqual([result.model, result.semantic, result.data.length], ['cocoon-lexical-v1', false, 2]);
      const found = await findings(cocoon);
      const runtime = found.get('onnx runtime');
      assert.deepEqual([runtime?.state, found.get('embeddings')?.state], ['warn', 'ok']);
      assert.match(runtime?.detail ?? '', /not installed.*npm install onnxruntime-node/);
      assert.match(runtime?.hint ?? '', /Only models in folders need it/);
    }
    await using cocoon = await device(model('fine'), { program });
    const asked = await askEmbeddings(cocoon, { input: 'x' });
    assert.deepEqual([asked.status, asked.code], [503, 'model_unavailable']);
    assert.match(asked.said, /onnxruntime-node is not installed/);
    assert.equal((await findings(cocoon)).get('embeddings')?.state, 'fail');
    assert.deepEqual(modelProcesses(cocoon), []);
  });

  test('is not this one: here the runtime computes as it should', async () => {
    await using cocoon = await device('');
    const found = await findings(cocoon);
    assert.equal(found.get('onnx runtime')?.state, 'ok', found.get('onnx runtime')?.detail);
    assert.match(found.get('embeddings')?.detail ?? '', /cocoon-lexical-v1, which compares words/);
  });
});

const numbersOf = (text: string): number[] => [text.length, 0.5, text.codePointAt(0) ?? 0];
const inputOf = (body: Readonly<Record<string, unknown>>): readonly string[] =>
  [body['input']].flat().map(String);

interface Kind {
  readonly name: string;
  readonly route: string;
  readonly setting: (url: string) => string;
  readonly environment: (url: string) => Record<string, string>;
  readonly others: Record<string, Answer>;
  /** An answer with these vectors. */
  readonly shape: (vectors: readonly (readonly number[])[]) => unknown;
}

const kinds: readonly Kind[] = [
  {
    name: 'Ollama',
    route: 'POST /api/embed',
    setting: () => 'ollama:nomic',
    environment: (url) => ({ OLLAMA_HOST: url }),
    others: {
      'GET /api/tags': ({ response }) =>
        answerJson(response, 200, { models: [{ name: 'nomic:latest', digest: 'sha256:1' }] }),
    },
    shape: (embeddings) => ({ model: 'nomic', embeddings, prompt_eval_count: 3 }),
  },
  {
    name: 'a server with the API of OpenAI',
    route: 'POST /v1/embeddings',
    setting: (url) => `${url}/v1`,
    environment: () => ({ COCOON_LLM_API_KEY: 'key-of-the-box' }),
    others: {
      'GET /v1/models': ({ response }) =>
        answerJson(response, 200, { object: 'list', data: [{ id: 'nomic', object: 'model' }] }),
    },
    shape: (vectors) => ({
      object: 'list',
      data: vectors.map((embedding, index) => ({ object: 'embedding', index, embedding })),
      usage: { prompt_tokens: 3, total_tokens: 3 },
    }),
  },
];

describe('a model server', { concurrency: 2 }, () => {
  for (const kind of kinds)
    test(`of ${kind.name} embeds, and whatever it does wrong is an error that says so`, async () => {
      const good: Answer = ({ body, response }) =>
        answerJson(response, 200, kind.shape(inputOf(body).map(numbersOf)));
      await using server = await ScriptedModelServer.start({ ...kind.others, [kind.route]: good });
      await using cocoon = await device(kind.setting(server.url), { env: kind.environment(server.url) });
      const input = Array.from({ length: 70 }, (_, i) => `text ${i}`);
      const asked = await askEmbeddings(cocoon, { input });
      assert.deepEqual(vectorsIn(asked), input.map(numbersOf).map((numbers) => Float32Array.from(numbers))); // prettier-ignore
      assert.deepEqual(
        [asked.result.model, asked.result.semantic, asked.result.dimensions],
        ['nomic', true, 3],
      );
      assert.notEqual(asked.result.space, lexicalSpace.fingerprint);
      const json = (status: number, value: unknown): Answer => ({ response }) => answerJson(response, status, value); // prettier-ignore
      for (const [answer, code, said] of [
        [json(500, { error: { message: 'out of memory' } }), 'provider_failed', /HTTP 500: out of memory/],
        [({ response }) => void response.end('<html>'), 'bad_answer', /not JSON/],
        [json(200, kind.shape([])), 'bad_answer', /0 vectors for 2 texts/],
        [json(200, kind.shape([[1, 2, 3]])), 'bad_answer', /1 vectors for 2 texts/],
        [
          json(
            200,
            kind.shape([
              [1, 2, 3, 4],
              [1, 2, 3, 4],
            ]),
          ),
          'bad_answer',
          /4 dimensions, not 3/,
        ],
        [
          json(
            200,
            kind.shape([
              [1, 2, 3],
              [1, 2],
            ]),
          ),
          'bad_answer',
          /2 dimensions, not 3/,
        ],
        [json(200, { nothing: true }), 'bad_answer', /The answer of/],
        [({ response }) => response.destroy(), 'provider_failed', /cannot be reached/],
      ] as readonly [Answer, string, RegExp][]) {
        // prettier-ignore
        server.routes.set(kind.route, answer);
        const failed = await askEmbeddings(cocoon, { input: ['a', 'b'] });
        assert.equal(failed.code, code, failed.said);
        assert.match(failed.said, said);
        server.routes.set(kind.route, good);
        await untilAnswered(cocoon);
      }
      assert.equal((await askEmbeddings(cocoon, { input })).result.space, asked.result.space);
      await server.stop();
      const gone = await askEmbeddings(cocoon, { input: 'x' });
      assert.ok(['provider_failed', 'model_unavailable'].includes(gone.code), gone.code);
      assert.match(gone.said, /cannot be reached/);
      await server.listen();
      await untilAnswered(cocoon);
    });
});
