import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { MeshError, ResetCode, encode } from '@cocoon-mesh/protocol';
import * as z from 'zod/mini';
import { readMessages, readSingleMessage, writeMessage } from './message-stream.ts';
import { sessionPair, turn } from './session-pair.contract.ts';
import type { SessionPair } from './session-pair.contract.ts';
import { resetCodeOf } from './session-stream.ts';
import type { Stream } from './stream.ts';

const schema = z.object({ text: z.string() });
const maxBytes = 1000;

interface Ends {
  readonly pair: SessionPair;
  readonly writer: Stream;
  readonly reader: Stream;
}

async function ends(limits: Parameters<typeof sessionPair>[0] = {}): Promise<Ends> {
  const pair = sessionPair(limits);
  const writer = pair.left.open('/cocoon/test/1');
  await turn();
  const [reader] = pair.acceptedByRight;
  assert.ok(reader);
  return { pair, writer, reader };
}

async function all(stream: Stream): Promise<string[]> {
  const texts: string[] = [];
  for await (const { text } of readMessages(stream, schema, maxBytes)) texts.push(text);
  return texts;
}

function framed(...texts: readonly string[]): Uint8Array {
  const parts = texts.flatMap((text) => {
    const message = encode(schema, { text });
    return [0, 0, message.length >>> 8, message.length & 0xff, ...message];
  });
  return Uint8Array.from(parts);
}

function fails(promise: Promise<unknown>, code: string): Promise<void> {
  return assert.rejects(promise, (error: unknown) => error instanceof MeshError && error.code === code);
}

describe('messages on a stream', () => {
  test('come as they were written, in order, until the end', async () => {
    const { writer, reader } = await ends();
    for (const text of ['one', '', 'three']) await writeMessage(writer, schema, { text }, maxBytes);
    writer.end();
    assert.deepEqual(await all(reader), ['one', '', 'three']);
  });

  test('come the same however their bytes are cut', async () => {
    const bytes = framed('one', 'x'.repeat(800), '', 'four');
    for (const size of [1, 2, 3, 7, 500, bytes.length]) {
      const { writer, reader } = await ends();
      const texts = all(reader);
      for (let at = 0; at < bytes.length; at += size) {
        writer.write(bytes.subarray(at, at + size));
        await turn();
      }
      writer.end();
      assert.deepEqual(await texts, ['one', 'x'.repeat(800), '', 'four'], `pieces of ${size}`);
    }
  });

  test('over the limit are written not at all, and refused by their length alone', async () => {
    const { writer, reader } = await ends();
    await fails(writeMessage(writer, schema, { text: 'x'.repeat(maxBytes) }, maxBytes), 'message_too_large');
    await writeMessage(writer, schema, { text: 'fits' }, maxBytes);
    writer.write(Uint8Array.of(0xff, 0xff, 0xff, 0xff));
    const messages = readMessages(reader, schema, maxBytes);
    assert.deepEqual((await messages.next()).value, { text: 'fits' });
    await fails(messages.next(), 'message_too_large');
    assert.equal((await messages.next()).done, true);
  });

  test('are refused when they are too many bytes together', async () => {
    const { writer, reader } = await ends();
    const bytes = framed('one', 'two', 'three');
    writer.write(bytes);
    writer.end();
    const messages = readMessages(reader, schema, { each: maxBytes, all: bytes.length - 1 });
    await messages.next();
    await messages.next();
    await fails(messages.next(), 'message_too_large');
  });

  test('that do not follow the schema, are no MessagePack or are cut off are refused', async () => {
    for (const bytes of [
      Uint8Array.of(0, 0, 0, 0),
      Uint8Array.of(0, 0, 0, 1, 0xc1),
      Uint8Array.of(0, 0, 0, 1, 0x80),
      framed('cut off').slice(0, -1),
      Uint8Array.of(0, 0),
    ]) {
      const { writer, reader } = await ends();
      writer.write(bytes);
      writer.end();
      await fails(all(reader), 'bad_message');
    }
  });

  test('that do not come in time reset the stream', async () => {
    const { pair, writer, reader } = await ends();
    const patience = { clock: pair.clock, ms: 1000 };
    const messages = readMessages(reader, schema, maxBytes, patience);
    await writeMessage(writer, schema, { text: 'in time' }, maxBytes);
    assert.deepEqual((await messages.next()).value, { text: 'in time' });
    const late = messages.next();
    writer.write(framed('late').subarray(0, 3));
    await turn();
    pair.clock.step(1000);
    await fails(late, 'timeout');
    await turn();
    await assert.rejects(writer.read(), (error) => resetCodeOf(error) === ResetCode.timeout);
  });

  test('that came in time leave no limit behind', async () => {
    const { pair, writer, reader } = await ends();
    const patience = { clock: pair.clock, ms: 1000 };
    await writeMessage(writer, schema, { text: 'one' }, maxBytes, patience);
    await readMessages(reader, schema, maxBytes, patience).next();
    await turn();
    pair.clock.step(1000);
    assert.equal(writer.signal.aborted, false);
    assert.equal(reader.signal.aborted, false);
  });

  test('wait for a slow reader, and not longer than they may', async () => {
    const { pair, writer, reader } = await ends({
      limits: { streamWindowBytes: 600, streamQueueBytes: 600, streamMinimumBytes: 600 },
    });
    const patience = { clock: pair.clock, ms: 1000 };
    const write = () => writeMessage(writer, schema, { text: 'x'.repeat(500) }, maxBytes, patience);
    await write();
    const second = write();
    const third = write();
    let written = false;
    void third.then(() => (written = true));
    await turn();
    assert.equal(written, false);
    const messages = readMessages(reader, schema, maxBytes);
    await messages.next();
    await messages.next();
    await second;
    await third;
    const stuck = Promise.all([write(), write(), write()]);
    const failed = fails(stuck, 'timeout');
    await turn();
    pair.clock.step(1000);
    await failed;
  });

  test('a single one is neither none nor two', async () => {
    for (const [bytes, code] of [
      [framed(), 'bad_message'],
      [framed('one', 'two'), 'bad_message'],
    ] as const) {
      const { writer, reader } = await ends();
      writer.write(bytes);
      writer.end();
      await fails(readSingleMessage(reader, schema, maxBytes), code);
    }
    const { writer, reader } = await ends();
    writer.write(framed('one'));
    writer.end();
    assert.deepEqual(await readSingleMessage(reader, schema, maxBytes), { text: 'one' });
  });
});
