import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import fc from 'fast-check';
import { NewestBytes } from './newest-bytes.node.ts';
import type { LogPiece } from './task-log.node.ts';
import { readTaskLog, TaskLog } from './task-log.node.ts';

let root = '';
let folder = '';
let count = 0;

before(async () => {
  root = await mkdtemp(join(tmpdir(), 'cocoon-task-log-'));
});
after(() => rm(root, { recursive: true }));
beforeEach(() => {
  folder = join(root, String(++count));
});

/** Joined; fails when pieces do not follow each other. */
async function joined(pieces: AsyncIterable<LogPiece>): Promise<{ text: string; offset: number }> {
  let text = '';
  let offset = -1;
  for await (const piece of pieces) {
    if (offset < 0) offset = piece.offset;
    assert.equal(piece.offset, offset + text.length);
    text += Buffer.from(piece.bytes).toString('latin1');
  }
  return { text, offset };
}

async function bytesOnDisk(): Promise<number> {
  let sum = 0;
  for (const name of await readdir(folder)) sum += (await stat(join(folder, name))).size;
  return sum;
}

/** Each byte says where it stands. */
function pattern(from: number, length: number): Buffer {
  return Buffer.from(Array.from({ length }, (_, n) => 97 + ((from + n) % 26)));
}

describe('a task log', () => {
  test('gives back every byte, from any offset, while it is written and afterwards', async () => {
    const log = new TaskLog(folder);
    log.append(Buffer.from([0xff, 0, 0x0d]));
    log.append(Buffer.from('one\ntwo'));
    assert.equal((await joined(log.read(0))).text, '\xff\0\rone\ntwo');
    assert.deepEqual(await joined(log.read(4)), { text: 'ne\ntwo', offset: 4 });
    assert.deepEqual(await joined(log.read(99)), { text: '', offset: -1 });
    await log.close();
    log.append(Buffer.from('late'));
    assert.equal((await joined(readTaskLog(folder, 0))).text, '\xff\0\rone\ntwo');
    assert.equal((await joined(log.read(0, { follow: true }))).text, '\xff\0\rone\ntwo');
  });

  test('of a task that never ran is empty', async () => {
    assert.equal((await joined(readTaskLog(folder, 0))).text, '');
    const log = new TaskLog(folder);
    await log.close();
    assert.equal((await joined(log.read(0, { follow: true }))).text, '');
  });

  test('keeps between one and two files of the newest, and says where they stand', async () => {
    const log = new TaskLog(folder, 1000);
    for (let at = 0; at < 50_000; at += 77) {
      log.append(pattern(at, 77));
      if (at % 5 === 0) await joined(log.read(log.end));
    }
    await log.close();
    const kept = await joined(readTaskLog(folder, 0));
    assert.ok(kept.text.length >= 1000 && kept.text.length <= 2000, String(kept.text.length));
    assert.equal(kept.offset + kept.text.length, log.end);
    assert.equal(kept.text, pattern(kept.offset, kept.text.length).toString());
    assert.equal(await bytesOnDisk(), kept.text.length);
  });

  test('drops the oldest of what comes faster than it is written, without holding anybody up', async () => {
    const log = new TaskLog(folder, 1000);
    for (let at = 0; at < 1_000_000; at += 1000) log.append(pattern(at, 1000));
    await log.close();
    const kept = await joined(readTaskLog(folder, 500_000));
    assert.equal(kept.text, pattern(kept.offset, kept.text.length).toString());
    assert.equal(kept.offset + kept.text.length, 1_000_000);
    assert.ok((await bytesOnDisk()) <= 2000);
  });

  test('is followed to its end, and no further than it is wanted', async () => {
    const log = new TaskLog(folder);
    log.append(Buffer.from('a'));
    const all = joined(log.read(0, { follow: true }));
    const late = joined(log.read(2, { follow: true }));
    const gone = new AbortController();
    const abandoned = joined(log.read(0, { follow: true, signal: gone.signal }));
    assert.equal((await joined(log.read(0))).text, 'a');
    log.append(Buffer.from('bcd'));
    assert.equal((await joined(log.read(0))).text, 'abcd');
    gone.abort();
    assert.match((await abandoned).text, /^a?(bcd)?$/);
    log.append(Buffer.from('e'));
    await log.close();
    assert.equal((await all).text, 'abcde');
    assert.equal((await late).text, 'cde');
  });

  test('whose disk fails loses a part, says so, and goes on', async () => {
    await writeFile(folder, 'a file where a folder should be');
    const log = new TaskLog(folder);
    log.append(Buffer.from('lost'));
    assert.equal((await joined(log.read(0))).text, '');
    assert.ok(log.failure instanceof Error);
    await rm(folder);
    log.append(Buffer.from('kept'));
    await log.close();
    assert.deepEqual(await joined(readTaskLog(folder, 0)), { text: 'kept', offset: 4 });
  });

  test('keeps what it has when a full disk takes nothing more', async () => {
    await mkdir(folder);
    const full = (at: number) => symlink('/dev/full', join(folder, `${String(at).padStart(16, '0')}.log`));
    const log = new TaskLog(folder, 100);
    for (let at = 100; at < 2_000; at += 50) await full(at);
    for (let at = 0; at < 2_050; at += 50) {
      log.append(pattern(at, 50));
      await joined(log.read(log.end));
    }
    assert.match(log.failure?.message ?? '', /^ENOSPC/);
    await log.close();
    const pieces = [];
    for await (const { bytes, offset } of readTaskLog(folder, 0))
      pieces.push([offset, Buffer.from(bytes).toString()]);
    assert.deepEqual(pieces, [
      [0, pattern(0, 100).toString()],
      [2000, pattern(2000, 50).toString()],
    ]);
  });
});

test('the newest bytes are kept whatever the pieces are', () => {
  const piece = fc.oneof(fc.constant(null), fc.uint8Array({ maxLength: 40 }));
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 30 }), fc.integer({ min: 1, max: 50 }), (pieces, most) => {
      const newest = new NewestBytes(most);
      let all = Buffer.alloc(0);
      for (const bytes of pieces) {
        if (bytes === null) newest.clear();
        else newest.append(bytes);
        all = bytes === null ? Buffer.alloc(0) : Buffer.concat([all, bytes]).subarray(-most);
        assert.deepEqual(Buffer.concat(newest.pieces()), Buffer.from(all));
        assert.equal(newest.length, all.length);
      }
    }),
  );
});
