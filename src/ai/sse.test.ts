import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { readEvents, readLines } from './sse.ts';

async function* body(text: string, size: number): AsyncGenerator<Uint8Array> {
  const bytes = new TextEncoder().encode(text);
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

describe('the body of a stream', () => {
  it('has the same events wherever it is cut, in characters too', async () => {
    const text = ': hello\n\ndata: {"a": "é€😀"}\n\nevent: x\r\ndata: two\r\ndata: lines\r\n\r\ndata: last';
    for (const size of [1, 2, 3, 1000])
      assert.deepEqual(await Array.fromAsync(readEvents(body(text, size), 100)), [
        '{"a": "é€😀"}',
        'two\nlines',
        'last',
      ]);
  });

  it('has the same lines wherever it is cut', async () => {
    const text = '{"a":"é"}\n\n{"b":1}\r\n{"c":1}';
    for (const size of [1, 2, 1000])
      assert.deepEqual(
        (await Array.fromAsync(readLines(body(text, size), 100))).map((line) => JSON.parse(line) as unknown),
        [{ a: 'é' }, { b: 1 }, { c: 1 }],
      );
  });

  it('is not held without end', async () => {
    const long = body(`data: ${'x'.repeat(1000)}`, 10);
    await assert.rejects(Array.fromAsync(readEvents(long, 100)), { code: 'bad_answer' });
    await assert.rejects(Array.fromAsync(readLines(body('x'.repeat(1000), 10), 100)), { code: 'bad_answer' });
  });
});
