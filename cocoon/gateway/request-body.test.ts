import assert from 'node:assert/strict';
import type { IncomingMessage } from 'node:http';
import { Readable } from 'node:stream';
import { describe, test } from 'node:test';
import { utf8 } from '@cocoon-mesh/protocol';
import * as z from 'zod/mini';
import { readJsonBody } from './request-body.ts';

const maxBytes = 100;
const schema = z.strictObject({ a: z.string() });

function read(body: Readable, headers: Record<string, string> = {}): Promise<{ a: string }> {
  const request = Object.assign(body, { headers }) as unknown as IncomingMessage;
  return readJsonBody(request, schema, maxBytes, 'bad_filter');
}

/** A body that is much too large, and notes how much of it was read. */
function tooLarge(): { body: Readable; taken: () => number } {
  let taken = 0;
  const body = new Readable({
    highWaterMark: 1,
    read(): void {
      taken += 10;
      this.push(taken > 100 * maxBytes ? null : utf8('x'.repeat(10)));
    },
  });
  return { body, taken: () => taken };
}

describe('the body of a request', () => {
  test('has at most as many bytes as are taken there', async () => {
    const largest = JSON.stringify({ a: 'x'.repeat(maxBytes - 8) });
    assert.equal(largest.length, maxBytes);
    assert.equal((await read(Readable.from([utf8(largest)]))).a.length, maxBytes - 8);
    await assert.rejects(read(Readable.from([utf8(`${largest} `)])), { code: 'message_too_large' });
  });

  test('that says that it is larger is not read at all', async () => {
    const { body, taken } = tooLarge();
    await assert.rejects(read(body, { 'content-length': '101' }), { code: 'message_too_large' });
    assert.equal(taken(), 0);
  });

  test('that does not say how large it is is left where it gets too large', { timeout: 10_000 }, async () => {
    const { body, taken } = tooLarge();
    await assert.rejects(read(body), { code: 'message_too_large' });
    assert.ok(taken() < 2 * maxBytes, String(taken()));
  });

  test('that breaks off was no request', async () => {
    const body = new Readable({ read: () => undefined });
    const answer = read(body);
    body.destroy(new Error('gone'));
    await assert.rejects(answer, { code: 'cancelled' });
  });

  test('that follows no schema is refused by the name of its field', async () => {
    for (const [text, code, message] of [
      ['{', 'bad_message', /./],
      ['{"a":1}', 'bad_filter', /The field a /],
      ['{"a":"x","b":1}', 'bad_filter', /The field "b" is not known/],
    ] as const)
      await assert.rejects(read(Readable.from([utf8(text)])), { code, message }, text);
  });
});
