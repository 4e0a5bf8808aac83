import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { pipeline } from 'node:stream/promises';
import { promisify } from 'node:util';
import type { CocoonProcess } from './cocoon-process.ts';
import { fewPairs, full, meshOfTwo, sees } from './cocoon-process.ts';
import { bodyOf, get, open, textOf } from './gateway-client.ts';
import { Origin, bytesOf, sha256Of } from './origin.ts';

const run = promisify(execFile);
const MiB = 1 << 20;
const downloadBytes = (full ? 1024 : 96) * MiB;
const uploadBytes = (full ? 256 : 64) * MiB;
const memoryLimitBytes = 150 * MiB;

for (const engines of fewPairs) {
  describe(`between two devices (${engines.join(' and ')})`, () => {
    let laptop: CocoonProcess;
    let server: CocoonProcess;
    let origin: Origin;
    let git: GitHost;
    const started = new AsyncDisposableStack();

    before(async () => {
      origin = started.use(await Origin.start());
      const host = await GitHost.start();
      git = host;
      started.defer(() => host.close());
      ({ laptop, server } = await meshOfTwo({
        engines,
        runArgs: ['--service', `files:${origin.port}`, '--service', `git:${git.port}`],
      }));
      started.use(laptop);
      started.use(server);
      await sees(laptop, 'server', 'files');
    });

    // Ends whatever was started, also when the start of the next part failed.
    after(() => started.disposeAsync());

    test('git clones a repository from the other device and gets the same commit', async () => {
      const target = await mkdtemp(join(tmpdir(), 'cocoon-clone-'));
      try {
        const token = await laptop.gatewayToken();
        const header = `http.extraHeader=Authorization: Bearer ${token}`;
        const url = `${laptop.gateway}/proxy/server/git/project.git`;
        await run('git', ['-c', header, 'clone', '--quiet', url, target]);
        const { stdout } = await run('git', ['-C', target, 'rev-parse', 'HEAD']);
        assert.equal(stdout.trim(), git.commit);
        await run('git', ['-C', target, 'fsck', '--strict']);
      } finally {
        await rm(target, { recursive: true, force: true });
      }
    });

    test(`a download of ${downloadBytes / MiB} MiB arrives whole while both daemons stay small`, async (t) => {
      const watch = await Memory.watch(t, laptop, server);
      const response = await get(laptop, `server/files/big?bytes=${downloadBytes}`);
      assert.equal(response.statusCode, 200);
      assert.equal(response.headers['content-length'], String(downloadBytes));
      const hash = createHash('sha256');
      for await (const chunk of response) {
        hash.update(chunk as Buffer);
        await watch.look();
      }
      assert.equal(hash.digest('hex'), sha256Of(0, downloadBytes));
      watch.check();
    });

    test('a slow reader stops the sender, and both daemons stay small', async (t) => {
      const watch = await Memory.watch(t, laptop, server);
      const response = await get(laptop, 'server/files/endless');
      // Nothing is read: what can be sent ahead is what the windows and sockets hold.
      for (let i = 0; i < 40; i++) await watch.settle();
      response.destroy();
      await origin.ended.promise;
      watch.check();
    });

    test('a Range request returns exactly that range', async () => {
      const response = await get(laptop, `server/files/big?bytes=${downloadBytes}`, {
        headers: { range: 'bytes=1048570-2097200' },
      });
      assert.equal(response.statusCode, 206);
      assert.equal(response.headers['content-range'], `bytes 1048570-2097200/${downloadBytes}`);
      const body = await bodyOf(response);
      assert.deepEqual(body, Buffer.concat([...bytesOf(1_048_570, 2_097_201)]));
    });

    test(`an upload of ${uploadBytes / MiB} MiB arrives whole while both daemons stay small`, async (t) => {
      const watch = await Memory.watch(t, laptop, server);
      const request = await open(laptop, 'server/files/upload', {
        method: 'POST',
        headers: { 'content-length': String(uploadBytes) },
      });
      const answered = once(request, 'response');
      await pipeline(watched(uploadBytes, watch), request);
      const [response] = (await answered) as [Awaited<ReturnType<typeof get>>];
      const { bytes, sha256 } = JSON.parse(await textOf(response)) as { bytes: number; sha256: string };
      assert.equal(bytes, uploadBytes);
      assert.equal(sha256, sha256Of(0, uploadBytes));
      watch.check();
    });
  });
}

async function* watched(bytes: number, watch: Memory): AsyncGenerator<Buffer> {
  for (const part of bytesOf(0, bytes)) {
    yield part;
    await watch.look();
  }
}

/** The resident memory of both daemons above what they had when nothing ran. */
class Memory {
  readonly #t: TestContext;
  readonly #daemons: readonly { readonly daemon: CocoonProcess; readonly idle: number; peak: number }[];
  #looks = 0;

  private constructor(
    t: TestContext,
    daemons: readonly { daemon: CocoonProcess; idle: number; peak: number }[],
  ) {
    this.#t = t;
    this.#daemons = daemons;
  }

  static async watch(t: TestContext, ...daemons: readonly CocoonProcess[]): Promise<Memory> {
    const measured = await Promise.all(
      daemons.map(async (daemon) => ({ daemon, idle: await daemon.residentBytes(), peak: 0 })),
    );
    return new Memory(t, measured);
  }

  /** Every so often; cheap enough for every chunk. */
  async look(): Promise<void> {
    if (this.#looks++ % 64 === 0) await this.#measure();
  }

  /** One round trip through both daemons, then a look. */
  async settle(): Promise<void> {
    for (const { daemon } of this.#daemons) await daemon.json('status');
    await this.#measure();
  }

  check(): void {
    for (const { daemon, idle, peak } of this.#daemons) {
      const above = peak - idle;
      this.#t.diagnostic(
        `${daemon.name}: ${(above / MiB).toFixed(0)} MiB above idle ${(idle / MiB).toFixed(0)}`,
      );
      assert.ok(above < memoryLimitBytes, `${daemon.name} grew by ${above / MiB} MiB`);
    }
  }

  async #measure(): Promise<void> {
    for (const entry of this.#daemons) entry.peak = Math.max(entry.peak, await entry.daemon.residentBytes());
  }
}

/** A bare clone of this project behind `git http-backend`, over CGI. */
class GitHost {
  readonly #http: Server;
  readonly #folder: string;
  readonly commit: string;

  private constructor(http: Server, folder: string, commit: string) {
    this.#http = http;
    this.#folder = folder;
    this.commit = commit;
  }

  static async start(): Promise<GitHost> {
    const folder = await mkdtemp(join(tmpdir(), 'cocoon-git-'));
    const bare = join(folder, 'project.git');
    await run('git', ['clone', '--quiet', '--bare', resolve(import.meta.dirname, '../..'), bare]);
    const { stdout } = await run('git', ['-C', bare, 'rev-parse', 'HEAD']);
    const http = createServer((request, response) => {
      const url = new URL(request.url ?? '/', 'http://git');
      const backend = spawn('git', ['http-backend'], {
        stdio: ['pipe', 'pipe', 'inherit'],
        env: {
          PATH: process.env['PATH'],
          GIT_PROJECT_ROOT: folder,
          GIT_HTTP_EXPORT_ALL: '1',
          PATH_INFO: url.pathname,
          QUERY_STRING: url.search.slice(1),
          REQUEST_METHOD: request.method,
          CONTENT_TYPE: request.headers['content-type'] ?? '',
          HTTP_CONTENT_ENCODING: request.headers['content-encoding'] ?? '',
          ...(request.headers['git-protocol']
            ? { GIT_PROTOCOL: String(request.headers['git-protocol']) }
            : {}),
        },
      });
      request.pipe(backend.stdin);
      let head = Buffer.alloc(0);
      const readHead = (chunk: Buffer): void => {
        head = Buffer.concat([head, chunk]);
        const end = head.indexOf('\r\n\r\n');
        if (end < 0) return;
        backend.stdout.off('data', readHead);
        const fields = head
          .subarray(0, end)
          .toString()
          .split('\r\n')
          .map((line) => line.split(': '));
        const status = Number(fields.find(([name]) => name === 'Status')?.[1]?.slice(0, 3) ?? 200);
        response.writeHead(
          status,
          Object.fromEntries(fields.filter(([name]) => name !== 'Status')) as Record<string, string>,
        );
        response.write(head.subarray(end + 4));
        backend.stdout.pipe(response);
      };
      backend.stdout.on('data', readHead);
    });
    http.listen(0, '127.0.0.1');
    await once(http, 'listening');
    return new GitHost(http, folder, stdout.trim());
  }

  get port(): number {
    return (this.#http.address() as AddressInfo).port;
  }

  async close(): Promise<void> {
    this.#http.closeAllConnections();
    this.#http.close();
    await rm(this.#folder, { recursive: true, force: true });
  }
}
