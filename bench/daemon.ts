/**
 * Prints what a pair of installed daemons costs, for each engine: a small GET through the gateway and the other
 * device against the same GET direct, a download against a direct one, and what an idle daemon takes. Everything runs in processes of its own; the measured calls take turns with direct ones.
 *
 *   node bench/daemon.ts [--engines libdatachannel,werift] [--requests 2000] [--sessions 20]
 */

import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { Agent, request as httpRequest } from 'node:http';
import type { IncomingMessage } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import type { CocoonProcess, EngineName } from '../test/stories/cocoon-process.ts';
import { enroll, meshOfTwo, sees } from '../test/stories/cocoon-process.ts';
import { Origin } from '../test/stories/origin.ts';

const { values } = parseArgs({
  options: {
    engines: { type: 'string', default: 'libdatachannel,werift' },
    requests: { type: 'string', default: '2000' },
    sessions: { type: 'string', default: '20' },
  },
});
const MiB = 1 << 20;
const bulkBytes = 128 * MiB;

const rows: Record<string, Record<string, string>> = {};
for (const engine of values.engines.split(',') as EngineName[]) rows[engine] = await measure(engine);
console.table(rows);

async function measure(engine: EngineName): Promise<Record<string, string>> {
  await using origin = await Origin.start();
  const { laptop, server } = await meshOfTwo({
    engines: [engine, engine],
    runArgs: ['--service', `web:${origin.port}`],
  });
  await using _laptop = laptop;
  await using _server = server;
  await sees(laptop, 'server', 'web');
  const { direct, proxied } = await requestTimes(laptop, origin, Number(values.requests));
  const added = sorted(proxied.map((ms, i) => ms - (direct[i] ?? 0)));
  const download = await downloadRate(laptop, origin);
  const idle = await idleCost(laptop, engine, Number(values.sessions));
  return {
    'direct GET p50 ms': quantile(sorted(direct), 0.5).toFixed(2),
    'added p50 ms': quantile(added, 0.5).toFixed(2),
    'added p99 ms': quantile(added, 0.99).toFixed(2),
    'download MB/s': (download.proxied / 1e6).toFixed(0),
    'of direct': (download.proxied / download.direct).toFixed(3),
    'idle RSS MiB': (idle.residentBytes / MiB).toFixed(0),
    [`RSS MiB, ${values.sessions} sessions`]: (idle.residentBytesWithSessions / MiB).toFixed(0),
    [`idle CPU %, ${values.sessions} sessions`]: (idle.cpuShare * 100).toFixed(2),
  };
}

async function requestTimes(
  laptop: CocoonProcess,
  origin: Origin,
  count: number,
): Promise<{ direct: number[]; proxied: number[] }> {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const gateway = new URL(laptop.gateway);
  const authorization = `Bearer ${await laptop.gatewayToken()}`;
  const path = '/big?bytes=1024';
  const ask = async (port: number, at: string): Promise<number> => {
    const began = performance.now();
    const request = httpRequest({ agent, host: '127.0.0.1', port, path: at, headers: { authorization } });
    request.end();
    const [response] = (await once(request, 'response')) as [IncomingMessage];
    for await (const _ of response) void _;
    return performance.now() - began;
  };
  const direct: number[] = [];
  const proxied: number[] = [];
  for (let i = -200; i < count; i++) {
    const one = await ask(origin.port, path);
    const other = await ask(Number(gateway.port), `/proxy/server/web${path}`);
    // The first few warm up.
    if (i >= 0) {
      direct.push(one);
      proxied.push(other);
    }
  }
  agent.destroy();
  return { direct, proxied };
}

async function downloadRate(
  laptop: CocoonProcess,
  origin: Origin,
): Promise<{ direct: number; proxied: number }> {
  const gateway = new URL(laptop.gateway);
  const authorization = `Bearer ${await laptop.gatewayToken()}`;
  const rate = async (port: number, path: string): Promise<number> => {
    const began = performance.now();
    const request = httpRequest({ host: '127.0.0.1', port, path, headers: { authorization }, agent: false });
    request.end();
    const [response] = (await once(request, 'response')) as [IncomingMessage];
    for await (const _ of response) void _;
    return bulkBytes / ((performance.now() - began) / 1000);
  };
  const direct: number[] = [];
  const proxied: number[] = [];
  for (let round = 0; round < 3; round++) {
    direct.push(await rate(origin.port, `/big?bytes=${bulkBytes}`));
    proxied.push(await rate(Number(gateway.port), `/proxy/server/web/big?bytes=${bulkBytes}`));
  }
  return { direct: quantile(sorted(direct), 0.5), proxied: quantile(sorted(proxied), 0.5) };
}

async function idleCost(
  laptop: CocoonProcess,
  engine: EngineName,
  sessions: number,
): Promise<{ residentBytes: number; residentBytesWithSessions: number; cpuShare: number }> {
  const fresh = await enroll(laptop, { name: 'fresh', engine });
  const residentBytes = await fresh.residentBytes();
  const others: CocoonProcess[] = [];
  try {
    for (let i = 0; i < sessions; i++) {
      const other = await enroll(laptop, { name: `other-${i}`, engine });
      others.push(other);
      await sees(fresh, `other-${i}`);
      await fresh.command(['ping', `other-${i}`, '--count', '1']);
    }
    // A bench measures over time; nothing is waited for here but the clock.
    await delay(2_000);
    const cpuBefore = await cpuMs(fresh.pid);
    const began = performance.now();
    await delay(15_000);
    const cpuShare = ((await cpuMs(fresh.pid)) - cpuBefore) / (performance.now() - began);
    return { residentBytes, residentBytesWithSessions: await fresh.residentBytes(), cpuShare };
  } finally {
    for (const each of [...others, fresh]) await each[Symbol.asyncDispose]();
  }
}

/** User and system time of a process in milliseconds, from the kernel's 10 ms ticks. */
async function cpuMs(pid: number): Promise<number> {
  const fields = (await readFile(`/proc/${pid}/stat`, 'utf8')).split(') ')[1]?.split(' ') ?? [];
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

function sorted(numbers: readonly number[]): number[] {
  return numbers.toSorted((a, b) => a - b);
}

function quantile(ascending: readonly number[], share: number): number {
  return ascending[Math.min(ascending.length - 1, Math.floor(ascending.length * share))] ?? NaN;
}
