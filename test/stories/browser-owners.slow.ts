import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Browser } from 'playwright-core';
import { launchChromium } from '../browser/chromium.ts';
import { CocoonProcess, enroll, sees } from './cocoon-process.ts';
import { Origin } from './origin.ts';
import { foreignName, listedAs } from './shares.ts';
import { connected, peerOf, signInLink, visit, webAddress } from './signed-in-browser.ts';

/** How long a session of somebody who was revoked may live on. */
const cutWithinMs = 2_000;

describe('a browser as a device of an owner', () => {
  const parts = new AsyncDisposableStack();
  let chromium: Browser;
  let origin: Origin;
  let laptop: CocoonProcess;
  let box: CocoonProcess;

  before(async () => {
    chromium = await launchChromium();
    parts.defer(() => chromium.close());
    origin = parts.use(await Origin.start());
    laptop = parts.use(
      await CocoonProcess.start({
        command: 'up',
        args: ['--port', '0', '--gateway-port', '0', '--name', 'laptop'],
      }),
    );
    const args = ['--service', `web:${origin.port}`];
    box = parts.use(await enroll(laptop, { name: 'box', engine: 'libdatachannel', args }));
    await sees(laptop, 'box', 'web');
  });

  after(async () => {
    await parts.disposeAsync();
  });

  /** A cocoon of another owner at the same signaling server, with the service `web`. */
  async function stranger(name: string): Promise<CocoonProcess> {
    const services = ['web', 'other'].flatMap((service) => ['--service', `${service}:${origin.port}`]);
    return CocoonProcess.start({
      command: 'run',
      args: ['--name', name, '--gateway-port', '0', '--signaling', laptop.signaling, ...services],
    });
  }

  async function coOwnToken(cocoon: CocoonProcess, ...args: readonly string[]): Promise<string> {
    const flags = ['--scope', 'co-own', '--cocoon', cocoon.name, ...args];
    return (await cocoon.json<{ token: string }>('generate-token', ...flags)).token;
  }

  test('shows a cocoon that another owner shares under that owner, and opens its service', async () => {
    await using gpu = await stranger('gpu');
    const { owner } = await gpu.json<{ owner: string }>('status');
    await using context = await chromium.newContext();
    const page = await visit(context, await signInLink(laptop));
    await connected(page);
    const claimed = await laptop.command(['claim', '-'], {
      input: await coOwnToken(gpu, '--service', 'web'),
    });
    assert.equal(claimed.code, 0, claimed.stderr);
    const name = await foreignName(laptop, gpu.peerId);
    const group = page.locator(`tbody[data-owner="${owner}"]`);
    await group.getByText(`Shared with you by ${owner}`).waitFor();
    const row = group.locator(`tr[data-name="${name}"]`);
    await row.getByRole('button', { name: `Fetch web of ${name}` }).click();
    await page.getByText(`${name}/web: 200`).waitFor();
    await page.locator('#answer-body', { hasText: 'hello from /' }).waitFor();
    // What was not given is not shown, and the own devices stand apart.
    assert.equal(await row.getByText('other').count(), 0);
    assert.equal(await page.locator('tr[data-name="box"][data-foreign="false"]').count(), 1);
    assert.equal(await group.locator('tr[data-peer]').count(), 1);
    // Taken back, it is gone from the page that is open.
    const { owner: mine } = await laptop.json<{ owner: string }>('status');
    await gpu.json('owners', 'remove', mine);
    await group.waitFor({ state: 'detached' });
  });

  test('that is revoked while its page is open loses its sessions within two seconds and says what to do', async (t) => {
    await using context = await chromium.newContext();
    const page = await visit(context, await signInLink(laptop));
    await connected(page);
    const peer = await peerOf(page);
    const row = page.locator('tr[data-name="box"]');
    await row.getByRole('button', { name: 'Ping box' }).click();
    await row.locator('output', { hasText: / ms/ }).waitFor();
    const sessions = async (): Promise<number> => (await box.json<{ sessions: number }>('status')).sessions;
    const before = await sessions();
    await laptop.json('revoke', peer);
    const revokedAt = Date.now();
    await page.getByRole('status').getByText('This browser was revoked').waitFor({ timeout: cutWithinMs });
    t.diagnostic(`said after ${Date.now() - revokedAt} ms`);
    await page.getByRole('status').getByText('cocoon open').waitFor();
    assert.ok(await page.locator('#devices').isHidden(), 'the devices are not shown any more');
    while ((await sessions()) >= before) assert.ok(Date.now() < revokedAt + cutWithinMs, 'still a session');
    t.diagnostic(`cut after ${Date.now() - revokedAt} ms`);
    // It says so again, and a new link makes a new device of it.
    await page.goto(webAddress(laptop));
    await page.reload();
    await page.getByRole('status').getByText('This browser was revoked').waitFor();
    const again = await visit(context, await signInLink(laptop));
    await connected(again);
    assert.notEqual(await peerOf(again), peer);
    await again.reload();
    await connected(again);
  });

  test('that was revoked while it was closed becomes a new device by the first link it opens', async () => {
    await using context = await chromium.newContext();
    const page = await visit(context, await signInLink(laptop));
    await connected(page);
    const peer = await peerOf(page);
    await page.close();
    await laptop.json('revoke', peer);
    const again = await visit(context, await signInLink(laptop));
    await connected(again);
    assert.notEqual(await peerOf(again), peer);
  });

  test('stays signed in when it opens a link that was used', async () => {
    const used = await signInLink(laptop);
    await using first = await chromium.newContext();
    await connected(await visit(first, used));
    await using context = await chromium.newContext();
    const page = await visit(context, await signInLink(laptop));
    await connected(page);
    const peer = await peerOf(page);
    // The fragment alone changes: the page that is open takes it in all the same.
    await page.goto(used);
    await page.waitForURL((url) => url.hash === '');
    await connected(page);
    assert.equal(await peerOf(page), peer);
    await page.reload();
    await connected(page);
    assert.equal(await peerOf(page), peer);
  });

  test('is one device in two tabs: the newer one, until the older is asked again', async () => {
    await using context = await chromium.newContext();
    const older = await visit(context, await signInLink(laptop));
    await connected(older);
    const peer = await peerOf(older);
    const newer = await visit(context, webAddress(laptop));
    await connected(newer);
    await older.getByRole('status').getByText('Another tab').waitFor();
    assert.ok(await older.locator('#devices').isHidden());
    assert.equal(await peerOf(newer), peer);
    await older.reload();
    await connected(older);
    await newer.getByRole('status').getByText('Another tab').waitFor();
  });

  test('takes neither a secret nor a token that is for other owners', async () => {
    const { secret } = await laptop.json<{ secret: string }>('secret', 'show');
    await using context = await chromium.newContext();
    for (const fragment of [`secret=${secret}`, `token=${secret}`, secret]) {
      const page = await visit(context, `${webAddress(laptop)}/#${fragment}`);
      await page.getByRole('status').getByText('never takes the secret').waitFor();
      assert.ok(!page.url().includes(secret), 'the address forgets it');
      await page.close();
    }
    const page = await visit(context, `${webAddress(laptop)}/#token=${await coOwnToken(laptop)}`);
    await page.getByRole('status').getByText('token_invalid').waitFor();
    await page.getByRole('status').getByText('cocoon claim').waitFor();
    assert.ok(!page.url().includes('token'));
    // Put into the address of a page that is open, it is seen all the same.
    await page.goto(`${webAddress(laptop)}/#secret=${secret}`);
    await page.getByRole('status').getByText('never takes the secret').waitFor();
    assert.ok(!page.url().includes(secret));
  });

  test('says why a device is not used, and uses it once it is accepted', async () => {
    await using context = await chromium.newContext();
    const page = await visit(context, await signInLink(laptop));
    await connected(page);
    const join = async (...args: readonly string[]): Promise<CocoonProcess> =>
      CocoonProcess.start({
        command: 'run',
        args: ['--name', 'twin', '--gateway-port', '0', '--token', '-'],
        input: (await laptop.json<{ token: string }>('generate-token', ...args)).token,
      });
    // A guest's right ends, and somebody else comes by the name.
    const until = Date.now() + 6_000;
    const first = await join('--until', new Date(until).toISOString());
    await page.locator(`tr[data-peer="${first.peerId}"]`).waitFor();
    await first[Symbol.asyncDispose]();
    await page.close();
    for (const end = until + 10_000; Date.now() < end;)
      if ((await listedAs(laptop, first.peerId)) === null) break;
    await using second = await join();
    const again = await visit(context, webAddress(laptop));
    const row = again.locator(`tr[data-peer="${second.peerId}"]`);
    await row.getByText(`the name twin is pinned to ${first.peerId}`).waitFor();
    assert.equal(await row.getByRole('button', { name: 'Ping twin' }).count(), 0);
    await row.getByRole('button', { name: 'Accept this twin' }).click();
    await row.getByRole('button', { name: 'Ping twin' }).click();
    await row.locator('output', { hasText: / ms/ }).waitFor();
  });
});
