/**
 * Prints the bulk rate of every engine over its bare carrier, two processes per engine on loopback, measured in
 * turns (one interleaved run), medians of the rounds: werift as it is shipped, hardened, hardened with Noise kept
 * on as sessions use it, and libdatachannel.
 *
 *   node bench/engines.ts [--rounds 5]
 */

import { fork } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { parseArgs } from 'node:util';
import { engineKinds } from './engine-end.ts';
import type { EngineKind, EndMessage } from './engine-end.ts';

const { values } = parseArgs({ options: { rounds: { type: 'string', default: '5' } } });

interface Pair {
  readonly dialler: ChildProcess;
  readonly listener: ChildProcess;
  readonly rates: number[];
}

const pairs = new Map<EngineKind, Pair>();
for (const kind of engineKinds) pairs.set(kind, await connect(kind));
for (let round = 0; round <= Number(values.rounds); round++) {
  for (const { dialler, rates } of pairs.values()) {
    const rate = await measure(dialler);
    // The first round warms up.
    if (round > 0) rates.push(rate);
  }
}
const median = (kind: EngineKind): number => {
  const rates = pairs.get(kind)?.rates.toSorted((a, b) => a - b) ?? [];
  return rates[Math.floor(rates.length / 2)] ?? NaN;
};
console.table(
  Object.fromEntries(
    engineKinds.map((kind) => [
      kind,
      {
        'MB/s': median(kind).toFixed(1),
        'of stock werift': (median(kind) / median('stock werift')).toFixed(2),
        'of libdatachannel': (median(kind) / median('libdatachannel')).toFixed(2),
      },
    ]),
  ),
);
for (const { dialler, listener } of pairs.values()) {
  dialler.disconnect();
  listener.disconnect();
}

async function connect(kind: EngineKind): Promise<Pair> {
  const end = (role: string): ChildProcess =>
    fork(`${import.meta.dirname}/engine-end.ts`, [kind, role], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
  const dialler = end('dialler');
  const listener = end('listener');
  // Descriptions and candidates of one go to the other.
  dialler.on('message', (message: EndMessage) => message.type === 'signal' && listener.send(message));
  listener.on('message', (message: EndMessage) => message.type === 'signal' && dialler.send(message));
  await Promise.all([dialler, listener].map((child) => said(child, 'ready')));
  dialler.send({ type: 'connect' } satisfies EndMessage);
  await said(dialler, 'open');
  return { dialler, listener, rates: [] };
}

async function measure(dialler: ChildProcess): Promise<number> {
  dialler.send({ type: 'measure' } satisfies EndMessage);
  const message = await said(dialler, 'measured');
  return message.type === 'measured' ? message.rate : NaN;
}

async function said(child: ChildProcess, type: EndMessage['type']): Promise<EndMessage> {
  return new Promise((resolve, reject) => {
    const onMessage = (message: EndMessage): void => {
      if (message.type !== type) return;
      child.off('message', onMessage);
      resolve(message);
    };
    child.on('message', onMessage);
    child.once('exit', (code) => reject(new Error(`an end of the benchmark ended with ${code}`)));
  });
}
