import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { Browser } from 'playwright-core';
import { build } from 'vite';
import { equalBytes } from '@cocoon-mesh/protocol';
import { launchChromium } from '../../../test/browser/chromium.ts';
import type { Engine } from '../engine.ts';
import { listen, patterned, sendAll } from '../engine-pair.contract.ts';
import type { FromPeer, ToPeer } from '../engine-peer.contract.ts';
import { RemoteEnd } from '../engine-process.contract.ts';
import { selectEngine } from './select.node.ts';

const KiB = 1024;

describe('the browser engine in Chromium', { timeout: 120_000 }, () => {
  let browser: Browser;
  let script: string;
  before(async () => {
    [browser, script] = await Promise.all([launchChromium(), pageScript()]);
  });
  after(() => browser?.close());

  for (const name of ['libdatachannel', 'werift'] as const)
    describe(`with ${name}`, () => {
      let engine: Engine;
      before(async () => {
        ({ engine } = await selectEngine(name));
      });

      for (const role of ['offerer', 'answerer'] as const)
        it(`connects when ${name} is the ${role}, echoes bulk whole and closes once`, async () => {
          await using page = await openPage(browser, script);
          const { side, carrier } = await page.end.link(engine, role);
          await page.end.heard('opened');
          const here = listen(carrier);
          const messages = Array.from({ length: 64 }, (_, i) =>
            patterned(i % 5 === 0 ? 100 + i : 64 * KiB, i),
          );
          await Promise.all([
            sendAll(carrier, here, messages),
            here.until((listener) => listener.messages.length === messages.length),
          ]);
          assert.ok(
            messages.every((message, i) => equalBytes(message, here.messages[i] ?? new Uint8Array())),
          );
          page.end.say({ type: 'path' });
          assert.match(String((await page.end.heard('path')).path), /^(lan|direct)$/);
          await carrier.close('enough');
          const closed = await page.end.heard('closed');
          assert.match(closed.reason, /enough/);
          assert.deepEqual(here.closes, ['enough']);
          await side.connection.close();
        });

      it('gets 3 MB whole that the page sends right before it closes', async () => {
        await using page = await openPage(browser, script);
        const { side, carrier } = await page.end.link(engine, 'offerer');
        await page.end.heard('opened');
        page.end.say({ type: 'send', bytes: 3 * 1024 * KiB });
        const here = listen(carrier);
        await here.until((listener) => listener.bytes > 0);
        page.end.say({ type: 'close', reason: 'sent' });
        await here.closedOnce;
        assert.match(here.closes.join(), /sent/);
        assert.equal((await page.end.heard('closed')).reason, 'sent');
        await side.connection.close();
      });
    });
});

interface EnginePage extends AsyncDisposable {
  readonly end: RemoteEnd;
}

async function openPage(browser: Browser, script: string): Promise<EnginePage> {
  const context = await browser.newContext();
  const page = await context.newPage();
  const end = new RemoteEnd((message: ToPeer) => {
    // A page that is gone takes no more messages; the test that closed it knows.
    page
      .evaluate((text) => (globalThis as unknown as { take(said: ToPeer): void }).take(text), message)
      .catch(() => undefined);
  });
  page.on('pageerror', (error) => end.took({ type: 'failed', code: 'page', message: error.message }));
  await page.exposeFunction('tell', (message: FromPeer) => end.took(message));
  await page.addScriptTag({ content: script });
  return { end, [Symbol.asyncDispose]: () => context.close() };
}

async function pageScript(): Promise<string> {
  const built = await build({
    configFile: false,
    logLevel: 'silent',
    build: {
      write: false,
      target: 'es2023',
      lib: {
        entry: fileURLToPath(new URL('engine-page.contract.browser.ts', import.meta.url)),
        formats: ['iife'],
        name: 'enginePage',
      },
    },
  });
  const [first] = [built].flat();
  assert.ok(first && 'output' in first);
  return first.output[0].code;
}
