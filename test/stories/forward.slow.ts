import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { createInterface } from 'node:readline';
import { describe, test } from 'node:test';
import pg from 'pg';
import { Postgres } from '../doubles/postgres.ts';
import type { CocoonProcess } from './cocoon-process.ts';
import { bin, enginePairs, failure, meshOfTwo, sees } from './cocoon-process.ts';

for (const engines of enginePairs) {
  describe(`cocoon forward (${engines.join(' and ')})`, () => {
    test('carries a real PostgreSQL session, and frees its port when it is interrupted', async () => {
      await using postgres = await Postgres.start();
      const { laptop, server } = await meshOfTwo({
        engines,
        runArgs: ['--service', `postgres:${postgres.port}:tcp`],
      });
      await using _laptop = laptop;
      await using _server = server;
      await sees(laptop, 'server', 'postgres');
      const forward = await Forward.start(laptop, 'server/postgres');
      const client = new pg.Client({ host: '127.0.0.1', port: forward.port, user: 'postgres' });
      await client.connect();
      const listener = new pg.Client({ host: '127.0.0.1', port: forward.port, user: 'postgres' });
      await listener.connect();
      await client.query('create table notes (id int primary key, body text)');
      await client.query('begin');
      for (let id = 0; id < 200; id++)
        await client.query('insert into notes values ($1, $2)', [id, 'é'.repeat(id)]);
      await client.query('commit');
      const { rows } = await client.query<{ n: number; bytes: number }>(
        'select count(*)::int n, sum(octet_length(body))::int bytes from notes',
      );
      assert.deepEqual(rows[0], { n: 200, bytes: 39_800 });
      const notified = once(listener, 'notification');
      await listener.query('listen news');
      await client.query("select pg_notify('news', 'through the mesh')");
      const [{ payload }] = (await notified) as [{ payload: string }];
      assert.equal(payload, 'through the mesh');
      const large = await client.query<{ text: string }>("select repeat('x', 5000000) as text");
      assert.equal(large.rows[0]?.text.length, 5_000_000);
      await assert.rejects(client.query('select * from nothing'), /does not exist/);
      await client.end();
      await listener.end();
      assert.equal(await forward.stop(), 0);
      await assert.rejects(once(connect(forward.port, '127.0.0.1'), 'connect'), { code: 'ECONNREFUSED' });
    });
  });
}

describe('cocoon forward', () => {
  test('says which port is busy, and which service there is not', async () => {
    const { laptop, server } = await meshOfTwo({ engines: ['libdatachannel', 'libdatachannel'] });
    await using _laptop = laptop;
    await using _server = server;
    const taken = createServer().listen(0, '127.0.0.1');
    await once(taken, 'listening');
    const port = String((taken.address() as AddressInfo).port);
    assert.deepEqual(await failure(laptop.home, ['forward', 'server/nothing']), {
      code: 'service_not_found',
      exit: 3,
    });
    await server.json('services', 'add', 'db:5432:tcp');
    await sees(laptop, 'server', 'db');
    assert.equal((await failure(laptop.home, ['forward', 'server/db', '--port', port])).code, 'port_in_use');
    taken.close();
  });
});

class Forward {
  readonly port: number;
  readonly #child: ReturnType<typeof spawn>;

  private constructor(port: number, child: ReturnType<typeof spawn>) {
    this.port = port;
    this.#child = child;
  }

  static async start(cocoon: CocoonProcess, target: string): Promise<Forward> {
    const child = spawn(bin, ['forward', target, '--json', '--home', cocoon.home], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [line] = (await once(createInterface({ input: child.stdout }), 'line')) as [string];
    const { port } = JSON.parse(line) as { port: number };
    return new Forward(port, child);
  }

  async stop(): Promise<number | null> {
    const closed = once(this.#child, 'close') as Promise<[number | null]>;
    this.#child.kill('SIGINT');
    return (await closed)[0];
  }
}
