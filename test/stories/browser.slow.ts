import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Browser } from 'playwright-core';
import { launchChromium } from '../browser/chromium.ts';
import type { EngineName } from './cocoon-process.ts';
import { CocoonProcess, enroll, sees } from './cocoon-process.ts';
import { Origin } from './origin.ts';
import { connected, peerOf, signInLink, visit, webAddress } from './signed-in-browser.ts';

interface DeviceRow {
  readonly name: string;
  readonly peer_id: string;
  readonly online: boolean;
}

describe('a browser that opens the printed link', () => {
  let chromium: Browser;
  let laptop: CocoonProcess;
  let origin: Origin;
  const devices = new Map<EngineName, CocoonProcess>();

  before(async () => {
    chromium = await launchChromium();
    origin = await Origin.start();
    laptop = await CocoonProcess.start({
      command: 'up',
      args: ['--port', '0', '--gateway-port', '0', '--name', 'laptop'],
    });
    for (const engine of ['libdatachannel', 'werift'] as const) {
      const args = ['--service', `web:${origin.port}`];
      devices.set(engine, await enroll(laptop, { name: engine, engine, args }));
      await sees(laptop, engine, 'web');
    }
  });

  after(async () => {
    await chromium.close();
    for (const device of [...devices.values(), laptop]) await device[Symbol.asyncDispose]();
    await origin[Symbol.asyncDispose]();
  });

  test('enrolls, is listed, pings a cocoon on either engine and fetches its service over the session', async () => {
    const context = await chromium.newContext();
    const page = await visit(context, String(laptop.ready['web_signin']));
    await connected(page);
    assert.ok(!page.url().includes('token'), 'the address forgets the token');
    const listed = await laptop.json<DeviceRow[]>('devices');
    const browser = listed.find(({ name }) => name.startsWith('chrome'));
    assert.ok(browser?.online, JSON.stringify(listed));
    const count = origin.seen.length;
    for (const engine of devices.keys()) {
      const row = page.locator(`tr[data-name="${engine}"]`);
      await row.getByRole('button', { name: `Ping ${engine}` }).click();
      await row.locator('output', { hasText: / ms/ }).waitFor();
      await row.getByRole('button', { name: `Fetch web of ${engine}` }).click();
      await page.getByText(`${engine}/web: 200`).waitFor();
      await page.locator('#answer-body', { hasText: 'hello from /' }).waitFor();
    }
    assert.equal(origin.seen.length, count + devices.size);
    // A cocoon can reach the browser, too.
    const ping = await laptop.command(['ping', browser.name, '--count', '1', '--json']);
    assert.equal(ping.code, 0, ping.stderr);
    await context.close();
    await gone(browser.name);
  });

  test('keeps its key: a visit without a link is the same device', async () => {
    const context = await chromium.newContext();
    const first = await visit(context, await signInLink(laptop));
    await connected(first);
    const peer = await peerOf(first);
    await first.close();
    const again = await visit(context, webAddress(laptop));
    await connected(again);
    assert.equal(await peerOf(again), peer);
    await context.close();
  });

  test('cannot use the link a second time, nor join without one', async () => {
    const url = await signInLink(laptop);
    const first = await chromium.newContext();
    await connected(await visit(first, url));
    const second = await chromium.newContext();
    await (await visit(second, url)).getByText('token_used').waitFor();
    const third = await chromium.newContext();
    await (await visit(third, webAddress(laptop))).getByText('unauthorized').waitFor();
    for (const context of [first, second, third]) await context.close();
  });

  /** The page has said that it goes. */
  async function gone(name: string): Promise<void> {
    for (;;) {
      const rows = await laptop.json<DeviceRow[]>('devices');
      if (!rows.some((row) => row.name === name && row.online)) return;
    }
  }
});
