/**
 * A process that shows wrong redemptions to a server as fast as it can, for `claim-flood.slow.ts`: over sockets that
 * sign in with them, or over `POST /claims`. It gets one `Flood` by IPC and tells how far it is.
 */

import { once } from 'node:events';
import { Agent, request as httpRequest } from 'node:http';
import type { IncomingMessage } from 'node:http';
import { text } from 'node:stream/consumers';
import type { Redemption, SigningKey } from '@cocoon-mesh/protocol';
import { generateSigningKey, systemClock } from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { WebSocket } from 'ws';
import { newNonce, newRecord, signSignIn } from './test-client.ts';

export interface Flood {
  readonly door: 'sign-in' | 'claims';
  /** For WebSockets. */
  readonly url: string;
  readonly httpUrl: string;
  /** Where it comes from. */
  readonly address: string;
  readonly count: number;
  readonly atOnce: number;
  /** Shown in turn. */
  readonly redemptions: readonly Redemption[];
}

export interface FloodReport {
  readonly done: number;
  /** Answers by their codes. */
  readonly answers: Readonly<Record<string, number>>;
}

const reportEvery = 100;

if (process.send) {
  const [flood] = (await once(process, 'message')) as [Flood];
  await run(flood);
  process.disconnect();
}

async function run(flood: Flood): Promise<void> {
  const answers: Record<string, number> = {};
  let begun = 0;
  let done = 0;
  const attempt = flood.door === 'sign-in' ? await signIns(flood) : await claims(flood);
  const report = (): void => void process.send?.({ done, answers } satisfies FloodReport);
  const worker = async (): Promise<void> => {
    for (let n = begun++; n < flood.count; n = begun++) {
      const code = await attempt(n);
      answers[code] = (answers[code] ?? 0) + 1;
      if (++done % reportEvery === 0) report();
    }
  };
  await Promise.all(Array.from({ length: flood.atOnce }, worker));
  report();
}

type Attempt = (n: number) => Promise<string>;

/** Made before, so that what is measured is the server. */
async function devices(count: number): Promise<{ key: SigningKey; record: string }[]> {
  const clock = new SteppedClock(systemClock.now());
  return Promise.all(
    Array.from({ length: count }, async () => {
      const key = await generateSigningKey();
      return { key, record: await newRecord(key, clock) };
    }),
  );
}

async function signIns({ url, address, redemptions }: Flood): Promise<Attempt> {
  const pool = await devices(200);
  return async (n) => {
    const device = pool[n % pool.length];
    const redemption = redemptions[n % redemptions.length];
    if (!device || !redemption) throw new Error('nothing to show');
    const { key, record } = device;
    const socket = new WebSocket(url, ['cocoon.v1.json'], {
      perMessageDeflate: false,
      localAddress: address,
    });
    const { promise, resolve } = Promise.withResolvers<string>();
    const nonce = newNonce();
    const send = (message: object): void => socket.send(JSON.stringify(message));
    socket.on('open', () => send({ type: 'sign_in', peer_id: key.peerId, nonce }));
    socket.on('message', (data: Buffer) => {
      const message = JSON.parse(data.toString()) as Record<string, string> & { time: number };
      const { type, nonce: serverNonce = '', time } = message;
      if (type !== 'challenge') resolve(message['code'] ?? type ?? '');
      else
        void signSignIn(key, url, nonce, serverNonce, time).then((signature) =>
          send({ type: 'sign_in_proof', signature, record, redemption }),
        );
    });
    socket.on('error', (error) => resolve(error.message));
    socket.on('close', () => resolve('closed'));
    const code = await promise;
    socket.terminate();
    return code;
  };
}

async function claims({ url, httpUrl, address, redemptions, atOnce }: Flood): Promise<Attempt> {
  const agent = new Agent({ keepAlive: true, maxSockets: atOnce, localAddress: address });
  const post = async (path: string, body: object, token?: string): Promise<Record<string, string>> => {
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const headers = token === undefined ? {} : { authorization: `Bearer ${token}` };
    const request = httpRequest(`${httpUrl}${path}`, { method: 'POST', agent, headers });
    request.once('response', resolve);
    request.once('error', reject);
    request.end(JSON.stringify(body));
    return JSON.parse(await text(await promise)) as Record<string, string>;
  };
  // Enough that none of them reaches its own limit.
  const pool = await devices(Math.min(1000, Math.ceil(redemptions.length / 10) + 500));
  const tokens = await Promise.all(
    pool.map(async ({ key }) => {
      const nonce = newNonce();
      const { nonce: server = '', time } = await post('/auth/challenge', { peer_id: key.peerId, nonce });
      const signature = await signSignIn(key, url, nonce, server, Number(time));
      const proof = { peer_id: key.peerId, nonce, server_nonce: server, time, signature };
      return (await post('/auth/token', proof))['access_token'];
    }),
  );
  return async (n) => {
    const redemption = redemptions[n % redemptions.length];
    const answer = await post('/claims', { redemption }, tokens[n % tokens.length]);
    return answer['code'] ?? 'claimed';
  };
}
