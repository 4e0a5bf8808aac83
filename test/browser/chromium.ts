/**
 * Starts a headless Chromium for suites: unpacked from npm once per machine, run without its sandbox when we
 * are root, and with storage partitioned by top-level site as users have it (Playwright switches that off).
 */

import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rename, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { networkInterfaces, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import chromiumPackage, { inflate } from '@sparticuz/chromium';
import type { Browser } from 'playwright-core';
import { chromium } from 'playwright-core';

export interface ChromiumOptions {
  /** Further switches of the browser. */
  readonly args?: readonly string[];
}

const run = promisify(execFile);

/**
 * Of Playwright's list what keeps a test machine quiet. Of several `--disable-features` the browser takes the
 * last, and ours comes last, so `ThirdPartyStoragePartitioning` is on again.
 */
const disabledFeatures = ['HttpsUpgrades', 'MediaRouter', 'OptimizationHints', 'NetworkTimeServiceQuerying'];

/** The caller closes it (`await using` does). */
export async function launchChromium(options: ChromiumOptions = {}): Promise<Browser> {
  const { executablePath, libraryPath } = await installed();
  return chromium.launch({
    executablePath,
    headless: true,
    chromiumSandbox: false,
    env: { ...process.env, ...(libraryPath !== null && { LD_LIBRARY_PATH: libraryPath }) },
    args: [
      `--disable-features=${disabledFeatures.join(',')}`,
      '--allow-loopback-in-peer-connection',
      ...(hasOnlyLoopback() ? ['--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream'] : []),
      ...(options.args ?? []),
    ],
  });
}

interface Installation {
  readonly executablePath: string;
  /** Where the libraries lie that this system lacks; null when it has them all. */
  readonly libraryPath: string | null;
}

async function installed(): Promise<Installation> {
  const packageFolder = dirname(createRequire(import.meta.url).resolve('@sparticuz/chromium'));
  const version = createRequire(import.meta.url)(join(packageFolder, '..', 'package.json')) as {
    version: string;
  };
  const folder = join(tmpdir(), `chromium-${version.version}-${process.getuid?.() ?? 0}`);
  if (!existsSync(folder)) await unpack(join(packageFolder, '..', 'bin'), folder);
  const executablePath = join(folder, 'chromium');
  const runs = await run(executablePath, ['--version']).then(
    () => true,
    () => false,
  );
  return { executablePath, libraryPath: runs ? null : join(folder, 'al2023', 'lib') };
}

/** Into a folder of its own and then renamed, so that two suites that start together see all or nothing. */
async function unpack(archives: string, folder: string): Promise<void> {
  const unfinished = await mkdtemp(join(tmpdir(), 'chromium-unpack-'));
  const before = process.env['TMPDIR'];
  // The package unpacks into the folder for temporary files, wherever that is.
  process.env['TMPDIR'] = unfinished;
  try {
    await chromiumPackage.executablePath();
    await inflate(join(archives, 'al2023.tar.br'));
  } finally {
    if (before === undefined) delete process.env['TMPDIR'];
    else process.env['TMPDIR'] = before;
  }
  await rename(unfinished, folder).catch(async (error: unknown) => {
    await rm(unfinished, { recursive: true });
    if (!existsSync(folder)) throw error;
  });
}

function hasOnlyLoopback(): boolean {
  return !Object.values(networkInterfaces()).some((list) => list?.some(({ internal }) => !internal));
}
