/**
 * Prints how fast the knowledge base indexes and finds: the Markdown of this repository's packages and its docs, and
 * what the daemon's own event loop feels of it.
 *
 *   node bench/knowledge.ts [--searches 500]
 */

import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { parseArgs } from 'node:util';
import { KnowledgeBase } from '@cocoon-mesh/knowledge';
import { scan } from '@cocoon-mesh/knowledge/scan-folder.node.ts';

const { values } = parseArgs({ options: { searches: { type: 'string', default: '500' } } });
const searches = Number(values.searches);
const project = resolve(import.meta.dirname, '..');
const folder = mkdtempSync(join(tmpdir(), 'cocoon-bench-knowledge-'));

interface Row {
  readonly what: string;
  readonly amount: string;
  readonly ms: number;
  readonly rate: string;
  /** Of all threads, for one file or question: what a busy machine does not change. */
  readonly cpuMs: number;
  readonly loopP99: number;
  readonly loopMax: number;
}

async function measured(what: string, work: () => Promise<{ amount: string; count: number }>): Promise<Row> {
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  const cpu = process.cpuUsage();
  const start = performance.now();
  const { amount, count } = await work();
  const ms = performance.now() - start;
  delay.disable();
  const { user, system } = process.cpuUsage(cpu);
  return {
    what,
    amount,
    ms,
    rate: `${(count / (ms / 1000)).toFixed(0)}/s`,
    cpuMs: (user + system) / 1000 / count,
    loopP99: delay.percentile(99) / 1e6,
    loopMax: delay.max / 1e6,
  };
}

/** Four words in a row from a random place of a real file, by a fixed seed. */
function* questions(files: readonly string[]): Generator<string> {
  const texts = files
    .map((file) => readFileSync(file, 'utf8').match(/\p{L}{3,}/gu) ?? [])
    .filter(({ length }) => length > 20);
  for (let seed = 12345; ;) {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    const words = texts[seed % texts.length] ?? [];
    const at = (seed >>> 8) % (words.length - 4);
    yield words.slice(at, at + 4).join(' ');
  }
}

function percentile(sorted: readonly number[], share: number): string {
  return (sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0).toFixed(1);
}

async function search(base: KnowledgeBase, asked: readonly string[]): Promise<readonly number[]> {
  const times: number[] = [];
  for (const text of asked) {
    const start = performance.now();
    await base.search(text, { timeoutMs: 60_000 });
    times.push(performance.now() - start);
  }
  return times.toSorted((a, b) => a - b);
}

const roots = [join(project, 'docs'), join(project, 'node_modules')];
const only = ['md'];
const files = roots.flatMap((root) =>
  [...scan(root, { only })].flatMap((found) => (found.kind === 'file' ? [found.path] : [])),
);
const base = await KnowledgeBase.open(join(folder, 'knowledge.db'));
try {
  const opening = performance.now();
  await base.refresh();
  const openMs = performance.now() - opening;
  const index = async (): Promise<{ amount: string; count: number }> => {
    let count = 0;
    for (const root of roots) {
      const { added, unchanged } = await base.add(root, { only });
      count += added + unchanged;
    }
    return { amount: `${count} files`, count };
  };
  const rows = [await measured('index', index), await measured('nothing changed', index)];
  const source = questions(files);
  const asked = Array.from({ length: searches }, () => source.next().value as string);
  let times: readonly number[] = [];
  rows.push(
    await measured('search', async () => {
      times = await search(base, asked);
      return { amount: `${searches} questions`, count: searches };
    }),
  );
  const { chunks, bytes } = await base.stats();
  console.log(
    `${chunks} chunks, ${(bytes / 2 ** 20).toFixed(1)} MiB; the thread was ready after ${openMs.toFixed(0)} ms\n`,
  );
  console.log('| | | ms | rate | CPU ms each | event loop p99, max ms |\n|---|---|---|---|---|---|');
  for (const { what, amount, ms, rate, cpuMs, loopP99, loopMax } of rows)
    console.log(
      `| ${what} | ${amount} | ${ms.toFixed(0)} | ${rate} | ${cpuMs.toFixed(2)} | ${loopP99.toFixed(1)}, ${loopMax.toFixed(1)} |`,
    );
  console.log(`\nsearch p50 ${percentile(times, 0.5)} ms, p99 ${percentile(times, 0.99)} ms`);
} finally {
  await base.close();
  rmSync(folder, { recursive: true });
}
