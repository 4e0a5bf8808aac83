import assert from 'node:assert/strict';
import { appendFile, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { Home } from './home.ts';
import type { LogEntry } from './log-tail.ts';
import { LogTail, inOrder } from './log-tail.ts';
import { Output } from './output.ts';
import { logs } from './commands/logs.ts';
import { openLog } from './logs.ts';

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cocoon-tail-'));
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

function line(second: number, msg: string): string {
  return `${JSON.stringify({ time: new Date(second * 1000).toISOString(), level: 'info', msg })}\n`;
}

function messages(entries: readonly LogEntry[]): unknown[] {
  return entries.map(({ fields }) => fields['msg']);
}

describe('the end of a log', () => {
  test('goes on with what is written since, from whole lines, and from the beginning of a new file', async () => {
    const path = join(folder, 'a.log');
    const tail = new LogTail(path);
    assert.deepEqual([await tail.read(), tail.isThere], [[], false]);
    await writeFile(path, line(1, 'one') + '{"msg":"ha');
    assert.deepEqual([messages(await tail.read()), tail.isThere], [['one'], true]);
    await appendFile(path, 'lf"}\n');
    assert.deepEqual(messages(await tail.read()), ['half']);
    assert.deepEqual(await tail.read(), []);
    await writeFile(path, 'no JSON\n');
    assert.deepEqual(messages(await tail.read()), ['no JSON']);
  });

  test('of two files is in the order of time, and a line without one stays behind the line before', async () => {
    const [one, other] = [join(folder, 'a.log'), join(folder, 'b.log')];
    await writeFile(one, `${line(1, 'a1')}bare\n${line(4, 'a4')}`);
    await writeFile(other, line(2, 'b2') + line(3, 'b3'));
    const entries = await Promise.all([new LogTail(one), new LogTail(other)].map((tail) => tail.read()));
    assert.deepEqual(messages(inOrder(entries)), ['a1', 'bare', 'b2', 'b3', 'a4']);
  });
});

describe('cocoon logs', () => {
  class Lines extends Output {
    readonly lines: string[] = [];

    override say(value: { msg?: unknown }): void {
      this.lines.push(String(value.msg));
    }
  }

  async function shown(home: Home): Promise<string[]> {
    const output = new Lines(true);
    await logs({ home, environment: {}, output }, { lines: '100' });
    return output.lines;
  }

  test('shows what `cocoon signaling` wrote, alone and beside the device with the same home', async () => {
    const home = new Home(folder);
    await assert.rejects(shown(home), { code: 'not_found' });
    const server = openLog(home.signalingLog, 'info', () => undefined);
    server.log('info', 'from signaling');
    assert.deepEqual(await shown(home), ['from signaling']);
    const device = openLog(home.log, 'info', () => undefined);
    device.log('info', 'from the device');
    device.close();
    server.close();
    const both = (await shown(home)).map(String);
    assert.deepEqual(both.toSorted(), ['from signaling', 'from the device']);
  });
});
