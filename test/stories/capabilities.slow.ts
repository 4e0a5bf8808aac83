/*
 * Capabilities over the mesh, as users and programs meet them: installed cocoons, a laptop that has no model, a box
 * that has a sentence encoder, a model server beside it and a plugin, and the official client of OpenAI's API.
 */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { after, before, describe, test } from 'node:test';
import OpenAI from 'openai';
import { ScriptedModelServer, answerJson, delta, events, usage } from '../../src/ai/model-server.contract.ts';
import { writeTextModel } from '../../src/ai/text-models.contract.ts';
import { CocoonProcess, enroll, failure, sees } from './cocoon-process.ts';
import { bytesThroughSignaling } from './signaling-metrics.ts';

const root = resolve(import.meta.dirname, '../..');

interface Answered {
  readonly device: string;
  readonly attempts: number;
  readonly result: Readonly<Record<string, unknown>>;
}

let folder: string;
let signaling: CocoonProcess;
let laptop: CocoonProcess;
let box: CocoonProcess;
let models: ScriptedModelServer;
/** Of the streams that the model server has begun: whether the device that asked has gone. */
const gones: AbortSignal[] = [];

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cocoon-models-'));
  writeTextModel(folder);
  models = await ScriptedModelServer.start({
    'GET /v1/models': ({ response }) =>
      answerJson(response, 200, { object: 'list', data: [{ id: 'small', object: 'model' }] }),
    'POST /v1/chat/completions': ({ body, response, gone }) => {
      gones.push(gone);
      const send = events(response);
      send(delta({ role: 'assistant', content: 'Hello' }));
      if (JSON.stringify(body).includes('for ever')) return;
      send(delta({ content: ' mesh' }, 'stop'));
      send({ ...delta({}), choices: [], usage });
      send('[DONE]');
      response.end();
    },
  });
  signaling = await CocoonProcess.start({ command: 'signaling', args: ['--port', '0'] });
  laptop = await CocoonProcess.start({
    command: 'run',
    args: ['--name', 'laptop', '--gateway-port', '0', '--signaling', signaling.signaling],
  });
  box = await enroll(laptop, {
    name: 'box',
    engine: 'werift',
    args: ['--plugin', join(root, 'examples/shout')],
    env: {
      COCOON_EMBEDDING_MODEL: folder,
      COCOON_LLM_PROVIDER: `${models.url}/v1`,
      COCOON_LLM_API_KEY: 'key-of-the-box',
    },
  });
  await sees(laptop, 'box');
  for (const protocol of ['embeddings', 'llm.chat', 'text.shout']) await offers(laptop, 'box', protocol);
});

after(async () => {
  await Promise.all([laptop, box].map((cocoon) => cocoon?.[Symbol.asyncDispose]()));
  await signaling?.[Symbol.asyncDispose]();
  await models?.stop();
  await rm(folder, { recursive: true, force: true });
});

interface Row {
  readonly name: string;
  readonly capabilities: readonly { readonly protocol: string }[];
}

/** Resolves when the capability is listed there, or (`not`) is not. */
async function offers(cocoon: CocoonProcess, name: string, protocol: string, not = false): Promise<void> {
  for (const end = Date.now() + 20_000; Date.now() < end;) {
    const row = (await cocoon.json<Row[]>('devices')).find((device) => device.name === name);
    if ((row?.capabilities.some((own) => own.protocol === protocol) ?? false) !== not) return;
  }
  throw new Error(`${name} ${not ? 'still offers' : 'does not offer'} ${protocol}`);
}

describe('a capability', () => {
  test('is served by the device that can, with the very bytes that it computes for itself', async () => {
    const payload = JSON.stringify({ input: ['the quick brown fox', 'a lazy dog'] });
    const far = await laptop.json<Answered>('request', 'embeddings@^1.0.0', payload);
    const near = await box.json<Answered>('request', 'embeddings@^1.0.0', payload);
    assert.deepEqual([far.device, near.device], ['box', 'box']);
    assert.ok(JSON.stringify(far.result['data']).length > 500);
    assert.deepEqual(far.result, near.result);
  });

  test('of another major version is asked of nobody, and says what is offered', async () => {
    assert.deepEqual(await failure(laptop.home, ['request', 'embeddings@^2.0.0', '{"input":"x"}']), {
      code: 'capability_not_found',
      exit: 3,
    });
  });

  test('is refused a payload that is none, by the name of its field', async () => {
    const { code, stderr } = await laptop.command([
      'request',
      'embeddings',
      '{"input":[1,"x",null]}',
      '--json',
    ]);
    assert.equal(code, 2);
    assert.match(stderr, /bad_payload/);
  });

  test('is known to signaling by its name, version and one number, and is asked without it', async () => {
    const seen = await laptop.json('devices');
    assert.ok(JSON.stringify(seen).includes('embeddings'));
    const before = await bytesThroughSignaling(signaling);
    for (let i = 0; i < 5; i++)
      await laptop.json('request', 'embeddings', JSON.stringify({ input: Array(100).fill('a word or two') }));
    const moved = (await bytesThroughSignaling(signaling)) - before;
    assert.ok(moved < 20_000, `${moved} bytes`);
  });
});

describe('the API of OpenAI at the gateway of a device without any model', () => {
  async function client(): Promise<OpenAI> {
    return new OpenAI({
      baseURL: `${laptop.gateway}/v1`,
      apiKey: await laptop.gatewayToken(),
      maxRetries: 0,
    });
  }

  test('lists the models of all devices, chats with them, and embeds', async () => {
    const openai = await client();
    const ids = (await openai.models.list()).data.map(({ id }) => id);
    assert.ok(ids.includes('small') && ids.includes('small@box'), ids.join());
    const messages = [{ role: 'user' as const, content: 'hi' }];
    const whole = await openai.chat.completions.create({ model: 'small', messages });
    assert.equal(whole.choices[0]?.message.content, 'Hello mesh');
    assert.equal(whole.usage?.total_tokens, usage.total_tokens);
    const pieces: string[] = [];
    for await (const chunk of await openai.chat.completions.create({
      model: 'small@box',
      messages,
      stream: true,
    }))
      pieces.push(chunk.choices[0]?.delta.content ?? '');
    assert.equal(pieces.join(''), 'Hello mesh');
    const model = ids.find((id) => !id.includes('@') && id !== 'small') ?? '';
    const embedded = await openai.embeddings.create({ model, input: ['one', 'two'] });
    assert.equal(embedded.data.length, 2);
    assert.ok(models.seen.every(({ headers }) => headers.authorization === 'Bearer key-of-the-box'));
  });

  test('takes an abort to the model, and leaves nothing in flight', async () => {
    const openai = await client();
    const asker = new AbortController();
    const stream = await openai.chat.completions.create(
      { model: 'small', messages: [{ role: 'user', content: 'for ever' }], stream: true },
      { signal: asker.signal },
    );
    for await (const chunk of stream) if (chunk.choices[0]?.delta.content === 'Hello') asker.abort();
    const gone = gones.at(-1);
    assert.ok(gone);
    if (!gone.aborted) await once(gone, 'abort', { signal: AbortSignal.timeout(20_000) });
  });

  test('says in its own shape what it has not', async () => {
    const openai = await client();
    await assert.rejects(
      openai.chat.completions.create({ model: 'nothing', messages: [{ role: 'user', content: 'x' }] }),
      { status: 404, code: 'model_not_found' },
    );
  });
});

describe('a plugin', () => {
  test('serves other devices, and answers their queries', async () => {
    const { device, result } = await laptop.json<Answered>('request', 'text.shout', '{"text":"hello"}');
    assert.equal(device, 'box');
    assert.match(JSON.stringify(result), /HELLO/);
    assert.deepEqual(await failure(laptop.home, ['request', 'text.shout', '{"text":5}']), {
      code: 'bad_payload',
      exit: 2,
    });
  });

  test('that is killed takes nothing else down, and is there again by itself', async () => {
    const { plugins } = await box.json<{ plugins: { name: string; pid: number; restarts: number }[] }>(
      'plugins',
      'list',
    );
    const pid = plugins.find(({ name }) => name === 'shout')?.pid ?? 0;
    process.kill(pid, 'SIGKILL');
    assert.equal((await box.json<{ name: string }>('status')).name, 'box');
    await offers(box, 'box', 'text.shout');
    for (const end = Date.now() + 20_000; Date.now() < end;) {
      const done = await laptop.command(['request', 'text.shout', '{"text":"again"}']);
      if (done.code === 0) return;
    }
    assert.fail('it did not come back');
  });
});
