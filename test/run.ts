/**
 * Runs the tests: `node test/run.ts fast slow` (one suite or both, in that order), with paths behind them only
 * those: `node test/run.ts fast protocol/`. Fast are all `*.test.ts`, slow all `*.slow.ts`.
 *
 * Every file is a process of its own with a time limit (`run-file.ts`): Node's own runner waits for ever for a
 * file that hangs. What is printed is `report.ts`'s matter.
 */

import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { delimiter, join, relative, resolve, sep } from 'node:path';
import { parseArgs } from 'node:util';
import { Report } from './report.ts';
import { runFile } from './run-file.ts';

const projectRoot = resolve(import.meta.dirname, '..');
const neededNodeMajor = 24;

interface Suite {
  readonly suffix: string;
  /** Files at once; two cores are the machine we promise to work on. */
  readonly concurrency: number;
  /** For one file. */
  readonly timeoutMs: number;
}

const full = process.env['COCOON_TEST_FULL'] === '1';

const suites: Readonly<Record<string, Suite>> = {
  fast: { suffix: '.test.ts', concurrency: 2, timeoutMs: full ? 300_000 : 60_000 },
  // Mostly these wait, for processes, timers and silence: alone, one of them leaves a machine idle.
  slow: { suffix: '.slow.ts', concurrency: 2, timeoutMs: full ? 3600_000 : 300_000 },
};

const skippedFolders = new Set(['node_modules', 'dist', 'test-results']);

/** Files of a suite, relative to `root`, in a stable order. */
function findFiles(root: string, suffix: string, paths: readonly string[]): string[] {
  const found: string[] = [];
  const wanted = paths.map((path) => resolve(path));
  function walk(folder: string): void {
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      if (entry.name.startsWith('.') || skippedFolders.has(entry.name)) continue;
      const path = join(folder, entry.name);
      if (entry.isDirectory()) walk(path);
      else if (entry.name.endsWith(suffix) && isWanted(path)) found.push(relative(root, path));
    }
  }
  function isWanted(path: string): boolean {
    return wanted.length === 0 || wanted.some((prefix) => path === prefix || path.startsWith(prefix + sep));
  }
  walk(root);
  return found.toSorted();
}

async function runSuite(root: string, name: string, suite: Suite, files: readonly string[], report: Report) {
  report.suiteStarts(name, files.length);
  const waiting = [...files];
  async function worker(): Promise<void> {
    for (let file = waiting.shift(); file !== undefined; file = waiting.shift()) {
      report.fileEnded(file, await runFile(root, file, suite.timeoutMs));
    }
  }
  await Promise.all(Array.from({ length: suite.concurrency }, worker));
}

/**
 * The npm scripts find Node 24 first in the PATH. Whoever starts this file with another Node that can read it
 * (from 22.18; older ones refuse `.ts` before our first line) gets ours too.
 */
function runOnNeededNode(): number {
  const node = join(projectRoot, 'node_modules', 'node', 'bin', 'node');
  const { status, error } = spawnSync(node, process.argv.slice(1), { stdio: 'inherit' });
  if (error) console.error(`The tests need Node ${neededNodeMajor}: run npm ci first (${error.message})`);
  return status ?? 1;
}

function usage(): number {
  console.error('Usage: node test/run.ts fast|slow… [PATH…]');
  return 2;
}

async function main(): Promise<number> {
  if (Number(process.versions.node.split('.')[0]) < neededNodeMajor) return runOnNeededNode();
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      /** Another project than this one, and other limits: for the tests of the runner itself. */
      root: { type: 'string', default: projectRoot },
      'timeout-ms': { type: 'string' },
    },
  });
  const names = positionals.filter((word) => Object.hasOwn(suites, word));
  const paths = positionals.filter((word) => !Object.hasOwn(suites, word));
  if (names.length === 0) return usage();

  // Programs that tests start by the name `node` are to be on this one too.
  process.env['PATH'] = join(projectRoot, 'node_modules', '.bin') + delimiter + (process.env['PATH'] ?? '');
  // The one that the installed command keeps: half of a short test is reading and stripping our own files.
  process.env['NODE_COMPILE_CACHE'] ??= join(projectRoot, 'node_modules', '.cache', 'cocoon');
  const report = new Report();
  for (const name of names) {
    const suite = suites[name];
    if (!suite) return usage();
    const timeoutMs = Number(values['timeout-ms'] ?? suite.timeoutMs);
    const files = findFiles(values.root, suite.suffix, paths);
    await runSuite(values.root, name, { ...suite, timeoutMs }, files, report);
  }
  return report.end();
}

process.exitCode = await main();
