/**
 * One test file as one process with a time limit. The process leads a group of its own, so that whatever it
 * started and left behind ends with it. It tells its results line by line (`events-reporter.ts`), which are
 * there even when it had to be killed.
 */

import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestEvent } from './events-reporter.ts';

export interface FileResult {
  readonly events: readonly TestEvent[];
  /** What the file itself printed. */
  readonly output: string;
  /** Why the file as a whole failed, besides its tests; null when it did not. */
  readonly failure: string | null;
  readonly durationMs: number;
}

const reporter = new URL('./events-reporter.ts', import.meta.url).href;
/** Enough to see what went wrong; a file that prints without end must not fill the memory. */
const maxOutputBytes = 1024 * 1024;

const running = new Set<number>();
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    for (const pid of running) killGroup(pid);
    process.exit(signal === 'SIGINT' ? 130 : 143);
  });
}

export async function runFile(root: string, file: string, timeoutMs: number): Promise<FileResult> {
  const folder = mkdtempSync(join(tmpdir(), 'cocoon-test-'));
  const eventsFile = join(folder, 'events');
  const started = performance.now();
  try {
    const { output, failure } = await run(root, file, eventsFile, timeoutMs);
    const events = readEvents(eventsFile);
    const durationMs = performance.now() - started;
    return { events, output, failure: failure ?? silence(events), durationMs };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function run(root: string, file: string, eventsFile: string, timeoutMs: number) {
  const options = [`--test-reporter=${reporter}`, `--test-reporter-destination=${eventsFile}`];
  const { NODE_TEST_CONTEXT: _, ...env } = process.env;
  const child = spawn(process.execPath, [...options, file], {
    cwd: root,
    env,
    detached: process.platform !== 'win32',
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const { pid } = child;
  if (pid !== undefined) running.add(pid);
  let output = '';
  const collect = (text: string): void => {
    if (output.length < maxOutputBytes) output += text;
  };
  child.stdout.setEncoding('utf8').on('data', collect);
  child.stderr.setEncoding('utf8').on('data', collect);

  let timedOut = false;
  const timer = setTimeout(() => {
    timedOut = true;
    killGroup(pid);
  }, timeoutMs);
  const ended = Promise.withResolvers<string>();
  child.once('error', (error) => ended.resolve(error.message));
  child.once('exit', (code, signal) => {
    // Left-over children hold the pipes open; without them `close` follows.
    killGroup(pid);
    ended.resolve(signal ?? String(code));
  });
  const status = await ended.promise;
  clearTimeout(timer);
  if (pid !== undefined) running.delete(pid);
  if (timedOut) return { output, failure: `took longer than ${timeoutMs / 1000} s` };
  // 1 is what a failing test gives.
  return { output, failure: status === '0' || status === '1' ? null : `ended with ${status}` };
}

function readEvents(eventsFile: string): TestEvent[] {
  let text = '';
  try {
    text = readFileSync(eventsFile, 'utf8');
  } catch {
    // It never came to its first event.
  }
  const lines = text.split('\n');
  // The last line is empty, or cut off by the kill.
  return lines.slice(0, -1).map((line) => JSON.parse(line) as TestEvent);
}

/** A file that ends without having run a test has not been tested. */
function silence(events: readonly TestEvent[]): string | null {
  return events.some((event) => event.kind !== 'started') ? null : 'ran no test';
}

function killGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(process.platform === 'win32' ? pid : -pid, 'SIGKILL');
  } catch {
    // Nobody is left.
  }
}
