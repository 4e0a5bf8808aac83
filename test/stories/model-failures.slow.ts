/*
 * What goes wrong with models, as clients at the gateway of an installed laptop meet it: servers that hang, break off,
 * refuse, are away or talk nonsense, requests that are none, and a key that must go nowhere.
 */

import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import { Ollama } from 'ollama';
import OpenAI from 'openai';
import type { Answer } from '../../src/ai/model-server.contract.ts';
import { ScriptedModelServer, answerJson, delta, events } from '../../src/ai/model-server.contract.ts';
import { CocoonProcess, failure } from './cocoon-process.ts';
import { box, fetchWithin, laptopAlone, lists, offers, running, until } from './model-mesh.ts';
import { ChatGate, ollamaServer, openAiChat, openAiServer } from './model-servers.ts';

const key = 'sk-key-of-the-boxes-0123456789';
const chatRoute = 'POST /v1/chat/completions';
const answers = openAiChat(new ChatGate());

let folder: string;
let token: string;
let laptop: CocoonProcess;
let one: CocoonProcess;
let two: CocoonProcess;
let late: CocoonProcess;
/** Beside the boxes; the third has no key to learn, and the fourth is not there at first. */
let first: ScriptedModelServer;
let second: ScriptedModelServer;
let stranger: ScriptedModelServer;
let away: ScriptedModelServer;
const started: CocoonProcess[] = [];
/** What chats get, one after the other, whichever box is asked; behind them all is well. */
let script: Answer[] = [];
/** Boxes whose servers were asked since the test began. */
let asked: string[] = [];

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cocoon-plugin-'));
  await writePlugin(folder);
  [first, second, stranger, away] = await Promise.all([
    openAiServer(['m'], new ChatGate()),
    openAiServer(['m'], new ChatGate()),
    openAiServer(['m'], new ChatGate()),
    ollamaServer(['late'], new ChatGate()),
  ]);
  for (const [name, server] of [
    ['one', first],
    ['two', second],
  ] as const)
    server.routes.set(chatRoute, async (exchange) => {
      asked.push(name);
      await (script.shift() ?? answers)(exchange);
    });
  await away.stop();
  const alone = await laptopAlone({ COCOON_LLM_FIRST_TOKEN: '2s' });
  laptop = alone.laptop;
  started.push(laptop, alone.signaling);
  const shared = { COCOON_LLM_API_KEY: key, COCOON_LOG_LEVEL: 'debug', COCOON_PLUGINS: folder };
  [one, two, late] = await Promise.all([
    box(
      laptop,
      'one',
      {
        ...shared,
        COCOON_LLM_PROVIDER: `${first.url}/v1`,
        COCOON_EMBEDDING_MODEL: `${stranger.url}/v1#vectors`,
      },
      ['llm.chat', 'embeddings', 'test.environment'],
    ),
    box(laptop, 'two', { ...shared, COCOON_LLM_PROVIDER: `${second.url}/v1` }, ['llm.chat']),
    box(laptop, 'late', { COCOON_LLM_PROVIDER: 'ollama', OLLAMA_HOST: away.url, COCOON_LLM_MODEL: 'late' }, [
      'tasks',
    ]),
  ]);
  started.unshift(one, two, late);
  token = await laptop.gatewayToken();
  for (const model of ['m@one', 'm@two', 'vectors@one']) await lists(laptop, model);
});

beforeEach(() => {
  script = [];
  asked = [];
});

after(async () => {
  for (const cocoon of started) await cocoon[Symbol.asyncDispose]();
  for (const server of [first, second, stranger, away]) await server?.stop();
  await rm(folder, { recursive: true, force: true });
});

/** A plugin that tells the environment it was started with. */
async function writePlugin(path: string): Promise<void> {
  await mkdir(path, { recursive: true });
  const manifest = {
    name: 'tells-environment',
    version: '1.0.0',
    type: 'module',
    main: 'index.js',
    cocoon: { capabilities: [{ protocol: 'test.environment', version: '1.0.0' }] },
  };
  await writeFile(join(path, 'package.json'), JSON.stringify(manifest));
  await writeFile(
    join(path, 'index.js'),
    `import { definePlugin } from 'cocoon/plugin';
export default definePlugin({
  capabilities: { 'test.environment': { handle: () => ({ ...process.env }) } },
});
`,
  );
}

const messages = [{ role: 'user' as const, content: 'Hi' }];

function client(maxRetries = 0): OpenAI {
  return new OpenAI({ baseURL: `${laptop.gateway}/v1`, apiKey: token, maxRetries, fetch: fetchWithin });
}

async function post(path: string, body: string, bearer = token): Promise<Response> {
  return fetchWithin(laptop.gateway + path, {
    method: 'POST',
    body,
    headers: { 'content-type': 'application/json', authorization: `Bearer ${bearer}` },
  });
}

interface Told {
  readonly error: { message: string; type: string; param: string | null; code: string };
}

/** Takes the request and says nothing. @returns resolves when whoever asked has gone */
function hangs(before: (response: Parameters<Answer>[0]['response']) => void = () => undefined) {
  const left = Promise.withResolvers<void>();
  const answer: Answer = ({ response, gone }) => {
    gone.addEventListener('abort', () => left.resolve());
    before(response);
  };
  return { answer, left: left.promise };
}

describe('before the first word of an answer', () => {
  const unheard: Readonly<Record<string, ReturnType<typeof hangs>>> = {
    'nothing at all': hangs(),
    'its role and signs of life': hangs((response) => {
      const send = events(response);
      send(delta({ role: 'assistant', content: '' }));
      response.write(': keep-alive\n\n');
      send(delta({}));
    }),
  };
  for (const [said, { answer, left }] of Object.entries(unheard))
    test(`a server that says ${said} loses the chat to the next device, and is told`, async () => {
      script = [answer];
      const begun = performance.now();
      const { data, response } = await client()
        .chat.completions.create({ model: 'm', messages })
        .withResponse();
      assert.equal(data.choices[0]?.message.content, 'Hello, world');
      assert.deepEqual([asked.length, new Set(asked).size], [2, 2]);
      assert.equal(response.headers.get('cocoon-device'), asked[1]);
      assert.equal(response.headers.get('cocoon-attempts'), '2');
      const took = performance.now() - begun;
      assert.ok(took >= 1_900 && took < 15_000, `${took} ms, with a limit of 2 s`);
      await left;
      await running(one, 0);
      await running(two, 0);
    });

  const broken: Readonly<Record<string, Answer>> = {
    'breaks off': ({ response }) => void response.destroy(),
    fails: ({ response }) => answerJson(response, 500, { error: { message: 'out of memory' } }),
    'is busy': ({ response }) => answerJson(response, 429, { error: { message: 'busy' } }),
    'talks nonsense': ({ response }) =>
      void response.writeHead(200, { 'content-type': 'text/html' }).end('<html>'),
    'ends at once': ({ response }) => {
      events(response)(delta({ role: 'assistant' }));
      response.end();
    },
  };
  for (const [does, answer] of Object.entries(broken))
    test(`a server that ${does} loses the chat to the next device`, async () => {
      script = [answer];
      const stream = await client().chat.completions.create({ model: 'm', messages, stream: true });
      let text = '';
      for await (const { choices } of stream) text += choices[0]?.delta.content ?? '';
      assert.equal(text, 'Hello, world');
      assert.equal(new Set(asked).size, 2);
    });

  test('all that hang are an error in the shape of the API', async () => {
    const scripted = [hangs(), hangs(), hangs()];
    script = scripted.map(({ answer }) => answer);
    await assert.rejects(client().chat.completions.create({ model: 'm', messages }), {
      status: 504,
      code: 'timeout',
      type: 'server_error',
    });
    assert.equal(asked.length, 2);
  });

  test('a server that refuses connections loses the chat to the next device', async () => {
    // While the other has something to do, this one is asked first.
    const busy = hangs((response) => events(response)(delta({ content: 'Hel' })));
    script = [busy.answer];
    const kept = await client().chat.completions.create({ model: 'm@two', messages, stream: true });
    await first.stop();
    try {
      const { response } = await client().chat.completions.create({ model: 'm', messages }).withResponse();
      assert.equal(response.headers.get('cocoon-device'), 'two');
      assert.equal(response.headers.get('cocoon-attempts'), '2');
      kept.controller.abort();
      await busy.left;
      await offers(laptop, 'one', 'llm.chat', true);
      await assert.rejects(client().chat.completions.create({ model: 'm@one', messages }), { status: 404 });
    } finally {
      // It is looked at again while the next tests do without it.
      await first.listen();
    }
  });
});

describe('after the first word', () => {
  const breaks: Readonly<Record<string, [Answer, RegExp]>> = {
    'an error of the server': [
      ({ response }) => {
        const send = events(response);
        send(delta({ content: 'Hel' }));
        send({ error: { message: 'The GPU fell off', type: 'server_error' } });
        response.end();
      },
      /broke off its answer.*The GPU fell off/,
    ],
    'a lost connection': [
      ({ response }) => {
        events(response)(delta({ content: 'Hel' }));
        response.write('data: {"cho', () => response.destroy());
      },
      /broke off its answer/,
    ],
    nonsense: [
      ({ response }) => {
        const send = events(response);
        send(delta({ content: 'Hel' }));
        send('nonsense');
        response.end();
      },
      /not JSON/,
    ],
  };
  for (const [what, [answer, said]] of Object.entries(breaks))
    test(`${what} is an error for the client, and nobody else is asked`, async () => {
      script = [answer];
      const stream = await client().chat.completions.create({ model: 'm', messages, stream: true });
      let text = '';
      await assert.rejects(async () => {
        for await (const { choices } of stream) text += choices[0]?.delta.content ?? '';
      }, said);
      assert.deepEqual([text, asked.length], ['Hel', 1]);
    });

  test('an error is in the shape of the API, and no end of the answer', async () => {
    const [answer, said] = breaks['an error of the server'] ?? assert.fail();
    script = [answer, answer];
    const ollama = new Ollama({
      host: laptop.gateway,
      headers: { authorization: `Bearer ${token}` },
      fetch: fetchWithin,
    });
    await assert.rejects(async () => {
      for await (const _part of await ollama.chat({ model: 'm', messages, stream: true }));
    }, said);
    const raw = await (
      await post('/v1/chat/completions', JSON.stringify({ model: 'm', messages, stream: true }))
    ).text();
    assert.ok(!raw.includes('[DONE]'));
    const { error } = JSON.parse(raw.trim().split('data: ').at(-1) ?? '') as Told;
    assert.deepEqual([error.type, error.param], ['server_error', null]);
    assert.match(error.message, said);
  });
});

describe('a device whose model is not there', () => {
  interface Status {
    readonly capabilities: readonly { readonly protocol: string }[];
    readonly unavailable: readonly { readonly protocol: string; readonly problem: string }[];
  }
  const problem = async (): Promise<string> =>
    (await late.json<Status>('status')).unavailable.find(({ protocol }) => protocol === 'llm.chat')
      ?.problem ?? '';

  test('offers no chat, and one without a provider has none to offer', async () => {
    await offers(laptop, 'late', 'llm.chat', true);
    await offers(laptop, 'laptop', 'llm.chat', true);
    assert.deepEqual((await laptop.json<Status>('status')).unavailable, []);
  });

  test('says why, and offers it by itself when it is there', async () => {
    const reason = `Ollama at ${away.url} cannot be reached (ECONNREFUSED)`;
    await until(async () => (await problem()) === reason, 'status does not say why');
    const doctor = await late.command(['doctor', '--json']);
    const { findings } = JSON.parse(doctor.stdout) as { findings: { check: string; detail: string }[] };
    assert.equal(findings.find(({ check }) => check === 'capability llm.chat')?.detail, reason);
    assert.match((await late.command(['logs'])).stdout, /not served.*ECONNREFUSED/);
    assert.deepEqual(
      await failure(late.home, ['request', 'llm.chat', JSON.stringify({ messages }), '--device', 'late']),
      { code: 'model_unavailable', exit: 1 },
    );
    // The server comes up; the model is fetched later.
    const tags = away.routes.get('GET /api/tags');
    assert.ok(tags);
    away.routes.set('GET /api/tags', ({ response }) =>
      answerJson(response, 200, { models: [{ name: 'other', digest: 'x' }] }),
    );
    await away.listen();
    await until(async () => /has no model late; it has other/.test(await problem()), 'the model is there');
    await offers(laptop, 'late', 'llm.chat', true);
    away.routes.set('GET /api/tags', tags);
    await offers(laptop, 'late', 'llm.chat');
    assert.equal(await problem(), '');
  });
});

describe('an error at the gateway', () => {
  test('has the status and the shape that clients know', async () => {
    const chat = '/v1/chat/completions';
    const large = JSON.stringify({ messages: [{ role: 'user', content: 'x'.repeat(5_000_000) }] });
    const none = JSON.stringify({ model: 'gpt-9', messages });
    for (const [path, body, bearer, status, code, type, said] of [
      [chat, '{}', 'wrong', 401, 'invalid_api_key', 'authentication_error', /token/],
      [chat, none, token, 404, 'model_not_found', 'invalid_request_error', /gpt-9.*Offered now: .*\bm\b/],
      [chat, '{', token, 400, 'bad_message', 'invalid_request_error', /JSON/],
      [chat, '{"messages":[]}', token, 400, 'bad_payload', 'invalid_request_error', /messages/],
      [
        chat,
        '{"messages":[{"role":"user","content":[{"text":"x"}]}]}',
        token,
        400,
        'bad_payload',
        'invalid_request_error',
        /messages\.0\.content/,
      ],
      [
        chat,
        JSON.stringify({ messages, tools: [{ type: 'function' }] }),
        token,
        400,
        'bad_payload',
        'invalid_request_error',
        /tools\.0\.function/,
      ],
      [chat, large, token, 413, 'message_too_large', 'invalid_request_error', /bytes/],
      ['/v1/completions', '{}', token, 404, 'not_found', 'invalid_request_error', /\/v1\/chat\/completions/],
    ] as const) {
      const response = await post(path, body, bearer);
      const { error } = (await response.json()) as Told;
      assert.deepEqual([response.status, error.code, error.type], [status, code, type], error.message);
      assert.equal(error.param, code === 'model_not_found' ? 'model' : null);
      assert.match(error.message, said);
    }
    assert.equal(asked.length, 0);
    const refused = await post('/api/chat', '{}', 'wrong');
    assert.match(((await refused.json()) as { error: string }).error, /token/);
  });

  test('is of the kinds that clients have for them', async () => {
    await assert.rejects(
      client().chat.completions.create({ model: 'gpt-9', messages }),
      OpenAI.NotFoundError,
    );
    await assert.rejects(
      client().chat.completions.create({ model: 'm', messages: [] }),
      OpenAI.BadRequestError,
    );
    const stranger = new OpenAI({ baseURL: `${laptop.gateway}/v1`, apiKey: 'wrong', maxRetries: 0 });
    await assert.rejects(stranger.models.list(), OpenAI.AuthenticationError);
  });

  test('says when to come back, and clients do', async () => {
    const busy: Answer = ({ response }) => {
      response.setHeader('retry-after', '1');
      answerJson(response, 429, { error: { message: 'busy' } });
    };
    await offers(laptop, 'one', 'llm.chat');
    script = [busy, busy];
    const response = await post('/v1/chat/completions', JSON.stringify({ model: 'm', messages }));
    assert.deepEqual([response.status, response.headers.get('retry-after')], [503, '1']);
    assert.equal(((await response.json()) as Told).error.code, 'overloaded');
    script = [busy, busy];
    const begun = performance.now();
    const { choices } = await client(1).chat.completions.create({ model: 'm', messages });
    assert.equal(choices[0]?.message.content, 'Hello, world');
    assert.ok(performance.now() - begun > 900, 'it did not wait');
  });
});

describe('the key of a server of models', () => {
  test('goes there and nowhere else', async () => {
    await client().chat.completions.create({ model: 'm', messages });
    const { data } = await client().embeddings.create({ model: 'vectors', input: 'x' });
    assert.equal(data.length, 1);
    for (const server of [first, second])
      assert.ok(server.seen.every(({ headers }) => headers.authorization === `Bearer ${key}`));
    assert.ok(stranger.seen.length > 0);
    // Where a server points, nobody goes.
    const redirect: Answer = ({ response }) =>
      void response.writeHead(307, { location: `${stranger.url}/v1/chat/completions` }).end();
    script = [redirect, redirect];
    await assert.rejects(client().chat.completions.create({ model: 'm', messages }), { status: 502 });
    assert.ok(stranger.seen.every(({ headers, route }) => !headers.authorization && route !== chatRoute));
  });

  test('is in no error, no log, no description and no environment of a plugin or a task', async () => {
    const repeats: Answer = ({ response }) =>
      answerJson(response, 400, { error: { message: `Incorrect API key provided: ${key}` } });
    script = [repeats];
    const refused = await post('/v1/chat/completions', JSON.stringify({ model: 'm', messages }));
    const said = await refused.text();
    assert.match(said, /Incorrect API key provided/);
    const headers = { authorization: `Bearer ${token}` };
    const described = await (await fetch(`${laptop.gateway}/cocoons`, { headers })).text();
    const environment = await laptop.json<{ result: Record<string, string> }>('request', 'test.environment');
    assert.ok(environment.result['PATH'], 'the plugin tells no environment');
    const { id } = await one.json<{ id: string }>(
      'tasks',
      'add',
      '--title',
      'environment',
      '--command',
      'env',
      '--run',
    );
    const ofTask = await one.command(['tasks', 'logs', id, '--follow']);
    assert.match(ofTask.stdout, /COCOON_TASK_ID=/);
    const everything = [
      ofTask.stdout,
      said,
      described,
      JSON.stringify(environment),
      JSON.stringify([one.events, two.events, laptop.events]),
    ];
    everything.push((await one.command(['logs', '--json'])).stdout);
    everything.push((await one.command(['doctor', '--json'])).stdout);
    everything.push((await laptop.command(['logs', '--json'])).stdout);
    for (const text of everything) assert.ok(!text.includes(key), text.slice(0, 200));
  });
});
