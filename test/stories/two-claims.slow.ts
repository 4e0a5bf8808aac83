/** One setup token shown to two servers, or twice to one, at the same instant: it works once. */

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { OwnerKeys, Redemption, SigningKey } from '@cocoon-mesh/protocol';
import {
  createSetupToken,
  fromBase64Url,
  generateSigningKey,
  memberRights,
  readSetupToken,
  redeem,
} from '@cocoon-mesh/protocol';
import { systemClock } from '@cocoon-mesh/protocol/clock.ts';
import { TestPeer, newDevice, newOwner, newRecord, seconds } from '@cocoon-mesh/signaling/test-client.ts';
import { Postgres } from '../doubles/postgres.ts';
import { CocoonProcess, sees } from './cocoon-process.ts';

const tokens = 20;

let postgres: Postgres;
let folder: string;
before(async () => {
  postgres = await Postgres.start();
  folder = await mkdtemp(join(tmpdir(), 'cocoon-two-claims-'));
});
after(async () => {
  await postgres[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

describe('of two claims of one token at the same instant exactly one wins', () => {
  test('at one server on SQLite', async () => {
    await using server = await signaling(`sqlite:${join(folder, 'one.db')}`);
    await assertOneWins(server, server);
  });

  test('at two servers on one SQLite file', async () => {
    const url = `sqlite:${join(folder, 'two.db')}`;
    const [one, two] = await Promise.all([signaling(url), signaling(url)]);
    await using _one = one;
    await using _two = two;
    await assertOneWins(one, two);
  });

  test('at two servers on one PostgreSQL', async () => {
    const url = await postgres.newUrl();
    const [one, two] = await Promise.all([signaling(url), signaling(url)]);
    await using _one = one;
    await using _two = two;
    await assertOneWins(one, two);
  });
});

test('cocoon up works on PostgreSQL, and lets a device in', async () => {
  await using laptop = await CocoonProcess.start({
    command: 'up',
    args: ['--port', '0', '--gateway-port', '0', '--name', 'laptop', '--no-web'],
    env: { SIGNALING_DATABASE_URL: await postgres.newUrl() },
  });
  const { token } = await laptop.json<{ token: string }>('generate-token');
  const args = ['--name', 'server', '--gateway-port', '0', '--token', '-'];
  await using server = await CocoonProcess.start({ command: 'run', args, input: token });
  await sees(laptop, server.name);
});

async function signaling(url: string): Promise<CocoonProcess> {
  return CocoonProcess.start({
    command: 'signaling',
    args: ['--port', '0', '--no-web'],
    env: { SIGNALING_DATABASE_URL: url },
  });
}

async function assertOneWins(...servers: readonly [CocoonProcess, CocoonProcess]): Promise<void> {
  const owner = await newOwner();
  const [one, two] = await Promise.all(servers.map((server) => keysOf(server, owner)));
  assert.deepEqual(one, two, 'both sign with the same keys');
  assert.ok(one);
  for (let n = 0; n < tokens; n++) {
    const token = await tokenOf(owner, servers[0].signaling, one.receipt);
    const claims = await Promise.all(servers.map((server) => claimAt(server, token)));
    const outcomes = await Promise.all(claims.map((claim) => claim.prove()));
    const [first, second] = outcomes[0] === 'token_used' ? claims.toReversed() : claims;
    const [receipt, refused] = outcomes[0] === 'token_used' ? outcomes.toReversed() : outcomes;
    assert.equal(refused, 'token_used');
    assert.match(String(receipt), /^ey.*\..*\../);
    if (n > 0 || !first || !second) continue;
    // The other server knows it as well: who won, with what receipt, and who did not.
    assert.equal(await (await first.at(second.server)).prove(), receipt);
    assert.equal(await (await second.at(first.server)).prove(), 'token_used');
  }
}

async function keysOf(server: CocoonProcess, owner: OwnerKeys): Promise<{ receipt: string; ticket: string }> {
  const { peer, welcome } = await TestPeer.member(server.signaling, await newDevice(owner, systemClock));
  await peer.close();
  return { receipt: welcome.receipt_key, ticket: welcome.ticket_key };
}

async function tokenOf(owner: OwnerKeys, url: string, receiptKey: string): Promise<string> {
  const now = seconds(systemClock);
  const { token } = await createSetupToken(owner, {
    scope: 'enroll',
    rights: memberRights,
    now,
    expires: now + 3600,
    signaling: url,
    receiptKey: fromBase64Url(receiptKey),
  });
  return token;
}

interface ReadyClaim {
  readonly server: CocoonProcess;
  /** @returns the receipt, or the code of the refusal */
  prove(): Promise<string>;
  /** The same claim somewhere else. */
  at(server: CocoonProcess): Promise<ReadyClaim>;
}

async function claimAt(server: CocoonProcess, token: string): Promise<ReadyClaim> {
  const key = await generateSigningKey();
  const redemption = await redeem(await readSetupToken(token), key, key.peerId);
  return readyClaim(server, key, redemption, await newRecord(key, systemClock));
}

async function readyClaim(
  server: CocoonProcess,
  key: SigningKey,
  redemption: Redemption,
  record: string,
): Promise<ReadyClaim> {
  const peer = await TestPeer.open(server.signaling);
  return {
    server,
    at: (other) => readyClaim(other, key, redemption, record),
    prove: async () => {
      await peer.prove(server.signaling, key, { record, redemption });
      try {
        return (await peer.next('welcome', ['device'])).receipt ?? '';
      } catch {
        return (await peer.closed).reason;
      } finally {
        peer.socket.terminate();
      }
    },
  };
}
