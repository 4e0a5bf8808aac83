import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { encode } from '@cocoon-mesh/protocol';
import { descriptionSchema, maxDescriptionBytes } from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import type { ChatBackend } from './chat-backend.ts';
import { BackendChatProvider } from './chat-provider.ts';

async function offered(names: readonly string[], model: string | null = null): Promise<readonly string[]> {
  const never = (): never => {
    throw new Error('nobody asks');
  };
  const backend: ChatBackend = {
    name: 'The server',
    limit: 1,
    models: async () => names.map((name) => ({ name, tools: true, loaded: true })),
    stream: never,
    complete: never,
    close: async () => undefined,
  };
  const provider = new BackendChatProvider({ backend, model, clock: new SteppedClock() });
  await provider.refresh();
  const { features } = provider.state;
  await provider.close();
  return features;
}

describe('the models of a server', () => {
  it('are offered, also where a cloud has hundreds of them', async () => {
    const names = Array.from({ length: 400 }, (_, i) => `vendor/model-${i}`);
    assert.deepEqual(await offered(names), ['tools', ...names.map((name) => `model:${name}`)]);
  });

  it('fit into what a device tells, however many and long they are, and the configured one first', async () => {
    const names = Array.from({ length: 10_000 }, (_, i) => `${'ü'.repeat(240)}${i}`);
    const features = await offered(names, names.at(-1));
    assert.equal(features[1], `model:${names.at(-1)}`);
    const state = {
      protocol: 'llm.chat',
      version: '1.0.0',
      in_flight: 0,
      queued: 0,
      limit: 1,
      warm: true,
      stand_in: false,
    };
    const told = encode(descriptionSchema, {
      services: [],
      capabilities: [{ ...state, features: [...features] }],
    });
    assert.ok(told.length < maxDescriptionBytes / 2, `${told.length} bytes`);
  });
});
