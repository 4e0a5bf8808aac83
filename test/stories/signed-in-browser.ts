/** A browser with the page open: what the stories of the page have in common. */

import assert from 'node:assert/strict';
import type { BrowserContext, Page } from 'playwright-core';
import type { CocoonProcess } from './cocoon-process.ts';

/** A fresh one-time link, as `cocoon open` prints it. */
export async function signInLink(laptop: CocoonProcess): Promise<string> {
  return (await laptop.json<{ url: string }>('open')).url;
}

/** The page without a link. */
export function webAddress(laptop: CocoonProcess): string {
  return String(laptop.ready['web']);
}

export async function visit(context: BrowserContext, url: string): Promise<Page> {
  const page = await context.newPage();
  page.on('pageerror', (error) => assert.fail(error));
  await page.goto(url);
  return page;
}

export async function connected(page: Page): Promise<void> {
  await page.getByRole('status').getByText('Connected').waitFor();
}

/** The PeerId of the browser, as the page shows it. */
export async function peerOf(page: Page): Promise<string> {
  return (await page.locator('tr', { hasText: 'this browser' }).getAttribute('data-peer')) ?? '';
}
