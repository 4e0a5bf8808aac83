import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, it } from 'node:test';
import { launchChromium } from './chromium.ts';

describe('the browser of the suites', { timeout: 60_000 }, () => {
  it('keeps storage of one site apart below different top-level sites, as users have it', async () => {
    const server = createServer((_, response) => {
      response.setHeader('content-type', 'text/html').end('<!doctype html><title>site</title>');
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    try {
      await using browser = await launchChromium();
      const page = await browser.newPage();
      await page.goto(`http://127.0.0.1:${port}/`);
      await page.evaluate(`localStorage.setItem('mine', 'first party')`);
      await page.goto(`http://other.localhost:${port}/`);
      await page.setContent(`<iframe src="http://127.0.0.1:${port}/"></iframe>`, { waitUntil: 'load' });
      const frame = page.frames().find((candidate) => candidate.url().startsWith('http://127.0.0.1'));
      assert.equal(await frame?.evaluate(`localStorage.getItem('mine')`), null);
    } finally {
      server.close();
    }
  });
});
