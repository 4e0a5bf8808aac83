import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, readFile, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, describe, test } from 'node:test';

const bin = join(import.meta.dirname, 'bin/cocoon');

interface Done {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

interface Given {
  readonly env?: Record<string, string>;
  readonly input?: string;
}

function start(args: readonly string[], { env = {} }: Given = {}) {
  const clean = Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !/^(COCOON|SIGNALING|NODE_TEST)/.test(name)),
  );
  return spawn(bin, args, { stdio: ['pipe', 'pipe', 'pipe'], env: { ...clean, ...env } });
}

async function cocoon(args: readonly string[], given: Given = {}): Promise<Done> {
  const child = start(args, given);
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (chunk) => (stdout += String(chunk)));
  child.stderr.on('data', (chunk) => (stderr += String(chunk)));
  child.stdin.end(given.input ?? '');
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, stdout, stderr };
}

function codeOf({ stderr }: Done): string {
  return (JSON.parse(stderr) as { error: { code: string } }).error.code;
}

let home: string;

before(async () => {
  home = await mkdtemp(join(tmpdir(), 'cocoon-cli-'));
});

after(async () => {
  await rm(home, { recursive: true, force: true });
});

describe('the command line', () => {
  test('has help with an example for every command', async () => {
    const { stdout } = await cocoon(['--help']);
    const names = [...stdout.matchAll(/^ {2}([a-z-]+)(?: \[options\])?(?: .*)?$/gm)].flatMap(
      ([, name = '']) => (name === 'help' || name.startsWith('-') ? [] : name),
    );
    for (const name of [
      'up',
      'run',
      'signaling',
      'generate-token',
      'claim',
      'secret',
      'owners',
      'revoke',
      'status',
      'devices',
      'ping',
      'fetch',
      'forward',
      'open',
      'services',
      'doctor',
      'logs',
      'version',
    ]) {
      assert.ok(names.includes(name), `${name} in ${names.join(' ')}`);
      const help = await cocoon([name, '--help']);
      assert.equal(help.code, 0);
      assert.match(help.stdout, /Example:\n {2}cocoon /, name);
      assert.match(help.stdout, /--json/, name);
      assert.match(help.stdout, /--home/, name);
    }
  });

  test('ends with 2 for what it does not understand, and says so as text or as JSON', async () => {
    for (const args of [
      ['nonsense'],
      ['ping'],
      ['status', '--nonsense'],
      ['services', 'nonsense'],
      ['services', 'add'],
      ['ping', 'x', '--count', '0'],
    ]) {
      const done = await cocoon([...args, '--json', '--home', home]);
      assert.equal(done.code, 2, args.join(' '));
      assert.equal(codeOf(done), 'usage');
      assert.equal(done.stdout, '');
    }
    const text = await cocoon(['ping', '--home', home]);
    assert.match(text.stderr, /^cocoon: .*device.*\(usage\)\n {2}\S/);
  });

  test('without a running cocoon says how to start one, in every command that needs it', async () => {
    const needing = [
      ['status'],
      ['devices'],
      ['ping', 'x'],
      ['generate-token'],
      ['claim', '-'],
      ['owners', 'list'],
      ['owners', 'remove', 'own_x'],
      ['revoke', 'x'],
      ['secret', 'rotate'],
      ['fetch', 'a/b/c'],
      ['forward', 'a/b'],
      ['open'],
      ['services', 'list'],
      ['services', 'add', 'web:80'],
      ['services', 'remove', 'web'],
    ];
    const all = await Promise.all(needing.map((args) => cocoon([...args, '--json', '--home', home])));
    for (const [i, done] of all.entries()) {
      assert.equal(done.code, 5, needing[i]?.join(' '));
      assert.equal(codeOf(done), 'not_running');
    }
  });

  test('prints its version, and what doctor finds without a running cocoon', async () => {
    const { stdout } = await cocoon(['version', '--json']);
    assert.equal((JSON.parse(stdout) as { node: string }).node, process.versions.node);
    const doctor = await cocoon(['doctor', '--json', '--home', home], {
      env: { COCOON_SIGNALING_URL: 'ws://127.0.0.1:1/ws' },
    });
    assert.equal(doctor.code, 1);
    const { findings } = JSON.parse(doctor.stdout) as {
      findings: { check: string; state: string; hint: string }[];
    };
    assert.equal(findings.find(({ check }) => check === 'signaling')?.state, 'fail');
    assert.ok(findings.every(({ state, hint }) => state === 'ok' || hint !== ''));
  });
});

describe('a running cocoon', () => {
  let daemon: ReturnType<typeof start>;
  let events: Record<string, unknown>[];
  let service: ReturnType<typeof createServer>;
  let port: number;

  before(async () => {
    service = createServer((request, response) => {
      let bytes = 0;
      request.on('data', (chunk: Buffer) => (bytes += chunk.length));
      if (request.url === '/missing') response.statusCode = 404;
      const answer = (): unknown =>
        response.end(`${request.method} ${request.url} ${bytes} ${String(request.headers['x-own'] ?? '-')}`);
      request.on('end', answer);
    }).listen(0, '127.0.0.1');
    await once(service, 'listening');
    ({ port } = service.address() as AddressInfo);
    daemon = start(
      [
        'up',
        '--json',
        '--port',
        '0',
        '--gateway-port',
        '0',
        '--name',
        'laptop',
        '--service',
        `web:${port}`,
        '--home',
        home,
      ],
      {
        env: { COCOON_SECRET: '', COCOON_LLM_API_KEY: 'do-not-inherit' },
      },
    );
    daemon.stdin.end();
    events = [];
    for await (const line of createInterface({ input: daemon.stdout })) {
      events.push(JSON.parse(line) as Record<string, unknown>);
      if (events.at(-1)?.['event'] === 'ready') break;
    }
  });

  after(async () => {
    service.closeAllConnections();
    service.close();
    if (daemon.exitCode !== null) return;
    const closed = once(daemon, 'close');
    daemon.kill('SIGTERM');
    await closed;
  });

  test('tells its recovery code once, before it is ready, and never in a log', async () => {
    const [created, ready] = events;
    assert.equal(created?.['event'], 'owner_created');
    for (const field of ['name', 'peer_id', 'gateway', 'gateway_token_file', 'signaling'])
      assert.ok(ready?.[field], field);
    const logs = join(home, 'logs');
    for (const file of await readdir(logs)) {
      const text = await readFile(join(logs, file), 'utf8');
      assert.ok(!/cocoon-(token|secret|recovery)-1\./.test(text), file);
      assert.ok(!text.includes(String(created?.['recovery_code'])));
    }
  });

  test('keeps its socket and every file to its user', async () => {
    for (const file of [
      'identity.key',
      'secret',
      'owners.json',
      'gateway.token',
      'control.sock',
      'signaling.db',
    ])
      assert.equal((await stat(join(home, file))).mode & 0o077, 0, file);
  });

  test('says of itself what the surface promises', async () => {
    const status = JSON.parse((await cocoon(['status', '--json', '--home', home])).stdout) as Record<
      string,
      unknown
    >;
    for (const field of ['name', 'peer_id', 'owner', 'signaling', 'services', 'capabilities'])
      assert.ok(field in status, field);
    const [device] = JSON.parse((await cocoon(['devices', '--json', '--home', home])).stdout) as Record<
      string,
      unknown
    >[];
    for (const field of [
      'name',
      'peer_id',
      'online',
      'this',
      'path',
      'engine',
      'rtt_ms',
      'services',
      'capabilities',
      'load',
      'location',
    ])
      assert.ok(device && field in device, field);
    const [own] = (device?.['services'] ?? []) as object[];
    assert.deepEqual(Object.keys(own ?? {}), ['name', 'type', 'port', 'healthy']);
  });

  test('fetches from its own services: methods, headers, bodies from everywhere, answers to a file', async () => {
    const fetch = (...args: string[]) => cocoon(['fetch', ...args, '--home', home]);
    assert.equal((await fetch('laptop/web/a?b=c')).stdout, 'GET /a?b=c 0 -');
    assert.equal((await fetch('laptop/web/ü b')).stdout, 'GET /%C3%BC%20b 0 -');
    assert.equal(
      (await fetch('laptop/web/', '-X', 'PUT', '-H', 'X-Own: yes', '-d', 'four')).stdout,
      'PUT / 4 yes',
    );
    const file = join(home, 'body');
    await writeFile(file, 'x'.repeat(3_000_000));
    assert.equal((await fetch('laptop/web/', '-d', `@${file}`)).stdout, 'POST / 3000000 -');
    const piped = await cocoon(['fetch', 'laptop/web/', '-d', '@-', '--home', home], { input: 'stdin' });
    assert.equal(piped.stdout, 'POST / 5 -');
    const target = join(home, 'answer');
    assert.equal((await fetch('laptop/web/', '-o', target)).code, 0);
    assert.equal(await readFile(target, 'utf8'), 'GET / 0 -');
    const json = JSON.parse((await fetch('laptop/web/', '--json')).stdout) as {
      status: number;
      body: string;
    };
    assert.deepEqual([json.status, json.body], [200, 'GET / 0 -']);
  });

  test('ends a fetch with 0 for any answer of a service, with 1 only when asked to', async () => {
    const missing = await cocoon(['fetch', 'laptop/web/missing', '--home', home]);
    assert.deepEqual([missing.code, missing.stdout], [0, 'GET /missing 0 -']);
    assert.match(missing.stderr, /HTTP 404/);
    assert.equal((await cocoon(['fetch', 'laptop/web/missing', '--fail', '--home', home])).code, 1);
    for (const [args, code, exit] of [
      [['laptop/nothing/'], 'service_not_found', 3],
      [['nobody/web/'], 'device_not_found', 3],
      [['laptop'], 'usage', 2],
      [['laptop/web/', '-H', 'no header'], 'usage', 2],
      [['laptop/web/', '-d', '@/nonexistent/file'], 'usage', 2],
      [['laptop/web/', '-o', '/nonexistent/file'], 'usage', 2],
    ] as const) {
      const done = await cocoon(['fetch', ...args, '--json', '--home', home]);
      assert.deepEqual([codeOf(done), done.code], [code, exit], args.join(' '));
    }
  });

  test('keeps services that were added at run time, and refuses wrong ones', async () => {
    const run = (...args: string[]) => cocoon(['services', ...args, '--json', '--home', home]);
    assert.deepEqual(JSON.parse((await run('add', 'db:5432')).stdout), {
      name: 'db',
      type: 'tcp',
      port: 5432,
      healthy: null,
    });
    const again = await run('add', 'db:5432');
    assert.deepEqual([codeOf(again), again.code], ['service_exists', 1]);
    assert.equal(codeOf(await run('add', 'db:0')), 'bad_service');
    const { stdout } = await cocoon(['open', 'laptop/web', '--json', '--home', home]);
    assert.match(
      (JSON.parse(stdout) as { url: string }).url,
      /^http:\/\/web--laptop-[0-9a-f]{10}\.mesh\.localhost:\d+\/\.cocoon\/sign-in\?code=/,
    );
    assert.equal(codeOf(await cocoon(['open', 'laptop/db', '--json', '--home', home])), 'wrong_service_type');
    assert.equal((await run('remove', 'db')).code, 0);
    assert.equal(codeOf(await run('remove', 'db')), 'service_not_found');
  });

  test('makes tokens with an end, for its devices and for other owners', async () => {
    const run = (...args: string[]) => cocoon(['generate-token', ...args, '--json', '--home', home]);
    const token = JSON.parse((await run('--expires', '10m')).stdout) as {
      token: string;
      scope: string;
      expires_at: string;
    };
    assert.equal(token.scope, 'enroll');
    assert.ok(token.token.startsWith('cocoon-token-1.'));
    assert.ok(!Number.isNaN(Date.parse(token.expires_at)));
    const shared = JSON.parse((await run('--scope', 'co-own', '--cocoon', 'laptop')).stdout) as {
      scope: string;
      jti: string;
    };
    assert.equal(shared.scope, 'co-own');
    assert.match(shared.jti, /^[\w-]{43}$/);
    for (const args of [
      ['--expires', 'soon'],
      ['--until', 'later'],
      ['--until', '2001-01-01'],
      ['--admin', '--service', 'web'],
      ['--scope', 'co-own'],
      ['--scope', 'co-own', '--cocoon', 'laptop', '--admin'],
      ['--cocoon', 'laptop'],
      ['--scope', 'other'],
    ])
      assert.equal((await run(...args)).code, 2, args.join(' '));
  });

  test('lists and refuses what concerns other owners and its own end, and replaces its secret', async () => {
    const run = (args: readonly string[], input = '') =>
      cocoon([...args, '--json', '--home', home], { input });
    assert.deepEqual(JSON.parse((await run(['owners', 'list'])).stdout), []);
    for (const [args, code] of [
      [['owners', 'remove', 'own_nobody'], 'owner_not_found'],
      [['revoke', 'nobody'], 'device_not_found'],
      [['revoke', 'laptop'], 'usage'],
      [['secret', 'use', '-'], 'already_running'],
      [['secret', 'rotate'], 'key_corrupt'],
      [['claim', '-'], 'token_malformed'],
    ] as const)
      assert.equal(codeOf(await run(args)), code, args.join(' '));
    const secretOf = async (): Promise<string> =>
      (JSON.parse((await run(['secret', 'show'])).stdout) as { secret: string }).secret;
    const before = await secretOf();
    const code = String(events[0]?.['recovery_code']);
    // Where nobody reads along the new code would be lost.
    const hidden = await cocoon(['secret', 'rotate', '--home', home], { input: code });
    assert.equal(hidden.code, 2);
    assert.equal(await secretOf(), before);
    const rotated = await run(['secret', 'rotate'], code);
    assert.equal(rotated.code, 0, rotated.stderr);
    const { recovery_code: next } = JSON.parse(rotated.stdout) as { recovery_code: string };
    assert.match(next, /^cocoon-recovery-1\./);
    assert.notEqual(await secretOf(), before);
    assert.equal((await readFile(join(home, 'secret.replaced'), 'utf8')).trim(), before);
    assert.equal((await run(['generate-token'])).code, 0);
    assert.equal(codeOf(await run(['secret', 'rotate'], code)), 'key_corrupt');
  });

  test('hands no secret variable down: what it was started with is gone from its environment', async () => {
    // The initial block stays in /proc whatever a process does; what counts is what a child would inherit.
    const { stdout } = await cocoon(['secret', 'show', '--json', '--home', home]);
    assert.match((JSON.parse(stdout) as { secret: string }).secret, /^cocoon-secret-\d\./);
    const probe = `import { takeEnvironment } from ${JSON.stringify(join(import.meta.dirname, 'environment.ts'))};
      const taken = takeEnvironment(); console.log(JSON.stringify([taken.COCOON_SECRET, process.env.COCOON_SECRET ?? null]));`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', probe], {
      env: { ...process.env, COCOON_SECRET: 's' },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [line] = (await once(createInterface({ input: child.stdout }), 'line')) as [string];
    assert.deepEqual(JSON.parse(line), ['s', null]);
  });

  test('ends within five seconds of SIGTERM, with 0, and gives its home free', async () => {
    const closed = once(daemon, 'close') as Promise<[number | null]>;
    const began = performance.now();
    daemon.kill('SIGTERM');
    assert.equal((await closed)[0], 0);
    assert.ok(performance.now() - began < 5_000);
    assert.equal((await cocoon(['status', '--json', '--home', home])).code, 5);
    await chmod(join(home, 'identity.key'), 0o644);
    const exposed = await cocoon(['run', '--json', '--gateway-port', '0', '--home', home]);
    assert.deepEqual([codeOf(exposed), exposed.code], ['key_exposed', 1]);
    await chmod(join(home, 'identity.key'), 0o600);
  });
});

test('a token in the argument list is used, with a warning', async () => {
  const fresh = await mkdtemp(join(tmpdir(), 'cocoon-cli-'));
  try {
    const done = await cocoon([
      'run',
      '--token',
      'nonsense',
      '--json',
      '--gateway-port',
      '0',
      '--home',
      fresh,
    ]);
    const lines = done.stderr
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { note?: string; error?: { code: string } });
    assert.match(lines[0]?.note ?? '', /--token -/);
    assert.equal(lines[1]?.error?.code, 'token_malformed');
    assert.equal(done.code, 2);
  } finally {
    await rm(fresh, { recursive: true, force: true });
  }
});
