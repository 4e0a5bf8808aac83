import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { delta, usage } from '@cocoon-mesh/ai/model-server.contract.ts';
import type { ChatChunk } from '@cocoon-mesh/ai/chat-payload.ts';
import type { Content, ProviderCall } from '@cocoon-mesh/capabilities';
import {
  content,
  scriptedProvider,
  untilAborted,
} from '@cocoon-mesh/capabilities/scripted-provider.contract.ts';
import type { ErrorCode, Json } from '@cocoon-mesh/protocol';
import { MeshError } from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import type { StartedChat } from './chat-run.ts';
import { startChat } from './chat-run.ts';
import { ModelMesh } from './model-mesh.contract.ts';
import { chooseModel, offersOf } from './openai-models.ts';

type Script = (call: ProviderCall) => AsyncIterable<Content> | Promise<Content>;

const piece = (fields: object, reason: string | null = null): Content =>
  content(delta(fields, reason) as unknown as Json);

async function* works(): AsyncGenerator<Content> {
  yield piece({ role: 'assistant' });
  yield piece({ content: 'Hello' });
  yield piece({}, 'stop');
}

/** Begins as a server does that loads a model, and says nothing then. */
async function* silent({ signal }: ProviderCall): AsyncGenerator<Content> {
  yield piece({ role: 'assistant', content: '' });
  yield piece({});
  reached.resolve();
  await untilAborted(signal);
}

async function mute({ signal }: ProviderCall): Promise<Content> {
  reached.resolve();
  return untilAborted(signal);
}

/** @param before what it says first */
function fails(code: ErrorCode, ...before: object[]): Script {
  return async function* () {
    for (const fields of before) yield piece(fields);
    throw new MeshError(code, `${code} on purpose`);
  };
}

let reached = Promise.withResolvers<void>();

function meshOf(...scripts: Script[]): ModelMesh {
  const mesh = new ModelMesh(new SteppedClock());
  for (const [i, handle] of scripts.entries())
    mesh.add(
      ['one', 'two', 'three', 'four'][i] ?? '',
      scriptedProvider({ protocol: 'llm.chat', state: { features: ['model:m'] }, handle }),
    );
  reached = Promise.withResolvers();
  return mesh;
}

function ask(
  mesh: ModelMesh,
  { model = 'm', signal = new AbortController().signal } = {},
): Promise<StartedChat> {
  const offers = offersOf(mesh.modelDevices);
  const clock = mesh.clock;
  return startChat({
    requestCapability: mesh.request,
    clock,
    offers: async () => offers,
    choice: chooseModel(model, offers),
    request: { messages: [{ role: 'user', content: 'Hi' }] },
    session: 'session-1',
    firstTokenMs: 1000,
    signal,
  });
}

async function textOf({ chunks }: StartedChat): Promise<string> {
  let text = '';
  for await (const { choices } of chunks) text += choices[0]?.delta.content ?? '';
  return text;
}

async function turns(): Promise<void> {
  for (let i = 0; i < 5; i++) await new Promise(setImmediate);
}

/** As long as it likes without a word. */
async function* idles(): AsyncGenerator<Content> {
  for (let i = 0; i < 1_000; i++) yield piece({ role: 'assistant' });
  yield piece({ content: 'Hello' });
}

describe('a chat that has not begun', () => {
  it('holds no more than a few pieces that say nothing', async () => {
    const { chunks } = await ask(meshOf(idles));
    const all: ChatChunk[] = [];
    for await (const chunk of chunks) all.push(chunk);
    assert.ok(all.length < 20, String(all.length));
    assert.equal(all.at(-1)?.choices[0]?.delta.content, 'Hello');
  });

  it('goes to another device after the time for the first token, whatever role was named', async () => {
    for (const script of [silent, mute]) {
      const mesh = meshOf(script, works);
      const clock = mesh.clock as SteppedClock;
      const asked = ask(mesh);
      await reached.promise;
      await turns();
      clock.step(999);
      await turns();
      assert.deepEqual(mesh.asked, ['one']);
      clock.step(1);
      const started = await asked;
      assert.deepEqual([started.device, started.attempts], ['two', 2]);
      assert.equal(await textOf(started), 'Hello');
      assert.equal(mesh.inFlight.get('one'), 0);
      assert.equal(clock.pendingTimers, 0);
      assert.equal(mesh.requests.at(-1)?.session, 'session-1');
    }
  });

  it('goes to another device when it breaks behind the role', async () => {
    const mesh = meshOf(fails('provider_failed', { role: 'assistant' }), works);
    assert.equal(await textOf(await ask(mesh)), 'Hello');
    assert.deepEqual(mesh.asked, ['one', 'two']);
  });

  it('is given up after three devices, with the error of the last', async () => {
    const breaks = fails('bad_answer', { role: 'assistant' });
    const mesh = meshOf(breaks, breaks, fails('provider_failed', { role: 'assistant' }), works);
    await assert.rejects(ask(mesh), { code: 'provider_failed' });
    assert.deepEqual(mesh.asked, ['one', 'two', 'three']);
  });

  it('stays with the device that was named', async () => {
    const mesh = meshOf(silent, works);
    const clock = mesh.clock as SteppedClock;
    const asked = ask(mesh, { model: 'm@one' });
    await reached.promise;
    await turns();
    clock.step(1000);
    await assert.rejects(asked, {
      code: 'timeout',
      message: 'Nothing of an answer came from one within 1000 ms',
    });
    assert.deepEqual(mesh.asked, ['one']);
  });

  it('is not asked of others when they would say the same', async () => {
    const mesh = meshOf(fails('bad_payload', { role: 'assistant' }), works);
    await assert.rejects(ask(mesh), { code: 'bad_payload' });
    assert.deepEqual(mesh.asked, ['one']);
  });

  it('is not tried on by the gateway where the request for it has tried already', async () => {
    const mesh = meshOf(fails('overloaded'), works);
    await assert.rejects(ask(mesh), { code: 'overloaded' });
    assert.deepEqual(mesh.asked, ['one']);
  });

  it('ends with its client', async () => {
    const mesh = meshOf(silent, works);
    const cancel = new AbortController();
    const asked = ask(mesh, { signal: cancel.signal });
    await reached.promise;
    cancel.abort();
    await assert.rejects(asked, { code: 'cancelled' });
    await turns();
    assert.deepEqual([mesh.asked, mesh.inFlight.get('one')], [['one'], 0]);
  });
});

describe('a chat that has begun', () => {
  it('ends with an error when its device fails: nobody else can go on with it', async () => {
    const mesh = meshOf(fails('provider_failed', { role: 'assistant' }, { content: 'Hel' }), works);
    const started = await ask(mesh);
    await assert.rejects(textOf(started), { code: 'provider_failed' });
    assert.deepEqual(mesh.asked, ['one']);
  });

  it('is not hurried: between two pieces there may be any time', async () => {
    const gate = Promise.withResolvers<void>();
    const mesh = meshOf(async function* () {
      yield piece({ content: 'Hel' });
      await gate.promise;
      yield piece({ content: 'lo' }, 'stop');
    });
    const clock = mesh.clock as SteppedClock;
    const text = textOf(await ask(mesh));
    clock.step(600_000);
    gate.resolve();
    assert.equal(await text, 'Hello');
  });

  it('is cancelled by whoever leaves it', async () => {
    const mesh = meshOf(async function* ({ signal }) {
      yield piece({ content: 'Hel' });
      await untilAborted(signal);
    });
    const { chunks } = await ask(mesh);
    for await (const _chunk of chunks) break;
    await turns();
    assert.equal(mesh.inFlight.get('one'), 0);
  });

  it('may come in one piece', async () => {
    const mesh = meshOf(async () =>
      content({
        id: 'a',
        object: 'chat.completion',
        created: 1,
        model: 'm',
        choices: [{ index: 0, message: { role: 'assistant', content: 'Hello' }, finish_reason: 'stop' }],
        usage,
      }),
    );
    const started = await ask(mesh);
    const chunks = await Array.fromAsync(started.chunks);
    assert.equal(chunks[0]?.choices[0]?.delta.content, 'Hello');
    assert.deepEqual(chunks.at(-1)?.usage, usage);
  });

  it('must be of its shape', async () => {
    const mesh = meshOf(async function* () {
      yield content({ choices: 'none' });
    });
    await assert.rejects(ask(mesh), { code: 'bad_answer' });
  });
});
