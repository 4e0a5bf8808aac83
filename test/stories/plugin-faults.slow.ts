/*
 * Bad plugins, all at once on one installed cocoon: each does one thing that no plugin should. Meanwhile a good one is
 * asked all the time, and so is the daemon itself.
 */

import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setInterval as ticks } from 'node:timers/promises';
import { packageJson, pluginSource, writeFiles } from '../../src/plugins/plugin-doubles.contract.ts';
import { CocoonProcess } from './cocoon-process.ts';
import type { Answered } from './plugin-cocoon.ts';
import { Watch, ask, gone, isThere, offers, plugin, pluginsOf } from './plugin-cocoon.ts';

/** Of a daemon that is asked all the time, beside whatever the plugins do on two cores. */
const slowestMs = 2_000;
const usualMs = 250;

/** What each does when its capability is asked for `do`; else it answers with what it was asked. */
const faults = {
  throws: "throw new TypeError('as it does');",
  'throws-later':
    "setTimeout(() => { throw new TypeError('too late'); }); await new Promise(() => undefined);",
  exits: 'process.exit(3);',
  hangs: 'await new Promise(() => undefined);',
  spins: 'for (;;);',
  leaks: 'const kept = []; for (;;) kept.push({ text: "x".repeat(100) + kept.length });',
  forks: `
    const pids = Array.from({ length: 20 }, (_, at) => {
      const child = spawn('sleep', ['1000'], { stdio: 'ignore', detached: at % 2 === 1 });
      return child.pid;
    });
    setTimeout(() => process.exit(0), 50);
    return pids;`,
  prints: `
    const garbage = Buffer.alloc(1024 * 1024, 0xfe);
    const print = (stream, bytes) => new Promise((resolve) => stream.write(bytes, resolve));
    for (let count = 0; count < 50; count++) {
      await print(process.stdout, garbage);
      await print(process.stderr, 'a line\\n'.repeat(10_000));
    }
    return 'printed';`,
  garbage: 'writeSync(3, Buffer.from([0, 0, 0, 3, 1, 2, 3])); await wait(60_000);',
  megabytes: 'writeSync(3, Buffer.from([0xff, 0xff, 0xff, 0xff])); await wait(60_000);',
  // As fast as the pipe takes them: a message of the right form, again and again.
  floods: `
    const pong = Buffer.from('83a46b696e64a4706f6e67a2696400a97273735f627974657301', 'hex');
    const message = Buffer.concat([Buffer.from([0, 0, 0, pong.length]), pong]);
    const many = Buffer.concat(Array.from({ length: 2000 }, () => message));
    for (const end = Date.now() + 5_000; Date.now() < end;) send(many);
    return 'flooded';`,
  logs: `
    for (const end = Date.now() + 3_000; Date.now() < end; await new Promise(setImmediate))
      for (let count = 0; count < 100; count++) context.log.info('again', { count });
    return 'logged';`,
  asks: `
    const asked = [];
    for (let count = 0; count < 5_000; count++)
      asked.push(context.requestCapability({ protocol: 'demo.asks', version: '*' }, count)
        .then(() => 'ok', ({ code }) => code));
    return Object.entries(Object.groupBy(await Promise.all(asked), (code) => code))
      .map(([code, all]) => [code, all.length]);`,
  // Numbers of requests that are not there, and an end for one that goes on.
  answers: `
    const end = (id) => Buffer.from('84a46b696e64a3656e64a26964cd' + id.toString(16).padStart(4, '0') +
      'a77061796c6f6164a466616b65a5706172747390', 'hex');
    for (let id = 500; id < 1000; id++) {
      const message = end(id);
      send(Buffer.concat([Buffer.from([0, 0, 0, message.length]), message]));
    }
    return 'answered';`,
  'answers-late': "await wait(1_500); return 'of the one before';",
  stubborn:
    "return [false, true].map((detached) => spawn('sleep', ['1000'], { stdio: 'ignore', detached }).pid);",
} as const;
type Fault = keyof typeof faults;

const names = Object.keys(faults) as Fault[];
const protocolOf = (name: string): string => `demo.${name}`;

function sourceOf(name: Fault): string {
  const stubborn = name === 'stubborn';
  return `
    import { spawn } from 'node:child_process';
    import { writeSync } from 'node:fs';
    const send = (bytes) => {
      for (let at = 0; at < bytes.length;) try { at += writeSync(3, bytes, at); } catch { /* The pipe is full. */ }
    };
    ${stubborn ? "process.on('SIGTERM', () => undefined);" : ''}
    ${pluginSource(
      `if (payload === 'do') { ${faults[name]} } return payload;`,
      stubborn ? 'stop: () => new Promise(() => undefined),' : '',
    ).replaceAll('demo.work', protocolOf(name))}`;
}

let folder: string;
/** Where they lie, which is in the home. */
let plugins: string;
let cocoon: CocoonProcess;
/** Milliseconds that the daemon took, and the good plugin, each time. */
const tookDaemon: number[] = [];
const tookPlugin: number[] = [];
const stopAsking = new AbortController();
let asking: Promise<void>;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cocoon-faults-'));
  plugins = join(folder, 'home', 'plugins');
  for (const name of [...names, 'good' as const]) {
    const capabilities = [{ protocol: protocolOf(name), version: '1.0.0' }];
    await writeFiles(join(plugins, name), {
      'package.json': packageJson({ capabilities, memory_mb: name === 'leaks' ? 32 : 128 }, { name }),
      'plugin.ts':
        name === 'good'
          ? pluginSource('return payload;').replaceAll('demo.work', 'demo.good')
          : sourceOf(name),
    });
  }
  cocoon = await start([], join(folder, 'home'));
  for (const name of [...names, 'good']) await offers(cocoon, 'box', protocolOf(name));
  asking = askAllTheTime();
});

after(async () => {
  stopAsking.abort();
  await asking;
  await cocoon?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

async function start(args: readonly string[], home?: string): Promise<CocoonProcess> {
  return CocoonProcess.start({
    command: 'up',
    args: ['--no-web', '--port', '0', '--gateway-port', '0', '--name', 'box', ...args],
    ...(home === undefined ? {} : { home }),
  });
}

async function askAllTheTime(): Promise<void> {
  try {
    for await (const _ of ticks(25, null, { signal: stopAsking.signal })) {
      const began = performance.now();
      const { status } = await fetch(`${cocoon.gateway}/healthz`);
      tookDaemon.push(performance.now() - began);
      const { body, ms } = await ask(cocoon, 'demo.good', tookPlugin.length);
      assert.deepEqual([status, body.result], [200, tookPlugin.length], JSON.stringify(body));
      tookPlugin.push(ms);
    }
  } catch (thrown) {
    if (!stopAsking.signal.aborted) throw thrown;
  }
}
const fault = (name: Fault, timeoutMs = 60_000) =>
  ask(cocoon, protocolOf(name), 'do', { timeout_ms: timeoutMs });

async function isWell(name: Fault): Promise<void> {
  const { body } = await ask(cocoon, protocolOf(name), 'well');
  assert.equal(body.result, 'well', JSON.stringify(body));
}

/** What the fault answers. The plugin ends, its capability is gone meanwhile, and both are back by themselves. */
async function endsBy(name: Fault, timeoutMs?: number): Promise<Answered> {
  await using watch = await Watch.open(cocoon);
  await watch.until('box', protocolOf(name));
  const answered = await fault(name, timeoutMs);
  await watch.until('box', protocolOf(name), false);
  await watch.until('box', protocolOf(name));
  await isWell(name);
  const one = (await pluginsOf(cocoon)).find((found) => found.name === name);
  assert.equal(one?.restarts, 1, name);
  return answered;
}

describe('on a cocoon with bad plugins', { concurrency: true }, () => {
  test('one that throws has failed that request, and goes on', async () => {
    const { status, body } = await fault('throws');
    assert.deepEqual([status, body.code], [502, 'plugin_failed']);
    assert.match(body.title ?? '', /as it does/);
    await isWell('throws');
    assert.equal((await plugin(cocoon, 'throws')).restarts, 0);
  });

  for (const [name, why] of [
    ['throws-later', /TypeError: too late/],
    ['exits', /exit code 3/],
    ['leaks', /more than its 32 MiB/],
    ['garbage', /sent what is no message/],
    ['megabytes', /sent what is no message/],
  ] as const)
    test(`one that ${name} is told of by name, and is started again`, async () => {
      const { status, body } = await endsBy(name);
      assert.deepEqual([status, body.code], [502, 'plugin_failed'], JSON.stringify(body));
      assert.match(body.title ?? '', why);
    });

  test('one that hangs keeps nobody longer than the asker wants', async () => {
    const { status, body, ms } = await fault('hangs', 1_000);
    assert.deepEqual([status, body.code], [504, 'timeout']);
    assert.ok(ms < 1_000 + slowestMs, `${ms} ms`);
    await isWell('hangs');
  });

  test('one in an endless loop keeps nobody longer either, and is ended', async () => {
    const { body, ms } = await endsBy('spins', 1_000);
    assert.equal(body.code, 'timeout');
    assert.ok(ms < 1_000 + slowestMs, `${ms} ms`);
  });

  test('one that starts others leaves none of them behind', async () => {
    const pids = (await endsBy('forks')).body.result as number[];
    assert.equal(pids.length, 20);
    await gone(pids);
  });

  test('one that prints without end fills no disk', async () => {
    assert.equal((await fault('prints')).body.result, 'printed');
    await isWell('prints');
    const logs = join(cocoon.home, 'logs');
    const sizes = await Promise.all(
      (await readdir(logs)).map(async (file) => (await stat(join(logs, file))).size),
    );
    assert.ok(sizes.reduce((sum, size) => sum + size, 0) < 4 * 1024 * 1024, sizes.join());
  });

  test('one that floods its daemon with messages, log lines or questions holds nobody up', async () => {
    assert.equal((await fault('floods')).body.result, 'flooded');
    await isWell('floods');
    assert.equal((await fault('logs')).body.result, 'logged');
    await isWell('logs');
    const { body } = await fault('asks');
    const asked = Object.fromEntries(
      (body.result ?? assert.fail(JSON.stringify(body))) as [string, number][],
    );
    assert.deepEqual(Object.keys(asked).toSorted(), ['ok', 'overloaded']);
    assert.ok((asked['ok'] ?? 0) >= 64);
    await isWell('asks');
  });

  test('one that answers what it was not asked changes nothing', async () => {
    const { body } = await fault('answers');
    assert.equal(body.result, 'answered', JSON.stringify(body));
    await isWell('answers');
  });

  test('one that answers after its request was cancelled answers nobody else', async () => {
    assert.equal((await fault('answers-late', 200)).body.code, 'timeout');
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, index) => ask(cocoon, 'demo.answers-late', index)),
    );
    assert.deepEqual(
      answers.map(({ body }) => body.result),
      Array.from({ length: 20 }, (_, index) => index),
    );
  });

  test('one that does not want to stop is made to', async () => {
    const { pid } = await plugin(cocoon, 'stubborn');
    const children = (await fault('stubborn')).body.result as number[];
    for (const child of children) assert.ok(await isThere(child));
    await cocoon.json('plugins', 'remove', 'stubborn');
    await gone([pid ?? 0, ...children]);
  });
});

test('meanwhile the daemon and the good plugin answered as usual', async () => {
  stopAsking.abort();
  await asking;
  for (const [took, limitMs] of [
    [tookDaemon, slowestMs],
    // It has to share two cores with one that never rests.
    [tookPlugin, 2 * slowestMs],
  ] as const) {
    const sorted = took.toSorted((one, other) => one - other);
    const [usual, slowest] = [sorted[Math.floor(sorted.length / 2)] ?? 0, sorted.at(-1) ?? 0];
    assert.ok(took.length > 100, `${took.length}`);
    assert.ok(usual < usualMs && slowest < limitMs, `usually ${usual} ms, at most ${slowest} ms`);
  }
});

for (const signal of ['SIGTERM', 'SIGKILL'] as const)
  test(`after ${signal} to the daemon no process of a plugin is left, nor what one started`, async () => {
    const ending = ['stubborn', 'spins'] as const;
    await using other = await start(ending.flatMap((name) => ['--plugin', join(plugins, name)]));
    for (const name of ending) await offers(other, 'box', protocolOf(name));
    const children = (await ask(other, 'demo.stubborn', 'do')).body.result as number[];
    await ask(other, 'demo.spins', 'do', { timeout_ms: 200 });
    const pids = (await pluginsOf(other)).flatMap(({ pid }) => (pid === null ? [] : [pid]));
    assert.equal(pids.length, 2);
    const began = performance.now();
    await other.stop(signal);
    assert.ok(performance.now() - began < 5_000);
    await gone([...children, ...pids]);
  });
