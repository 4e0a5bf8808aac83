import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { inspect } from 'node:util';
import { Worker } from 'node:worker_threads';
import type { MeshError } from '@cocoon-mesh/protocol';
import { generateSigningKey, readSetupToken, redeem, toBase64Url } from '@cocoon-mesh/protocol';
import Sqlite from 'better-sqlite3';
import { openDatabase } from './open-database.ts';
import { TestPeer, newDevice, newOwner, newRecord, newToken, startTestServer } from './test-client.ts';

async function inFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'cocoon-signaling-'));
  try {
    await body(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** In a thread, because whoever waits for a file blocks his own. */
const writeAWhile = `
  const { parentPort, workerData } = require('node:worker_threads');
  const Sqlite = require('node:module').createRequire(workerData.from)('better-sqlite3');
  const database = new Sqlite(workerData.path);
  database.exec('begin immediate');
  parentPort.postMessage('writing');
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 300);
  database.exec('commit');
  database.close();
`;

const code = (expected: string) => (error: MeshError) => error.code === expected;

describe('a restart', () => {
  test('keeps owners, devices, keys and used tokens', async () => {
    await inFolder(async (folder) => {
      const databaseUrl = `sqlite:${join(folder, 'signaling.db')}`;
      const owner = await newOwner();
      const first = await startTestServer({ databaseUrl });
      const { clock } = first;
      const { port, receiptKey } = first.server;
      const anna = await newDevice(owner, clock, { name: 'anna' });
      await TestPeer.member(first.server.url, anna);
      const token = await readSetupToken(await newToken(owner, first));
      const bert = await generateSigningKey();
      const redemption = await redeem(token, bert, bert.peerId);
      const record = await newRecord(bert, clock, { name: 'bert' });
      const peer = await TestPeer.open(first.server.url);
      await peer.prove(first.server.url, bert, { record, redemption });
      const { receipt = '', ticket_key: ticketKey } = await peer.next('welcome', ['device']);
      await first.server.close();

      await using second = await startTestServer({ databaseUrl, port, clock });
      assert.equal(toBase64Url(second.server.receiptKey), toBase64Url(receiptKey));
      const { welcome } = await TestPeer.member(second.server.url, anna);
      assert.equal(welcome.ticket_key, ticketKey);
      assert.deepEqual(
        new Map(welcome.devices.map(({ peer_id, online }) => [peer_id, online])),
        new Map([
          [anna.key.peerId, true],
          [bert.peerId, false],
        ]),
      );
      const membership = { kind: 'claim', redemption, receipt } as const;
      await TestPeer.member(second.server.url, { key: bert, record, membership });
      const carl = await generateSigningKey();
      const late = await TestPeer.open(second.server.url);
      await late.prove(second.server.url, carl, {
        record: await newRecord(carl, clock),
        redemption: await redeem(token, carl, carl.peerId),
      });
      assert.equal(await late.refusal(), 'token_used');
    });
  });
});

describe('a database', () => {
  test('that is no database, or a damaged one, is refused and left as it is', async () => {
    await inFolder(async (folder) => {
      const garbage = join(folder, 'garbage.db');
      writeFileSync(garbage, Buffer.alloc(8192, 'not a database '));
      const damaged = join(folder, 'damaged.db');
      await (await startTestServer({ databaseUrl: `sqlite:${damaged}` })).server.close();
      const bytes = readFileSync(damaged);
      // The last page, which starting reads only to look for damage.
      bytes.fill(0xee, bytes.length - 4096);
      writeFileSync(damaged, bytes);
      for (const path of [garbage, damaged]) {
        const before = readFileSync(path);
        await assert.rejects(openDatabase(`sqlite:${path}`), code('database_corrupt'));
        await assert.rejects(startTestServer({ databaseUrl: `sqlite:${path}` }), code('database_corrupt'));
        assert.ok(readFileSync(path).equals(before));
      }
    });
  });

  test('of a newer version is refused and left as it is', async () => {
    await inFolder(async (folder) => {
      const path = join(folder, 'signaling.db');
      await (await startTestServer({ databaseUrl: `sqlite:${path}` })).server.close();
      const database = new Sqlite(path);
      database
        .prepare('insert into kysely_migration (name, timestamp) values (?, ?)')
        .run('9999-from-the-future', new Date(0).toISOString());
      database.pragma('journal_mode = DELETE');
      database.close();
      const before = readFileSync(path);
      await assert.rejects(openDatabase(`sqlite:${path}`), code('database_newer'));
      assert.ok(readFileSync(path).equals(before));
    });
  });

  test('can be read by its owner alone', async () => {
    await inFolder(async (folder) => {
      const databaseUrl = `sqlite:${join(folder, 'below', 'signaling.db')}`;
      await using run = await startTestServer({ databaseUrl });
      assert.ok(run.server.port > 0);
      const files = readdirSync(join(folder, 'below'));
      assert.ok(files.length > 1, 'the write-ahead log is there, too');
      for (const file of files) assert.equal(statSync(join(folder, 'below', file)).mode & 0o077, 0, file);
    });
  });

  test('that cannot be opened, or is of a kind we do not know, is an error that says so', async () => {
    await inFolder(async (folder) => {
      await assert.rejects(openDatabase(`sqlite:${folder}`), code('storage_failed'));
      await assert.rejects(openDatabase('mysql://localhost/mesh'), code('usage'));
      await assert.rejects(openDatabase('sqlite:'), code('usage'));
    });
  });

  test('that another server is just writing to for the first time is waited for', async () => {
    await inFolder(async (folder) => {
      const path = join(folder, 'signaling.db');
      const other = new Worker(writeAWhile, { eval: true, workerData: { path, from: import.meta.url } });
      await once(other, 'message');
      const db = await openDatabase(`sqlite:${path}`);
      await db.destroy();
      await once(other, 'exit');
    });
  });

  test('of PostgreSQL is named in errors without its password, however the URL is wrong', async () => {
    for (const [url, expected] of [
      // Nobody listens on port 1.
      ['postgres://anna:hunter2@127.0.0.1:1/mesh', 'storage_failed'],
      ['postgresql://anna@127.0.0.1:1/mesh?password=hunter2', 'storage_failed'],
      ['postgres://anna:12/hunter2@127.0.0.1:1/mesh', 'usage'],
      ['postgres://anna:12?hunter2@127.0.0.1:1/mesh', 'usage'],
      ['postgres://anna:12#hunter2@127.0.0.1:1/mesh', 'usage'],
      ['postgres://anna:hunter2@:bad/mesh', 'usage'],
    ] as const)
      await assert.rejects(openDatabase(url), (error: MeshError) => {
        assert.equal(error.code, expected, url);
        assert.doesNotMatch(inspect(error, { depth: 9 }), /hunter2/, url);
        return true;
      });
  });
});
