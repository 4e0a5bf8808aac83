import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import fs from 'node:fs';
import { appendFile, chmod, mkdtemp, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { AuditLog, readAudit, verifyAudit } from './index.node.ts';

let folder = '';
let count = 0;
let path = '';
let clock = new SteppedClock();
let warnings: string[] = [];

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cocoon-audit-'));
});
after(() => rm(folder, { recursive: true }));
beforeEach(() => {
  path = join(folder, `audit-${++count}.log`);
  clock = new SteppedClock();
  warnings = [];
});

function open(): Promise<AuditLog> {
  return AuditLog.open(path, clock, (message) => warnings.push(message));
}

/** A log with some lines, closed. */
async function written(lines: number): Promise<void> {
  const log = await open();
  for (let n = 0; n < lines; n++) log.append('introduction', { peer: `p${n}`, dialled: n % 2 === 0 });
  await log.close();
}

async function linesOf(file = path): Promise<Record<string, unknown>[]> {
  const text = await readFile(file, 'utf8');
  return text
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

async function events(file = path): Promise<unknown[]> {
  return (await linesOf(file)).map(({ event }) => event);
}

async function change(edit: (text: string) => string): Promise<void> {
  await writeFile(path, edit(await readFile(path, 'utf8')));
}

/** A line without its hash and its end, and the other way round. */
function contentOf(line: string): string {
  return line.replace(/,"hash":"\w+"\}$/, '');
}

function withHash(content: string): string {
  return `${content},"hash":"${createHash('sha256').update(`${content}}`).digest('hex')}"}`;
}

const broken = (line: number) => ({ code: 'audit_broken', message: new RegExp(`^Line ${line} of `) });

describe('an audit log', () => {
  test('is numbered and dated, and each line carries the hash of the one before', async () => {
    const log = await open();
    clock.step(1500);
    log.append('token.made', { jti: 'j', scope: 'co-own', services: ['web'], until: null, note: undefined });
    await log.close();
    const [first, second] = await linesOf();
    assert.equal(first?.['prev'], '00'.repeat(32));
    assert.equal(second?.['prev'], first?.['hash']);
    const { hash: _, prev: __, ...told } = second ?? {};
    assert.deepEqual(told, {
      n: 2,
      time: new Date(clock.now()).toISOString(),
      event: 'token.made',
      jti: 'j',
      scope: 'co-own',
      services: ['web'],
      until: null,
    });
  });

  test('can be checked with nothing but SHA-256: the hash is over the line without it', async () => {
    await written(2);
    for (const line of (await readFile(path, 'utf8')).split('\n').slice(0, -1)) {
      const [, content = '', hash] = /^(.*),"hash":"([0-9a-f]{64})"\}$/.exec(line) ?? [];
      assert.equal(createHash('sha256').update(`${content}}`).digest('hex'), hash);
    }
  });

  test('goes on where it ended', async () => {
    await written(3);
    await written(2);
    assert.deepEqual(
      (await linesOf()).map(({ n }) => n),
      [1, 2, 3, 4, 5, 6],
    );
    assert.equal((await verifyAudit(path)).lines, 6);
    assert.deepEqual(warnings, []);
  });

  test('is readable by its user alone, also when it was not before', async () => {
    await written(1);
    assert.equal((await stat(path)).mode & 0o777, 0o600);
    await chmod(path, 0o666);
    await written(1);
    assert.equal((await stat(path)).mode & 0o777, 0o600);
  });

  test('has a line in the file before append returns', async () => {
    const log = await open();
    log.append('rotated', { epoch: 1 });
    assert.deepEqual(await events(), ['begun', 'rotated']);
    await log.close();
    log.append('rotated', { epoch: 2 });
    assert.deepEqual(await events(), ['begun', 'rotated']);
  });

  test('survives being killed: what was appended is there and verifies', { timeout: 20_000 }, async () => {
    const program = `
      import { AuditLog } from '@cocoon-mesh/audit';
      import { systemClock } from '@cocoon-mesh/protocol';
      const log = await AuditLog.open(process.argv[1], systemClock);
      for (let n = 1; ; n++) {
        log.append('introduction', { peer: 'p'.repeat(200), number: n });
        process.stdout.write(n + '\\n');
        if (n % 50 === 0) await new Promise((resolve) => setImmediate(resolve));
      }`;
    const child = spawn(process.execPath, ['--input-type=module-typescript', '-e', program, path], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let told = '';
    child.stdout.setEncoding('utf8');
    for await (const text of child.stdout as AsyncIterable<string>) {
      told += text;
      if (told.split('\n').length > 500) break;
    }
    child.kill('SIGKILL');
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
    const promised = Number(told.split('\n').at(-2));
    const log = await open();
    await log.close();
    const numbers = (await linesOf()).map((line) => line['number']);
    assert.ok(numbers.includes(promised), `${promised} is there`);
    assert.ok((await verifyAudit(path)).lines > 500);
    assert.deepEqual(warnings, []);
  });

  test(
    'that cannot be written says so once, ends nothing, and is whole again later',
    { timeout: 20_000 },
    async () => {
      const program = `
      import { AuditLog } from '@cocoon-mesh/audit';
      import { systemClock } from '@cocoon-mesh/protocol';
      const log = await AuditLog.open(process.argv[1], systemClock, (message) => console.log(message));
      for (let n = 1; n <= 100; n++) log.append('introduction', { peer: 'p'.repeat(200) });
      await log.close();`;
      // Stands for a full disk: no file may grow beyond some kilobytes.
      const shell = `trap '' XFSZ; ulimit -f 8; exec "$0" --input-type=module-typescript -e "$1" "$2"`;
      const child = spawn('sh', ['-c', shell, process.execPath, program, path], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      const exited = once(child, 'exit');
      let told = '';
      for await (const text of child.stdout as AsyncIterable<Buffer>) told += text.toString();
      assert.deepEqual(await exited, [0, null]);
      assert.match(told, /^The audit log .* cannot be written: Error: EFBIG[^\n]*\n$/);
      await written(1);
      assert.deepEqual((await events()).slice(-2), ['recovered', 'introduction']);
      assert.equal((await verifyAudit(path)).unfinishedBytes, 0);
    },
  );

  test('goes on when there is room again, with no half line in between, and says how many are missing', async (context) => {
    const log = await open();
    const write = fs.writeSync;
    const full = (file: number, bytes: Uint8Array): number => {
      write(file, bytes.subarray(0, 10));
      throw new Error('ENOSPC');
    };
    const mocked = context.mock.method(fs, 'writeSync', full);
    syncBuiltinESMExports();
    for (let n = 0; n < 3; n++) log.append('introduction', { peer: 'p' });
    mocked.mock.restore();
    syncBuiltinESMExports();
    log.append('introduction', { peer: 'q' });
    await log.close();
    assert.deepEqual(await events(), ['begun', 'lost', 'introduction']);
    assert.deepEqual([(await linesOf())[1]?.['count'], (await linesOf())[2]?.['peer']], [3, 'q']);
    assert.equal((await verifyAudit(path)).lines, 3);
    assert.equal(warnings.length, 1);
  });

  test('cuts off what a crash left of a last line, and says how much', async () => {
    await written(2);
    await appendFile(path, '{"n":4,"time":"2026-');
    assert.equal((await verifyAudit(path)).unfinishedBytes, 20);
    await written(1);
    assert.deepEqual(await events(), ['begun', 'introduction', 'introduction', 'recovered', 'introduction']);
    assert.equal((await linesOf())[3]?.['bytes'], 20);
    assert.deepEqual(
      await verifyAudit(path).then(({ lines, unfinishedBytes }) => [lines, unfinishedBytes]),
      [5, 0],
    );
  });

  test('does so when nothing but a part of the first line is there', async () => {
    await writeFile(path, '{"n":1');
    await written(1);
    assert.deepEqual(await events(), ['recovered', 'introduction']);
    assert.equal((await verifyAudit(path)).lines, 2);
  });

  test('is never continued behind a line that is not genuine: that file is kept, and a new one names it', async () => {
    for (const [n, tamper] of [
      (text: string) => text.replace('"p2"', '"p9"'),
      (text: string) => `${text}{}\n`,
      (text: string) => `${text}\n`,
      () => 'x'.repeat(2_000_000),
    ].entries()) {
      path = join(folder, `tampered-${n}.log`);
      await written(3);
      await change(tamper);
      const before = await readFile(path, 'utf8');
      await written(1);
      await change((text) => text.replace('"p0"', '"p1"'));
      await written(1);
      assert.equal(await readFile(`${path}.broken-1`, 'utf8'), before);
      assert.deepEqual(await events(`${path}.broken-2`), ['replaced', 'introduction']);
      assert.deepEqual(await events(), ['replaced', 'introduction']);
      assert.equal((await linesOf())[0]?.['file'], `tampered-${n}.log.broken-2`);
      assert.equal((await verifyAudit(path)).lines, 2);
    }
    assert.equal(warnings.length, 8);
    assert.match(warnings[0] ?? '', /changed by somebody.*tampered-0\.log\.broken-1/);
  });

  test('does not hide that it was not there before', async () => {
    await written(1);
    await rm(path);
    clock.step(1000);
    await written(1);
    assert.deepEqual(await events(), ['begun', 'introduction']);
  });

  test('says so when its folder cannot be written', async () => {
    await assert.rejects(AuditLog.open(join(folder, 'missing', 'audit.log'), clock), {
      code: 'storage_failed',
    });
  });

  test('holds no secret that is handed in by mistake, and nothing without end', async () => {
    const log = await open();
    const jws = 'eyJhbGciOiJFZERTQSJ9.eyJ2IjoxfQ.c2lnbmF0dXJl';
    log.append('odd', {
      a: `x cocoon-token-1.AbC_-d y`,
      b: jws,
      c: ['cocoon-secret-1.zzz'],
      d: 'a'.repeat(9999),
    });
    await log.close();
    const { a, b, c, d } = (await linesOf())[1] ?? {};
    assert.deepEqual([a, b, c, d], ['x [removed] y', '[removed]', ['[removed]'], 'a'.repeat(256)]);
  });
});

describe('a flood of refusals', () => {
  test('is written thirty times a minute for each event, code and peer, three hundred in all, and told as a number when the minute ends', async () => {
    const log = await open();
    for (let n = 0; n < 1000; n++) log.append('introduction.refused', { peer: 'p', code: 'denied' });
    // One that floods hides nobody else; many that flood together fill nothing.
    for (let n = 0; n < 1000; n++) log.append('introduction.refused', { peer: `p${n}`, code: 'denied' });
    for (let n = 0; n < 5; n++) log.append('introduction.refused', { peer: `p${n}`, code: 'revoked' });
    log.append('redemption.refused', { code: 'denied' });
    assert.equal((await linesOf()).length, 1 + 300 + 5 + 1);
    clock.step(60_000);
    const { of, code, count } = (await linesOf()).at(-1) ?? {};
    assert.deepEqual([of, code, count], ['introduction.refused', 'denied', 1700]);
    log.append('introduction.refused', { peer: 'p', code: 'denied' });
    assert.equal((await linesOf()).at(-1)?.['event'], 'introduction.refused');
    await log.close();
    assert.equal((await verifyAudit(path)).lines, 1 + 300 + 5 + 1 + 1 + 1);
  });

  test('hides nothing that is no refusal, and is told at the end too', async () => {
    const log = await open();
    for (let n = 0; n < 100; n++) log.append('introduction', { peer: 'p', code: null });
    for (let n = 0; n < 31; n++) log.append('stream.denied', { peer: 'p', code: 'denied' });
    await log.close();
    assert.equal((await linesOf()).length, 1 + 100 + 30 + 1);
    assert.equal((await linesOf()).at(-1)?.['count'], 1);
  });
});

describe('verifying an audit log', () => {
  test('names the first line that was changed, added, moved or taken out', async () => {
    const edits: [number, (lines: string[]) => string[]][] = [
      [3, (lines) => lines.with(2, (lines[2] ?? '').replace('"p1"', '"p7"'))],
      [3, (lines) => lines.toSpliced(2, 1)],
      [4, (lines) => lines.toSpliced(3, 0, lines[2] ?? '')],
      [2, (lines) => lines.with(1, lines[2] ?? '').with(2, lines[1] ?? '')],
      [1, (lines) => lines.toSpliced(0, 1)],
      [5, (lines) => lines.with(4, 'not JSON')],
      [5, (lines) => lines.with(4, (lines[4] ?? '').replace('{', '{ '))],
      [5, (lines) => lines.with(4, (lines[4] ?? '').replace('"event":', '"event":"x","event":'))],
      [2, (lines) => lines.with(1, '')],
    ];
    for (const [n, [line, edit]] of edits.entries()) {
      path = join(folder, `edited-${n}.log`);
      await written(5);
      assert.equal((await verifyAudit(path)).lines, 6);
      await change((text) => `${edit(text.split('\n').slice(0, -1)).join('\n')}\n`);
      await assert.rejects(verifyAudit(path), broken(line), String(edit));
    }
  });

  test('is not deceived by a last line that was made anew with another number, or spelled so that some read it otherwise', async () => {
    for (const [n, edit] of [
      (content: string) => content.replace('"n":6', '"n":7'),
      (content: string) => content.replace('"peer":', '"peer":"somebody else","peer":'),
      (content: string) => content.replace('"peer":', '"peer": '),
    ].entries()) {
      path = join(folder, `anew-${n}.log`);
      await written(5);
      await change((text) => {
        const lines = text.split('\n');
        return lines.with(5, withHash(edit(contentOf(lines[5] ?? '')))).join('\n');
      });
      await assert.rejects(verifyAudit(path), broken(6), String(edit));
    }
  });

  test('is not deceived by a line whose own hash was made anew: the next one does not follow it', async () => {
    await written(5);
    await change((text) => {
      const lines = text.split('\n');
      return lines.with(2, withHash(contentOf(lines[2] ?? '').replace('"p1"', '"p7"'))).join('\n');
    });
    await assert.rejects(verifyAudit(path), broken(4));
  });

  test('does not see that the end was cut off, but its hash is another one then', async () => {
    await written(5);
    const whole = await verifyAudit(path);
    const text = await readFile(path, 'utf8');
    await truncate(path, text.lastIndexOf('\n', text.length - 2) + 1);
    const cut = await verifyAudit(path);
    assert.deepEqual([whole.lines, cut.lines], [6, 5]);
    assert.notEqual(whole.hash, cut.hash);
  });

  test('and reading say when there is none', async () => {
    await assert.rejects(verifyAudit(path), { code: 'not_found' });
    await assert.rejects(readAudit(path).next(), { code: 'not_found' });
  });

  test('takes a file of any size, and stops at what is no line', async () => {
    const log = await open();
    for (let n = 0; n < 20_000; n++) log.append('introduction', { peer: 'p'.repeat(256), n_of: n });
    await log.close();
    assert.ok((await stat(path)).size > 5_000_000);
    assert.equal((await verifyAudit(path)).lines, 20_001);
    await appendFile(path, 'x'.repeat(3_000_000));
    await assert.rejects(verifyAudit(path), broken(20_002));
  });
});

describe('reading an audit log', () => {
  test('gives every line, also those that do not hold', async () => {
    await written(2);
    await change((text) => text.replace('"p0"', '"p7"'));
    const read = [];
    for await (const { line, entry } of readAudit(path)) read.push([line, entry?.event ?? null]);
    assert.deepEqual(read, [
      [1, 'begun'],
      [2, null],
      [3, 'introduction'],
    ]);
  });
});
