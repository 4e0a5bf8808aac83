import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { limits } from '@cocoon-mesh/protocol';
import type { TaskOutput } from './task-output.node.ts';
import { PrintedOutput, readOutput } from './task-output.node.ts';

let folder = '';
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cocoon-output-'));
});
after(() => rm(folder, { recursive: true }));

function printed(...pieces: readonly (string | Buffer)[]): PrintedOutput {
  const output = new PrintedOutput();
  for (const piece of pieces) output.add(Buffer.from(piece));
  return output;
}

/** @param result what stands in the result file; null: there is none */
async function outputOf(result: string | null, ...pieces: readonly (string | Buffer)[]): Promise<TaskOutput> {
  const path = join(folder, 'result.json');
  if (result === null) await rm(path, { force: true });
  else await writeFile(path, result);
  return readOutput(path, printed(...pieces));
}

test('the output is what was printed, when all of it is one JSON document', async () => {
  assert.deepEqual(await outputOf(null, ' {"a"', ':[1,2]}\n'), { output: { a: [1, 2] }, note: null });
  assert.deepEqual(await outputOf(null, '7'), { output: 7, note: null });
  assert.deepEqual(
    await outputOf(null, '"', Buffer.from('ü').subarray(0, 1), Buffer.from('ü').subarray(1), '"'),
    {
      output: 'ü',
      note: null,
    },
  );
});

test('text is no output and no mistake', async () => {
  for (const text of ['', 'hello\n', '1 2', 'null', Buffer.from([0x22, 0xff, 0x22])])
    assert.deepEqual(await outputOf(null, text), { output: null, note: null });
});

test('what looks like JSON and is none is noted', async () => {
  const note = (why: string) => ({ output: null, note: `What it printed is no output: ${why}` });
  assert.deepEqual(await outputOf(null, '{"a":1}\n{"a":2}\n'), note('it is not JSON'));
  const large = `["${'x'.repeat(limits.maxTaskJsonBytes)}"]`;
  assert.deepEqual(await outputOf(null, large), note(`it is larger than ${limits.maxTaskJsonBytes} bytes`));
  const deep = '['.repeat(100_000) + ']'.repeat(100_000);
  const why = `it has more than ${limits.maxTaskJsonDepth} levels, or is too large`;
  assert.deepEqual(await outputOf(null, deep), note(why));
});

test('a result file counts before what was printed, unless it is none', async () => {
  assert.deepEqual(await outputOf('{"a":1}', '{"a":2}'), { output: { a: 1 }, note: null });
  assert.deepEqual(await outputOf('null', '{"a":2}'), { output: null, note: null });
  assert.deepEqual(await outputOf('', '{"a":2}'), {
    output: { a: 2 },
    note: 'Its result file is no output: it is not JSON',
  });
});

test(
  'what stands in the place of a result file and is none holds nobody up',
  { timeout: 10_000 },
  async () => {
    const path = join(folder, 'stands-there');
    const makers: readonly (readonly [() => unknown, RegExp])[] = [
      [() => execFileSync('mkfifo', [path]), /it is not a file/],
      [() => mkdir(path), /it is not a file/],
      [() => symlink('/dev/zero', path), /it is not a file/],
      [() => symlink(path, path), /it cannot be read/],
      [() => writeFile(path, `"${'x'.repeat(limits.maxTaskJsonBytes)}"`), /it is larger than/],
    ];
    for (const [make, why] of makers) {
      await make();
      const { output, note } = await readOutput(path, printed('"printed"'));
      assert.equal(output, 'printed');
      assert.match(note ?? '', why);
      await rm(path, { recursive: true });
    }
  },
);
