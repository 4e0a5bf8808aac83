import assert from 'node:assert/strict';
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { once } from 'node:events';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { CocoonProcess, StartError, command, failure } from './cocoon-process.ts';

/** The code with which a daemon that cannot start ends. */
async function startFailure(
  start: Parameters<typeof CocoonProcess.start>[0],
): Promise<{ code: string; exit: number | null; said: string }> {
  try {
    const started = await CocoonProcess.start(start);
    await started[Symbol.asyncDispose]();
  } catch (error) {
    if (error instanceof StartError) return { code: error.code, exit: error.exit, said: error.stderr };
    throw error;
  }
  throw new Error('it started');
}

describe('bad input at the start of a device', () => {
  test('an invalid --service is named, with an example', async () => {
    for (const service of [
      'web',
      'web:0',
      'web:70000',
      'Web:80',
      'a--b:80',
      'xn-a:80',
      'web:80:udp',
      'web:80:http:health',
    ]) {
      const { code, exit } = await startFailure({
        command: 'run',
        args: ['--service', service, '--gateway-port', '0'],
      });
      assert.ok(code === 'bad_service' || code === 'bad_name', `${service}: ${code}`);
      assert.equal(exit, 2);
    }
  });

  test('a signaling address that is not one is refused', async () => {
    for (const url of ['nonsense', 'http//x', 'ftp://host/ws']) {
      const { code, exit } = await startFailure({
        command: 'run',
        args: ['--signaling', url, '--gateway-port', '0'],
      });
      assert.equal(code, 'bad_signaling_url');
      assert.equal(exit, 2);
    }
  });

  test('a busy port is named', async () => {
    const taken = createServer().listen(0, '127.0.0.1');
    await once(taken, 'listening');
    const port = String((taken.address() as AddressInfo).port);
    const { code, said } = await startFailure({
      command: 'up',
      args: ['--port', port, '--gateway-port', '0'],
    });
    assert.equal(code, 'port_in_use');
    assert.match(said, new RegExp(port));
    taken.close();
  });

  test('a key file that others can read, that is unreadable or that holds no key is refused and left as it is', async () => {
    const home = await mkdtemp(join(tmpdir(), 'cocoon-'));
    const args = ['--port', '0', '--gateway-port', '0', '--no-web'];
    try {
      const first = await CocoonProcess.start({ command: 'up', home, args });
      await first.stop();
      const file = join(home, 'identity.key');
      const key = await readFile(file);
      await chmod(file, 0o644);
      assert.equal((await startFailure({ command: 'up', home, args })).code, 'key_exposed');
      await chmod(file, 0o600);
      await writeFile(file, 'not a key');
      assert.equal((await startFailure({ command: 'up', home, args })).code, 'key_corrupt');
      assert.equal(await readFile(file, 'utf8'), 'not a key');
      await writeFile(file, key);
      const again = await CocoonProcess.start({ command: 'up', home, args });
      assert.equal(again.peerId, first.peerId);
      await again.stop();
    } finally {
      await rm(home, { recursive: true, force: true });
    }
  });

  test('a damaged database of signaling is refused and left as it is', async () => {
    const home = await mkdtemp(join(tmpdir(), 'cocoon-'));
    try {
      const file = join(home, 'damaged.db');
      await writeFile(file, 'this is no database, whatever it is called'.repeat(100));
      const before = await readFile(file);
      const { code } = await startFailure({
        command: 'signaling',
        home,
        args: ['--port', '0'],
        env: { SIGNALING_DATABASE_URL: `sqlite:${file}` },
      });
      assert.equal(code, 'database_corrupt');
      assert.deepEqual(await readFile(file), before);
    } finally {
      await rm(home, { recursive: true, force: true });
    }
  });

  test('an engine that there is not is refused', async () => {
    const { code } = await startFailure({
      command: 'run',
      args: ['--gateway-port', '0'],
      env: { COCOON_WEBRTC_ENGINE: 'quic' },
    });
    assert.equal(code, 'unknown_engine');
  });

  test('a second daemon on the same home is refused', async () => {
    await using first = await CocoonProcess.start({
      command: 'up',
      args: ['--port', '0', '--gateway-port', '0', '--no-web'],
    });
    const { code } = await startFailure({
      command: 'up',
      home: first.home,
      args: ['--port', '0', '--gateway-port', '0', '--no-web'],
    });
    assert.equal(code, 'already_running');
    assert.equal((await first.command(['status', '--json'])).code, 0);
  });
});

describe('bad input to a command', () => {
  test('each ends with the code and exit that the table of errors gives', async () => {
    await using laptop = await CocoonProcess.start({
      command: 'up',
      args: ['--port', '0', '--gateway-port', '0', '--name', 'laptop', '--no-web'],
    });
    assert.deepEqual(await failure(laptop.home, ['ping', 'nobody']), { code: 'device_not_found', exit: 3 });
    assert.deepEqual(await failure(laptop.home, ['fetch', 'laptop/nothing/']), {
      code: 'service_not_found',
      exit: 3,
    });
    assert.deepEqual(await failure(laptop.home, ['services', 'add', 'web:99999']), {
      code: 'bad_service',
      exit: 2,
    });
    assert.equal((await command(laptop.home, ['nonsense'])).code, 2);
    assert.equal((await command(laptop.home, ['ping'])).code, 2);
    assert.equal((await command(laptop.home, ['generate-token', '--expires', 'soon', '--json'])).code, 2);
    await laptop.json('status');
  });

  test('without a running device it says how to start one', async () => {
    const home = await mkdtemp(join(tmpdir(), 'cocoon-'));
    try {
      assert.deepEqual(await failure(home, ['devices']), { code: 'not_running', exit: 5 });
      const { stderr } = await command(home, ['devices']);
      assert.match(stderr, /cocoon (up|run)/);
    } finally {
      await rm(home, { recursive: true, force: true });
    }
  });
});
