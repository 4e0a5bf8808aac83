import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { Redemption, SigningKey } from '@cocoon-mesh/protocol';
import {
  generateSigningKey,
  limits,
  peekGrant,
  randomBytes,
  readSetupToken,
  redeem,
  signRevocation,
  verifyMembership,
  verifyReceipt,
} from '@cocoon-mesh/protocol';
import Sqlite from 'better-sqlite3';
import type { TestServer } from './test-client.ts';
import {
  TestPeer,
  newDevice,
  newOwner,
  newRecord,
  newRedemption,
  newToken,
  seconds,
  startTestServer,
} from './test-client.ts';

/** Every row of every table but the server's own keys. */
function recorded(path: string): Record<string, unknown[]> {
  const database = new Sqlite(path, { readonly: true });
  const tables = ['owner', 'device', 'membership', 'claim', 'share', 'revoked', 'revocation_list'];
  const rows = tables.map((table) => [table, database.prepare(`select * from ${table}`).all()] as const);
  database.close();
  return Object.fromEntries(rows.filter(([, found]) => found.length > 0));
}

async function withFile(body: (run: TestServer, path: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'cocoon-signaling-'));
  const path = join(folder, 'signaling.db');
  try {
    await using run = await startTestServer({ databaseUrl: `sqlite:${path}` });
    await body(run, path);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function present(run: TestServer, key: SigningKey, redemption: Redemption): Promise<TestPeer> {
  const peer = await TestPeer.open(run.server.url);
  await peer.prove(run.server.url, key, { record: await newRecord(key, run.clock), redemption });
  return peer;
}

async function refused(run: TestServer, key: SigningKey, redemption: Redemption): Promise<string> {
  return (await present(run, key, redemption)).refusal();
}

describe('a setup token', () => {
  test('makes its redeemer a member, with a receipt that completes the claim', async () => {
    await using run = await startTestServer();
    const owner = await newOwner();
    const anna = await TestPeer.member(run.server.url, await newDevice(owner, run.clock));
    const key = await generateSigningKey();
    const redemption = await newRedemption(owner, run, key);
    const peer = await present(run, key, redemption);
    const { receipt = '', devices } = await peer.next('welcome');
    await verifyReceipt(receipt, peekGrant(redemption.grant), key.peerId);
    assert.equal(devices.length, 2);
    const claim = { kind: 'claim', redemption, receipt } as const;
    const proven = await verifyMembership(claim, key.peerId, seconds(run.clock));
    assert.deepEqual([proven.owner, proven.provisional], [owner.id, true]);
    const { device } = await anna.peer.next('device');
    assert.equal(device.peer_id, key.peerId);
    await verifyMembership(device.membership, key.peerId, seconds(run.clock));
    // From now on the claim is what it signs in with.
    await TestPeer.member(run.server.url, {
      key,
      record: await newRecord(key, run.clock),
      membership: claim,
    });
  });

  test('works once: a second redeemer is refused and leaves no trace', async () => {
    await withFile(async (run, path) => {
      const owner = await newOwner();
      const token = await readSetupToken(await newToken(owner, run));
      const first = await generateSigningKey();
      await (await present(run, first, await redeem(token, first, first.peerId))).next('welcome');
      const before = recorded(path);
      assert.equal(before['claim']?.length, 1);
      const second = await generateSigningKey();
      assert.equal(await refused(run, second, await redeem(token, second, second.peerId)), 'token_used');
      assert.deepEqual(recorded(path), before);
    });
  });

  test('that two redeem at once makes one of them a member', async () => {
    await withFile(async (run, path) => {
      const token = await readSetupToken(await newToken(await newOwner(), run));
      const keys = await Promise.all(Array.from({ length: 8 }, () => generateSigningKey()));
      const outcomes = await Promise.all(
        keys.map(async (key) => {
          const peer = await present(run, key, await redeem(token, key, key.peerId));
          return peer.next('welcome').then(
            () => 'welcome',
            () => 'refused',
          );
        }),
      );
      assert.equal(outcomes.filter((outcome) => outcome === 'welcome').length, 1);
      assert.equal(recorded(path)['claim']?.length, 1);
      assert.equal(recorded(path)['device']?.length, 1);
    });
  });

  test('that its redeemer shows again, because the answer was lost, gives the same receipt, even after its end', async () => {
    await using run = await startTestServer();
    const key = await generateSigningKey();
    const redemption = await newRedemption(await newOwner(), run, key, {
      expires: seconds(run.clock) + 9,
    });
    const first = await (await present(run, key, redemption)).next('welcome');
    run.clock.step(10_000);
    const second = await (await present(run, key, redemption)).next('welcome');
    assert.equal(typeof first.receipt, 'string');
    assert.equal(second.receipt, first.receipt);
  });

  for (const { what, terms, code } of [
    {
      what: 'has expired',
      terms: (now: number) => ({ now: now - 20, expires: now }),
      code: 'token_expired',
    },
    {
      what: 'gives a right that has ended',
      terms: (now: number) => ({ until: now }),
      code: 'token_expired',
    },
    {
      what: 'is not valid yet',
      terms: (now: number) => ({ now: now + limits.clockSkewMs / 1000 + 1, expires: now + 1000 }),
      code: 'token_not_yet_valid',
    },
    {
      what: 'belongs to another signaling server',
      terms: () => ({ receiptKey: randomBytes(32) }),
      code: 'token_wrong_signaling',
    },
  ] as const)
    test(`that ${what} is refused as ${code}, and nothing is recorded`, async () => {
      await withFile(async (run, path) => {
        const key = await generateSigningKey();
        const redemption = await newRedemption(await newOwner(), run, key, terms(seconds(run.clock)));
        assert.equal(await refused(run, key, redemption), code);
        assert.deepEqual(recorded(path), {});
      });
    });

  test('that was changed anywhere is refused, and nothing is recorded', async () => {
    await withFile(async (run, path) => {
      const owner = await newOwner();
      const key = await generateSigningKey();
      const good = await newRedemption(owner, run, key);
      const other = await newRedemption(await newOwner(), run, key);
      const changes: Partial<Redemption>[] = [
        { grant: flipped(good.grant, good.grant.length - 5) },
        { grant: flipped(good.grant, good.grant.indexOf('.') + 20) },
        { grant: other.grant },
        { records: other.records },
        { records: [flipped(good.records[0] ?? '', 100)] },
        { one_time_signature: other.one_time_signature },
        { acceptance: other.acceptance },
        { acceptance: good.one_time_signature },
        { redeemer: (await generateSigningKey()).peerId },
        { redeemer: owner.id },
      ];
      for (const change of changes)
        assert.equal(
          await refused(run, key, { ...good, ...change }),
          'token_invalid',
          Object.keys(change).join(),
        );
      assert.deepEqual(recorded(path), {});
      await (await present(run, key, good)).next('welcome');
    });
  });

  test('that its owner revoked is refused, and its use is not recorded', async () => {
    await withFile(async (run, path) => {
      const owner = await newOwner();
      const { peer } = await TestPeer.member(run.server.url, await newDevice(owner, run.clock));
      const key = await generateSigningKey();
      const redemption = await newRedemption(owner, run, key);
      const subject = peekGrant(redemption.grant).jti;
      const list = [await signRevocation(owner, [], { kind: 'token', subject, now: seconds(run.clock) })];
      peer.send({ type: 'revocations', owner: owner.id, list });
      await peer.quiet();
      const before = recorded(path);
      assert.equal(await refused(run, key, redemption), 'revoked');
      assert.deepEqual(recorded(path), before);
    });
  });

  test('for a co-owner brings in no device, and nothing is recorded', async () => {
    await withFile(async (run, path) => {
      const key = await generateSigningKey();
      const guest = await newOwner();
      const terms = { scope: 'co-own', cocoon: key.peerId } as const;
      const token = await readSetupToken(await newToken(await newOwner(), run, terms));
      const redemption = await redeem(token, guest.key, guest.id, guest.records);
      assert.equal(await refused(run, key, redemption), 'denied');
      assert.deepEqual(recorded(path), {});
    });
  });

  test('is not used up by a sign-in that fails for another reason', async () => {
    await withFile(async (run, path) => {
      const owner = await newOwner();
      const key = await generateSigningKey();
      const redemption = await newRedemption(owner, run, key);
      const { record } = await newDevice(owner, run.clock);
      const peer = await TestPeer.open(run.server.url);
      await peer.prove(run.server.url, key, { record, redemption });
      assert.equal(await peer.refusal(), 'bad_signature');
      assert.deepEqual(recorded(path), {});
    });
  });

  test('of an owner with too many devices is refused, and nothing is recorded', async () => {
    await using run = await startTestServer({ limits: { maxDevicesPerOwner: 1 } });
    const owner = await newOwner();
    await TestPeer.member(run.server.url, await newDevice(owner, run.clock));
    const key = await generateSigningKey();
    const redemption = await newRedemption(owner, run, key);
    assert.equal(await refused(run, key, redemption), 'overloaded');
    const metrics = await (await fetch(`${run.server.httpUrl}/metrics`)).text();
    assert.match(metrics, /redemptions_total\{result="overloaded"\} 1/);
  });
});

test('what is logged holds no token, key or signature', async () => {
  await using run = await startTestServer();
  const key = await generateSigningKey();
  const redemption = await newRedemption(await newOwner(), run, key);
  const { access_token: token, receipt = '' } = await (await present(run, key, redemption)).next('welcome');
  const text = run.logged.join('\n');
  assert.match(text, /A setup token was redeemed/);
  for (const secret of [token, receipt, redemption.grant, redemption.acceptance])
    assert.ok(!text.includes(secret));
});

/** The text with another base64url digit at `at`. */
function flipped(text: string, at: number): string {
  return text.slice(0, at) + (text[at] === 'A' ? 'B' : 'A') + text.slice(at + 1);
}
