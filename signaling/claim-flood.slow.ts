/**
 * Ten thousand wrong claims in a minute (two thousand, as fast as they go, unless everything is tested), from a
 * process of their own: their source is limited, and right claims come through at once, from its very address too.
 */

import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { describe, test } from 'node:test';
import type { OwnerKeys, Redemption } from '@cocoon-mesh/protocol';
import { generateSigningKey, randomBytes, systemClock } from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import type { Flood, FloodReport } from './claim-flood.ts';
import { defaultLimits } from './server-limits.ts';
import type { TestServer } from './test-client.ts';
import {
  TestPeer,
  newDevice,
  newNonce,
  newOwner,
  newRecord,
  newRedemption,
  signSignIn,
  startTestServer,
} from './test-client.ts';

const isFull = process.env['COCOON_TEST_FULL'] === '1';
const count = isFull ? 10_000 : 2_000;
const promptMs = 2_000;
const rightClaims = 5;

/** What somebody might try: old tokens, foreign ones, changed ones, ones of owners that nobody has heard of. */
async function wrongRedemptions(run: TestServer, owner: OwnerKeys): Promise<Redemption[]> {
  const flipped = (text: string, at: number): string =>
    text.slice(0, at) + (text[at] === 'A' ? 'B' : 'A') + text.slice(at + 1);
  const used = await newRedemption(owner, run, await generateSigningKey());
  const list: Redemption[] = [];
  for (let i = 0; i < 20; i++) {
    const key = await generateSigningKey();
    const good = await newRedemption(owner, run, key);
    const stranger = await newOwner();
    list.push(
      used,
      { ...good, grant: flipped(good.grant, good.grant.length - 5) },
      await newRedemption(stranger, run, key, { receiptKey: randomBytes(32) }),
      await newRedemption(owner, run, key, { expires: Math.floor(run.clock.now() / 1000) - 1 }),
      { ...good, one_time_signature: used.one_time_signature },
    );
  }
  return list;
}

interface Outcome {
  readonly report: FloodReport;
  readonly seconds: number;
  readonly cpuMsEach: number;
}

/** @param between called at even distances while it lasts */
async function flooded(flood: Flood, between: () => Promise<void>): Promise<Outcome> {
  const child: ChildProcess = fork(new URL('./claim-flood.ts', import.meta.url));
  let report: FloodReport = { done: 0, answers: {} };
  const work: Promise<void>[] = [];
  let began = 0;
  let cpuBefore = process.cpuUsage();
  child.on('message', (told: FloodReport) => {
    if (report.done === 0) {
      began = performance.now();
      cpuBefore = process.cpuUsage();
    }
    report = told;
    if (work.length < rightClaims && told.done >= ((work.length + 1) * flood.count) / (rightClaims + 1))
      work.push(between());
  });
  child.send(flood);
  await once(child, 'exit');
  const seconds = (performance.now() - began) / 1000;
  const { user, system } = process.cpuUsage(cpuBefore);
  await Promise.all(work);
  assert.equal(work.length, rightClaims);
  assert.equal(report.done, flood.count);
  return { report, seconds, cpuMsEach: (user + system) / 1000 / flood.count };
}

/** A new device enrolls over a WebSocket, as `cocoon run --token` does. */
async function enroll(run: TestServer, owner: OwnerKeys): Promise<number> {
  const key = await generateSigningKey();
  const redemption = await newRedemption(owner, run, key);
  const record = await newRecord(key, run.clock);
  const began = performance.now();
  const peer = await TestPeer.open(run.server.url);
  await peer.prove(run.server.url, key, { record, redemption });
  await peer.next('welcome');
  const tookMs = performance.now() - began;
  await peer.close();
  return tookMs;
}

/** The same over HTTP. */
async function claim(run: TestServer, owner: OwnerKeys): Promise<number> {
  const key = await generateSigningKey();
  const redemption = await newRedemption(owner, run, key);
  const began = performance.now();
  const post = async (path: string, body: object, token = ''): Promise<Record<string, string>> => {
    const response = await fetch(`${run.server.httpUrl}${path}`, {
      method: 'POST',
      body: JSON.stringify(body),
      headers: { authorization: `Bearer ${token}` },
    });
    return (await response.json()) as Record<string, string>;
  };
  const nonce = newNonce();
  const { nonce: server = '', time } = await post('/auth/challenge', { peer_id: key.peerId, nonce });
  const signature = await signSignIn(key, run.server.url, nonce, server, Number(time));
  const proof = { peer_id: key.peerId, nonce, server_nonce: server, time, signature };
  const { access_token: token } = await post('/auth/token', proof);
  const answer = await post('/claims', { redemption }, token);
  assert.equal(typeof answer['receipt'], 'string', JSON.stringify(answer));
  return performance.now() - began;
}

describe('ten thousand wrong claims a minute', () => {
  for (const door of ['sign-in', 'claims'] as const)
    for (const address of ['127.0.0.1', '127.0.0.2'])
      test(
        `by ${door} are refused, and right ones from ${address === '127.0.0.1' ? 'the same' : 'another'} address succeed at once`,
        // Other systems have one loopback address.
        { skip: address !== '127.0.0.1' && process.platform !== 'linux' },
        async (context) => {
          await using run = await startTestServer({ clock: new SteppedClock(systemClock.now()) });
          const owner = await newOwner();
          const member = await newDevice(owner, run.clock);
          await (await TestPeer.member(run.server.url, member)).peer.close();
          const { redemption } = defaultLimits.rates;
          const times: number[] = [];
          const { report, seconds, cpuMsEach } = await flooded(
            {
              door,
              url: run.server.url,
              httpUrl: run.server.httpUrl,
              address,
              count,
              atOnce: 24,
              redemptions: await wrongRedemptions(run, owner),
            },
            async () => {
              times.push(await enroll(run, owner), await claim(run, owner));
            },
          );
          context.diagnostic(
            `${count} in ${seconds.toFixed(1)} s, ${cpuMsEach.toFixed(2)} ms of CPU each; ` +
              `right ones took ${Math.max(...times).toFixed(0)} ms at most; ${JSON.stringify(report.answers)}`,
          );
          const { rate_limited: limited = 0, claimed = 0, welcome = 0 } = report.answers;
          assert.equal(claimed + welcome, 0);
          const windows = Math.ceil(seconds / redemption.address.seconds) + 1;
          // Each expired, used or spoiled token of the known owner may be tried for its own share, and not more.
          const judged = windows * (redemption.address.count + defaultLimits.rates.reserve.identity.count);
          assert.ok(limited >= count - judged, `${limited} were limited`);
          assert.equal(times.length, 2 * rightClaims);
          assert.ok(Math.max(...times) < promptMs, `a right claim took ${Math.max(...times)} ms`);
          // Members come in as ever.
          const began = performance.now();
          await TestPeer.member(run.server.url, member);
          assert.ok(performance.now() - began < promptMs);
        },
      );
});
