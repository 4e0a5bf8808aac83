import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { Json } from '@cocoon-mesh/protocol';
import { systemClock } from '@cocoon-mesh/protocol';
import { all, complete, failure, stream, textOf } from './chat-call.contract.ts';
import { BackendChatProvider } from './chat-provider.ts';
import { chatProvider } from './chat.node.ts';
import { LlmDecoder } from './llm-decoder.node.ts';
import { writeLlmFolder } from './llm-folder.contract.ts';
import { readLlmFolder } from './llm-folder.node.ts';
import { likeliest } from './llm-sampler.ts';
import { loadRuntime, openSession } from './onnx-runtime.node.ts';

let home: string;
let folder: string;

before(async () => {
  home = await mkdtemp(join(tmpdir(), 'cocoon-llm-'));
  folder = join(home, 'tiny-llama');
  await writeLlmFolder(folder);
});

after(async () => rm(home, { recursive: true, force: true }));

async function open(
  path = folder,
  model: string | null = null,
): Promise<BackendChatProvider & AsyncDisposable> {
  const provider = chatProvider({ provider: path, model, apiKey: null, clock: systemClock });
  assert.ok(provider instanceof BackendChatProvider);
  await provider.refresh();
  return Object.assign(provider, { [Symbol.asyncDispose]: () => provider.close() });
}

describe('a language model with a cache', () => {
  it('gives the same tokens as without one, one by one', async () => {
    const runtime = await loadRuntime();
    const files = await readLlmFolder(folder);
    const decoder = new LlmDecoder(runtime, await openSession(runtime, files.modelFile), files);
    // Longer than what is read of a prompt at once.
    for (const length of [1, 20, 300]) {
      const prompt = Array.from({ length }, (_, i) => 7 + ((i * 31) % 256));
      const tokens = async (cache: boolean): Promise<number[]> => {
        const ids: number[] = [];
        for await (const id of decoder.generate(prompt, likeliest, { cache })) {
          ids.push(id);
          if (ids.length === 32) break;
        }
        return ids;
      };
      const cached = await tokens(true);
      assert.deepEqual(cached, await tokens(false));
      assert.ok(new Set(cached).size > 4, 'it repeats one token, which proves nothing');
    }
  });
});

describe('a folder with a language model', () => {
  it('is offered under its name, and loaded with the first chat', async () => {
    await using provider = await open();
    assert.deepEqual(provider.state, { problem: null, warm: false, features: ['model:tiny-llama'] });
    const warm = Promise.withResolvers<void>();
    provider.onChange(() => provider.state.warm && warm.resolve());
    const answer = await complete(provider, { max_tokens: 12 });
    await warm.promise;
    assert.equal(answer.choices[0]?.finish_reason, 'length');
    assert.equal(answer.usage.completion_tokens, 12);
    // <|bos|> <|user|> Hello <|eos|> <|assistant|>
    assert.equal(answer.usage.prompt_tokens, 9);
    assert.ok((answer.choices[0].message.content ?? '').length > 0);
    await using named = await open(folder, 'my-model');
    assert.deepEqual(named.state.features, ['model:my-model']);
  });

  it('streams what it answers in one piece, and the same again', async () => {
    await using provider = await open();
    const whole = await complete(provider, { max_tokens: 40 });
    const chunks = await all(stream(provider, { max_tokens: 40 }));
    assert.equal(textOf(chunks), whole.choices[0]?.message.content);
    assert.ok(chunks.length > 10);
    assert.deepEqual(chunks.at(-1)?.usage, whole.usage);
    const drawn = (seed: number): Promise<Json> =>
      complete(provider, { max_tokens: 20, temperature: 1, seed }).then(
        ({ choices }) => choices[0]?.message.content ?? '',
      );
    assert.equal(await drawn(1), await drawn(1));
    assert.notEqual(await drawn(1), await drawn(2));
  });

  it('stops at the text that it is told to stop at', async () => {
    await using provider = await open();
    const text = (await complete(provider, { max_tokens: 60 })).choices[0]?.message.content ?? '';
    const stop = text.slice(8, 11);
    const answer = await complete(provider, { max_tokens: 60, stop });
    assert.equal(answer.choices[0]?.message.content, text.slice(0, text.indexOf(stop)));
    assert.equal(answer.choices[0].finish_reason, 'stop');
  });

  it('stops computing for whoever cancels, and serves the next', async () => {
    await using provider = await open();
    const cancel = new AbortController();
    const chunks = stream(provider, {}, cancel.signal);
    await chunks.next();
    cancel.abort();
    await failure(all(chunks), 'cancelled');
    const left = stream(provider, {});
    await left.next();
    await left.return?.();
    // It would take all 2,048 tokens of the two before it otherwise: one runs at a time.
    const started = performance.now();
    await complete(provider, { max_tokens: 2 });
    assert.ok(performance.now() - started < 1_000);
  });

  it('waits for a reader that is slow', async () => {
    await using provider = await open();
    const slow = stream(provider, { max_tokens: 400 });
    await slow.next();
    const other = complete(provider, { max_tokens: 2 });
    // Only so much runs ahead of the reader, so the other, who comes behind, cannot have been served.
    const first = await Promise.race([
      other.then(() => 'served'),
      new Promise((resolve) => setTimeout(() => resolve('waits'), 1_500)),
    ]);
    assert.equal(first, 'waits');
    await all(slow);
    await other;
  });

  it('refuses what it cannot do, and chats that are too long', async () => {
    await using provider = await open();
    const tools = [{ type: 'function', function: { name: 'weather' } }];
    for (const fields of [
      { tools },
      { n: 2 },
      { response_format: { type: 'json_object' } },
      { messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'data:,' } }] }] },
    ] as Record<string, Json>[])
      await failure(complete(provider, fields), 'bad_payload');
    await failure(complete(provider, { model: 'other' }), 'not_found');
    const long = [{ role: 'user', content: 'x'.repeat(3000) }];
    assert.match((await failure(complete(provider, { messages: long }), 'text_too_long')).message, /2048/);
    assert.equal(
      (await complete(provider, { max_tokens: 1, messages: [{ role: 'developer', content: 'Be brief' }] }))
        .usage.completion_tokens,
      1,
    );
  });

  it('offers tools if its template lets it call them', async () => {
    const able = join(home, 'able');
    await writeLlmFolder(able, {
      template:
        "{% if tools %}{{ tools | tojson }}<tool_call>{% endif %}{% for m in messages %}{{ m['content'] }}{% endfor %}",
    });
    await using provider = await open(able);
    assert.deepEqual(provider.state.features, ['tools', 'model:able']);
    const tools = [{ type: 'function', function: { name: 'weather' } }];
    const plain = await complete(provider, { max_tokens: 1 });
    const withTools = await complete(provider, { max_tokens: 1, tools });
    assert.ok(withTools.usage.prompt_tokens > plain.usage.prompt_tokens + 20);
  });

  it('that is not as it should be is a reason not to serve, named by its file', async () => {
    for (const [name, text, said] of [
      ['config.json', '{', /config\.json of the model is not JSON/],
      ['config.json', '{"model_type": "bert"}', /config\.json .*num_attention_heads/],
      ['tokenizer.json', '', /tokenizer\.json/],
      ['tokenizer_config.json', '{}', /no chat template/],
      ['tokenizer_config.json', '{"chat_template": "{% if %}"}', /chat template of the model is none/],
      ['onnx/model.onnx', 'version https://git-lfs.github.com/spec/v1', /pointer of Git LFS/],
    ] as const) {
      const broken = join(home, 'broken');
      await writeLlmFolder(broken);
      await writeFile(join(broken, name), text);
      await using provider = await open(broken);
      assert.match(provider.state.problem ?? '', said);
      assert.deepEqual(provider.state.features, []);
    }
    await using nowhere = await open(join(home, 'nowhere'));
    assert.match(nowhere.state.problem ?? '', /There is no model folder/);
  });

  it('whose model file is damaged says so when it is first asked, and from then on', async () => {
    const damaged = join(home, 'damaged');
    await writeLlmFolder(damaged);
    await writeFile(join(damaged, 'onnx', 'model.onnx'), 'this is no model');
    await using provider = await open(damaged);
    const changed = Promise.withResolvers<void>();
    provider.onChange(() => provider.state.problem !== null && changed.resolve());
    await failure(complete(provider), 'model_unavailable');
    await changed.promise;
    assert.match(provider.state.problem ?? '', /does not load/);
  });
});
