/**
 * What is measured, on a bare carrier and on a session of the same kind: bulk in MB/s, small exchanges per
 * second (32 in flight), and the p99 in ms of pings behind bulk.
 */

import type { Carrier } from '@cocoon-mesh/mesh/carrier.ts';
import type { Session } from '@cocoon-mesh/mesh/session.ts';
import type { Stream } from '@cocoon-mesh/mesh/stream.ts';

export type Case = 'bulk' | 'exchanges' | 'ping-p99';

const bulkBytes = 64 * 1024 * 1024;
const chunkBytes = 64 * 1024;
const smallBytes = 64;
const inFlight = 32;
const exchangesMs = 1_000;
const pingEveryMs = 10;
const pings = 250;
/** Larger messages of a bare carrier are bulk; smaller ones come back. */
const echoBelowBytes = 1024;

/** The listener's end of a bare carrier: small messages come back, every `bulkBytes` are confirmed. */
export function rawListener(carrier: Carrier): void {
  let received = 0;
  carrier.start({
    message(bytes) {
      if (bytes.length < echoBelowBytes) return carrier.send(bytes);
      received += bytes.length;
      if (received % bulkBytes === 0) carrier.send(Uint8Array.of(1));
    },
    writable() {},
    closed() {},
  });
}

/** The listener's end of a session's stream: `/bench/echo/1` answers, anything else swallows. */
export async function sessionListener(stream: Stream): Promise<void> {
  const echo = stream.protocol === '/bench/echo/1';
  for (let chunk = await stream.read(); chunk; chunk = await stream.read()) if (echo) stream.write(chunk);
  stream.end();
}

export async function measureRaw(carrier: Carrier, what: Case): Promise<number> {
  const raw = new RawDialler(carrier);
  if (what === 'bulk') return rate(bulkBytes / 1e6, () => raw.bulk());
  if (what === 'exchanges') return exchanges(() => raw.exchange());
  return behindBulk(
    () => raw.bulk(),
    () => raw.exchange(),
  );
}

export async function measureSession(session: Session, what: Case): Promise<number> {
  if (what === 'bulk') return rate(bulkBytes / 1e6, () => sessionBulk(session));
  if (what === 'exchanges') return exchanges(() => sessionExchange(session));
  const signal = AbortSignal.timeout(60_000);
  return behindBulk(
    () => sessionBulk(session),
    () => session.ping(signal),
  );
}

class RawDialler {
  readonly #carrier: Carrier;
  readonly #echoes: (() => void)[] = [];
  #confirmed: (() => void) | null = null;
  #writable: (() => void) | null = null;

  constructor(carrier: Carrier) {
    this.#carrier = carrier;
    carrier.start({
      message: (bytes) => (bytes.length === 1 ? this.#confirmed?.() : this.#echoes.shift()?.()),
      writable: () => this.#writable?.(),
      closed() {},
    });
  }

  async bulk(): Promise<void> {
    const confirmed = new Promise<void>((resolve) => (this.#confirmed = resolve));
    for (let sent = 0; sent < bulkBytes; sent += chunkBytes) {
      while (!this.#carrier.writable) await new Promise<void>((resolve) => (this.#writable = resolve));
      this.#carrier.send(new Uint8Array(chunkBytes));
    }
    await confirmed;
  }

  exchange(): Promise<unknown> {
    return new Promise<void>((resolve) => {
      this.#echoes.push(resolve);
      this.#carrier.send(new Uint8Array(smallBytes));
    });
  }
}

async function sessionBulk(session: Session): Promise<void> {
  const stream = session.open('/bench/sink/1');
  for (let sent = 0; sent < bulkBytes; sent += chunkBytes) {
    if (!stream.write(new Uint8Array(chunkBytes))) await stream.drained();
  }
  stream.end();
  await stream.read();
}

async function sessionExchange(session: Session): Promise<void> {
  const stream = session.open('/bench/echo/1');
  stream.write(new Uint8Array(smallBytes));
  stream.end();
  while (await stream.read());
}

async function rate(amount: number, work: () => Promise<void>): Promise<number> {
  const start = performance.now();
  await work();
  return amount / ((performance.now() - start) / 1000);
}

async function exchanges(one: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  let done = 0;
  const worker = async () => {
    while (performance.now() - start < exchangesMs) {
      await one();
      done++;
    }
  };
  await Promise.all(Array.from({ length: inFlight }, worker));
  return done / ((performance.now() - start) / 1000);
}

/** Pings at a steady pace while bulk runs, whether or not the one before has come back. */
async function behindBulk(bulk: () => Promise<void>, ping: () => Promise<unknown>): Promise<number> {
  const measured = new AbortController();
  const load = (async () => {
    while (!measured.signal.aborted) await bulk();
  })();
  await new Promise((resolve) => setTimeout(resolve, 300));
  const waits: Promise<number>[] = [];
  for (let i = 0; i < pings; i++) {
    const start = performance.now();
    waits.push(ping().then(() => performance.now() - start));
    await new Promise((resolve) => setTimeout(resolve, pingEveryMs));
  }
  const times = (await Promise.all(waits)).sort((a, b) => a - b);
  measured.abort();
  await load;
  return times[Math.floor(times.length * 0.99)] ?? NaN;
}
