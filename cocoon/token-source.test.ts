import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import type { ReadStream } from 'node:tty';
import { describe, test } from 'node:test';
import { readSecretArgument } from './token-source.ts';

/** A terminal as far as the reader looks at one. */
function terminal(): { readonly input: ReadStream; readonly keys: PassThrough; readonly modes: boolean[] } {
  const keys = new PassThrough();
  const modes: boolean[] = [];
  const input = Object.assign(keys, { isTTY: true, setRawMode: (raw: boolean) => void modes.push(raw) });
  return { input: input as unknown as ReadStream, keys, modes };
}

describe('a token or secret given to a command', () => {
  test('is found again when lines were broken on its way', async (t) => {
    const folder = await mkdtemp(join(tmpdir(), 'token-source-'));
    t.after(() => rm(folder, { recursive: true }));
    await writeFile(join(folder, 'token'), ' cocoon-\r\ntoken-1\n.abc\r\n');
    assert.equal((await readSecretArgument(`@${join(folder, 'token')}`)).text, 'cocoon-token-1.abc');
    const piped = new PassThrough().end('cocoon-\ntoken-1.abc\n') as unknown as ReadStream;
    assert.deepEqual(await readSecretArgument('-', piped), { text: 'cocoon-token-1.abc', exposed: false });
  });

  test('may be longer than a line that a terminal edits, and ends with Enter', async () => {
    const { input, keys, modes } = terminal();
    const long = 'a'.repeat(5_000);
    keys.write(long.slice(0, 4_000));
    keys.write(`${long.slice(4_000)}\rmore`);
    assert.equal((await readSecretArgument('-', input)).text, long);
    assert.deepEqual(modes, [true, false], 'the terminal is as it was');
  });

  test('is given up with Ctrl-C on a terminal', async () => {
    const { input, keys, modes } = terminal();
    keys.write('cocoon-tok\u0003');
    await assert.rejects(readSecretArgument('-', input), { code: 'cancelled' });
    assert.deepEqual(modes, [true, false]);
  });

  test('is refused when it is endless', async () => {
    const piped = new PassThrough().end('a'.repeat(70_000)) as unknown as ReadStream;
    await assert.rejects(readSecretArgument('-', piped), { code: 'usage' });
  });
});
