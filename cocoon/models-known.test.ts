import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { LocalCapabilities } from '@cocoon-mesh/capabilities';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { ScriptedModelServer } from '@cocoon-mesh/ai/model-server.contract.ts';
import { writeTextModel } from '@cocoon-mesh/ai/text-models.contract.ts';
import { Models } from './models.ts';

function modelsOf(embeddingModel: string | null) {
  const clock = new SteppedClock();
  const models = new Models({
    local: new LocalCapabilities({ clock, log: () => undefined }),
    settings: {
      embeddingModel,
      llmProvider: null,
      llmModel: null,
      llmApiKey: null,
      ollamaHost: null,
      disabledCapabilities: [],
    },
    device: 'me',
    clock,
  });
  return { clock, models, [Symbol.asyncDispose]: async () => models.close() };
}

describe('what embeds is known', { timeout: 30_000 }, () => {
  test('when the files of a model were read, so that the first request is served', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'cocoon-models-'));
    writeTextModel(folder);
    try {
      await using each = modelsOf(folder);
      assert.match(each.models.embeddings?.state.problem ?? '', /is being read/);
      await each.models.known();
      assert.equal(each.models.embeddings?.state.problem, null);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test('at once without a model, and after two seconds when its server says nothing', async () => {
    await using lexical = modelsOf(null);
    await lexical.models.known();
    await using server = await ScriptedModelServer.start({ 'GET /v1/models': () => undefined });
    await using silent = modelsOf(`${server.url}/v1`);
    const known = silent.models.known();
    silent.clock.step(2_000);
    await known;
    assert.match(silent.models.embeddings?.state.problem ?? '', /has not answered yet/);
  });
});
