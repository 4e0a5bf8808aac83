/*
 * The official clients, as users point them at their device: an installed laptop without any model, whose mesh has a
 * box with Ollama, a box with a server of OpenAI's API, and a box that runs a model itself.
 */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { embed, embedMany, generateText, isStepCount, jsonSchema, streamText, tool } from 'ai';
import { Ollama } from 'ollama';
import OpenAI from 'openai';
import { writeLlmFolder } from '../../src/ai/llm-folder.contract.ts';
import type { ScriptedModelServer } from '../../src/ai/model-server.contract.ts';
import type { CocoonProcess } from './cocoon-process.ts';
import { box, fetchWithin, laptopAlone, lists, running } from './model-mesh.ts';
import { ChatGate, call, counted, ollamaServer, openAiServer } from './model-servers.ts';

const gate = new ChatGate();
const started: CocoonProcess[] = [];
let folder: string;
let token: string;
let laptop: CocoonProcess;
let ollamaBox: CocoonProcess;
let serverBox: CocoonProcess;
let onnxBox: CocoonProcess;
let ollamaModels: ScriptedModelServer;
let openAiModels: ScriptedModelServer;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cocoon-llm-'));
  // With so long a context an answer that nobody ends takes minutes.
  await writeLlmFolder(join(folder, 'tiny'), {
    size: { hidden: 64, layers: 2, heads: 4, keyHeads: 2, inner: 128, positions: 65_536 },
  });
  ollamaModels = await ollamaServer(['shared', 'qwen'], gate);
  openAiModels = await openAiServer(['shared', '@cf/large'], gate);
  const alone = await laptopAlone();
  laptop = alone.laptop;
  started.push(laptop, alone.signaling);
  [ollamaBox, serverBox, onnxBox] = await Promise.all([
    box(
      laptop,
      'ollama',
      {
        COCOON_LLM_PROVIDER: 'ollama',
        OLLAMA_HOST: ollamaModels.url,
        COCOON_EMBEDDING_MODEL: 'ollama:embedder',
      },
      ['llm.chat', 'embeddings'],
    ),
    box(
      laptop,
      'server',
      {
        COCOON_LLM_PROVIDER: `${openAiModels.url}/v1`,
        COCOON_LLM_API_KEY: 'key-of-the-server',
        COCOON_EMBEDDING_MODEL: `${openAiModels.url}/v1#vectors`,
      },
      ['llm.chat', 'embeddings'],
    ),
    box(laptop, 'onnx', { COCOON_LLM_PROVIDER: join(folder, 'tiny') }, ['llm.chat']),
  ]);
  started.unshift(ollamaBox, serverBox, onnxBox);
  token = await laptop.gatewayToken();
  for (const model of ['qwen@ollama', 'embedder@ollama', 'vectors@server', 'tiny@onnx'])
    await lists(laptop, model);
});

after(async () => {
  for (const cocoon of started) await cocoon[Symbol.asyncDispose]();
  await ollamaModels?.stop();
  await openAiModels?.stop();
  await rm(folder, { recursive: true, force: true });
});

const hi = { role: 'user' as const, content: 'Hi' };
const forEver = [{ role: 'user' as const, content: 'Go on for ever' }];
const slowly = [{ role: 'user' as const, content: 'Go step by step' }];
const weatherTool = {
  type: 'function' as const,
  function: {
    name: 'weather',
    description: 'The weather of a city',
    parameters: { type: 'object', properties: { city: { type: 'string' } } },
  },
};
const answerFormat = {
  type: 'json_schema' as const,
  json_schema: { name: 'answer', schema: { type: 'object', properties: { ok: { type: 'boolean' } } } },
};
/** A model of each way to run one. */
const everywhere = ['qwen@ollama', '@cf/large', 'tiny'] as const;

/** The newest chat that goes on for ever ends at its server, and nothing is counted there any more. */
async function endsAt(cocoon: CocoonProcess): Promise<void> {
  const gone = gate.gones.at(-1);
  assert.ok(gone);
  if (!gone.aborted) await once(gone, 'abort', { signal: AbortSignal.timeout(20_000) });
  await running(cocoon, 0);
}

describe('the official client of OpenAI at the gateway of a laptop without a model', () => {
  const client = (): OpenAI =>
    new OpenAI({ baseURL: `${laptop.gateway}/v1`, apiKey: token, maxRetries: 0, fetch: fetchWithin });

  test('lists the models of all devices', async () => {
    const ids = (await client().models.list()).data.map(({ id }) => id);
    assert.equal(
      ids.toSorted().join(' '),
      '@cf/large @cf/large@server embedder embedder@ollama qwen qwen@ollama shared shared@ollama ' +
        'shared@server tiny tiny@onnx vectors vectors@server',
    );
    assert.equal((await client().models.retrieve('@cf/large@server')).owned_by, 'server');
    await assert.rejects(client().models.retrieve('none'), { status: 404, code: 'model_not_found' });
  });

  test('chats, with any device that has the model or with the one that it names', async () => {
    for (const [model, devices] of [
      ['qwen', ['ollama']],
      ['@cf/large', ['server']],
      ['shared', ['ollama', 'server']],
      ['shared@ollama', ['ollama']],
      ['shared@server', ['server']],
    ] as const) {
      const { data, response } = await client()
        .chat.completions.create({ model, messages: [hi] })
        .withResponse();
      assert.equal(data.choices[0]?.message.content, 'Hello, world');
      assert.equal(data.choices[0]?.finish_reason, 'stop');
      assert.deepEqual(data.usage, counted);
      const device = response.headers.get('cocoon-device') ?? '';
      assert.ok((devices as readonly string[]).includes(device), `${model} was answered by ${device}`);
    }
  });

  test('streams: each piece is there before the next is said, and the usage if it asks', async () => {
    for (const model of ['qwen', '@cf/large']) {
      const stream = await client().chat.completions.create({
        model,
        messages: slowly,
        stream: true,
        stream_options: { include_usage: true },
      });
      const texts: string[] = [];
      let usage: unknown = null;
      for await (const chunk of stream) {
        const text = chunk.choices[0]?.delta.content ?? '';
        if (text !== '') texts.push(text);
        // The server says nothing more until the first piece is here.
        if (text === 'Hello') gate.goOn();
        usage = chunk.usage ?? usage;
      }
      assert.deepEqual([texts, usage], [['Hello', ', world'], counted]);
      for await (const chunk of await client().chat.completions.create({
        model,
        messages: [hi],
        stream: true,
      }))
        assert.deepEqual([chunk.choices.length, chunk.usage], [1, undefined]);
    }
  });

  test('calls a tool and tells its result, streamed and not', async () => {
    for (const model of ['qwen', '@cf/large']) {
      const request = { model, tools: [weatherTool], messages: [hi] };
      const { choices } = await client().chat.completions.create(request);
      const [asked] = choices;
      assert.equal(asked?.finish_reason, 'tool_calls');
      assert.deepEqual(
        asked.message.tool_calls?.map((each) => each.type === 'function' && each.function),
        [call.function],
      );
      const streamed = await client().chat.completions.stream(request).finalMessage();
      const [toolCall] = streamed.tool_calls ?? [];
      assert.equal(toolCall?.type === 'function' && toolCall.function.arguments, call.function.arguments);
      const answered = await client().chat.completions.create({
        ...request,
        messages: [
          hi,
          asked.message,
          { role: 'tool', tool_call_id: asked.message.tool_calls?.[0]?.id ?? '', content: 'sunny' },
        ],
      });
      assert.equal(answered.choices[0]?.message.content, 'It is sunny');
    }
  });

  test('has what it asks of the answer passed on to the model as it is', async () => {
    const request = { messages: [hi], response_format: answerFormat, temperature: 0.5, stop: ['END'] };
    await client().chat.completions.create({ ...request, model: '@cf/large' });
    const passed = openAiModels.newest('POST /v1/chat/completions');
    assert.deepEqual(passed['response_format'], answerFormat);
    assert.deepEqual([passed['temperature'], passed['stop'], passed['model']], [0.5, ['END'], '@cf/large']);
    await client().chat.completions.create({ ...request, model: 'qwen' });
    const translated = ollamaModels.newest('POST /api/chat');
    assert.deepEqual(translated['format'], answerFormat.json_schema.schema);
    const options = translated['options'] as Record<string, unknown>;
    assert.deepEqual([options['temperature'], options['stop']], [0.5, ['END']]);
  });

  test('aborts, streamed and not: the server of the model is told, and nothing is in flight', async () => {
    for (const [model, cocoon] of [
      ['qwen', ollamaBox],
      ['@cf/large', serverBox],
    ] as const) {
      const streamed = await client().chat.completions.create({ model, messages: forEver, stream: true });
      for await (const { choices } of streamed)
        if (choices[0]?.delta.content === 'Hello') {
          await running(cocoon, 1);
          streamed.controller.abort();
        }
      await endsAt(cocoon);
      const cancel = new AbortController();
      const asked = client().chat.completions.create({ model, messages: forEver }, { signal: cancel.signal });
      await running(cocoon, 1);
      cancel.abort();
      await assert.rejects(asked, OpenAI.APIUserAbortError);
      await endsAt(cocoon);
    }
  });

  test('aborts a model that a device runs itself: it stops computing, and serves the next', async () => {
    const streamed = await client().chat.completions.create({ model: 'tiny', messages: [hi], stream: true });
    for await (const { choices } of streamed)
      if ((choices[0]?.delta.content ?? '') !== '') {
        await running(onnxBox, 1);
        streamed.controller.abort();
      }
    await running(onnxBox, 0);
    // One runs at a time, and the one before would have gone on for minutes.
    const next = await client().chat.completions.create(
      { model: 'tiny', messages: [hi], max_tokens: 2 },
      { timeout: 10_000 },
    );
    assert.equal(next.usage?.completion_tokens, 2);
  });

  test('gets the same from a model that a device runs itself, up to its limit or its stop', async () => {
    const ask = async (fields: object): Promise<OpenAI.ChatCompletion> =>
      client().chat.completions.create({ model: 'tiny', messages: [hi], temperature: 0, ...fields });
    const [first, again] = [await ask({ max_tokens: 24 }), await ask({ max_tokens: 24 })];
    const text = first.choices[0]?.message.content ?? '';
    assert.equal(again.choices[0]?.message.content, text);
    assert.deepEqual([first.choices[0]?.finish_reason, first.usage?.completion_tokens], ['length', 24]);
    // <|bos|> <|user|> H i <|eos|> <|assistant|>: the template of its folder.
    assert.equal(first.usage?.prompt_tokens, 6);
    const stop = text.slice(4, 6);
    const stopped = await ask({ max_tokens: 24, stop });
    assert.equal(stopped.choices[0]?.message.content, text.slice(0, text.indexOf(stop)));
    assert.equal(stopped.choices[0]?.finish_reason, 'stop');
  });

  test('embeds, in base64 as it does by default and in numbers; other dimensions are refused', async () => {
    const numbers = [
      [1, 0.5, -1],
      [4, 0.5, -1],
    ];
    for (const model of ['embedder', 'vectors', 'vectors@server'])
      for (const format of [undefined, 'float', 'base64'] as const) {
        const { data } = await client().embeddings.create({
          model,
          input: ['a', 'four'],
          ...(format ? { encoding_format: format } : {}),
        });
        if (format === 'base64') assert.ok(data.every(({ embedding }) => typeof embedding === 'string'));
        const unpacked = data.map(({ embedding }) =>
          typeof embedding === 'string'
            ? [...new Float32Array(new Uint8Array(Buffer.from(embedding, 'base64')).buffer)]
            : [...embedding],
        );
        assert.deepEqual(unpacked, numbers);
      }
    await assert.rejects(client().embeddings.create({ model: 'vectors', input: 'a', dimensions: 2 }), {
      status: 400,
      code: 'bad_payload',
      message: /dimensions: vectors has 3, not 2/,
    });
  });
});

describe('cocoon request', () => {
  const ask = (model: string): string => JSON.stringify({ model, messages: [hi] });

  test('asks a device that has the model, or the one that is named with it, and prints words', async () => {
    for (const [model, device] of [
      ['qwen:latest', 'ollama'],
      ['@cf/large', 'server'],
      ['shared@server', 'server'],
      ['shared@ollama', 'ollama'],
    ] as const) {
      const answer = await laptop.json<{ device: string; result: OpenAI.ChatCompletion }>(
        'request',
        'llm.chat',
        ask(model),
      );
      assert.equal(answer.device, device);
      assert.equal(answer.result.choices[0]?.message.content, 'Hello, world');
    }
    const { stdout } = await laptop.command(['request', 'llm.chat', ask('@cf/large'), '--stream']);
    assert.equal(stdout, 'Hello, world\n');
    const lines = (await laptop.command(['request', 'llm.chat', ask('qwen'), '--stream', '--json'])).stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { chunk?: OpenAI.ChatCompletionChunk; device?: string });
    assert.equal(lines.map(({ chunk }) => chunk?.choices[0]?.delta.content ?? '').join(''), 'Hello, world');
    assert.equal(lines.at(-1)?.device, 'ollama');
    const none = await laptop.command(['request', 'llm.chat', ask('gpt-9')]);
    assert.equal(none.code, 3);
    assert.match(none.stderr, /No device has the model gpt-9[^]*Offered now: .*qwen/);
  });
});

describe('the official client of Ollama, with the gateway as its host', () => {
  const client = (): Ollama =>
    new Ollama({ host: laptop.gateway, headers: { authorization: `Bearer ${token}` }, fetch: fetchWithin });

  test('lists and shows the models of all devices', async () => {
    const names = (await client().list()).models.map(({ name }) => name);
    for (const name of ['qwen', 'shared@server', 'tiny', 'embedder']) assert.ok(names.includes(name));
    assert.deepEqual((await client().show({ model: 'qwen' })).capabilities, ['completion', 'tools']);
    assert.deepEqual((await client().show({ model: 'embedder@ollama' })).capabilities, ['embedding']);
    await assert.rejects(client().show({ model: 'none' }), /no model none|has the model none/i);
  });

  test('chats, and streams piece by piece, wherever the model runs', async () => {
    for (const model of everywhere) {
      const whole = await client().chat({ model, messages: [hi], options: { num_predict: 8 } });
      assert.ok(whole.done && whole.eval_count > 0 && whole.message.content.length > 0);
    }
    for (const model of ['qwen:latest', 'shared@server']) {
      const texts: string[] = [];
      for await (const { message } of await client().chat({ model, messages: slowly, stream: true })) {
        if (message.content !== '') texts.push(message.content);
        if (message.content === 'Hello') gate.goOn();
      }
      assert.deepEqual(texts, ['Hello', ', world']);
    }
  });

  test('calls a tool and tells its result', async () => {
    for (const model of ['qwen', '@cf/large']) {
      const request = { model, messages: [hi], tools: [weatherTool] };
      const { message } = await client().chat(request);
      assert.deepEqual(message.tool_calls?.[0]?.function, { name: 'weather', arguments: { city: 'Bern' } });
      const answered = await client().chat({
        ...request,
        messages: [hi, message, { role: 'tool', content: 'sunny', tool_name: 'weather' }],
      });
      assert.equal(answered.message.content, 'It is sunny');
      const called: unknown[] = [];
      for await (const part of await client().chat({ ...request, stream: true }))
        called.push(...(part.message.tool_calls ?? []).map((each) => each.function));
      assert.deepEqual(called, [{ name: 'weather', arguments: { city: 'Bern' } }]);
    }
    await client().chat({ model: '@cf/large', messages: [hi], format: answerFormat.json_schema.schema });
    const passed = openAiModels.newest('POST /v1/chat/completions')['response_format'];
    assert.deepEqual(passed, answerFormat);
  });

  test('aborts: the server of the model is told, and nothing is in flight', async () => {
    for (const [model, cocoon] of [
      ['qwen', ollamaBox],
      ['@cf/large', serverBox],
    ] as const) {
      const stream = await client().chat({ model, messages: forEver, stream: true });
      await assert.rejects(async () => {
        for await (const { message } of stream) if (message.content === 'Hello') stream.abort();
      }, /abort/i);
      await endsAt(cocoon);
    }
  });

  test('embeds', async () => {
    const { embeddings } = await client().embed({ model: 'vectors', input: ['a', 'four'] });
    assert.deepEqual(embeddings, [
      [1, 0.5, -1],
      [4, 0.5, -1],
    ]);
    assert.equal((await client().embed({ model: 'embedder', input: 'four' })).embeddings.length, 1);
  });
});

describe('the AI SDK', () => {
  const provider = (): ReturnType<typeof createOpenAICompatible> =>
    createOpenAICompatible({
      name: 'cocoon',
      baseURL: `${laptop.gateway}/v1`,
      apiKey: token,
      includeUsage: true,
      fetch: fetchWithin,
    });
  const weather = tool({
    description: 'The weather of a city',
    inputSchema: jsonSchema<{ city: string }>({
      type: 'object',
      properties: { city: { type: 'string' } },
      required: ['city'],
    }),
    execute: async ({ city }) => `sunny in ${city}`,
  });

  test('chats, and streams piece by piece', async () => {
    const { text, usage } = await generateText({ model: provider()('shared'), prompt: 'Hi' });
    assert.deepEqual([text, usage.inputTokens, usage.outputTokens], ['Hello, world', 7, 2]);
    const streamed = streamText({ model: provider()('shared@server'), prompt: 'Go step by step' });
    const texts: string[] = [];
    for await (const part of streamed.textStream) {
      texts.push(part);
      if (part === 'Hello') gate.goOn();
    }
    assert.deepEqual(texts, ['Hello', ', world']);
    assert.equal((await streamed.usage).totalTokens, 9);
  });

  test('calls a tool, runs it, and tells its result', async () => {
    for (const id of ['qwen', '@cf/large']) {
      const request = { model: provider()(id), prompt: 'Hi', tools: { weather }, stopWhen: isStepCount(3) };
      assert.match((await generateText(request)).text, /^It is .*sunny in Bern/);
      assert.match(await streamText(request).text, /^It is .*sunny in Bern/);
    }
  });

  test('aborts: the server of the model is told, and nothing is in flight', async () => {
    const cancel = new AbortController();
    const { textStream } = streamText({
      model: provider()('@cf/large'),
      prompt: 'Go on for ever',
      abortSignal: cancel.signal,
      onError: () => undefined,
    });
    for await (const text of textStream) if (text === 'Hello') cancel.abort();
    await endsAt(serverBox);
  });

  test('embeds one and many', async () => {
    const model = provider().embeddingModel('embedder');
    assert.deepEqual((await embed({ model, value: 'four' })).embedding, [4, 0.5, -1]);
    const { embeddings } = await embedMany({ model, values: ['a', 'four'] });
    assert.deepEqual(embeddings, [
      [1, 0.5, -1],
      [4, 0.5, -1],
    ]);
  });
});
