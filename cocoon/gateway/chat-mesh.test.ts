import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { unpackedVectors } from '@cocoon-mesh/ai/embeddings-payload.ts';
import { delta } from '@cocoon-mesh/ai/model-server.contract.ts';
import type { Content, ProviderCall } from '@cocoon-mesh/capabilities';
import { MeshOfProviders } from '@cocoon-mesh/capabilities/mesh-of-providers.contract.ts';
import {
  content,
  scriptedProvider,
  untilAborted,
} from '@cocoon-mesh/capabilities/scripted-provider.contract.ts';
import type { Json } from '@cocoon-mesh/protocol';
import type { StartedChat } from './chat-run.ts';
import { startChat } from './chat-run.ts';
import { embed } from './embeddings-run.ts';
import type { ModelDevice } from './openai-models.ts';
import { offersOf, resolveModel } from './openai-models.ts';

type Script = (call: ProviderCall) => AsyncIterable<Content> | Promise<Content>;

const piece = (fields: object): Content => content(delta(fields) as unknown as Json);

async function* works(): AsyncGenerator<Content> {
  yield piece({ role: 'assistant' });
  yield piece({ content: 'Hello' });
}

class Chats {
  readonly mesh = new MeshOfProviders();
  readonly devices: ModelDevice[] = [];
  reached = Promise.withResolvers<void>();

  add(name: string, handle: Script, protocol = 'llm.chat'): void {
    const features = ['model:m'];
    this.mesh.add(name, scriptedProvider({ protocol, state: { features }, handle }));
    this.devices.push({ name, peerId: `peer-${name}`, capabilities: [{ protocol, features }] });
  }

  silent(...first: object[]): Script {
    const { reached } = this;
    return async function* ({ signal }) {
      for (const fields of first) yield piece(fields);
      reached.resolve();
      await untilAborted(signal);
    };
  }

  async start(model = 'm', signal = new AbortController().signal): Promise<StartedChat> {
    const offers = async () => offersOf(this.devices);
    return startChat({
      requestCapability: this.mesh.router.request,
      clock: this.mesh.clock,
      offers,
      choice: await resolveModel(model, offers),
      request: { messages: [{ role: 'user', content: 'Hi' }] },
      session: null,
      firstTokenMs: 1000,
      signal,
    });
  }
}

async function turns(): Promise<void> {
  for (let i = 0; i < 20; i++) await new Promise(setImmediate);
}

async function textOf({ chunks }: StartedChat): Promise<string> {
  let text = '';
  for await (const { choices } of chunks) text += choices[0]?.delta.content ?? '';
  return text;
}

describe('a chat over sessions', () => {
  it('goes on to the next device when the first says nothing, or its role alone', async () => {
    for (const first of [[], [{ role: 'assistant' }]]) {
      const chats = new Chats();
      chats.add('one', chats.silent(...first));
      chats.add('two', works);
      const started = chats.start();
      await chats.reached.promise;
      await turns();
      chats.mesh.clock.step(1000);
      const chat = await started;
      assert.deepEqual([chat.device, chat.attempts], ['two', 2]);
      assert.equal(await textOf(chat), 'Hello');
      await turns();
      assert.equal(chats.mesh.clock.pendingTimers, 0);
    }
  });

  it('is that of the device it names', async () => {
    const chats = new Chats();
    chats.add('one', works);
    chats.add('two', works);
    assert.equal((await chats.start('m@two')).device, 'two');
    await assert.rejects(chats.start('other@two'), { code: 'capability_not_found' });
  });

  it('is cancelled at its provider when it is left', async () => {
    const chats = new Chats();
    const told = Promise.withResolvers<void>();
    chats.add('one', async function* ({ signal }) {
      signal.addEventListener('abort', () => told.resolve());
      yield piece({ content: 'Hel' });
      await untilAborted(signal);
    });
    const { chunks } = await chats.start();
    for await (const _chunk of chunks) break;
    await told.promise;
  });
});

describe('embeddings over sessions', () => {
  const answer = {
    dimensions: 2,
    count: 1,
    space: '5'.repeat(64),
    semantic: true,
    model: 'm',
    usage: { prompt_tokens: 1, total_tokens: 1 },
  };
  const packed = new Uint8Array(Float32Array.of(1, 2).buffer);

  async function secondNumbers(handle: Script): Promise<number[]> {
    const chats = new Chats();
    chats.add('one', handle, 'embeddings');
    const { embeddings } = await embed(
      { requestCapability: chats.mesh.router.request, modelDevices: () => chats.devices },
      { model: 'm@one', input: 'x' },
      new AbortController().signal,
    );
    return unpackedVectors(embeddings).map((vector) => vector[1] ?? NaN);
  }

  it('come with their vectors', async () => {
    assert.deepEqual(await secondNumbers(async () => content(answer, packed)), [2]);
  });

  it('do not hang on a provider that streams, which is none of embeddings', async () => {
    const streams: Script = async function* () {
      for (;;) yield content('half way');
    };
    await assert.rejects(secondNumbers(streams), { code: 'bad_answer' });
  });
});
