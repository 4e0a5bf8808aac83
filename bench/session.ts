/**
 * Prints what a session costs over the bare channel of the same engine, at several high-water marks of the
 * carrier. Two processes per row, all rows measured in turns (one interleaved run), medians of the rounds.
 *
 *   node bench/session.ts [--engine libdatachannel] [--marks 32,64,128,256] [--rounds 3]
 *
 * The first row joins both ends in one process and in memory: what the session's own code costs.
 */

import { fork } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { parseArgs } from 'node:util';
import { systemClock } from '@cocoon-mesh/protocol';
import { memoryCarrierPair } from '@cocoon-mesh/mesh/memory-carrier.ts';
import { Session } from '@cocoon-mesh/mesh/session.ts';
import type { Carrier } from '@cocoon-mesh/mesh/carrier.ts';
import { measureRaw, measureSession, rawListener, sessionListener } from './session-cases.ts';
import type { Case } from './session-cases.ts';
import type { FromEnd, ToEnd, Which } from './session-end.ts';

const { values } = parseArgs({
  options: {
    engine: { type: 'string', default: 'libdatachannel' },
    marks: { type: 'string', default: '32,64,128,256' },
    rounds: { type: 'string', default: '3' },
  },
});

interface Row {
  readonly name: string;
  readonly measure: (which: Which, what: Case) => Promise<number>;
  readonly results: Map<string, number[]>;
  readonly close: () => void;
}

const cases: readonly Case[] = ['bulk', 'exchanges', 'ping-p99'];
const rows: Row[] = [memoryRow()];
for (const engine of values.engine.split(',').filter(Boolean)) {
  for (const mark of values.marks.split(',')) rows.push(await engineRow(engine, mark));
}
for (let round = 0; round <= Number(values.rounds); round++) {
  for (const what of cases) {
    for (const row of rows) {
      for (const which of ['raw', 'session'] as const) {
        const value = await row.measure(which, what);
        // The first round warms up.
        if (round > 0) resultsOf(row, which, what).push(value);
      }
    }
  }
}
console.table(Object.fromEntries(rows.map((row) => [row.name, summary(row)])));
for (const row of rows) row.close();

function summary(row: Row): Record<string, string> {
  const of = (which: Which, what: Case) => median(resultsOf(row, which, what));
  return {
    'raw MB/s': of('raw', 'bulk').toFixed(0),
    'session MB/s': of('session', 'bulk').toFixed(0),
    'bulk ratio': (of('session', 'bulk') / of('raw', 'bulk')).toFixed(2),
    'raw msg/s': of('raw', 'exchanges').toFixed(0),
    'session req/s': of('session', 'exchanges').toFixed(0),
    'small ratio': (of('session', 'exchanges') / of('raw', 'exchanges')).toFixed(2),
    'raw ping p99 ms': of('raw', 'ping-p99').toFixed(1),
    'session ping p99 ms': of('session', 'ping-p99').toFixed(1),
  };
}

function resultsOf(row: Row, which: Which, what: Case): number[] {
  const key = `${which} ${what}`;
  const known = row.results.get(key) ?? [];
  row.results.set(key, known);
  return known;
}

function median(numbers: readonly number[]): number {
  return [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? NaN;
}

function memoryRow(): Row {
  const pair = () => memoryCarrierPair({ schedule: (callback) => void setImmediate(callback) });
  const [rawDialler, rawEnd] = pair();
  rawListener(rawEnd);
  const [left, right] = pair();
  const session = (carrier: Carrier, localPeer: string, remotePeer: string) =>
    new Session({
      carrier,
      localPeer,
      remotePeer,
      clock: systemClock,
      acceptStream: (stream) => void sessionListener(stream),
      // Far above what any device reaches; the limit is not what is measured here.
      limits: { maxOpensPerSecond: 1e9, maxControlFramesPerSecond: 1e9 },
    });
  const dialler = session(left, 'a', 'b');
  session(right, 'b', 'a');
  return {
    name: 'memory, one process',
    measure: (which, what) =>
      which === 'raw' ? measureRaw(rawDialler, what) : measureSession(dialler, what),
    results: new Map(),
    close: () => dialler.abort('measured'),
  };
}

async function engineRow(engine: string, mark: string): Promise<Row> {
  const start = (role: string) => fork(new URL('session-end.ts', import.meta.url), [engine, mark, role]);
  const dialler = start('dialler');
  const listener = start('listener');
  const relay = (from: ChildProcess, to: ChildProcess) =>
    from.on('message', (message: FromEnd) => {
      if (message.type === 'offer' || message.type === 'answer' || message.type === 'candidate')
        to.send(message);
    });
  relay(dialler, listener);
  relay(listener, dialler);
  for (const which of ['raw', 'session'] as const) {
    const open = Promise.all([dialler, listener].map((end) => next(end, 'open')));
    tell(dialler, { type: 'connect', which });
    await open;
  }
  return {
    name: `${engine}, ${mark} KiB`,
    async measure(which, what) {
      const measured = next(dialler, 'measured');
      tell(dialler, { type: 'measure', which, what });
      return (await measured).value;
    },
    results: new Map(),
    close() {
      dialler.disconnect();
      listener.disconnect();
    },
  };
}

function tell(end: ChildProcess, message: ToEnd): void {
  end.send(message);
}

/** The next message of that type; a process that ends first is an error. */
function next<Type extends FromEnd['type']>(
  end: ChildProcess,
  type: Type,
): Promise<Extract<FromEnd, { type: Type }>> {
  return new Promise((resolve, reject) => {
    const exited = (code: number | null) => reject(new Error(`an end left with code ${code}`));
    const heard = (message: FromEnd) => {
      if (message.type !== type) return;
      end.off('exit', exited);
      end.off('message', heard);
      resolve(message as Extract<FromEnd, { type: Type }>);
    };
    end.on('message', heard);
    end.once('exit', exited);
  });
}
