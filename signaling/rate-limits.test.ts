import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, mock, test } from 'node:test';
import { generateSigningKey, limits, signRevocation } from '@cocoon-mesh/protocol';
import { RateLimited, RateLimits, addressGroup } from './rate-limits.ts';
import type { ServerLimits } from './server-limits.ts';
import { defaultLimits } from './server-limits.ts';
import { TestPeer, newDevice, newOwner, startTestServer } from './test-client.ts';

function withRate(
  kind: keyof ServerLimits['rates'],
  by: 'address' | 'identity',
  count: number,
): Partial<ServerLimits> {
  const { rates } = defaultLimits;
  return { rates: { ...rates, [kind]: { ...rates[kind], [by]: { count, seconds: 60 } } } };
}

describe('a rate', () => {
  beforeEach(() => mock.timers.enable({ apis: ['Date', 'setTimeout'] }));
  afterEach(() => mock.timers.reset());

  test('is counted for each key by itself, and anew when its window is over', async () => {
    const refused: string[] = [];
    const rates = new RateLimits(
      {
        ...defaultLimits.rates,
        lookup: { address: { count: 2, seconds: 10 }, identity: { count: 1, seconds: 10 } },
      },
      (kind) => refused.push(kind),
    );
    await rates.countAddress('lookup', '192.0.2.1');
    await rates.countAddress('lookup', '192.0.2.1');
    mock.timers.tick(4_000);
    await assert.rejects(rates.countAddress('lookup', '192.0.2.1'), (error) => {
      assert.ok(error instanceof RateLimited);
      assert.equal(error.code, 'rate_limited');
      assert.equal(error.retryAfterMs, 6_000);
      return true;
    });
    await rates.countAddress('lookup', '192.0.2.2');
    await rates.countAddress('introduction', '192.0.2.1');
    await rates.countIdentity('lookup', '192.0.2.1');
    await rates.countAddress('lookup', '2001:db8::1');
    await rates.countAddress('lookup', '2001:db8::2');
    await assert.rejects(rates.countAddress('lookup', '2001:db8::3'), RateLimited);
    assert.deepEqual(refused, ['lookup', 'lookup']);
    mock.timers.tick(6_001);
    await rates.countAddress('lookup', '192.0.2.1');
  });
});

test('addresses of one IPv6 network count as one, and IPv4 in IPv6 as IPv4', () => {
  assert.equal(addressGroup('2001:db8:1:2:3:4:5:6'), addressGroup('2001:db8:1:2::1'));
  assert.notEqual(addressGroup('2001:db8:1:2::1'), addressGroup('2001:db8:1:3::1'));
  assert.equal(addressGroup('fe80::1%eth0'), addressGroup('fe80::2'));
  assert.equal(addressGroup('::ffff:192.0.2.1'), '192.0.2.1');
  assert.equal(addressGroup('192.0.2.1'), '192.0.2.1');
});

describe('too many', () => {
  test('introductions or lookups are answered with the time to wait, and the connection lives on', async () => {
    const { rates } = withRate('introduction', 'identity', 1);
    const limits = {
      rates: {
        ...defaultLimits.rates,
        ...rates,
        lookup: { ...defaultLimits.rates.lookup, identity: { count: 1, seconds: 60 } },
      },
    };
    await using run = await startTestServer({ limits });
    const { peer } = await TestPeer.member(run.server.url, await newDevice(await newOwner(), run.clock));
    const nobody = (await generateSigningKey()).peerId;
    peer.send({ type: 'introduce', id: 1, peer_id: nobody });
    assert.equal((await peer.next('error')).code, 'not_found');
    peer.send({ type: 'introduce', id: 2, peer_id: nobody });
    const introduction = await peer.next('error');
    peer.send({ type: 'lookup', id: 3, protocol: 'tasks', version: '*' });
    await peer.next('lookup_result');
    peer.send({ type: 'lookup', id: 4, protocol: 'tasks', version: '*' });
    const lookup = await peer.next('error');
    assert.deepEqual([introduction.code, introduction.id], ['rate_limited', 2]);
    assert.deepEqual([lookup.code, lookup.id], ['rate_limited', 4]);
    for (const { retry_after_ms: ms = 0 } of [introduction, lookup]) assert.ok(ms > 0 && ms <= 60_000);
    await peer.quiet();
  });

  test('failed sign-ins in the name of a device do not lock it out', async () => {
    await using run = await startTestServer({ limits: withRate('sign_in', 'identity', 1) });
    const device = await newDevice(await newOwner(), run.clock);
    for (let i = 0; i < 3; i++) {
      const eve = await TestPeer.open(run.server.url);
      await eve.prove('ws://evil.example/ws', device.key, device);
      assert.equal(await eve.refusal(), 'sign_in_failed');
    }
    await TestPeer.member(run.server.url, device);
  });

  test('attempts to sign in are refused before they get a challenge', async () => {
    await using run = await startTestServer({ limits: withRate('message', 'address', 1) });
    const { key } = await newDevice(await newOwner(), run.clock);
    const signIn = { type: 'sign_in', peer_id: key.peerId, nonce: 'A'.repeat(22) } as const;
    const first = await TestPeer.open(run.server.url);
    first.send(signIn);
    await first.next('challenge');
    const second = await TestPeer.open(run.server.url);
    second.send(signIn);
    const { code, retry_after_ms: ms = 0 } = await second.next('error');
    assert.equal(code, 'rate_limited');
    assert.ok(ms > 0);
    assert.equal((await second.closed).code, 1008);
  });

  test('messages end the connection', async () => {
    await using run = await startTestServer({ limits: withRate('message', 'identity', 3) });
    const { peer } = await TestPeer.member(run.server.url, await newDevice(await newOwner(), run.clock));
    for (let load = 0; load < 4; load++) peer.send({ type: 'load', load: load / 10 });
    assert.equal(await peer.refusal(), 'rate_limited');
  });

  test('revocations are counted by entries, and a whole list is not too many', async () => {
    const { identity } = defaultLimits.rates.revocations;
    assert.ok(identity.count >= limits.maxRevocations);
    await using run = await startTestServer({ limits: withRate('revocations', 'identity', 3) });
    const owner = await newOwner();
    const { peer } = await TestPeer.member(run.server.url, await newDevice(owner, run.clock));
    const list: string[] = [];
    for (let n = 0; n < 2; n++)
      list.push(await signRevocation(owner, list, { kind: 'token', subject: `token ${n}`, now: 1 }));
    peer.send({ type: 'revocations', owner: owner.id, list });
    peer.send({ type: 'revocations', owner: owner.id, list });
    assert.equal(await peer.refusal(), 'rate_limited');
  });

  test('HTTP requests get 429 and when to come back', async () => {
    await using run = await startTestServer({ limits: withRate('http', 'address', 1) });
    const url = `${run.server.httpUrl}/.well-known/jwks.json`;
    assert.equal((await fetch(url)).status, 200);
    const refused = await fetch(url);
    assert.equal(refused.status, 429);
    assert.equal(((await refused.json()) as { code: string }).code, 'rate_limited');
    assert.ok(Number(refused.headers.get('retry-after')) > 0);
    assert.equal((await fetch(`${run.server.httpUrl}/healthz`)).status, 200);
  });
});
