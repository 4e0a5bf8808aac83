import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { CocoonProcess } from './cocoon-process.ts';
import { fewPairs, full, meshOfTwo, sees } from './cocoon-process.ts';
import { get, textOf } from './gateway-client.ts';
import { Origin } from './origin.ts';

const concurrent = 200;
const sequential = full ? 2_000 : 500;
const MiB = 1 << 20;

for (const engines of fewPairs) {
  describe(`under load (${engines.join(' and ')})`, () => {
    test(`${concurrent} requests at once and ${sequential} in a row leave nothing behind`, async (t) => {
      await using origin = await Origin.start();
      const { laptop, server } = await meshOfTwo({
        engines,
        runArgs: ['--service', `web:${origin.port}`],
      });
      await using _laptop = laptop;
      await using _server = server;
      await sees(laptop, 'server', 'web');
      // What is made once and kept (sessions, pools, code) is there before the count.
      await all(laptop, concurrent, '/warm');
      await oneByOne(laptop, 100, '/warm');
      const before = await Promise.all([laptop, server].map(idle));
      await all(laptop, concurrent, '/together');
      await oneByOne(laptop, sequential, '/in-a-row');
      const after = await Promise.all([laptop, server].map(idle));
      for (const [i, was] of before.entries()) {
        const is = after[i] ?? was;
        t.diagnostic(`heap ${(was.heap / MiB).toFixed(1)} → ${(is.heap / MiB).toFixed(1)} MiB`);
        assert.equal(is.streams, 0);
        assert.ok(is.timers <= was.timers + 3, `timers ${was.timers} → ${is.timers}`);
        assert.ok(is.handles <= was.handles + 3, `handles ${was.handles} → ${is.handles}`);
        assert.ok(is.heap < was.heap + 16 * MiB, `heap ${was.heap} → ${is.heap}`);
      }
    });
  });
}

async function all(laptop: CocoonProcess, count: number, path: string): Promise<void> {
  const texts = await Promise.all(
    Array.from({ length: count }, async () => textOf(await get(laptop, `server/web${path}`))),
  );
  assert.deepEqual(
    texts.filter((text) => text !== `hello from ${path}`),
    [],
  );
}

async function oneByOne(laptop: CocoonProcess, count: number, path: string): Promise<void> {
  for (let i = 0; i < count; i++)
    assert.equal(await textOf(await get(laptop, `server/web${path}`)), `hello from ${path}`);
}

interface Held {
  readonly streams: number;
  readonly timers: number;
  readonly handles: number;
  readonly heap: number;
}

/** What the daemon holds, from its metrics, once its streams are over. */
async function idle(cocoon: CocoonProcess): Promise<Held> {
  for (;;) {
    const text = await (await fetch(`${cocoon.gateway}/metrics?collect=1`)).text();
    const value = (name: string): number =>
      text
        .split('\n')
        .filter((line) => line.startsWith(name))
        .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' '))), 0);
    const held = {
      streams: value('cocoon_streams_open'),
      timers: value('nodejs_active_resources{type="Timeout"}'),
      handles: value('nodejs_active_resources_total'),
      heap: value('nodejs_heap_size_used_bytes'),
    };
    if (held.streams === 0) return held;
  }
}
