import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Redemption, SigningKey } from '@cocoon-mesh/protocol';
import { generateSigningKey, randomBytes, readSetupToken, redeem } from '@cocoon-mesh/protocol';
import type { RateKind, Rates, ServerLimits } from './server-limits.ts';
import { defaultLimits } from './server-limits.ts';
import type { TestDevice, TestServer } from './test-client.ts';
import {
  TestPeer,
  newDevice,
  newMembership,
  newNonce,
  newOwner,
  newRecord,
  newRedemption,
  newToken,
  signSignIn,
  startTestServer,
} from './test-client.ts';

function withCounts(counts: Partial<Record<RateKind, { address?: number; identity?: number }>>): {
  limits: Partial<ServerLimits>;
} {
  const rates: Record<RateKind, Rates> = { ...defaultLimits.rates };
  for (const kind of Object.keys(counts) as RateKind[]) {
    const { address, identity } = counts[kind] ?? {};
    rates[kind] = {
      address: address === undefined ? rates[kind].address : { count: address, seconds: 60 },
      identity: identity === undefined ? rates[kind].identity : { count: identity, seconds: 60 },
    };
  }
  return { limits: { rates } };
}

/** @returns `welcome`, or the code of the refusal */
async function present(run: TestServer, key: SigningKey, redemption: Redemption): Promise<string> {
  return outcome(run, key, { record: await newRecord(key, run.clock), redemption });
}

async function signIn(run: TestServer, { key, record, membership }: TestDevice): Promise<string> {
  return outcome(run, key, { record, membership });
}

async function outcome(
  run: TestServer,
  key: SigningKey,
  proof: Parameters<TestPeer['prove']>[2],
  signedUrl = run.server.url,
): Promise<string> {
  const peer = await TestPeer.open(run.server.url);
  await peer.prove(signedUrl, key, proof);
  const code = await peer.next('welcome').then(
    () => 'welcome',
    (error: Error) => /"code":"(\w+)"/.exec(error.message)?.[1] ?? error.message,
  );
  await peer.close();
  return code;
}

/** Over HTTP, by a device that nobody knows. @returns `claimed`, or the code of the refusal */
async function claim(run: TestServer, key: SigningKey, redemption: Redemption): Promise<string> {
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
  return answer['receipt'] === undefined ? (answer['code'] ?? '') : 'claimed';
}

describe('redemptions from an address that has shown too many wrong ones', () => {
  for (const [way, show] of [
    ['by sign-in', present],
    ['over HTTP', claim],
  ] as const) {
    const good = way === 'by sign-in' ? 'welcome' : 'claimed';

    test(`are refused ${way}, but for good tokens of owners who are known`, async () => {
      await using run = await startTestServer(withCounts({ redemption: { address: 2 } }));
      const owner = await newOwner();
      await signIn(run, await newDevice(owner, run.clock));
      const key = await generateSigningKey();
      const foreign = (): Promise<Redemption> =>
        newOwner().then((stranger) => newRedemption(stranger, run, key, { receiptKey: randomBytes(32) }));
      assert.equal(await show(run, key, await foreign()), 'token_wrong_signaling');
      assert.equal(await show(run, key, await foreign()), 'token_wrong_signaling');
      assert.equal(await show(run, key, await foreign()), 'rate_limited');
      // A good one of somebody who was never here is not told from a made-up one.
      assert.equal(await show(run, key, await newRedemption(await newOwner(), run, key)), 'rate_limited');
      const token = await readSetupToken(await newToken(owner, run));
      const right = await redeem(token, key, key.peerId);
      const other = await newRedemption(owner, run, key);
      const old = await newRedemption(owner, run, key, { expires: Math.floor(run.clock.now() / 1000) });
      for (const [what, wrong] of Object.entries({
        'a changed grant': { ...right, grant: other.grant },
        'an old one': old,
        'one without its key': { ...right, one_time_signature: other.one_time_signature },
      }))
        assert.equal(await show(run, key, wrong), 'rate_limited', what);
      assert.equal(await show(run, key, right), good);
      // Used now, for everybody but its redeemer.
      assert.equal(await show(run, key, right), good);
      const thief = await generateSigningKey();
      assert.equal(await show(run, thief, await redeem(token, thief, thief.peerId)), 'rate_limited');
    });

    test(`have a share for each token and each owner ${way}, which wrong ones cannot use up`, async () => {
      await using run = await startTestServer(
        withCounts({ redemption: { address: 1, identity: 3 }, reserve: { identity: 6 } }),
      );
      const owner = await newOwner();
      await signIn(run, await newDevice(owner, run.clock));
      const attempt = async (redemption: Redemption): Promise<string> =>
        show(run, await generateSigningKey(), redemption);
      const key = await generateSigningKey();
      const used = await newRedemption(owner, run, key);
      assert.equal(await show(run, key, used), good);
      for (let i = 0; i < 10; i++) await attempt(used);
      // Somebody who has a good token and shows it wrongly uses up its share, and nobody else's.
      const leaked = await newRedemption(owner, run, await generateSigningKey());
      const codes = [];
      for (let i = 0; i < 5; i++) codes.push(await attempt(leaked));
      assert.deepEqual(codes, [
        ...Array.from({ length: 3 }, () => 'token_invalid'),
        'rate_limited',
        'rate_limited',
      ]);
      const mine = await generateSigningKey();
      assert.equal(await show(run, mine, await newRedemption(owner, run, mine)), good);
    });
  }

  test('are limited for each owner when they are right, too', async () => {
    await using run = await startTestServer(
      withCounts({ redemption: { address: 0 }, reserve: { identity: 1 } }),
    );
    const [one, other] = [await newOwner(), await newOwner()];
    for (const owner of [one, other]) await signIn(run, await newDevice(owner, run.clock));
    const codes = [];
    for (const owner of [one, one, other]) {
      const key = await generateSigningKey();
      codes.push(await present(run, key, await newRedemption(owner, run, key)));
    }
    assert.deepEqual(codes, ['welcome', 'rate_limited', 'welcome']);
  });

  test('count nothing when they are right, however many there are', async () => {
    await using run = await startTestServer(
      withCounts({ redemption: { address: 1 }, reserve: { address: 0 } }),
    );
    const owner = await newOwner();
    await signIn(run, await newDevice(owner, run.clock));
    for (let i = 0; i < 4; i++) {
      const key = await generateSigningKey();
      assert.equal(await present(run, key, await newRedemption(owner, run, key)), 'welcome');
    }
  });

  test('are counted once for each that is wrong, also when it looked right', async () => {
    await using run = await startTestServer(
      withCounts({ redemption: { address: 2 }, reserve: { address: 0 } }),
    );
    const owner = await newOwner();
    await signIn(run, await newDevice(owner, run.clock));
    const holder = await generateSigningKey();
    const spoiled = async (): Promise<Redemption> => {
      const token = await readSetupToken(await newToken(owner, run));
      // Accepted by another key than the one that it was made out to.
      return redeem(token, await generateSigningKey(), holder.peerId);
    };
    assert.equal(await present(run, holder, await spoiled()), 'token_invalid');
    assert.equal(await present(run, holder, await spoiled()), 'token_invalid');
    assert.equal(await present(run, holder, await spoiled()), 'rate_limited');
  });
});

describe('sign-ins from an address that has failed too often', () => {
  test('are refused, but for devices that were here before', async () => {
    await using run = await startTestServer(withCounts({ sign_in: { address: 3 } }));
    const owner = await newOwner();
    const known = await newDevice(owner, run.clock);
    assert.equal(await signIn(run, known), 'welcome');
    const eve = await newDevice(await newOwner(), run.clock);
    // In a known name, it is counted when it is found out.
    const elsewhere = 'ws://evil.example/ws';
    assert.equal(await outcome(run, known.key, { ...known }, elsewhere), 'sign_in_failed');
    assert.equal(await outcome(run, eve.key, { ...eve }, elsewhere), 'sign_in_failed');
    assert.equal(await outcome(run, eve.key, { ...eve }, elsewhere), 'rate_limited');
    assert.equal(await signIn(run, await newDevice(owner, run.clock)), 'rate_limited');
    for (let i = 0; i < 3; i++) assert.equal(await signIn(run, known), 'welcome');
    const { url, httpUrl } = run.server;
    const token = async ({ key, membership }: TestDevice): Promise<number> => {
      const nonce = newNonce();
      const opened = await fetch(`${httpUrl}/auth/challenge`, {
        method: 'POST',
        body: JSON.stringify({ peer_id: key.peerId, nonce }),
      });
      const { nonce: server, time } = (await opened.json()) as { nonce: string; time: number };
      const signature = await signSignIn(key, url, nonce, server, time);
      const body = JSON.stringify({
        peer_id: key.peerId,
        nonce,
        server_nonce: server,
        time,
        signature,
        membership,
      });
      return (await fetch(`${httpUrl}/auth/token`, { method: 'POST', body })).status;
    };
    assert.equal(await token(known), 200);
    assert.equal(await token(eve), 429);
  });

  test('are not counted when they succeed', async () => {
    await using run = await startTestServer(withCounts({ sign_in: { address: 2 } }));
    const owner = await newOwner();
    const device = await newDevice(owner, run.clock);
    for (let serial = 1; serial < 6; serial++) {
      const membership = await newMembership(owner, device.key.peerId, run.clock, { serial });
      assert.equal(await signIn(run, { ...device, membership }), 'welcome');
    }
    assert.equal(await signIn(run, await newDevice(owner, run.clock)), 'welcome');
  });
});
