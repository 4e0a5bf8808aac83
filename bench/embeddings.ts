/**
 * Prints what embeddings cost: batches by tokens against batches as texts come, the lexical space, what the event loop
 * of a daemon feels of a model in its own process and in the daemon, and the memory before the first request. Between
 * devices: what a laptop gets of a box against what the box gets of itself, both installed and asked at their gateways.
 * The model is generated, of the size of all-MiniLM-L6-v2, in int8; what is compared runs in turns.
 *
 *   node --expose-gc bench/embeddings.ts [--rounds 4]
 */

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { parseArgs } from 'node:util';
import { systemClock } from '@cocoon-mesh/protocol';
import { miniLmSize, randomNumbers, writeTextModel } from '../src/ai/text-models.contract.ts';

const { values } = parseArgs({
  options: { rounds: { type: 'string', default: '4' }, memory: { type: 'string' } },
});

const { signal } = new AbortController();

if (values.memory === undefined) await measureAll(Number(values.rounds));
else await tellMemory(values.memory);

async function measureAll(rounds: number): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'cocoon-bench-embeddings-'));
  try {
    writeTextModel(folder, { size: miniLmSize, quantised: true });
    console.table({ ...(await batches(folder, rounds)), ...(await lexical()) });
    console.table(await overTheMesh(folder, rounds));
    console.table(await loopDelays(folder));
    console.table({ 'added before the first request': memory(folder) });
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Mostly short, some long, a few as long as the model takes; by a fixed seed. */
function mixedTexts(count: number, seed: number): string[] {
  const random = randomNumbers(seed);
  return Array.from({ length: count }, () => {
    const kind = random();
    const words = kind < 0.8 ? 4 + random() * 20 : kind < 0.95 ? 40 + random() * 100 : 300 + random() * 200;
    return 'node '.repeat(Math.floor(words));
  });
}

async function batches(folder: string, rounds: number) {
  const { LocalEmbeddings } = await import('@cocoon-mesh/ai/embeddings-local.node.ts');
  const byTokens = new LocalEmbeddings({ folder, clock: systemClock });
  // Whatever comes as one request is one batch then.
  const asTheyCome = new LocalEmbeddings({ folder, clock: systemClock, maxBatchTokens: Infinity });
  const times = { byTokens: 0, asTheyCome: 0 };
  const perRound = 96;
  for (let round = -1; round < rounds; round++) {
    const texts = mixedTexts(perRound, round + 2);
    const sorted = await timed(async () => byTokens.embed({ texts, truncate: true }, signal));
    const plain = await timed(async () => {
      for (let from = 0; from < texts.length; from += 32)
        await asTheyCome.embed({ texts: texts.slice(from, from + 32), truncate: true }, signal);
    });
    if (round < 0) continue;
    times.byTokens += sorted;
    times.asTheyCome += plain;
  }
  await Promise.all([byTokens.close(), asTheyCome.close()]);
  const rate = (ms: number): number => Math.round((rounds * perRound) / (ms / 1000));
  return {
    'mixed lengths, batches of 512 tokens': { 'texts/s': rate(times.byTokens) },
    'mixed lengths, batches of 32 as they come': { 'texts/s': rate(times.asTheyCome) },
    'ratio (≥ 5)': { 'texts/s': (times.asTheyCome / times.byTokens).toFixed(1) },
  };
}

async function lexical() {
  const { embeddingsProvider } = await import('@cocoon-mesh/ai');
  const provider = embeddingsProvider({ setting: null, apiKey: null, device: 'bench', clock: systemClock });
  const words =
    'revoke stolen device bread kitchen train Vienna backup photo library rent landlord tomato sun key'.split(
      ' ',
    );
  const random = randomNumbers(1);
  const input = Array.from({ length: 2048 }, (_, i) =>
    Array.from({ length: 12 }, () => words[Math.floor(random() * words.length)] + String(i % 97)).join(' '),
  );
  const ask = async (): Promise<unknown> =>
    provider.handle({
      payload: { input },
      parts: [],
      signal,
      session: null,
      features: [],
      from: { id: '', name: '' },
    });
  await ask();
  const cpu = process.cpuUsage();
  const rounds = 5;
  let ms = 0;
  for (let round = 0; round < rounds; round++) ms += await timed(ask);
  const { user, system } = process.cpuUsage(cpu);
  await provider.close();
  const count = rounds * input.length;
  return {
    'lexical, 12 words each (≥ 4,000)': { 'texts/s': Math.round(count / (ms / 1000)) },
    // What a busy machine does not change.
    'lexical, for a second of a core': { 'texts/s': Math.round(count / ((user + system) / 1e6)) },
  };
}

/** Batches of 32 texts, one after the other and four at once. */
async function overTheMesh(folder: string, rounds: number) {
  const { CocoonProcess, enroll, sees } = await import('../test/stories/cocoon-process.ts');
  const { askEmbeddings } = await import('../test/stories/embeddings-client.ts');
  await using signaling = await CocoonProcess.start({ command: 'signaling', args: ['--port', '0'] });
  const laptopArgs = ['--name', 'laptop', '--gateway-port', '0', '--signaling', signaling.signaling];
  await using laptop = await CocoonProcess.start({
    command: 'run',
    args: laptopArgs,
    engine: 'libdatachannel',
  });
  await using box = await enroll(laptop, {
    name: 'box',
    engine: 'libdatachannel',
    env: { COCOON_EMBEDDING_MODEL: folder },
  });
  await sees(laptop, 'box');
  const input = Array.from({ length: 32 }, (_, i) => 'node '.repeat(20 + (i % 24)));
  // The box reads its model first, and others hear of it afterwards.
  while ((await askEmbeddings(laptop, { input: 'node' })).device !== 'box');
  const ask = async (cocoon: typeof laptop): Promise<void> => {
    const { status, device, said } = await askEmbeddings(cocoon, { input, encoding_format: 'base64' });
    if (status !== 200 || device !== 'box') throw new Error(`${device} answered ${status}: ${said}`);
  };
  const batchesOf = async (cocoon: typeof laptop, atOnce: number, count: number): Promise<number> =>
    timed(async () => {
      const worker = async (): Promise<void> => {
        for (let i = 0; i < count / atOnce; i++) await ask(cocoon);
      };
      await Promise.all(Array.from({ length: atOnce }, worker));
    });
  const rows: Record<string, Record<string, number | string>> = {};
  for (const atOnce of [1, 4]) {
    const times = { local: 0, remote: 0 };
    const count = 16;
    for (let round = -1; round < rounds; round++) {
      // Whoever comes first finds a cooler processor.
      for (const [kind, cocoon] of round % 2 === 0
        ? ([
            ['local', box],
            ['remote', laptop],
          ] as const)
        : ([
            ['remote', laptop],
            ['local', box],
          ] as const)) {
        const ms = await batchesOf(cocoon, atOnce, count);
        if (round >= 0) times[kind] += ms;
      }
    }
    const rate = (ms: number): number => Math.round((rounds * count * input.length) / (ms / 1000));
    rows[`batches of 32, ${atOnce} at once`] = {
      'at the box, texts/s': rate(times.local),
      'from the laptop, texts/s': rate(times.remote),
      'ratio (≥ 0.9)': (times.local / times.remote).toFixed(2),
    };
  }
  return rows;
}

async function loopDelays(folder: string) {
  const { LocalEmbeddings } = await import('@cocoon-mesh/ai/embeddings-local.node.ts');
  const { openModel } = await import('@cocoon-mesh/ai/onnx-embeddings.node.ts');
  const local = new LocalEmbeddings({ folder, clock: systemClock });
  const here = await openModel({ folder, runtime: 'onnxruntime-node', maxBatchTokens: 512 });
  const texts = mixedTexts(400, 7);
  const inProcess = async (): Promise<unknown> =>
    here.run({ texts, truncate: true, lane: 'batch' }, { signal, chunk: () => undefined });
  const inChild = async (): Promise<unknown> => local.embed({ texts, truncate: true }, signal);
  await inChild();
  const rows = {
    idle: await delays(async () => new Promise((resolve) => systemClock.after(2_000, () => resolve(null)))),
    'model in its process (p99 ≤ 10, ≤ 1/10 of in the daemon)': await delays(inChild),
    'model in the daemon': await delays(inProcess),
  };
  await local.close();
  return rows;
}

async function delays(work: () => Promise<unknown>) {
  // A timer of ours holds the loop as a daemon's sockets do.
  const hold = setInterval(() => undefined, 1_000);
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  const ms = await timed(work);
  delay.disable();
  clearInterval(hold);
  const shown = (ns: number): string => (ns / 1e6).toFixed(1);
  return {
    'p50 ms': shown(delay.percentile(50)),
    'p99 ms': shown(delay.percentile(99)),
    'max ms': shown(delay.max),
    'took ms': Math.round(ms),
  };
}

/** In a process of its own, three times; the median. */
function memory(folder: string) {
  const measure = (setting: string): string => {
    const args = ['--expose-gc', import.meta.filename, '--memory', setting];
    const runs = Array.from({ length: 3 }, () =>
      Number(execFileSync(process.execPath, args, { encoding: 'utf8' })),
    );
    return (runs.toSorted((a, b) => a - b)[1] ?? NaN).toFixed(1);
  };
  return { 'lexical, MiB (≤ 5)': measure(''), 'model in a folder, MiB (≤ 5)': measure(folder) };
}

async function tellMemory(setting: string): Promise<void> {
  const rss = (): number => {
    globalThis.gc?.();
    return process.memoryUsage().rss;
  };
  const before = rss();
  const { embeddingsProvider } = await import('@cocoon-mesh/ai');
  const provider = embeddingsProvider({ setting, apiKey: null, device: 'bench', clock: systemClock });
  if (provider.state.problem !== null)
    await new Promise<void>((resolve) => void provider.onChange(() => resolve()));
  console.log((rss() - before) / 2 ** 20);
  await provider.close();
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return performance.now() - start;
}
