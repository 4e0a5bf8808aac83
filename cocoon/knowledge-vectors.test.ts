import assert from 'node:assert/strict';
import { test } from 'node:test';
import { embeddingsContent } from '@cocoon-mesh/ai/embeddings-payload.ts';
import { scriptedProvider, untilAborted } from '@cocoon-mesh/capabilities/scripted-provider.contract.ts';
import type { KnowledgeBase } from '@cocoon-mesh/knowledge';
import { turn } from '@cocoon-mesh/mesh/session-pair.contract.ts';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { KnowledgeVectors } from './knowledge-vectors.ts';

const space = { model: 'm', space: 'a'.repeat(64), semantic: true, dimensions: 2 };

test('filling ends with a reason when the model stops answering', async () => {
  const clock = new SteppedClock();
  const provider = scriptedProvider({
    protocol: 'embeddings',
    state: { features: [`model:${space.model}`, `space:${space.space}`] },
    handle: async (call) =>
      provider.calls.length === 1
        ? embeddingsContent(space, new Uint8Array(8), 1)
        : untilAborted(call.signal),
  });
  const base = {
    useSpace: async () => undefined,
    chunksWithout: async () => [{ id: 1, heading: 'h', text: 't' }],
  } as unknown as KnowledgeBase;
  const progress: number[] = [];
  const onProgress = (embedded: number): void => void progress.push(embedded);
  const filled = new KnowledgeVectors(provider, clock).embedMissing(base, undefined, onProgress);
  for (let turns = 0; turns < 8; turns++) await turn();
  assert.equal(provider.calls.length, 2);
  clock.step(120_000);
  const { model, problem, embedded } = await filled;
  assert.deepEqual([model, embedded, progress], ['m', 0, []]);
  assert.match(problem ?? '', /too long/);
  assert.equal(clock.pendingTimers, 0);
});
