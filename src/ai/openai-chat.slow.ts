import assert from 'node:assert/strict';
import { setImmediate } from 'node:timers/promises';
import { describe, it } from 'node:test';
import type { Provider } from '@cocoon-mesh/capabilities';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { all, complete, failure, stream, textOf } from './chat-call.contract.ts';
import { chatProvider } from './chat.node.ts';
import { BackendChatProvider } from './chat-provider.ts';
import type { Answer } from './model-server.contract.ts';
import { ScriptedModelServer, answerJson, delta, events, usage } from './model-server.contract.ts';

const secret = 'sk-very-secret-0123456789';
const chatRoute = 'POST /v1/chat/completions';

function models(...ids: string[]): Answer {
  return ({ response }) => answerJson(response, 200, { object: 'list', data: ids.map((id) => ({ id })) });
}

interface Served extends AsyncDisposable {
  readonly server: ScriptedModelServer;
  readonly provider: Provider;
  readonly clock: SteppedClock;
}

async function serve(
  answer: Answer,
  { model = null as string | null, list = models('small', 'large') } = {},
): Promise<Served> {
  const server = await ScriptedModelServer.start({ 'GET /v1/models': list, [chatRoute]: answer });
  const clock = new SteppedClock();
  const provider = chatProvider({ provider: `${server.url}/v1/`, model, apiKey: secret, clock });
  assert.ok(provider instanceof BackendChatProvider);
  await provider.refresh();
  return {
    server,
    provider,
    clock,
    async [Symbol.asyncDispose]() {
      await provider.close();
      await server.stop();
      assert.equal(clock.pendingTimers, 0);
    },
  };
}

describe('a server with the API of OpenAI', () => {
  it('streams: each piece is there before the next is sent, and the last has the usage', async () => {
    const gate = Promise.withResolvers<void>();
    await using served = await serve(async ({ response }) => {
      const send = events(response);
      send(delta({ role: 'assistant', content: '' }));
      response.write(': keep-alive\n\n');
      send(delta({ content: 'Hel' }));
      await gate.promise;
      send(delta({ content: 'lo' }));
      send(delta({}, 'stop'));
      send({ ...delta({}), choices: [], usage });
      send('[DONE]');
      response.end();
    });
    const chunks = stream(served.provider, { model: 'large', top_k: 5 });
    await chunks.next();
    const second = await chunks.next();
    assert.equal(textOf([second.value!]), 'Hel');
    gate.resolve();
    const rest = await all(chunks);
    assert.equal(textOf(rest), 'lo');
    assert.deepEqual(rest.at(-1)?.choices, []);
    assert.deepEqual(rest.at(-1)?.usage, usage);
    const asked = served.server.newest(chatRoute);
    assert.deepEqual(
      [asked['model'], asked['top_k'], asked['stream'], asked['stream_options']],
      ['large', 5, true, { include_usage: true }],
    );
    assert.equal(served.server.seen.at(-1)?.headers.authorization, `Bearer ${secret}`);
  });

  it('answers in one piece as it says it, with fields nobody here knows', async () => {
    await using served = await serve(({ response }) =>
      answerJson(response, 200, {
        id: 'a',
        object: 'chat.completion',
        created: 5,
        model: 'small-0305',
        service_tier: 'flex',
        choices: [
          { index: 0, message: { role: 'assistant', content: 'Hi', annotations: [] }, finish_reason: 'stop' },
        ],
        usage,
      }),
    );
    const answer = await complete(served.provider);
    assert.deepEqual([answer.model, answer['service_tier'], answer.usage], ['small-0305', 'flex', usage]);
    assert.deepEqual(answer.choices[0]?.message['annotations'], []);
    // Whoever names no model gets the first.
    assert.equal(served.server.newest(chatRoute)['model'], 'small');
  });

  it('that does not count has its usage estimated, and said to be', async () => {
    await using served = await serve(({ response }) => {
      const send = events(response);
      send({ choices: [{ index: 0, delta: { content: '12345678' }, finish_reason: 'stop' }] });
      response.end();
    });
    const chunks = await all(stream(served.provider));
    assert.deepEqual(chunks.at(-1)?.usage, {
      prompt_tokens: 2,
      completion_tokens: 2,
      total_tokens: 4,
      estimated: true,
    });
    assert.match(chunks[0]?.id ?? '', /^chatcmpl-/);
    assert.equal(chunks[0]?.model, 'small');
  });

  it('passes tools and their calls both ways', async () => {
    const tools = [{ type: 'function', function: { name: 'weather', parameters: { type: 'object' } } }];
    await using served = await serve(({ response }) => {
      const send = events(response);
      const call = (fields: object): object => delta({ tool_calls: [{ index: 0, ...fields }] });
      send(call({ id: 'c1', type: 'function', function: { name: 'weather', arguments: '' } }));
      send(call({ function: { arguments: '{"city":' } }));
      send(call({ function: { arguments: '"Bern"}' } }));
      send(delta({}, 'tool_calls'));
      send('[DONE]');
      response.end();
    });
    const chunks = await all(stream(served.provider, { tools, tool_choice: 'auto' }));
    const text = chunks
      .flatMap(({ choices }) => choices[0]?.delta.tool_calls ?? [])
      .map((call) => call.function?.arguments ?? '');
    assert.equal(text.join(''), '{"city":"Bern"}');
    assert.deepEqual(served.server.newest(chatRoute)['tools'], tools);
  });

  it('that streams to nobody who reads is not read either', async () => {
    const piece = 'x'.repeat(64 * 1024);
    let sent = 0;
    const blocked = Promise.withResolvers<void>();
    await using served = await serve(async ({ response, gone }) => {
      const send = events(response);
      // Far more than all buffers on the way hold.
      for (; sent < 4096 && !gone.aborted; sent++) {
        send(delta({ content: piece }));
        if (!response.writableNeedDrain) continue;
        const drained = Promise.withResolvers<boolean>();
        response.once('drain', () => drained.resolve(true));
        gone.addEventListener('abort', () => drained.resolve(false));
        const stuck = setTimeout(() => blocked.resolve(), 500);
        if (!(await drained.promise)) return;
        clearTimeout(stuck);
      }
      blocked.resolve();
    });
    const chunks = stream(served.provider);
    await chunks.next();
    await blocked.promise;
    assert.ok(sent < 1024, `${sent} pieces of 64 KiB were taken`);
    await chunks.return?.();
  });
});

describe('what goes wrong at a server with the API of OpenAI', () => {
  it('in the middle of a stream is an error with its words, without the key', async () => {
    await using served = await serve(({ response }) => {
      const send = events(response);
      send(delta({ content: 'Hel' }));
      send({ error: { message: `out of memory for ${secret}`, code: 500 } });
      response.end();
    });
    const chunks = stream(served.provider);
    assert.equal(textOf([(await chunks.next()).value!]), 'Hel');
    const { message } = await failure(all(chunks), 'provider_failed');
    assert.match(message, /out of memory for \*\*\*/);
  });

  it('at its end is no whole answer: broken off, or just over', async () => {
    let cut = false;
    await using served = await serve(async ({ response }) => {
      events(response)(delta({ content: 'Hel' }));
      await setImmediate();
      if (cut) response.socket?.destroy();
      else response.end();
    });
    assert.match(
      (await failure(all(stream(served.provider)), 'provider_failed')).message,
      /before it was complete/,
    );
    cut = true;
    assert.match((await failure(all(stream(served.provider)), 'provider_failed')).message, /broke off/);
  });

  it('in what it sends is bad_answer: pages, no JSON, other JSON, no text, no end', async () => {
    let body: string | Uint8Array = '';
    let type = 'text/event-stream';
    await using served = await serve(({ response }) => {
      response.writeHead(200, { 'content-type': type }).end(body);
    });
    for (const garbage of [
      'data: <html>\n\n',
      'data: {"choices": 5}\n\n',
      'data: {"choices": [{"index": 0, "delta": {"content": 7}}]}\n\n',
      'data: [1]\n\n',
      Uint8Array.of(0x64, 0xff, 0xfe),
      `data: ${'x'.repeat(5 * 1024 * 1024)}`,
    ]) {
      body = garbage;
      await failure(all(stream(served.provider)), 'bad_answer');
    }
    type = 'application/json';
    for (const garbage of ['', 'nonsense', '{"choices": {}}']) {
      body = garbage;
      await failure(complete(served.provider), 'bad_answer');
      await failure(all(stream(served.provider)), 'bad_answer');
    }
    type = 'text/html';
    body = '<h1>Welcome</h1>';
    await failure(all(stream(served.provider)), 'provider_failed');
  });

  it('is told by its status', async () => {
    let status = 0;
    await using served = await serve(({ response }) => {
      response.setHeader('retry-after', '7');
      answerJson(response, status, { error: { message: `because of ${secret}` } });
    });
    for (const [answered, code] of [
      [400, 'bad_payload'],
      [401, 'provider_failed'],
      [403, 'provider_failed'],
      [404, 'not_found'],
      [422, 'bad_payload'],
      [429, 'overloaded'],
      [500, 'provider_failed'],
      [503, 'overloaded'],
      [307, 'provider_failed'],
    ] as const) {
      status = answered;
      const error = await failure(all(stream(served.provider)), code);
      assert.ok(!error.message.includes(secret), error.message);
      assert.equal(error.retryAfterMs, code === 'overloaded' ? 7000 : null);
    }
  });

  it('with a chat that is too long is said as that', async () => {
    await using served = await serve(({ response }) =>
      answerJson(response, 400, {
        error: {
          message: "This model's maximum context length is 8192 tokens",
          code: 'context_length_exceeded',
        },
      }),
    );
    await failure(complete(served.provider), 'text_too_long');
  });

  it('does not keep whoever cancels: the server is told at once, also before the first token', async () => {
    const gone = Promise.withResolvers<void>();
    const asked = Promise.withResolvers<void>();
    await using served = await serve(async ({ gone: left }) => {
      left.addEventListener('abort', () => gone.resolve());
      asked.resolve();
    });
    const cancel = new AbortController();
    const ended = failure(all(stream(served.provider, {}, cancel.signal)), 'cancelled');
    await asked.promise;
    cancel.abort();
    await ended;
    await gone.promise;
  });

  it('does not go on for whoever leaves the stream', async () => {
    const gone = Promise.withResolvers<void>();
    await using served = await serve(async ({ response, gone: left }) => {
      events(response)(delta({ content: 'Hel' }));
      left.addEventListener('abort', () => gone.resolve());
    });
    const chunks = stream(served.provider);
    await chunks.next();
    await chunks.return?.();
    await gone.promise;
  });
});

describe('the models of a server', () => {
  const never: Answer = () => undefined;

  it('are what is offered, the configured one first', async () => {
    await using served = await serve(never, { model: 'large' });
    assert.deepEqual(served.provider.state, {
      problem: null,
      warm: true,
      features: ['tools', 'model:large', 'model:small'],
    });
  });

  it('are looked at every 30 s', async () => {
    await using served = await serve(never);
    const changed = Promise.withResolvers<void>();
    served.provider.onChange(() => changed.resolve());
    served.server.routes.set('GET /v1/models', models('new'));
    served.clock.step(29_999);
    assert.deepEqual(served.provider.state.features, ['tools', 'model:small', 'model:large']);
    served.clock.step(1);
    await changed.promise;
    assert.deepEqual(served.provider.state.features, ['tools', 'model:new']);
  });

  it('without the configured one are a reason not to serve', async () => {
    await using served = await serve(never, { model: 'huge' });
    assert.match(served.provider.state.problem ?? '', /no model huge; it has small, large/);
    assert.deepEqual(served.provider.state.features, []);
  });

  it('need no list, if one is configured', async () => {
    await using served = await serve(never, {
      model: 'only',
      list: ({ response }) => answerJson(response, 404, { detail: 'Not Found' }),
    });
    assert.deepEqual(served.provider.state.features, ['tools', 'model:only']);
  });

  it('are gone with the server, and come back by themselves', async () => {
    await using served = await serve(({ response }) => void response.destroy());
    const states: (string | null)[] = [];
    let changed = Promise.withResolvers<void>();
    served.provider.onChange(() => {
      states.push(served.provider.state.problem);
      changed.resolve();
      changed = Promise.withResolvers<void>();
    });
    await served.server.stop();
    // A request that fails is a reason to look, without waiting for the next time.
    const first = changed.promise;
    assert.match((await failure(complete(served.provider), 'provider_failed')).message, /ECONNREFUSED/);
    await first;
    assert.match(states[0] ?? '', /cannot be reached \(ECONNREFUSED\)/);
    assert.deepEqual(served.provider.state.features, []);
    await served.server.listen();
    const second = changed.promise;
    served.clock.step(5_000);
    await second;
    assert.deepEqual(states.slice(1), [null]);
    assert.deepEqual(served.provider.state.features, ['tools', 'model:small', 'model:large']);
  });
});
