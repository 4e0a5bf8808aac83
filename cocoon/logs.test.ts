import assert from 'node:assert/strict';
import { mkdtemp, readFile, readdir, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { LogFile } from './log-file.ts';
import { openLog } from './logs.ts';

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cocoon-logs-'));
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

describe('the log', () => {
  test('is private NDJSON with time, level and fields, and leaves out what is below its level', async () => {
    const path = join(folder, 'logs', 'cocoon.log');
    const { log, close } = openLog(path, 'info', () => undefined);
    log('debug', 'hidden');
    log('info', 'shown', { peer: 'x' });
    close();
    const entry = JSON.parse(await readFile(path, 'utf8')) as Record<string, unknown>;
    assert.equal(entry['level'], 'info');
    assert.equal(entry['msg'], 'shown');
    assert.equal(entry['peer'], 'x');
    assert.ok(!Number.isNaN(Date.parse(String(entry['time']))));
    assert.equal((await stat(path)).mode & 0o777, 0o600);
  });

  test('never holds a token, a secret, a recovery code or a sign-in link, even when somebody hands them over', async () => {
    const path = join(folder, 'cocoon.log');
    const seen: string[] = [];
    const { log, close } = openLog(path, 'info', (_level, message) => seen.push(message));
    for (const secret of [
      'cocoon-token-1.abc_-9',
      'cocoon-secret-1.abc',
      'cocoon-recovery-1.abc',
      'http://x/#token=abc',
    ]) {
      log('warn', `failed with ${secret}`, { nested: { secret } });
    }
    close();
    const text = (await readFile(path, 'utf8')) + seen.join('\n');
    assert.ok(!text.includes('abc'), text);
    assert.ok(text.includes('[removed]'));
  });

  test('starts a new file at its size and keeps a few old ones', async () => {
    const path = join(folder, 'cocoon.log');
    const file = new LogFile(path, 100);
    for (let i = 0; i < 40; i++) file.write(`${String(i).padStart(50, '.')}\n`);
    file.close();
    file.write('ignored');
    assert.deepEqual((await readdir(folder)).toSorted(), [
      'cocoon.log',
      'cocoon.log.1',
      'cocoon.log.2',
      'cocoon.log.3',
      'cocoon.log.4',
    ]);
    assert.match(await readFile(`${path}.1`, 'utf8'), /39\n$/);
  });
});
