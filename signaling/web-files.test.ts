import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, describe, test } from 'node:test';
import { startTestServer } from './test-client.ts';

const folder = mkdtempSync(join(tmpdir(), 'cocoon-web-'));
const webRoot = join(folder, 'dist');
mkdirSync(join(webRoot, 'assets'), { recursive: true });
writeFileSync(join(folder, 'secret.txt'), 'secret');
writeFileSync(join(webRoot, 'index.html'), '<!doctype html><title>Cocoon</title>');
writeFileSync(join(webRoot, '.hidden'), 'secret');
writeFileSync(join(webRoot, 'empty.txt'), '');
writeFileSync(join(webRoot, 'assets', 'main-abc.js'), 'export {};');
symlinkSync(join(folder, 'secret.txt'), join(webRoot, 'link.txt'));
after(() => rmSync(folder, { recursive: true }));

/** Without the tidying that `fetch` does to paths. */
async function get(port: number, path: string, method = 'GET') {
  const sent = request({ host: '127.0.0.1', port, path, method });
  sent.end();
  const response = await new Promise<import('node:http').IncomingMessage>((resolve, reject) => {
    sent.once('response', resolve).once('error', reject);
  });
  return { status: response.statusCode, headers: response.headers, body: await text(response) };
}

describe('the web UI', () => {
  test('is served with the headers of a page that holds keys', async () => {
    await using run = await startTestServer({ webRoot });
    const { port } = run.server;
    for (const path of ['/', '/index.html', '/?x=1']) {
      const { status, headers, body } = await get(port, path);
      assert.equal(status, 200);
      assert.match(body, /Cocoon/);
      assert.equal(headers['content-type'], 'text/html; charset=utf-8');
      assert.match(String(headers['content-security-policy']), /default-src 'self'.*frame-ancestors 'none'/);
      assert.equal(headers['x-content-type-options'], 'nosniff');
      assert.equal(headers['referrer-policy'], 'no-referrer');
      assert.equal(headers['cross-origin-opener-policy'], 'same-origin');
      assert.equal(headers['origin-agent-cluster'], '?1');
      assert.equal(headers['cache-control'], 'no-cache');
      assert.equal(headers['set-cookie'], undefined);
    }
    const script = await get(port, '/assets/main-abc.js');
    assert.equal(script.headers['content-type'], 'text/javascript; charset=utf-8');
    assert.match(String(script.headers['cache-control']), /immutable/);
    const head = await get(port, '/', 'HEAD');
    assert.deepEqual([head.status, head.body], [200, '']);
    assert.deepEqual((await get(port, '/empty.txt')).body, '');
    assert.equal((await get(port, '/index.html', 'POST')).status, 405);
  });

  test('gives nothing from outside its folder, nothing hidden and no folder', async () => {
    await using run = await startTestServer({ webRoot });
    for (const path of [
      '/../secret.txt',
      '/%2e%2e/secret.txt',
      '/..%2fsecret.txt',
      '/assets/../../secret.txt',
      '/assets/..%5c..%5csecret.txt',
      '//etc/passwd',
      `/${join(folder, 'secret.txt')}`,
      '/link.txt',
      '/.hidden',
      '/assets',
      '/assets/',
      '/index.html%00.js',
      '/%ff',
      '/missing.js',
    ]) {
      const { status, body } = await get(run.server.port, path);
      assert.equal(status, 404, path);
      assert.ok(!body.includes('secret'), path);
    }
  });

  test('is not there when no folder was given', async () => {
    await using run = await startTestServer();
    assert.equal((await get(run.server.port, '/')).status, 404);
  });
});
