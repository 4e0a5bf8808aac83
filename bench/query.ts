/**
 * Prints what a question to many devices costs: the time to the first part and to the whole answer, against the
 * slowest of the same devices asked alone, all in one interleaved run. Devices are sessions over carriers in memory,
 * each with its own delay, so that waiting and not this machine's processors is what is shared. Then what merging
 * a page costs for each 1,000 rows (at most 5 ms), of lists that are there already.
 *
 *   node bench/query.ts [--rounds 20] [--rows 100]
 */

import { parseArgs } from 'node:util';
import { MessageChannel } from 'node:worker_threads';
import type { ProvenPeer } from '@cocoon-mesh/mesh';
import { memoryCarrierPair } from '@cocoon-mesh/mesh/memory-carrier.ts';
import { Session } from '@cocoon-mesh/mesh/session.ts';
import type { QueryRow } from '@cocoon-mesh/protocol';
import { memberRights, streamProtocols, systemClock } from '@cocoon-mesh/protocol';
import type { QueryTarget } from '@cocoon-mesh/query';
import { QueryServer, runQuery } from '@cocoon-mesh/query';
import { askStream } from '@cocoon-mesh/query/ask-stream.ts';
import type { DeviceRows } from '@cocoon-mesh/query/fan-out.ts';
import { makePage } from '@cocoon-mesh/query/page.ts';

const { values } = parseArgs({
  options: { rounds: { type: 'string', default: '20' }, rows: { type: 'string', default: '100' } },
});
const rounds = Number(values.rounds);
const rowsEach = Number(values.rows);

/** A row as large as a task's in a list. */
function rowAt(device: number, n: number): QueryRow {
  const at = `2026-01-01T00:00:00.${n}Z`;
  return {
    key: [1e12 - n * 32 - device, `id-${device}-${n}`],
    at: `${n}`,
    value: {
      id: `01890a5d-ac96-774b-bcce-${device}-${n}`,
      title: 'Rebuild the index of all photographs',
      status: 'completed',
      command: 'make index',
      labels: ['nightly', 'photos'],
      requires: [],
      exit_code: 0,
      error: null,
      created_at: at,
      updated_at: at,
      started_at: at,
      finished_at: at,
      version: 3,
    },
  };
}

/** @param delayMs of each message, one way */
function device(index: number, delayMs: number): QueryTarget {
  const [near, far] = memoryCarrierPair({ delayMs: () => delayMs });
  const server = new QueryServer({ clock: systemClock, log: () => undefined });
  server.answer('custom', async function* ({ limit }) {
    yield Array.from({ length: limit + 1 }, (_, n) => rowAt(index, n));
  });
  const peer = { peerId: 'asker', name: 'asker', rights: memberRights } as ProvenPeer;
  const session = new Session({
    carrier: near,
    localPeer: 'a',
    remotePeer: `b${index}`,
    clock: systemClock,
    acceptStream: () => undefined,
  });
  const answering = new Session({
    carrier: far,
    localPeer: `b${index}`,
    remotePeer: 'a',
    clock: systemClock,
    acceptStream: (stream) => server.handle(stream, peer),
  });
  closers.push(() => answering.abort('measured'));
  const mesh = {
    openStream: async (_peerId: string, protocol: string, header: Uint8Array) =>
      session.open(protocol, header),
  };
  return {
    peerId: `peer-${index}`,
    name: `device-${index}`,
    ask: (request, signal) => askStream(mesh, systemClock, `peer-${index}`, request, signal),
  };
}

interface Times {
  readonly firstMs: number;
  readonly wholeMs: number;
}

async function ask(targets: readonly QueryTarget[]): Promise<Times> {
  const started = systemClock.monotonic();
  let firstMs = Infinity;
  const answer = await runQuery({
    targets,
    type: 'custom',
    params: { name: 'bench' },
    limit: rowsEach,
    clock: systemClock,
    timeoutMs: 60_000,
    onPart: () => (firstMs = Math.min(firstMs, systemClock.monotonic() - started)),
  });
  const wholeMs = systemClock.monotonic() - started;
  if (answer.partial || answer.rows.length !== rowsEach) throw new Error('a device did not answer');
  return { firstMs, wholeMs };
}

function median(numbers: readonly number[]): number {
  return numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? NaN;
}

const closers: (() => void)[] = [];

// Timers of the clock hold no process; an open port does.
const { port1: holding } = new MessageChannel();
holding.on('message', () => undefined);
closers.push(() => holding.close());

interface Case {
  readonly targets: readonly QueryTarget[];
  readonly all: Times[];
  /** The one with the longest delay, alone. */
  readonly slowest: Times[];
}

/** The slowest answers after a round trip of 60 ms, the others sooner. */
const cases: readonly Case[] = [2, 8, 32].map((count) => ({
  targets: Array.from({ length: count }, (_, i) => device(i, (30 * (i + 1)) / count)),
  all: [],
  slowest: [],
}));

for (let round = 0; round <= rounds; round++)
  for (const { targets, all, slowest } of cases) {
    const together = await ask(targets);
    const alone = await ask(targets.slice(-1));
    // The first round warms up.
    if (round === 0) continue;
    all.push(together);
    slowest.push(alone);
  }

console.log(`${streamProtocols.query}, ${rowsEach} rows of each device`);
console.table(
  Object.fromEntries(
    cases.map(({ targets, all, slowest }) => {
      const alone = median(slowest.map(({ wholeMs }) => wholeMs));
      const whole = median(all.map(({ wholeMs }) => wholeMs));
      return [
        `${targets.length} devices`,
        {
          'first part ms': median(all.map(({ firstMs }) => firstMs)).toFixed(1),
          'whole answer ms': whole.toFixed(1),
          'slowest alone ms': alone.toFixed(1),
          ratio: (whole / alone).toFixed(2),
        },
      ];
    }),
  ),
);

/** Of lists that are there: what the merge adds. */
function mergeMs(devices: number): number {
  const answers: DeviceRows[] = Array.from({ length: devices }, (_, i) => ({
    answer: { id: `peer-${i}`, name: `device-${i}`, status: 'ok', count: 1000, ms: 0 },
    rows: Array.from({ length: 1000 }, (_row, n) => rowAt(i, n)),
    more: false,
  }));
  const times: number[] = [];
  for (let round = 0; round < 10 + rounds; round++) {
    const started = systemClock.monotonic();
    makePage(answers, new Map(), 'key', 1000);
    if (round >= 10) times.push(systemClock.monotonic() - started);
  }
  return median(times);
}

console.table(
  Object.fromEntries(
    [2, 8, 32].map((count) => [`${count} lists`, { 'merge ms / 1,000 rows': mergeMs(count).toFixed(2) }]),
  ),
);

for (const close of closers) close();
