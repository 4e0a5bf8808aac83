import assert from 'node:assert/strict';
import { chmod, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { CocoonProcess, bin, command } from './cocoon-process.ts';
import { spawn } from 'node:child_process';
import { once } from 'node:events';

const secretFiles = new Set(['secret', 'secret.replaced', 'identity.key', 'gateway.token', 'signaling.db']);

/** Every file of a home but those that are meant to hold secrets, with what stands in it. */
async function filesOf(folder: string): Promise<[string, string][]> {
  const found: [string, string][] = [];
  for (const entry of await readdir(folder, { withFileTypes: true, recursive: true })) {
    if (!entry.isFile() || secretFiles.has(entry.name)) continue;
    const path = join(entry.parentPath, entry.name);
    found.push([path, await readFile(path, 'latin1')]);
  }
  return found;
}

test('secrets and tokens appear in no log, error, child’s environment or process list', async () => {
  await using laptop = await CocoonProcess.start({
    command: 'up',
    args: ['--port', '0', '--gateway-port', '0', '--name', 'laptop'],
    env: { COCOON_LOG_LEVEL: 'debug' },
  });
  const { secret } = await laptop.json<{ secret: string }>('secret', 'show');
  const { token } = await laptop.json<{ token: string }>('generate-token');
  const { token: shared } = await laptop.json<{ token: string }>(
    'generate-token',
    '--scope',
    'co-own',
    '--cocoon',
    'laptop',
  );
  const args = ['--gateway-port', '0', '--signaling', laptop.signaling];
  const env = { COCOON_LOG_LEVEL: 'debug' };
  await using desk = await CocoonProcess.start({
    command: 'run',
    args: ['--name', 'desk', ...args],
    env: { ...env, COCOON_SECRET: secret },
  });
  await using box = await CocoonProcess.start({
    command: 'run',
    args: ['--name', 'box', ...args],
    env: { ...env, COCOON_SETUP_TOKEN: token },
  });
  await using anna = await CocoonProcess.start({ command: 'run', args: ['--name', 'anna', ...args], env });
  const said: string[] = [];
  const say = async (home: string, commandArgs: readonly string[], input: string): Promise<void> => {
    const { stdout, stderr } = await command(home, commandArgs, { input });
    said.push(stdout, stderr);
  };
  await say(anna.home, ['claim', '-'], shared);
  // What goes wrong must not repeat what it was given.
  await say(anna.home, ['claim', '-'], shared);
  await say(anna.home, ['claim', '-'], token);
  await say(anna.home, ['claim', '-'], shared.slice(0, -8));
  await say(anna.home, ['secret', 'use'], secret);
  await say(box.home, ['doctor'], '');
  for (const cocoon of [laptop, desk, box, anna]) {
    await say(cocoon.home, ['logs'], '');
    await say(cocoon.home, ['audit'], '');
    said.push(JSON.stringify(cocoon.events));
  }
  // The recognisable middles: a prefix alone is no secret.
  const { secret: annas } = await anna.json<{ secret: string }>('secret', 'show');
  const needles = [secret, annas, token, shared].map((text) => text.slice(-60, -10));
  const places: [string, string][] = [['what was printed', said.join('\n')]];
  for (const cocoon of [laptop, desk, box, anna]) places.push(...(await filesOf(cocoon.home)));
  places.push(['the process list', await processList()]);
  for (const [place, text] of places)
    for (const needle of needles) assert.ok(!text.includes(needle), `a secret stands in ${place}`);

  // What `cocoon open` starts inherits nothing.
  const folder = await mkdtemp(join(tmpdir(), 'cocoon-open-'));
  try {
    const opener = join(folder, 'xdg-open');
    await writeFile(opener, `#!/bin/sh\nenv > ${folder}/environment\n`);
    await chmod(opener, 0o755);
    const child = spawn(bin, ['open'], {
      env: {
        ...process.env,
        COCOON_HOME: laptop.home,
        COCOON_SECRET: secret,
        COCOON_SETUP_TOKEN: token,
        PATH: `${folder}:${process.env['PATH'] ?? ''}`,
        DISPLAY: ':1',
      },
      stdio: 'ignore',
    });
    await once(child, 'close');
    const environment = await readFile(join(folder, 'environment'), 'utf8').catch(() => '');
    for (const needle of needles) assert.ok(!environment.includes(needle), 'a child inherits a secret');
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

test('a secret or token as an argument works and warns', async () => {
  await using laptop = await CocoonProcess.start({
    command: 'up',
    args: ['--port', '0', '--gateway-port', '0', '--name', 'laptop', '--no-web'],
  });
  const { secret } = await laptop.json<{ secret: string }>('secret', 'show');
  const home = await mkdtemp(join(tmpdir(), 'cocoon-'));
  try {
    const used = await command(home, ['secret', 'use', secret]);
    assert.equal(used.code, 0, used.stderr);
    assert.match(used.stderr, /argument/);
  } finally {
    await rm(home, { recursive: true, force: true });
  }
});

/** Arguments of every process there is, as `ps` shows them. */
async function processList(): Promise<string> {
  let all = '';
  for (const entry of await readdir('/proc')) {
    if (!/^\d+$/.test(entry) || Number(entry) === process.pid) continue;
    all += await readFile(`/proc/${entry}/cmdline`, 'latin1').catch(() => '');
  }
  return all;
}
