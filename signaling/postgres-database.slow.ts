/** What signaling does when its PostgreSQL is not as it should be: away, damaged, newer, or somebody else's. */

import assert from 'node:assert/strict';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { inspect } from 'node:util';
import { MeshError, limits, signRevocation } from '@cocoon-mesh/protocol';
import { sql } from 'kysely';
import { Postgres } from '../test/doubles/postgres.ts';
import { openDatabase } from './open-database.ts';
import { TestPeer, newDevice, newOwner, seconds, startTestServer } from './test-client.ts';

const patienceMs = 5_000;

let postgres: Postgres;
before(async () => {
  postgres = await Postgres.start();
});
after(() => postgres[Symbol.asyncDispose]());

const nameOf = (url: string): string => new URL(url).pathname.slice(1);
const with_ = (url: string, change: { readonly [Key in 'username' | 'password' | 'pathname']?: string }) =>
  Object.assign(new URL(url), change).href;

function refusal(code: string, hint = /./) {
  return (thrown: unknown): boolean => {
    assert.ok(thrown instanceof MeshError, String(thrown));
    assert.equal(thrown.code, code, inspect(thrown));
    assert.match(thrown.hint, hint);
    assert.doesNotMatch(inspect(thrown, { depth: 9 }), /hunter2/);
    return true;
  };
}

describe('a PostgreSQL that stops while signaling runs', () => {
  test('costs the requests of that time and no peer its connection; they work again when it is back', async () => {
    const owner = await newOwner();
    await using run = await startTestServer({ databaseUrl: await postgres.newUrl() });
    const { server, clock } = run;
    const [anna, bert, carl] = [
      await newDevice(owner, clock, { name: 'anna' }),
      await newDevice(owner, clock, { name: 'bert' }),
      await newDevice(owner, clock, { name: 'carl' }),
    ];
    const { peer } = await TestPeer.member(server.url, anna);
    const { peer: other } = await TestPeer.member(server.url, bert);
    await peer.next('device');
    await Promise.all([peer.quiet(), other.quiet()]);

    await postgres.pause();
    const late = await TestPeer.open(server.url);
    await late.prove(server.url, carl.key, carl);
    assert.equal(await late.refusal(), 'storage_failed');
    assert.equal((await fetch(`${server.httpUrl}/healthz`)).status, 200);
    await peer.quiet();
    peer.send({ type: 'load', load: 0.5 });
    await peer.quiet();
    clock.step(1_000);
    assert.equal((await other.next('device')).device.load, 0.5);
    // A list that cannot be kept is not taken for one; the peer brings it again when it comes back.
    const list = [await signRevocation(owner, [], { kind: 'device', subject: bert.key.peerId, now: 1 })];
    peer.send({ type: 'revocations', owner: owner.id, list });
    assert.equal(await peer.refusal(), 'storage_failed');
    assert.equal((await other.next('device')).device.online, false);

    await postgres.resume();
    const { peer: back, welcome } = await TestPeer.member(server.url, anna);
    assert.deepEqual(welcome.revocations, []);
    back.send({ type: 'revocations', owner: owner.id, list });
    assert.equal(await other.refusal(), 'revoked');
    await TestPeer.member(server.url, carl);
  });

  test('says nothing about who belongs: nobody is dismissed until it can be asked again', async () => {
    const owner = await newOwner();
    await using run = await startTestServer({ databaseUrl: await postgres.newUrl() });
    const { server, clock, logged } = run;
    const expires = seconds(clock) + 1;
    const { peer } = await TestPeer.member(server.url, await newDevice(owner, clock, {}, { expires }));
    await peer.quiet();

    await postgres.pause();
    clock.step(limits.signalingPingMs);
    const patience = { signal: AbortSignal.timeout(patienceMs) };
    while (!logged.some((line) => line.startsWith('Background work failed')))
      await nextTurn(undefined, patience);
    await peer.quiet();

    await postgres.resume();
    clock.step(limits.signalingPingMs);
    assert.equal(await peer.refusal(), 'membership_expired');
  });

  test('takes back the transaction that was under way, and the process lives on', async () => {
    const url = await postgres.newUrl();
    await using db = await openDatabase(url);
    const row = { purpose: 'test', seed: 'seed' };
    await assert.rejects(
      db.transaction().execute(async (transaction) => {
        await transaction.insertInto('signing_key').values(row).execute();
        await postgres.query(
          'postgres',
          'select pg_terminate_backend(pid) from pg_stat_activity where datname = $1',
          [nameOf(url)],
        );
        await transaction.selectFrom('signing_key').selectAll().execute();
      }),
      refusal('storage_failed'),
    );
    assert.deepEqual(await db.selectFrom('signing_key').selectAll().execute(), []);
    await db
      .transaction()
      .execute((transaction) => transaction.insertInto('signing_key').values(row).execute());
    assert.equal((await db.selectFrom('signing_key').selectAll().execute()).length, 1);
  });

  test('takes back what waited for its turn and was cut off', async () => {
    const url = await postgres.newUrl();
    await using db = await openDatabase(url);
    const [entered, waiting] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const first = db.transaction().execute(() => {
      entered.resolve();
      return waiting.promise;
    });
    await entered.promise;
    const cut = db.transaction().execute(() => Promise.resolve());
    const cutOff = assert.rejects(cut, refusal('storage_failed'));
    const patience = AbortSignal.timeout(patienceMs);
    for (let found = 0; found === 0; patience.throwIfAborted())
      found = (
        await postgres.query(
          'postgres',
          `select pg_cancel_backend(pid) from pg_stat_activity where datname = $1 and wait_event = 'advisory'`,
          [nameOf(url)],
        )
      ).length;
    await cutOff;
    // On the connection that was cut off: the other one is in use.
    const row = { purpose: 'test', seed: 'seed' };
    await db.insertInto('signing_key').values(row).execute();
    waiting.resolve();
    await first;
    assert.equal((await postgres.query(nameOf(url), 'select 1 from signing_key')).length, 1);
  });

  test('is asked on connections that can be told apart and hold nobody up for ever', async () => {
    await using db = await openDatabase(await postgres.newUrl());
    const { rows } = await sql<Record<string, string>>`select current_setting('application_name') as name,
      current_setting('statement_timeout') as statement,
      current_setting('idle_in_transaction_session_timeout') as idle`.execute(db);
    assert.deepEqual(rows, [{ name: 'cocoon-signaling', statement: '10s', idle: '10s' }]);
  });
});

describe('a PostgreSQL that signaling cannot start on', () => {
  test('is refused with what to do, and without the password', async () => {
    const url = await postgres.newUrl();
    await postgres.query('postgres', 'create role anna login');
    const anna = { username: 'anna', password: 'hunter2' };
    for (const [wrong, hint] of [
      [with_(url, { ...anna, pathname: '/nothing' }), /createdb/],
      [with_(url, { username: 'nobody', password: 'hunter2' }), /refuses the user/],
      [with_(url, anna), /owner of the database/],
    ] as const)
      await assert.rejects(openDatabase(wrong), refusal('storage_failed', hint));
  });

  test('of a newer version is refused and left as it is', async () => {
    const url = await postgres.newUrl();
    await (await openDatabase(url)).destroy();
    const future = "insert into kysely_migration values ('9999-from-the-future', '2999-01-01T00:00:00.000Z')";
    await postgres.query(nameOf(url), future);
    await postgres.query(nameOf(url), 'drop table claim');
    await assert.rejects(openDatabase(url), refusal('database_newer'));
    await assert.rejects(startTestServer({ databaseUrl: url }), refusal('database_newer'));
    const tables = await postgres.query(nameOf(url), "select 1 from pg_tables where tablename = 'claim'");
    assert.equal(tables.length, 0);
  });

  test('with tables of somebody else, or without its own, is refused and nothing in it is changed', async () => {
    const foreign = await postgres.newUrl();
    await postgres.query(nameOf(foreign), 'create table membership (body text)');
    const robbed = await postgres.newUrl();
    await (await openDatabase(robbed)).destroy();
    await postgres.query(nameOf(robbed), 'drop table signing_key');
    for (const databaseUrl of [foreign, robbed])
      await assert.rejects(startTestServer({ databaseUrl }), refusal('database_corrupt'));
    const owners = await postgres.query(nameOf(foreign), "select 1 from pg_tables where tablename = 'owner'");
    assert.equal(owners.length, 0);
  });

  test('whose files are damaged is refused', async () => {
    const url = await postgres.newUrl();
    await using run = await startTestServer({ databaseUrl: url });
    await run.server.close();
    const [row] = await postgres.query<{ path: string }>(
      nameOf(url),
      "select pg_relation_filepath('signing_key') as path",
    );
    assert.ok(row);
    await postgres.pause();
    const file = await open(join(postgres.data, row.path), 'r+');
    await file.write(Buffer.alloc(4096, 0xee), 0, 4096, 4096);
    await file.close();
    await postgres.resume();
    await assert.rejects(startTestServer({ databaseUrl: url }), refusal('database_corrupt'));
  });
});
