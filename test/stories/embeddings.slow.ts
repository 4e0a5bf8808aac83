/*
 * Embeddings as the devices of a mesh give them: a laptop without a model, a box with a sentence encoder. What the
 * laptop gets is what the box computes, in one space, whoever asks in which shape; what nobody can embed is refused.
 */

import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { systemClock } from '@cocoon-mesh/protocol';
import { lexicalSpace, unpackVector } from '@cocoon-mesh/vectors';
import { connect } from '../../cocoon/client.ts';
import { readEmbeddingsFolder } from '../../src/ai/embeddings-folder.node.ts';
import { LocalEmbeddings } from '../../src/ai/embeddings-local.node.ts';
import { EmbeddingsTokens } from '../../src/ai/embeddings-tokens.node.ts';
import { loadRuntime, openSession } from '../../src/ai/onnx-runtime.node.ts';
import { tinyBert, writeTextModel } from '../../src/ai/text-models.contract.ts';
import { CocoonProcess, enroll, failure, sees } from './cocoon-process.ts';
import type { Embeddings } from './embeddings-client.ts';
import { askEmbeddings, someTexts, vectorsIn } from './embeddings-client.ts';

let folder: string;
let signaling: CocoonProcess;
let laptop: CocoonProcess;
let box: CocoonProcess;
let space: string;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cocoon-encoder-'));
  writeTextModel(folder);
  signaling = await CocoonProcess.start({ command: 'signaling', args: ['--port', '0'] });
  laptop = await CocoonProcess.start({
    command: 'run',
    args: ['--name', 'laptop', '--gateway-port', '0', '--signaling', signaling.signaling],
    engine: 'libdatachannel',
  });
  box = await enroll(laptop, { name: 'box', engine: 'werift', env: { COCOON_EMBEDDING_MODEL: folder } });
  await sees(laptop, 'box');
  space = (await askEmbeddings(box, { input: 'x' })).result.space;
});

after(async () => {
  await Promise.all([laptop, box].map((cocoon) => cocoon?.[Symbol.asyncDispose]()));
  await signaling?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

/** By the runtime itself, one text at a time: mean of the last layer, of length 1. */
async function byTheLibrary(texts: readonly string[]): Promise<number[][]> {
  const files = await readEmbeddingsFolder(folder);
  const tokens = await EmbeddingsTokens.open(files);
  const runtime = await loadRuntime();
  const session = await openSession(runtime, join(folder, files.modelFile));
  const vectors: number[][] = [];
  for (const text of texts) {
    const ids = tokens.encode(text, false, 'text');
    const tensor = (of: (id: number) => number) =>
      new runtime.Tensor(
        'int64',
        BigInt64Array.from(ids, (id) => BigInt(of(id))),
        [1, ids.length],
      );
    const { last_hidden_state: hidden } = await session.run({
      input_ids: tensor((id) => id),
      attention_mask: tensor(() => 1),
      token_type_ids: tensor(() => 0),
    });
    const values = hidden?.data as Float32Array;
    const sums = Array.from({ length: tinyBert.hidden }, (_, i) =>
      ids.reduce((sum, _id, token) => sum + (values[token * tinyBert.hidden + i] ?? 0), 0),
    );
    const length = Math.hypot(...sums);
    vectors.push(sums.map((sum) => sum / length));
  }
  return vectors;
}

describe('embeddings of a device without a model', () => {
  test('are those of the box, one or two thousand, as it computes them for itself', async () => {
    const direct = new LocalEmbeddings({ folder, clock: systemClock });
    try {
      for (const count of [1, 32, 2048]) {
        const input = someTexts(count);
        const far = await askEmbeddings(laptop, { input });
        const near = await askEmbeddings(box, { input });
        assert.deepEqual([far.status, far.device, near.device], [200, 'box', 'box'], far.said);
        assert.deepEqual(far.result, near.result);
        assert.deepEqual(
          [far.result.space, far.result.semantic, far.result.dimensions, far.result.data.length],
          [space, true, tinyBert.hidden, count],
        );
        const { vectors } = await direct.embed(
          { texts: input, truncate: false },
          new AbortController().signal,
        );
        assert.deepEqual(
          Float32Array.from(vectorsIn(far).flatMap((each) => [...each])),
          unpackVector(vectors),
        );
      }
    } finally {
      await direct.close();
    }
    const texts = someTexts(20);
    const got = vectorsIn(await askEmbeddings(laptop, { input: texts }));
    for (const [i, expected] of (await byTheLibrary(texts)).entries())
      for (const [k, value] of expected.entries())
        assert.ok(Math.abs(value - (got[i]?.[k] ?? NaN)) < 1e-5, `${texts[i]}: ${k}`);
  });

  test('have the shape of the API of OpenAI at the command, at the gateway and for programs', async () => {
    const input = someTexts(3);
    const [wire, packed] = [
      await askEmbeddings(laptop, { input }),
      await askEmbeddings(laptop, { input, encoding_format: 'base64' }),
    ];
    assert.deepEqual(
      wire.result.data.map(({ object, index }) => [object, index]),
      [0, 1, 2].map((index) => ['embedding', index]),
    );
    assert.equal(typeof packed.result.data[0]?.embedding, 'string');
    assert.deepEqual(vectorsIn(packed), vectorsIn(wire), 'the same bits');
    const told = await laptop.json<{ device: string; result: Embeddings; parts?: unknown }>(
      'request',
      'embeddings@^1.0.0',
      JSON.stringify({ input }),
    );
    assert.deepEqual([told.device, told.parts], ['box', undefined]);
    assert.deepEqual(told.result, wire.result);
    const forPeople = await laptop.command(['request', 'embeddings', JSON.stringify({ input })]);
    assert.ok(forPeople.stdout.split('\n').length < 50, forPeople.stdout);
    const client = await connect({ home: laptop.home, url: laptop.gateway });
    const answer = await client.requestCapability({ protocol: 'embeddings', version: '^1.0.0' }, { input });
    assert.deepEqual(answer.result, wire.result);
    const openai = await fetch(`${laptop.gateway}/v1/embeddings`, {
      method: 'POST',
      headers: { authorization: `Bearer ${await laptop.gatewayToken()}`, 'content-type': 'application/json' },
      body: JSON.stringify({ model: wire.result.model, input }),
    });
    assert.deepEqual(await openai.json(), wire.result);
  });

  test('are of the space that was asked for, from whoever has it, and of no other', async () => {
    const of = (name: string, input: string) =>
      askEmbeddings(laptop, { input }, { features: [`space:${name}`] });
    const asked = await Promise.all(
      Array.from({ length: 20 }, (_, i) => of(i % 2 === 0 ? space : lexicalSpace.fingerprint, `text ${i}`)),
    );
    for (const [i, { device, result }] of asked.entries())
      assert.deepEqual(
        [device, result.space, result.semantic],
        i % 2 === 0 ? ['box', space, true] : ['laptop', lexicalSpace.fingerprint, false],
      );
    assert.deepEqual(await failure(laptop.home, ['request', 'embeddings', '{"input":"x"}', '--feature', `space:${'0'.repeat(64)}`]), {
      code: 'capability_not_found',
      exit: 3,
    }); // prettier-ignore
  });
});

describe('a request for embeddings that cannot be served', () => {
  const long = 'mesh '.repeat(tinyBert.maxTokens + 1);

  test('says what is wrong with it, and which field, as an error of whoever asks', async () => {
    for (const [payload, code, said] of [
      [{ input: Array(2049).fill('x') }, 'bad_payload', /input: has 2049 texts, more than 2048/],
      [{ input: [] }, 'bad_payload', /input: must not be empty/],
      [{ input: '' }, 'bad_payload', /input: must not be empty/],
      [{ input: ['a', ''] }, 'bad_payload', /input\[1\]: must not be empty/],
      [{ input: ['a', 7] }, 'bad_payload', /input\[1\]: has to be a text/],
      [{ input: { text: 'a' } }, 'bad_payload', /input: has to be a text or a list/],
      [{}, 'bad_payload', /input: is missing/],
      ['a', 'bad_payload', /an object with an `input`/],
      [
        { input: ['fine', 'half \ud83d'] },
        'bad_payload',
        /input\.1 has half a character|input\[1\]: has half a character/,
      ],
      [{ input: 'a', dimensions: 8 }, 'bad_payload', /dimensions: .* has 32, not 8/],
      [{ input: 'a', truncate: 'yes' }, 'bad_payload', /truncate: has to be true or false/],
      [{ input: 'a', encoding_format: 'hex' }, 'bad_payload', /encoding_format: has to be float or base64/],
      [{ input: ['a', long] }, 'text_too_long', /input\[1\]/],
    ] as const)
      for (const cocoon of [laptop, box]) {
        const asked = await askEmbeddings(cocoon, payload, { device: 'box' });
        assert.deepEqual([asked.status, asked.code], [400, code], JSON.stringify(payload).slice(0, 80));
        assert.match(asked.said, said);
      }
    const { model } = (await askEmbeddings(box, { input: 'x' })).result;
    for (const path of ['/v1/embeddings', '/api/embed'])
      for (const [input, said] of [
        [Array(2049).fill('x'), /input: has 2049 texts, more than 2048/],
        [[], /input: must not be empty/],
      ] as const) {
        const refused = await fetch(laptop.gateway + path, {
          method: 'POST',
          headers: { authorization: `Bearer ${await laptop.gatewayToken()}` },
          body: JSON.stringify({ model: `${model}@box`, input }),
        });
        assert.equal(refused.status, 400);
        assert.match(await refused.text(), said, path);
      }
    const { status, result } = await askEmbeddings(laptop, { input: ['fine', 'again'] });
    assert.deepEqual([status, result.data.length], [200, 2], 'nothing else is affected');
  });

  test('ends the command with 2', async () => {
    for (const [payload, code] of [
      ['{"input":[]}', 'bad_payload'],
      [JSON.stringify({ input: long }), 'text_too_long'],
    ] as const)
      assert.deepEqual(await failure(laptop.home, ['request', 'embeddings', payload]), { code, exit: 2 });
  });

  test('because of its length is cut off only if that is asked for', async () => {
    const cut = await askEmbeddings(laptop, { input: [long, 'mesh '.repeat(500)], truncate: true });
    assert.equal(cut.status, 200);
    const [one, other] = vectorsIn(cut);
    assert.deepEqual(one, other);
    assert.equal(cut.result.usage.prompt_tokens, 2 * tinyBert.maxTokens);
  });
});

describe('when the box goes', () => {
  test('its space is answered by nobody, and without a space the words are compared, and that is said', async () => {
    await box.stop('SIGKILL');
    const asked = (more: object) => askEmbeddings(laptop, { input: 'x' }, { timeout_ms: 60_000, ...more });
    const { status, result } = await asked({ features: [`space:${space}`] });
    assert.notEqual(status, 200, JSON.stringify(result));
    await untilOffline();
    assert.equal((await asked({ features: [`space:${space}`] })).code, 'device_offline');
    const own = await asked({});
    assert.deepEqual(
      [own.device, own.result.model, own.result.semantic, own.result.space],
      ['laptop', 'cocoon-lexical-v1', false, lexicalSpace.fingerprint],
    );
  });

  test('and comes back with a model that does not load, nobody stands in for it there', async () => {
    await writeFile(join(folder, 'tokenizer.json'), '');
    await box.restart();
    await sees(box, 'laptop');
    const asked = await askEmbeddings(box, { input: 'x' });
    assert.deepEqual([asked.status, asked.code], [503, 'model_unavailable']);
    assert.match(asked.said, /tokenizer.json of the model is empty/);
    const named = await askEmbeddings(box, { input: 'x' }, { device: 'laptop' });
    assert.deepEqual([named.device, named.result.model], ['laptop', 'cocoon-lexical-v1']);
  });
});

async function untilOffline(): Promise<void> {
  for (const end = Date.now() + 30_000; Date.now() < end;) {
    const rows = await laptop.json<{ name: string; online: boolean }[]>('devices');
    if (rows.find(({ name }) => name === 'box')?.online === false) return;
  }
  throw new Error('the box is still said to be online');
}
