/** Several servers that start on one new database at the same instant. */

import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { Opened } from '../test/doubles/database-opener.ts';
import { Postgres } from '../test/doubles/postgres.ts';

const opener = join(import.meta.dirname, '../test/doubles/database-opener.ts');
const rounds = 10;
const limitMs = 20_000;

describe('processes that start on one new database at the same instant', () => {
  const openers: ChildProcess[] = [];

  before(async () => {
    for (let n = 0; n < 3; n++) openers.push(fork(opener));
    await Promise.all(openers.map((process) => answerOf(process)));
  });

  after(() => {
    for (const process of openers) process.kill();
  });

  test('migrate it once and use the same keys: a SQLite file', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'cocoon-signaling-'));
    try {
      for (let round = 0; round < rounds; round++)
        await assertOneKey(`sqlite:${join(folder, `${round}.db`)}`);
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  test('migrate it once and use the same keys: PostgreSQL', async () => {
    await using postgres = await Postgres.start();
    for (let round = 0; round < rounds; round++) await assertOneKey(await postgres.newUrl());
  });

  async function assertOneKey(url: string): Promise<void> {
    const answers = openers.map(async (process) => answerOf<Opened>(process));
    for (const process of openers) process.send(url);
    const opened = await Promise.all(answers);
    const [first] = opened;
    assert.ok(first && 'key' in first, JSON.stringify(opened));
    // A migration that ran twice would have failed: its tables are there.
    assert.deepEqual(opened, Array(openers.length).fill(first));
  }
});

async function answerOf<Message>(process: ChildProcess): Promise<Message> {
  const [message] = (await once(process, 'message', { signal: AbortSignal.timeout(limitMs) })) as [Message];
  return message;
}
