import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { Postgres } from '../../test/doubles/postgres.ts';
import { device, refusal, taskStoreContract } from './task-store.contract.ts';
import { openTaskStore } from './task-store.node.ts';

let postgres: Postgres;
before(async () => {
  postgres = await Postgres.start();
});
after(() => postgres[Symbol.asyncDispose]());

const run = async (url: string, statement: string): Promise<void> => {
  await postgres.query(new URL(url).pathname.slice(1), statement);
};

taskStoreContract('PostgreSQL', { newUrl: () => postgres.newUrl(), run });

describe('a PostgreSQL of tasks', () => {
  test('that goes away costs what is asked meanwhile; all works again when it is back', async () => {
    await using store = await openTaskStore({
      url: await postgres.newUrl(),
      device,
      clock: new SteppedClock(),
    });
    const kept = await store.create({ title: 'kept' });
    await postgres.pause();
    await assert.rejects(store.create({ title: 'lost' }), refusal('storage_failed'));
    await assert.rejects(store.list({}, { limit: 1, after: null }), refusal('storage_failed'));
    await assert.rejects(store.claimForRun(kept.id), refusal('storage_failed'));
    await postgres.resume();
    assert.deepEqual(await store.get(kept.id), kept);
    await store.create({ title: 'more' });
    assert.equal((await store.stats()).total, 2);
  });

  test('whose disk is full says so, and takes more when there is room again', async () => {
    const url = await postgres.newUrl();
    await using store = await openTaskStore({ url, device, clock: new SteppedClock() });
    // What PostgreSQL says when a write finds no room.
    await run(
      url,
      `create function full_disk() returns trigger language plpgsql as
        $$ begin raise exception 'could not extend file' using errcode = 'disk_full'; end $$`,
    );
    await run(url, 'create trigger full_disk before insert on task execute function full_disk()');
    await assert.rejects(store.create({ title: 'lost' }), refusal('storage_full'));
    await run(url, 'drop trigger full_disk on task');
    await store.create({ title: 'more' });
    assert.equal((await store.stats()).total, 1);
  });
});
