import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Provider } from '@cocoon-mesh/capabilities';
import type { Json } from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { all, complete, failure, stream, textOf } from './chat-call.contract.ts';
import { chatProvider } from './chat.node.ts';
import { BackendChatProvider } from './chat-provider.ts';
import type { Answer, Exchange } from './model-server.contract.ts';
import { ScriptedModelServer, answerJson, lines } from './model-server.contract.ts';

const chatRoute = 'POST /api/chat';
const counts = { done: true, done_reason: 'stop', prompt_eval_count: 11, eval_count: 3 };

function said(content: string): object {
  return {
    model: 'llama3.2',
    created_at: '2026-01-01T00:00:00Z',
    message: { role: 'assistant', content },
    done: false,
  };
}

/** Two that chat, one that only embeds. */
const facts: Readonly<Record<string, object>> = {
  'llama3.2:latest': {
    capabilities: ['completion', 'tools'],
    model_info: { 'llama.context_length': 131072 },
  },
  'tiny:1b': { capabilities: ['completion'], model_info: { 'gemma3.context_length': 2048 } },
  'nomic-embed-text:latest': { capabilities: ['embedding'], model_info: { 'bert.context_length': 2048 } },
};

interface Served extends AsyncDisposable {
  readonly server: ScriptedModelServer;
  readonly provider: Provider;
  readonly clock: SteppedClock;
}

async function serve(answer: Answer, model: string | null = null): Promise<Served> {
  const server = await ScriptedModelServer.start({
    'GET /api/tags': ({ response }) =>
      answerJson(response, 200, {
        models: Object.keys(facts).map((name) => ({ name, digest: `sha-${name}` })),
      }),
    'GET /api/ps': ({ response }) => answerJson(response, 200, { models: [{ name: 'llama3.2:latest' }] }),
    'POST /api/show': ({ response, body }) => {
      const shown = facts[String(body['model'])];
      answerJson(response, shown ? 200 : 404, shown ?? { error: 'model not found' });
    },
    [chatRoute]: answer,
  });
  const clock = new SteppedClock();
  const provider = chatProvider({
    provider: 'ollama',
    ollamaHost: server.url,
    model,
    apiKey: 'not-for-ollama',
    clock,
  });
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

const ok: Answer = ({ response }) => {
  const write = lines(response);
  write(said('Hello'));
  write({ ...said(''), ...counts });
  response.end();
};

function options(server: ScriptedModelServer): Readonly<Record<string, unknown>> {
  return server.newest(chatRoute)['options'] as Record<string, unknown>;
}

describe('Ollama', () => {
  it('offers the models that chat, without their usual tag, and says which are in memory', async () => {
    await using served = await serve(ok);
    assert.deepEqual(served.provider.state, {
      problem: null,
      warm: true,
      features: ['tools', 'model:llama3.2', 'model:tiny:1b'],
    });
    await using chosen = await serve(ok, 'tiny:1b');
    assert.deepEqual(chosen.provider.state.features, ['tools', 'model:tiny:1b', 'model:llama3.2']);
  });

  it('asks about each model once, not every time it looks', async () => {
    await using served = await serve(ok);
    await (served.provider as BackendChatProvider).refresh();
    assert.equal(served.server.seen.filter(({ route }) => route === 'POST /api/show').length, 3);
  });

  it('streams: each line is a chunk before the next is sent, and the last has the usage', async () => {
    const gate = Promise.withResolvers<void>();
    await using served = await serve(async ({ response }) => {
      const write = lines(response);
      write(said('Hel'));
      await gate.promise;
      write(said('lo'));
      write({ ...said(''), ...counts });
      response.end();
    });
    const chunks = stream(served.provider);
    const first = (await chunks.next()).value!;
    assert.deepEqual(first.choices, [
      { index: 0, delta: { role: 'assistant', content: 'Hel' }, finish_reason: null },
    ]);
    gate.resolve();
    const rest = await all(chunks);
    assert.equal(textOf(rest), 'lo');
    assert.deepEqual(
      rest.map(({ choices, usage }) => [choices[0]?.finish_reason, usage]),
      [
        [null, undefined],
        ['stop', undefined],
        [undefined, { prompt_tokens: 11, completion_tokens: 3, total_tokens: 14 }],
      ],
    );
    assert.ok(served.server.seen.every(({ headers }) => headers.authorization === undefined));
  });

  it('answers in one piece', async () => {
    await using served = await serve(ok);
    const answer = await complete(served.provider, { model: 'tiny:1b' });
    assert.equal(answer.choices[0]?.message.content, 'Hello');
    assert.deepEqual(
      [answer.model, answer.choices[0]?.finish_reason, answer.usage.total_tokens],
      ['tiny:1b', 'stop', 14],
    );
  });

  it('gets what it names differently: limits, formats, pictures, thinking', async () => {
    await using served = await serve(ok);
    await complete(served.provider, {
      messages: [
        { role: 'developer', content: 'Be brief' },
        {
          role: 'user',
          content: [
            { type: 'text', text: 'What is it?' },
            { type: 'image_url', image_url: { url: 'data:image/png;base64,iVBORw0K' } },
          ],
        },
      ],
      max_completion_tokens: 50,
      temperature: 0,
      stop: 'END',
      seed: 4,
      reasoning_effort: 'none',
      response_format: { type: 'json_schema', json_schema: { name: 'a', schema: { type: 'object' } } },
    });
    const asked = served.server.newest(chatRoute);
    assert.deepEqual(asked['messages'], [
      { role: 'system', content: 'Be brief' },
      { role: 'user', content: 'What is it?', images: ['iVBORw0K'] },
    ]);
    assert.deepEqual([asked['format'], asked['think']], [{ type: 'object' }, false]);
    assert.deepEqual(options(served.server), {
      num_ctx: 8192,
      num_predict: 50,
      temperature: 0,
      stop: ['END'],
      seed: 4,
    });
  });

  it('calls tools, and is told what came of it', async () => {
    const tools = [{ type: 'function', function: { name: 'weather', parameters: { type: 'object' } } }];
    await using served = await serve(({ response }) => {
      const write = lines(response);
      write({ ...said(''), message: { thinking: 'Hm.' } });
      const call = { function: { name: 'weather', arguments: { city: 'Bern' } } };
      write({ ...said(''), message: { content: '', tool_calls: [call, { ...call, id: 'own' }] } });
      write({ ...said(''), ...counts });
      response.end();
    });
    const { choices } = await complete(served.provider, { tools });
    const [choice] = choices;
    assert.equal(choice?.finish_reason, 'tool_calls');
    assert.equal(choice.message['reasoning_content'], 'Hm.');
    const [first, second] = choice.message.tool_calls ?? [];
    assert.match(first?.id ?? '', /^call_/);
    assert.equal(second?.id, 'own');
    assert.deepEqual(first?.function, { name: 'weather', arguments: '{"city":"Bern"}' });
    assert.deepEqual(served.server.newest(chatRoute)['tools'], tools);

    await complete(served.provider, {
      tools,
      tool_choice: 'none',
      messages: [
        { role: 'user', content: 'Weather?' },
        choice.message as unknown as Json,
        { role: 'tool', tool_call_id: 'own', content: 'Sun' },
      ],
    });
    const asked = served.server.newest(chatRoute);
    assert.equal(asked['tools'], undefined);
    const [, called, result] = asked['messages'] as Record<string, unknown>[];
    assert.deepEqual((called?.['tool_calls'] as object[] | undefined)?.[1], {
      id: 'own',
      function: { name: 'weather', arguments: { city: 'Bern' } },
    });
    assert.deepEqual(result, { role: 'tool', content: 'Sun', tool_call_id: 'own', tool_name: 'weather' });
  });

  it('refuses what it would pass over in silence', async () => {
    await using served = await serve(ok);
    const tools = [{ type: 'function', function: { name: 'weather' } }];
    for (const [fields, field] of [
      [{ tools, tool_choice: 'required' }, 'tool_choice'],
      [{ n: 2 }, 'field n'],
      [{ response_format: { type: 'grammar' } }, 'response_format'],
      [
        {
          messages: [
            { role: 'user', content: [{ type: 'image_url', image_url: { url: 'http://a/b.png' } }] },
          ],
        },
        'messages.0.content.0',
      ],
      [
        {
          messages: [
            { role: 'assistant', tool_calls: [{ id: 'a', function: { name: 'b', arguments: '{' } }] },
          ],
        },
        'messages.0.tool_calls.0',
      ],
      [{ messages: [] }, 'messages'],
      [{ messages: [{ role: 'robot', content: '' }] }, 'messages.0.role'],
      [{ messages: [{ role: 'user', content: 5 }] }, 'messages.0.content'],
      [{ max_tokens: 0 }, 'max_tokens'],
    ] as [Record<string, Json>, string][]) {
      const { message } = await failure(complete(served.provider, fields), 'bad_payload');
      assert.ok(message.includes(field), message);
    }
    assert.equal(served.server.seen.filter(({ route }) => route === chatRoute).length, 0);
  });
});

describe('the context that Ollama is asked for', () => {
  const long = 'The quick brown fox jumps over the lazy dog. '.repeat(1500);

  it('grows with the chat and stays, since another one loads the model anew', async () => {
    await using served = await serve(ok);
    await complete(served.provider);
    assert.equal(options(served.server)['num_ctx'], 8192);
    await complete(served.provider, { messages: [{ role: 'user', content: long }] });
    const { num_ctx: grown, num_predict: predict } = options(served.server);
    assert.equal(grown, 65_536);
    // 1,500 × 10 tokens go in at least, so what may come out must leave room for them.
    assert.ok(Number(predict) + 15_000 < grown);
    await complete(served.provider);
    assert.equal(options(served.server)['num_ctx'], 65_536);
    assert.deepEqual(
      [served.server.newest(chatRoute)['truncate'], served.server.newest(chatRoute)['shift']],
      [false, false],
    );
  });

  it('is never beyond the model: what does not fit is refused, not forgotten', async () => {
    await using served = await serve(ok);
    await complete(served.provider, { model: 'tiny:1b' });
    assert.equal(options(served.server)['num_ctx'], 2048);
    const asked = complete(served.provider, {
      model: 'tiny:1b',
      messages: [{ role: 'user', content: long }],
    });
    assert.match((await failure(asked, 'text_too_long')).message, /2048 tokens/);
  });
});

describe('what goes wrong at Ollama', () => {
  it('in the middle of a stream is an error with its words', async () => {
    await using served = await serve(({ response }) => {
      const write = lines(response);
      write(said('Hel'));
      write({ error: 'llama runner process has terminated' });
      response.end();
    });
    const chunks = stream(served.provider);
    assert.equal(textOf([(await chunks.next()).value!]), 'Hel');
    assert.match(
      (await failure(all(chunks), 'provider_failed')).message,
      /llama runner process has terminated/,
    );
  });

  it('is an error too when it stops without an end, or sends something else', async () => {
    let answer = (exchange: Exchange): void => {
      lines(exchange.response)(said('Hel'));
      exchange.response.end();
    };
    await using served = await serve((exchange) => answer(exchange));
    await failure(complete(served.provider), 'provider_failed');
    for (const garbage of ['<html>\n', '{"done": "no"}\n', '[]\n', 'x'.repeat(5 * 1024 * 1024)]) {
      answer = ({ response }) => void response.end(garbage);
      await failure(all(stream(served.provider)), 'bad_answer');
    }
    answer = ({ response }) => answerJson(response, 404, { error: "model 'x' not found" });
    await failure(complete(served.provider, { model: 'x' }), 'not_found');
    answer = ({ response }) => answerJson(response, 400, { error: 'tiny:1b does not support tools' });
    assert.match((await failure(complete(served.provider), 'bad_payload')).message, /does not support tools/);
  });

  it('ends a generation that nobody wants any more', async () => {
    const gone = Promise.withResolvers<void>();
    await using served = await serve(({ response, gone: left }) => {
      lines(response)(said('Hel'));
      left.addEventListener('abort', () => gone.resolve());
    });
    const cancel = new AbortController();
    const chunks = stream(served.provider, {}, cancel.signal);
    await chunks.next();
    cancel.abort();
    await failure(all(chunks), 'cancelled');
    await gone.promise;
  });

  it('is said as long as it lasts', async () => {
    const clock = new SteppedClock();
    const provider = chatProvider({
      provider: 'ollama',
      ollamaHost: '127.0.0.1:1',
      model: null,
      apiKey: null,
      clock,
    });
    assert.ok(provider instanceof BackendChatProvider);
    assert.match(provider.state.problem ?? '', /has not answered yet/);
    await provider.refresh();
    assert.match(provider.state.problem ?? '', /Ollama at http:\/\/127\.0\.0\.1:1 cannot be reached/);
    await failure(complete(provider), 'model_unavailable');
    await provider.close();
    assert.equal(clock.pendingTimers, 0);
  });
});
