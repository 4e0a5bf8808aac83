import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { limits } from '@cocoon-mesh/protocol';
import { oidcTokenSource } from './oidc-token.ts';

function source(setting: string | null): { read: () => Promise<string | null>; logged: string[] } {
  const logged: string[] = [];
  const read = oidcTokenSource(setting, (_level, message, fields) =>
    logged.push(`${message} ${JSON.stringify(fields)}`),
  );
  return { read, logged };
}

test('an ID token is the value itself, or what stands in the file at the time', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'cocoon-oidc-'));
  try {
    assert.equal(await source(null).read(), null);
    assert.equal(await source(' a.b.c ').read(), 'a.b.c');
    const file = join(folder, 'token');
    const { read, logged } = source(`@${file}`);
    assert.equal(await read(), null);
    assert.match(logged.join(), /cannot be read .*ENOENT/);
    writeFileSync(file, 'first\n');
    assert.equal(await read(), 'first');
    writeFileSync(file, 'second\n');
    assert.equal(await read(), 'second');
    writeFileSync(file, '\n');
    assert.equal(await read(), null);
    assert.equal(logged.length, 1);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('what is too long to be an ID token is not sent, and not logged', async () => {
  const { read, logged } = source('x'.repeat(limits.maxOidcTokenBytes + 1));
  assert.equal(await read(), null);
  assert.ok(logged.length === 1 && !logged.join().includes('xxx'));
});
