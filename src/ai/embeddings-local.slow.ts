import assert from 'node:assert/strict';
import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { kill } from 'node:process';
import { describe, it } from 'node:test';
import { MeshError, systemClock } from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { call, cosine, embed, until } from './embeddings-calls.contract.ts';
import { readEmbeddingsFolder } from './embeddings-folder.node.ts';
import type { LocalEmbeddingsOptions } from './embeddings-local.node.ts';
import { LocalEmbeddings } from './embeddings-local.node.ts';
import { BackendEmbeddingsProvider } from './embeddings-provider.ts';
import { EmbeddingsTokens } from './embeddings-tokens.node.ts';
import { loadRuntime, openSession } from './onnx-runtime.node.ts';
import type { TextModelOptions } from './text-models.contract.ts';
import { writeTextModel } from './text-models.contract.ts';

interface Options {
  readonly model?: TextModelOptions;
  readonly spoil?: (folder: string) => void;
  readonly local?: Partial<LocalEmbeddingsOptions>;
}

async function start({ model = {}, spoil = () => undefined, local = {} }: Options = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'cocoon-model-'));
  writeTextModel(folder, model);
  spoil(folder);
  const backend = new LocalEmbeddings({ folder, clock: systemClock, ...local });
  const provider = new BackendEmbeddingsProvider(backend);
  await until(provider, ({ problem }) => problem === null || !problem.includes('is being read'));
  const dispose = async (): Promise<void> => {
    await provider.close();
    rmSync(folder, { recursive: true });
  };
  return { folder, backend, provider, [Symbol.asyncDispose]: dispose };
}

function assertNear(a: Float32Array | undefined, b: ArrayLike<number> | undefined, what: string): void {
  assert.equal(a?.length, b?.length);
  for (const [i, value] of (a ?? []).entries())
    assert.ok(Math.abs(value - (b?.[i] ?? NaN)) < 1e-5, `${what}: dimension ${i}: ${value} ${b?.[i]}`);
}

/** With nothing of what is tested but the tokens: one text at a time, without padding. */
async function reference(
  folder: string,
  text: string,
  pooling: 'mean' | 'cls',
  unit: boolean,
): Promise<number[]> {
  const files = await readEmbeddingsFolder(folder);
  const ids = (await EmbeddingsTokens.open(files)).encode(text, true, 'text');
  const runtime = await loadRuntime();
  const session = await openSession(runtime, join(folder, files.modelFile));
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
  const data = hidden?.data as Float32Array;
  const size = hidden?.dims.at(-1) ?? 0;
  const vector = Array.from({ length: size }, (_, i) => {
    if (pooling === 'cls') return data[i] ?? 0;
    return ids.reduce((sum, _id, token) => sum + (data[token * size + i] ?? 0), 0) / ids.length;
  });
  const length = unit ? Math.hypot(...vector) : 1;
  return vector.map((value) => value / length);
}

const texts = [
  'hello mesh',
  'a',
  'the device of a peer is a node of the mesh, and its owner is here',
  'x y z',
];

describe('embeddings of a model in a folder', { timeout: 240_000 }, () => {
  it('are those of the model, pooled and normalised as its files say, in batches as alone', async () => {
    for (const [pooling, normalises] of [
      ['mean', true],
      ['cls', false],
    ] as const) {
      await using each = await start({ model: { pooling, normalises } });
      assert.equal(each.backend.pid, null, 'nothing runs before the first request');
      assert.equal(each.provider.state.warm, false);
      const { vectors, ...answer } = await embed(each.provider, texts);
      for (const [i, text] of texts.entries())
        assertNear(vectors[i], await reference(each.folder, text, pooling, normalises), text);
      assert.equal(answer.semantic, true);
      assert.equal(answer.dimensions, 32);
      assert.ok(answer.usage.prompt_tokens > texts.length * 3);
      assert.deepEqual(each.provider.state, {
        problem: null,
        warm: true,
        isStandIn: false,
        features: [`model:${answer.model}`, `space:${answer.space}`, 'semantic'],
      });
      const [alone] = (await embed(each.provider, [texts[2] ?? ''])).vectors;
      assertNear(alone, vectors[2], 'alone');
    }
  });

  it('of a quantised model are close to those of the exact one, in a space of their own', async () => {
    await using exact = await start();
    await using quantised = await start({ model: { quantised: true } });
    const [a, b] = [await embed(exact.provider, texts), await embed(quantised.provider, texts)];
    assert.notEqual(a.space, b.space);
    for (const i of texts.keys()) {
      const likeness = cosine(a.vectors[i] ?? Float32Array.of(), b.vectors[i] ?? Float32Array.of());
      assert.ok(likeness > 0.99, `${texts[i]}: ${likeness}`);
    }
  });

  it('of a text that is too long are cut off only when asked for, and keep the last token', async () => {
    await using each = await start();
    const long = 'node '.repeat(100);
    await assert.rejects(embed(each.provider, ['a', long]), {
      code: 'text_too_long',
      message: 'input[1] has 102 tokens, and the model takes 64',
    });
    await assert.rejects(embed(each.provider, ['x'.repeat(100_000)]), { code: 'text_too_long' });
    const cut = await each.provider.handle(call({ input: [long, 'node '.repeat(62)], truncate: true }));
    assert.ok('payload' in cut);
    const [packed] = cut.parts;
    assert.ok(packed);
    assert.deepEqual(packed.slice(0, 128), packed.slice(128), 'as a text of just that length');
    await embed(each.provider, ['a']);
  });

  it('are computed for many at once, and questions do not wait for a job', async () => {
    await using each = await start();
    await embed(each.provider, ['a']);
    const job = Array.from({ length: 2000 }, (_, i) => `node ${i} of the mesh ${'device '.repeat(i % 40)}`);
    const done: string[] = [];
    await Promise.all([
      embed(each.provider, job).then(({ vectors }) => done.push(`job ${vectors.length}`)),
      ...Array.from({ length: 5 }, async () =>
        embed(each.provider, ['hello']).then(() => done.push('question')),
      ),
    ]);
    assert.deepEqual(done, [...Array.from({ length: 5 }, () => 'question'), 'job 2000']);
  });

  it('are given up when nobody wants them any more', async () => {
    await using each = await start();
    const controller = new AbortController();
    const { signal } = controller;
    await embed(each.provider, ['a']);
    const job = embed(
      each.provider,
      Array.from({ length: 2000 }, () => 'device '.repeat(50)),
      { signal },
    );
    setImmediate(() => controller.abort(new MeshError('cancelled')));
    await assert.rejects(job, { code: 'cancelled' });
    await embed(each.provider, ['a']);
  });

  it('end in an answer or a clear error when their process is killed, twenty times, and go on within a second', async () => {
    await using each = await start();
    const slowest: number[] = [];
    const ended = { answers: 0, errors: 0 };
    for (let round = 0; round < 20; round++) {
      await embed(each.provider, ['a']);
      const waiting = [1, 300, 900].map(async (count) =>
        embed(
          each.provider,
          Array.from({ length: count }, (_, i) => `node ${i} ${'device '.repeat(i % 30)}`),
        ).then(
          () => ended.answers++,
          (thrown: unknown) => {
            assert.ok(thrown instanceof MeshError && thrown.code === 'provider_failed', String(thrown));
            assert.match(thrown.message, /ended \(SIGKILL\)/);
            ended.errors++;
          },
        ),
      );
      for (let turn = 0; turn < round; turn++)
        await new Promise<void>((resolve) => void setImmediate(resolve));
      kill(each.backend.pid ?? 0, 'SIGKILL');
      await Promise.all(waiting);
      const start = performance.now();
      await embed(each.provider, ['next']);
      slowest.push(performance.now() - start);
    }
    assert.equal(ended.answers + ended.errors, 60);
    // What a process died under goes to the next one.
    assert.ok(ended.answers > 20, `${ended.answers} answers`);
    slowest.sort((a, b) => a - b);
    assert.ok((slowest[10] ?? Infinity) < 1_000, `median ${slowest[10]} ms`);
    assert.ok((slowest.at(-1) ?? Infinity) < 5_000, `slowest ${slowest.at(-1)} ms`);
  });

  it('are not offered with a model that does not load, and the reason is said', async () => {
    const cases: readonly (readonly [RegExp, (folder: string) => void])[] = [
      [
        /model file does not load/,
        (folder) => writeFileSync(join(folder, 'onnx/model.onnx'), 'no model at all'),
      ],
      [
        /model file does not load/,
        (folder) => {
          const path = join(folder, 'onnx/model.onnx');
          const bytes = readFileSync(path);
          writeFileSync(path, bytes.subarray(0, bytes.length / 2));
        },
      ],
      [
        /tokenizer\.json of the model is not one/,
        (folder) => writeFileSync(join(folder, 'tokenizer.json'), '{}'),
      ],
      [
        /tokens up to 107, config\.json of the model 50: they are not of one model/,
        (folder) => writeFileSync(join(folder, 'config.json'), '{"hidden_size":32,"vocab_size":50}'),
      ],
      [
        /gives 32 dimensions, and the other files of the model say 64/,
        (folder) =>
          writeFileSync(
            join(folder, '1_Pooling/config.json'),
            '{"word_embedding_dimension":64,"pooling_mode_mean_tokens":true}',
          ),
      ],
      [/they say how tokens become one vector/, (folder) => rmSync(join(folder, 'modules.json'))],
    ];
    for (const [message, spoil] of cases) {
      await using each = await start({ spoil });
      await assert.rejects(embed(each.provider, ['a']), { code: 'model_unavailable', message });
      assert.match(each.provider.state.problem ?? '', message);
      assert.deepEqual(each.provider.state.features, []);
      await assert.rejects(embed(each.provider, ['a']), { code: 'model_unavailable', message });
    }
  });

  it('are not replaced by lexical ones where the ONNX runtime is absent: what is missing is said', async () => {
    await using each = await start({ local: { runtime: 'onnxruntime-that-is-not-there' } });
    const message = /^onnxruntime-that-is-not-there is not installed/;
    assert.match(each.provider.state.problem ?? '', message);
    await assert.rejects(embed(each.provider, ['a']), { code: 'model_unavailable', message });
  });

  it('come when the folder does', async () => {
    const clock = new SteppedClock();
    const away = (folder: string): void => rmSync(join(folder, 'config.json'));
    await using each = await start({ spoil: away, local: { clock } });
    assert.equal(each.provider.state.problem, 'config.json of the model is missing');
    writeTextModel(each.folder);
    clock.step(30_000);
    await until(each.provider, ({ problem }) => problem === null);
    await embed(each.provider, ['a']);
  });

  it('are never of one space under the name of another: a replaced model is noticed', async () => {
    const clock = new SteppedClock();
    await using each = await start({ local: { clock, idleMs: 1_000 } });
    const before = await embed(each.provider, texts);
    writeTextModel(each.folder, { seed: 2 });
    assert.equal((await embed(each.provider, texts)).space, before.space, 'what is loaded stays what it was');
    clock.step(1_000);
    assert.equal(each.backend.pid, null);
    const features = [`space:${before.space}`];
    await assert.rejects(embed(each.provider, texts, { features }), { code: 'capability_not_found' });
    const after = await embed(each.provider, texts);
    assert.notEqual(after.space, before.space);
    assertNear(after.vectors[0], await reference(each.folder, texts[0] ?? '', 'mean', true), 'after');
    assert.ok(cosine(after.vectors[0] ?? Float32Array.of(), before.vectors[0] ?? Float32Array.of()) < 0.9);
  });

  it('of a file that only grew are of another space too', async () => {
    const clock = new SteppedClock();
    await using each = await start({ local: { clock, idleMs: 1_000 } });
    const { space } = await embed(each.provider, ['a']);
    appendFileSync(join(each.folder, 'tokenizer.json'), '\n');
    clock.step(1_000);
    assert.notEqual((await embed(each.provider, ['a'])).space, space);
  });
});
