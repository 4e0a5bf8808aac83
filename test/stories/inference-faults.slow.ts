/*
 * The processes of models, killed under load and left alone: every request ends, the next one is served at once, and
 * nothing stays behind when the device ends, however it ends.
 */

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { writeTextModel } from '../../src/ai/text-models.contract.ts';
import { CocoonProcess, enroll, sees } from './cocoon-process.ts';
import type { Asked } from './embeddings-client.ts';
import { askEmbeddings, isRunning, modelProcesses, someTexts, vectorsIn } from './embeddings-client.ts';

const kills = 20;
/** A small model loads in a tenth of it, on a machine that does nothing else. */
const nextWithinMs = 1_000;

let folder: string;
let signaling: CocoonProcess;
let laptop: CocoonProcess;
let box: CocoonProcess;

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'cocoon-faults-'));
  writeTextModel(folder);
  signaling = await CocoonProcess.start({ command: 'signaling', args: ['--port', '0'] });
  laptop = await CocoonProcess.start({
    command: 'run',
    args: ['--name', 'laptop', '--gateway-port', '0', '--signaling', signaling.signaling],
    engine: 'libdatachannel',
  });
  box = await enroll(laptop, {
    name: 'box',
    engine: 'libdatachannel',
    env: { COCOON_EMBEDDING_MODEL: folder },
  });
  await sees(laptop, 'box');
});

after(async () => {
  await Promise.all([laptop, box].map((cocoon) => cocoon?.[Symbol.asyncDispose]()));
  await signaling?.[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

/** Of the box, by its own features: the laptop's lexical vectors would hide that it failed. */
async function ask(cocoon: CocoonProcess, count: number): Promise<Asked> {
  return askEmbeddings(cocoon, { input: someTexts(count) }, { device: 'box' });
}

async function gone(pids: readonly number[]): Promise<void> {
  for (const end = Date.now() + 10_000; Date.now() < end;) {
    if (!pids.some(isRunning)) return;
    await new Promise(setImmediate);
  }
  throw new Error(`${pids.filter(isRunning).join()} still run`);
}

describe('the process of a model', () => {
  test('is there from the first request on, one for the device', async () => {
    assert.deepEqual(modelProcesses(box), []);
    await Promise.all([ask(box, 4), ask(laptop, 4), ask(box, 40)]);
    assert.equal(modelProcesses(box).length, 1);
    assert.deepEqual(modelProcesses(laptop), [], 'who has no model has no process');
  });

  test(`may be killed ${kills} times under load: every request ends, and the next is served within a second`, async () => {
    const reference = vectorsIn(await ask(box, 8));
    const outcomes = new Map<string, number>();
    const daemon = box.pid;
    const times: number[] = [];
    for (let kill = 0; kill < kills; kill++) {
      const under = [ask(box, 200), ask(laptop, 200), ask(laptop, 8), ask(box, 1)];
      // Wherever they are by then: on their way, in the queue, in the process.
      for (let turn = 0; turn < kill; turn++) await new Promise(setImmediate);
      process.kill((await running())[0] ?? 0, 'SIGKILL');
      const start = performance.now();
      const next = await ask(kill % 2 === 0 ? laptop : box, 8);
      times.push(performance.now() - start);
      assert.equal(next.status, 200, `${next.code}: ${next.said}`);
      assert.deepEqual(vectorsIn(next), reference);
      for (const { status, code } of await Promise.all(under)) {
        const outcome = status === 200 ? 'ok' : code;
        outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
      }
    }
    // What a process died under goes to the next one, so that hardly anybody hears of it.
    assert.deepEqual(outcomes, new Map([['ok', 4 * kills]]));
    times.sort((one, other) => one - other);
    const [median, slowest] = [times[kills / 2] ?? Infinity, times.at(-1) ?? Infinity];
    assert.ok(median < nextWithinMs && slowest < 5 * nextWithinMs, `${median} ms, at most ${slowest} ms`);
    assert.equal(box.pid, daemon);
    assert.equal((await box.json<{ name: string }>('status')).name, 'box');
  });

  test('ends with its device: asked to end, and killed in the middle of its work', async () => {
    for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
      await ask(box, 1);
      const pids = modelProcesses(box);
      assert.equal(pids.length, 1);
      const work = Promise.allSettled([ask(box, 2048), ask(box, 2048)]);
      await box.stop(signal);
      await gone(pids);
      await work;
      await box.restart();
      await sees(laptop, 'box');
    }
  });
});

/** The process of the model, as soon as there is one. */
async function running(): Promise<number[]> {
  for (const end = Date.now() + 10_000; Date.now() < end;) {
    const pids = modelProcesses(box).filter(isRunning);
    if (pids.length > 0) return pids;
    await new Promise(setImmediate);
  }
  throw new Error('no process of a model');
}
