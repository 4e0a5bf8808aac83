import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

const script = join(import.meta.dirname, 'demo.ts');

function start(args: readonly string[], temporary: string) {
  const child = spawn(process.execPath, [script, ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, TMPDIR: temporary, COCOON_DEMO_HOME: '' },
  });
  let text = '';
  const { promise: guided, resolve } = Promise.withResolvers<void>();
  child.stdout.on('data', (chunk: Buffer) => {
    text += chunk.toString();
    if (text.includes('Ctrl-C ends the demo.')) resolve();
  });
  return { child, guided, closed: once(child, 'close') as Promise<[number | null]>, text: () => text };
}

test('the demo starts three devices and a friend’s, its commands work, and it ends with nothing left', async () => {
  const temporary = await mkdtemp(join(tmpdir(), 'cocoon-demo-test-'));
  try {
    const { closed, text } = start(['--check'], temporary);
    assert.equal((await closed)[0], 0, text());
    assert.match(text(), /Works: 3 devices and a friend's/);
    assert.deepEqual(await readdir(temporary), []);
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
});

test('an interrupt ends the demo and everything it started', async () => {
  const temporary = await mkdtemp(join(tmpdir(), 'cocoon-demo-test-'));
  try {
    const { child, guided, closed, text } = start([], temporary);
    await guided;
    const gateway = /(http:\/\/127\.0\.0\.1:\d+)\/proxy/.exec(text())?.[1];
    child.kill('SIGINT');
    assert.equal((await closed)[0], 0);
    if (gateway) await assert.rejects(fetch(`${gateway}/healthz`));
    assert.deepEqual(await readdir(temporary), []);
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
});
