/**
 * Prints what signaling does on one core with a thousand clients connected: sign-ins and introductions a second, and
 * how long an introduction takes at a steady rate, each beside a bare `ws` echo of the same messages in the same run.
 * The servers are processes of their own and take turns; the clients are all in this one and check nothing, so that
 * they are not what is measured.
 *
 *   node bench/signaling.ts [--clients 1000] [--introductions 4000] [--rate 200] [--rounds 3] [--prof DIR]
 */

import type { ChildProcess } from 'node:child_process';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { systemClock } from '@cocoon-mesh/protocol';
import type { TestDevice } from '@cocoon-mesh/signaling/test-client.ts';
import { newDevice, newNonce, newOwner, signSignIn } from '@cocoon-mesh/signaling/test-client.ts';
import { WebSocket } from 'ws';
import type { Ready, Used } from './signaling-server.ts';

const { values } = parseArgs({
  options: {
    clients: { type: 'string', default: '1000' },
    introductions: { type: 'string', default: '4000' },
    rate: { type: 'string', default: '200' },
    rounds: { type: 'string', default: '3' },
    prof: { type: 'string' },
  },
});
const clientCount = Number(values.clients);
const atOnce = 32;
const steadySeconds = 5;
const devicesPerOwner = 4;

interface Client {
  /** Sends a request and waits for its answer. */
  ask(n: number): Promise<void>;
  close(): Promise<void>;
}

/** What is measured the same way of both servers. */
interface Contender {
  readonly connect: (n: number) => Promise<Client>;
  readonly cpuMs: () => Promise<number>;
  readonly stop: () => Promise<void>;
}

interface Measured {
  readonly perSecond: number;
  readonly cpuMsEach: number;
}

interface Round {
  readonly signIns: Measured;
  readonly requests: Measured;
  readonly latencies: readonly number[];
}

/** Bytes of the messages of signaling, which the echo sends as well. */
const sizes = { signIn: 0, proof: 0, answer: 0 };

const devices = await newDevices();
const signaling = await startContender('signaling', connectSignaling);
const echo = await startContender('echo', connectEcho);
const rounds: { signaling: Round; echo: Round }[] = [];
for (let i = 0; i < Number(values.rounds); i++)
  rounds.push({ signaling: await measure(signaling), echo: await measure(echo) });
await signaling.stop();
await echo.stop();
print();

async function newDevices(): Promise<TestDevice[]> {
  const owners = await Promise.all(Array.from({ length: clientCount / devicesPerOwner }, () => newOwner()));
  const made: TestDevice[] = [];
  for (let i = 0; i < clientCount; i++) {
    const owner = owners[i % owners.length];
    if (owner) made.push(await newDevice(owner, systemClock, { name: `device-${i}` }));
  }
  return made;
}

async function startContender(
  role: 'signaling' | 'echo',
  connect: (url: string, n: number) => Promise<Client>,
): Promise<Contender> {
  const execArgv = values.prof && role === 'signaling' ? ['--cpu-prof', `--cpu-prof-dir=${values.prof}`] : [];
  const child: ChildProcess = fork(new URL('./signaling-server.ts', import.meta.url), [role], { execArgv });
  const [{ url }] = (await once(child, 'message')) as [Ready];
  return {
    connect: (n) => connect(url, n),
    async cpuMs() {
      const answer = once(child, 'message') as Promise<[Used]>;
      child.send('used');
      return (await answer)[0].cpuMs;
    },
    async stop() {
      child.disconnect();
      await once(child, 'exit');
    },
  };
}

async function measure(contender: Contender): Promise<Round> {
  const clients: Client[] = [];
  const signIns = await rated(contender, clientCount, async (n) => {
    clients[n] = await contender.connect(n);
  });
  const ask = async (n: number): Promise<void> => clients[n % clientCount]?.ask(n);
  const requests = await rated(contender, Number(values.introductions), ask);
  const latencies = await steady(ask);
  await Promise.all(clients.map((client) => client.close()));
  return { signIns, requests, latencies };
}

/** As fast as it goes, so many at once. */
async function rated(
  contender: Contender,
  count: number,
  work: (n: number) => Promise<void>,
): Promise<Measured> {
  const cpuBefore = await contender.cpuMs();
  const began = performance.now();
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let n = next++; n < count; n = next++) await work(n);
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
  const seconds = (performance.now() - began) / 1000;
  return { perSecond: count / seconds, cpuMsEach: ((await contender.cpuMs()) - cpuBefore) / count };
}

/** At a given rate, whatever the answers do. */
async function steady(work: (n: number) => Promise<void>): Promise<number[]> {
  const rate = Number(values.rate);
  const latencies: number[] = [];
  const under: Promise<void>[] = [];
  const began = performance.now();
  for (let n = 0; n < rate * steadySeconds; n++) {
    const due = began + (n * 1000) / rate;
    const wait = due - performance.now();
    if (wait > 1) await delay(wait);
    under.push(
      work(n).then(() => {
        latencies.push(performance.now() - due);
      }),
    );
  }
  await Promise.all(under);
  return latencies;
}

async function connectSignaling(url: string, n: number): Promise<Client> {
  const device = devices[n];
  if (!device) throw new Error('there are no more devices');
  const { key, record, membership } = device;
  const socket = new WebSocket(url, ['cocoon.v1.json'], { perMessageDeflate: false });
  const waiting = new Map<string, (message: Record<string, unknown>) => void>();
  const answerTo = (what: string): Promise<Record<string, unknown>> =>
    new Promise((resolve) => waiting.set(what, resolve));
  socket.on('message', (data: Buffer) => {
    const message = JSON.parse(data.toString()) as Record<string, unknown>;
    const { type, id } = message;
    if (type === 'error') throw new Error(`signaling refused: ${data.toString()}`);
    // What others ask of this one and what it hears about others has no id.
    const what = type === 'introduction' ? `introduction ${String(id)}` : String(type);
    if (type === 'introduction' && id !== undefined) sizes.answer = data.length;
    waiting.get(what)?.(message);
    waiting.delete(what);
  });
  await once(socket, 'open');
  const nonce = newNonce();
  const signIn = JSON.stringify({ type: 'sign_in', peer_id: key.peerId, nonce });
  const challenged = answerTo('challenge');
  socket.send(signIn);
  const { nonce: serverNonce, time } = (await challenged) as { nonce: string; time: number };
  const signature = await signSignIn(key, url, nonce, serverNonce, time);
  const proof = JSON.stringify({ type: 'sign_in_proof', signature, record, membership });
  const welcomed = answerTo('welcome');
  socket.send(proof);
  await welcomed;
  sizes.signIn = signIn.length;
  sizes.proof = proof.length;
  const peers = devices.length / devicesPerOwner;
  const other = devices[(n + peers) % devices.length];
  return {
    async ask(request) {
      const introduced = answerTo(`introduction ${request}`);
      socket.send(JSON.stringify({ type: 'introduce', id: request, peer_id: other?.key.peerId }));
      await introduced;
    },
    close: () => closed(socket),
  };
}

async function connectEcho(url: string): Promise<Client> {
  const socket = new WebSocket(url, { perMessageDeflate: false });
  const waiting: (() => void)[] = [];
  socket.on('message', () => waiting.shift()?.());
  const echoed = async (text: string): Promise<void> => {
    const answer = new Promise<void>((resolve) => waiting.push(resolve));
    socket.send(text);
    await answer;
  };
  await once(socket, 'open');
  await echoed('x'.repeat(sizes.signIn));
  await echoed('x'.repeat(sizes.proof));
  const request = 'x'.repeat(sizes.answer);
  return { ask: () => echoed(request), close: () => closed(socket) };
}

async function closed(socket: WebSocket): Promise<void> {
  const over = once(socket, 'close');
  socket.close();
  await over;
}

function print(): void {
  const row = (name: string, pick: (round: Round) => number, digits: number, unit: string) => {
    const [ours, bare] = (['signaling', 'echo'] as const).map((who) =>
      median(rounds.map((round) => pick(round[who]))),
    );
    const ratio = median(rounds.map((round) => pick(round.signaling) / pick(round.echo)));
    const shown = (value = NaN): string => `${value.toFixed(digits)}${unit}`;
    return [name, { signaling: shown(ours), 'bare ws': shown(bare), ratio: ratio.toFixed(2) }] as const;
  };
  const p = (share: number) => (round: Round) => quantile(round.latencies, share);
  console.table(
    Object.fromEntries([
      row('sign-ins/s', ({ signIns }) => signIns.perSecond, 0, ''),
      row('server CPU of a sign-in', ({ signIns }) => signIns.cpuMsEach, 2, ' ms'),
      row('introductions/s', ({ requests }) => requests.perSecond, 0, ''),
      row('server CPU of an introduction', ({ requests }) => requests.cpuMsEach, 3, ' ms'),
      row(`introduction p50 at ${values.rate}/s`, p(0.5), 2, ' ms'),
      row(`introduction p99 at ${values.rate}/s`, p(0.99), 2, ' ms'),
    ]),
  );
}

function median(list: readonly number[]): number {
  return quantile(list, 0.5);
}

function quantile(list: readonly number[], share: number): number {
  const ascending = list.toSorted((a, b) => a - b);
  return ascending[Math.min(ascending.length - 1, Math.floor(ascending.length * share))] ?? NaN;
}
