import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { delta, usage } from '@cocoon-mesh/ai/model-server.contract.ts';
import type { Content, ProviderCall } from '@cocoon-mesh/capabilities';
import type { ScriptedProvider } from '@cocoon-mesh/capabilities/scripted-provider.contract.ts';
import {
  content,
  scriptedProvider,
  untilAborted,
} from '@cocoon-mesh/capabilities/scripted-provider.contract.ts';
import type { Json } from '@cocoon-mesh/protocol';
import { embed, embedMany, generateText, jsonSchema, streamText, tool } from 'ai';
import { Ollama } from 'ollama';
import OpenAI from 'openai';
import type { ModelGateway } from './model-mesh.contract.ts';
import { ModelMesh, serveModels } from './model-mesh.contract.ts';

const call = { id: 'c1', type: 'function', function: { name: 'weather', arguments: '{"city":"Bern"}' } };

let waits = Promise.withResolvers<void>();
let ended = Promise.withResolvers<void>();

function piece(fields: object, reason: string | null = null): Content {
  return content(delta(fields, reason) as unknown as Json);
}

/** Says hello; calls a tool if it may and has no result yet; goes on for ever if asked to. */
async function* chat({ payload, signal }: ProviderCall): AsyncGenerator<Content> {
  const { messages, tools } = payload as { messages: { role: string; content: unknown }[]; tools?: unknown };
  const last = messages.at(-1);
  try {
    yield piece({ role: 'assistant', content: '' });
    if (tools !== undefined && last?.role !== 'tool') {
      yield piece({ tool_calls: [{ index: 0, ...call, function: { ...call.function, arguments: '' } }] });
      yield piece({ tool_calls: [{ index: 0, function: { arguments: call.function.arguments } }] });
      yield piece({}, 'tool_calls');
    } else {
      yield piece({ content: 'Hello' });
      if (JSON.stringify(last).includes('for ever')) {
        waits.resolve();
        await untilAborted(signal);
      }
      yield piece({ content: last?.role === 'tool' ? `, it is ${JSON.stringify(last.content)}` : ', world' });
      yield piece({}, 'stop');
    }
    yield content({ ...delta({}), choices: [], usage });
  } finally {
    ended.resolve();
  }
}

const space = '5'.repeat(64);

/** Three numbers for each text: its length, 0.5 and −1. */
async function vectors({ payload }: ProviderCall): Promise<Content> {
  const { input } = payload as { input: string | string[] };
  const texts = typeof input === 'string' ? [input] : input;
  const packed = Float32Array.from(texts.flatMap((text) => [text.length, 0.5, -1]));
  return content(
    {
      dimensions: 3,
      count: texts.length,
      space,
      semantic: true,
      model: 'words',
      usage: { prompt_tokens: 4, total_tokens: 4 },
    },
    new Uint8Array(packed.buffer),
  );
}

const mesh = new ModelMesh();
const chats = (features: string[]): ScriptedProvider =>
  scriptedProvider({ protocol: 'llm.chat', state: { features }, handle: chat });
let gateway: ModelGateway;

before(async () => {
  mesh.add('gpu', chats(['tools', 'model:small', 'model:@cf/large']));
  mesh.add('server', chats(['model:small']));
  mesh.add('box@ABCDEFGH', chats(['tools', 'model:theirs']));
  mesh.add(
    'laptop',
    scriptedProvider({
      protocol: 'embeddings',
      state: { features: ['model:words', `space:${space}`] },
      handle: vectors,
    }),
  );
  gateway = await serveModels(mesh);
});

after(async () => gateway[Symbol.asyncDispose]());

function newestPayload(): { model: string; messages: { tool_call_id?: string }[] } {
  const request = mesh.requests.at(-1);
  assert.ok(request);
  return request.payload as unknown as { model: string; messages: { tool_call_id?: string }[] };
}

/** Nothing runs any more. */
function assertIdle(): void {
  assert.deepEqual(
    [...mesh.inFlight].filter(([, count]) => count !== 0),
    [],
  );
}

const weatherTool = {
  type: 'function' as const,
  function: {
    name: 'weather',
    description: 'The weather of a city',
    parameters: { type: 'object', properties: { city: { type: 'string' } } },
  },
};

describe('the official client of OpenAI', () => {
  const client = (): OpenAI => new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey: 'token', maxRetries: 0 });
  const hello = { role: 'user' as const, content: 'Hi' };

  it('lists the models of all devices', async () => {
    const { data } = await client().models.list();
    assert.deepEqual(
      data.map(({ id }) => id),
      [
        'small',
        '@cf/large',
        'words',
        'small@gpu',
        '@cf/large@gpu',
        'small@server',
        'theirs@box@ABCDEFGH',
        'words@laptop',
      ],
    );
    assert.equal((await client().models.retrieve('@cf/large@gpu')).owned_by, 'gpu');
    await assert.rejects(client().models.retrieve('none'), { status: 404, code: 'model_not_found' });
  });

  it('chats', async () => {
    const { data, response } = await client()
      .chat.completions.create({ model: 'small', messages: [hello] })
      .withResponse();
    assert.equal(data.choices[0]?.message.content, 'Hello, world');
    assert.deepEqual([data.object, data.choices[0]?.finish_reason], ['chat.completion', 'stop']);
    assert.deepEqual(data.usage, usage);
    assert.equal(response.headers.get('cocoon-device'), 'gpu');
    assert.equal(response.headers.get('cocoon-device-id'), 'peer-gpu');
  });

  it('chats with the device it names, also of another owner, and with models that hold an @', async () => {
    for (const [model, device, plain] of [
      ['small@server', 'server', 'small'],
      ['small@peer-server', 'server', 'small'],
      ['theirs@box@ABCDEFGH', 'box@ABCDEFGH', 'theirs'],
      ['@cf/large', 'gpu', '@cf/large'],
      ['@cf/large@gpu', 'gpu', '@cf/large'],
    ] as const) {
      const { response } = await client()
        .chat.completions.create({ model, messages: [hello] })
        .withResponse();
      assert.equal(response.headers.get('cocoon-device'), device);
      assert.equal(newestPayload().model, plain);
    }
  });

  it('streams, with the usage only when it asked for that', async () => {
    const texts: string[] = [];
    const stream = await client().chat.completions.create({
      model: 'small',
      messages: [hello],
      stream: true,
    });
    for await (const { choices } of stream) {
      assert.equal(choices.length, 1);
      texts.push(choices[0]?.delta.content ?? '');
    }
    assert.deepEqual(texts, ['', 'Hello', ', world', '']);
    const counted = await client().chat.completions.create({
      model: 'small',
      messages: [hello],
      stream: true,
      stream_options: { include_usage: true },
    });
    let last: unknown = null;
    for await (const chunk of counted) last = chunk.usage;
    assert.deepEqual(last, usage);
    const whole = await client()
      .chat.completions.stream({ model: 'small', messages: [hello] })
      .finalContent();
    assert.equal(whole, 'Hello, world');
  });

  it('calls tools, on a device that can', async () => {
    const request = { model: 'small', tools: [weatherTool], messages: [hello] };
    const { choices } = await client().chat.completions.create(request);
    assert.deepEqual(choices[0]?.message.tool_calls, [call]);
    assert.equal(choices[0]?.finish_reason, 'tool_calls');
    const streamed = await client().chat.completions.stream(request).finalMessage();
    assert.deepEqual(JSON.parse(JSON.stringify(streamed.tool_calls)), [call]);
    const answered = await client().chat.completions.create({
      ...request,
      messages: [hello, choices[0].message, { role: 'tool', tool_call_id: 'c1', content: 'sunny' }],
    });
    assert.equal(answered.choices[0]?.message.content, 'Hello, it is "sunny"');
    await assert.rejects(client().chat.completions.create({ ...request, model: 'small@server' }), {
      status: 404,
    });
  });

  it('aborts: the provider is told, and nothing runs on', async () => {
    ended = Promise.withResolvers();
    const stream = await client().chat.completions.create({
      model: 'small',
      messages: [{ role: 'user', content: 'for ever' }],
      stream: true,
    });
    for await (const { choices } of stream) if (choices[0]?.delta.content === 'Hello') break;
    stream.controller.abort();
    await ended.promise;
    ended = Promise.withResolvers();
    waits = Promise.withResolvers();
    const cancel = new AbortController();
    const asked = client().chat.completions.create(
      { model: 'small', messages: [{ role: 'user', content: 'for ever' }] },
      { signal: cancel.signal },
    );
    await waits.promise;
    cancel.abort();
    await assert.rejects(asked, OpenAI.APIUserAbortError);
    await ended.promise;
    await new Promise(setImmediate);
    assertIdle();
  });

  it('embeds, as it does by default (base64) and as numbers', async () => {
    const input = ['a', 'four'];
    for (const format of [undefined, 'float', 'base64'] as const) {
      const {
        data,
        model,
        usage: counted,
      } = await client().embeddings.create({
        model: 'words',
        input,
        ...(format ? { encoding_format: format } : {}),
      });
      const numbers = data.map(({ embedding }) =>
        typeof embedding === 'string'
          ? [...new Float32Array(new Uint8Array(Buffer.from(embedding, 'base64')).buffer)]
          : [...embedding],
      );
      assert.deepEqual(numbers, [
        [1, 0.5, -1],
        [4, 0.5, -1],
      ]);
      assert.deepEqual([model, counted], ['words', { prompt_tokens: 4, total_tokens: 4 }]);
    }
  });

  it('gets errors of its own kinds', async () => {
    const { chat: api } = client();
    await assert.rejects(api.completions.create({ model: 'gpt-9', messages: [hello] }), (error) => {
      assert.ok(error instanceof OpenAI.NotFoundError);
      assert.deepEqual(
        [error.code, error.param, error.type],
        ['model_not_found', 'model', 'invalid_request_error'],
      );
      assert.match(error.message, /No device has the model gpt-9.*small, @cf\/large, theirs@box@ABCDEFGH/);
      return true;
    });
    await assert.rejects(api.completions.create({ model: 'small', messages: [] }), (error) => {
      assert.ok(error instanceof OpenAI.BadRequestError);
      assert.equal(error.code, 'bad_payload');
      assert.match(error.message, /messages/);
      return true;
    });
    await assert.rejects(client().embeddings.create({ model: 'words', input: [] }), OpenAI.BadRequestError);
    await assert.rejects(client().embeddings.create({ model: 'small', input: 'x' }), OpenAI.NotFoundError);
    await assert.rejects(client().completions.create({ model: 'small', prompt: 'x' }), OpenAI.NotFoundError);
  });
});

describe('the official client of Ollama', () => {
  const client = (): Ollama => new Ollama({ host: gateway.url, headers: { authorization: 'Bearer token' } });
  const hello = { role: 'user', content: 'Hi' };

  it('lists the models of all devices', async () => {
    const { models } = await client().list();
    assert.ok(models.some(({ name }) => name === 'small@server'));
    assert.equal((await client().version()).version.split('.').length, 3);
  });

  it('chats, and streams', async () => {
    const {
      message,
      done_reason: reason,
      eval_count: count,
    } = await client().chat({ model: 'small:latest', messages: [hello] });
    assert.deepEqual([message.content, reason, count], ['Hello, world', 'stop', 2]);
    const texts: string[] = [];
    for await (const part of await client().chat({ model: 'small@server', messages: [hello], stream: true }))
      texts.push(part.message.content);
    assert.deepEqual(texts, ['Hello', ', world', '']);
    assert.equal(mesh.asked.at(-1), 'server');
  });

  it('calls tools', async () => {
    const request = { model: 'small', messages: [hello], tools: [weatherTool] };
    const { message } = await client().chat(request);
    assert.deepEqual(message.tool_calls?.[0]?.function, { name: 'weather', arguments: { city: 'Bern' } });
    let calls = 0;
    for await (const part of await client().chat({ ...request, stream: true }))
      calls += part.message.tool_calls?.length ?? 0;
    assert.equal(calls, 1);
    const answered = await client().chat({
      ...request,
      messages: [hello, message, { role: 'tool', content: 'sunny', tool_name: 'weather' }],
    });
    assert.equal(answered.message.content, 'Hello, it is "sunny"');
    assert.equal(newestPayload().messages[2]?.tool_call_id, 'c1');
  });

  it('aborts: the provider is told, and nothing runs on', async () => {
    ended = Promise.withResolvers();
    const stream = await client().chat({
      model: 'small',
      messages: [{ role: 'user', content: 'for ever' }],
      stream: true,
    });
    await assert.rejects(async () => {
      for await (const { message } of stream) if (message.content === 'Hello') stream.abort();
    }, /abort/i);
    await ended.promise;
    await new Promise(setImmediate);
    assertIdle();
  });

  it('embeds', async () => {
    const { embeddings } = await client().embed({ model: 'words', input: ['a', 'four'] });
    assert.deepEqual(embeddings, [
      [1, 0.5, -1],
      [4, 0.5, -1],
    ]);
  });

  it('gets errors in words', async () => {
    await assert.rejects(
      client().chat({ model: 'gpt-9', messages: [hello] }),
      /No device has the model gpt-9/,
    );
  });
});

describe('the AI SDK', () => {
  const provider = (): ReturnType<typeof createOpenAICompatible> =>
    createOpenAICompatible({
      name: 'cocoon',
      baseURL: `${gateway.url}/v1`,
      apiKey: 'token',
      includeUsage: true,
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

  it('chats, and streams', async () => {
    const { text, usage: counted } = await generateText({ model: provider()('small'), prompt: 'Hi' });
    assert.deepEqual([text, counted.inputTokens, counted.outputTokens], ['Hello, world', 7, 2]);
    const streamed = streamText({ model: provider()('small@server'), prompt: 'Hi' });
    const texts: string[] = [];
    for await (const part of streamed.textStream) texts.push(part);
    assert.deepEqual(texts, ['Hello', ', world']);
    assert.equal((await streamed.usage).totalTokens, 9);
  });

  it('calls tools', async () => {
    const { toolCalls } = await generateText({
      model: provider()('small'),
      prompt: 'Hi',
      tools: { weather },
    });
    assert.deepEqual(toolCalls[0]?.input, { city: 'Bern' });
    const streamed = streamText({ model: provider()('small'), prompt: 'Hi', tools: { weather } });
    assert.deepEqual((await streamed.toolCalls)[0]?.input, { city: 'Bern' });
  });

  it('aborts: the provider is told, and nothing runs on', async () => {
    ended = Promise.withResolvers();
    const cancel = new AbortController();
    const { textStream } = streamText({
      model: provider()('small'),
      prompt: 'for ever',
      abortSignal: cancel.signal,
      onError: () => undefined,
    });
    for await (const text of textStream) if (text === 'Hello') cancel.abort();
    await ended.promise;
    await new Promise(setImmediate);
    assertIdle();
  });

  it('embeds one and many', async () => {
    const model = provider().embeddingModel('words');
    assert.deepEqual((await embed({ model, value: 'four' })).embedding, [4, 0.5, -1]);
    const { embeddings } = await embedMany({ model, values: ['a', 'four'] });
    assert.deepEqual(embeddings, [
      [1, 0.5, -1],
      [4, 0.5, -1],
    ]);
  });
});
