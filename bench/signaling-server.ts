/** A server in a process of its own, for `signaling.ts`: signaling, or a bare `ws` that sends back what it gets. */

import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '@cocoon-mesh/protocol';
import { startSignaling } from '@cocoon-mesh/signaling';
import { defaultLimits } from '@cocoon-mesh/signaling/server-limits.ts';
import { WebSocketServer } from 'ws';

export interface Ready {
  readonly url: string;
}

/** What a process has used since its start, in milliseconds. */
export interface Used {
  readonly cpuMs: number;
}

const folder = mkdtempSync(join(tmpdir(), 'cocoon-bench-'));
process.on('exit', () => rmSync(folder, { recursive: true }));
process.on('message', () => {
  const { user, system } = process.cpuUsage();
  process.send?.({ cpuMs: (user + system) / 1000 } satisfies Used);
});
process.on('disconnect', () => process.exit());

const url = process.argv[2] === 'echo' ? await startEcho() : await startServer();
process.send?.({ url } satisfies Ready);

async function startServer(): Promise<string> {
  const none = (): void => undefined;
  const many = { count: 1e9, seconds: 60 };
  const kinds = Object.keys(defaultLimits.rates) as (keyof typeof defaultLimits.rates)[];
  const rates = { ...defaultLimits.rates };
  // Everything comes from one address here.
  for (const kind of kinds) rates[kind] = { address: many, identity: many };
  const server = await startSignaling({
    host: '127.0.0.1',
    port: 0,
    databaseUrl: `sqlite:${join(folder, 'signaling.db')}`,
    clock: systemClock,
    log: { debug: none, info: none, warn: none, error: console.error },
    limits: { rates, maxConnectionsPerAddress: 10_000 },
  });
  return server.url;
}

async function startEcho(): Promise<string> {
  const server = new WebSocketServer({ host: '127.0.0.1', port: 0, perMessageDeflate: false });
  server.on('connection', (socket) =>
    socket.on('message', (data, isBinary) => socket.send(data as Buffer, { binary: isBinary })),
  );
  await once(server, 'listening');
  return `ws://127.0.0.1:${(server.address() as AddressInfo).port}/ws`;
}
