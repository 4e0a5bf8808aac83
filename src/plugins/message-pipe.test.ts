import assert from 'node:assert/strict';
import { Duplex } from 'node:stream';
import { describe, it } from 'node:test';
import type { MeshError } from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import * as z from 'zod/mini';
import { MessagePipe } from './message-pipe.node.ts';

const schema = z.object({ text: z.string() });
type Message = z.infer<typeof schema>;

/** Both ends of a pipe as memory: what one writes is handed to the test. */
function makePipe(
  onMessage: (message: Message, bytes: number) => void = () => undefined,
  clock: SteppedClock = new SteppedClock(),
) {
  const written: Uint8Array[] = [];
  const stream = new Duplex({
    read: () => undefined,
    write: (piece: Uint8Array, _encoding, done) => {
      written.push(piece);
      done();
    },
  });
  const ends: (MeshError | null)[] = [];
  const pipe = new MessagePipe<Message, Message>(stream, {
    clock,
    incoming: schema,
    outgoing: schema,
    maxBytes: 100,
    onMessage,
    onEnd: (problem) => ends.push(problem),
  });
  return {
    pipe,
    ends,
    bytes: () => Buffer.concat(written),
    give: (piece: Uint8Array) => stream.emit('data', piece),
  };
}

describe('messages between a plugin and its daemon', () => {
  it('arrive whole and in order, however the pipe cuts them', () => {
    const { pipe, bytes } = makePipe();
    for (const text of ['one', '', 'three'.repeat(10)]) pipe.send({ text });
    for (const size of [1, 2, 3, 5, 7, 1000]) {
      const texts: string[] = [];
      const other = makePipe(({ text }) => texts.push(text));
      const all = bytes();
      for (let at = 0; at < all.length; at += size) other.give(all.subarray(at, at + size));
      assert.deepEqual(texts, ['one', '', 'three'.repeat(10)]);
      assert.deepEqual(other.ends, []);
    }
  });

  it('that are none end the pipe, once, without an exception', () => {
    for (const garbage of [
      [0, 0, 0, 3, 1, 2, 3],
      [0, 0, 0, 0],
      [0, 0, 0, 1, 0xc1],
      [0, 0, 0, 2, 0x81, 0xa1],
    ]) {
      const { ends, give } = makePipe(() => assert.fail('there is no message in it'));
      give(Uint8Array.from(garbage));
      give(Uint8Array.from([0, 0, 0, 1, 0xc0]));
      assert.equal(ends.length, 1);
      assert.notEqual(ends[0], null);
    }
  });

  it('are refused by their length before it has come', () => {
    const { ends, give } = makePipe();
    give(Uint8Array.from([0xff, 0xff, 0xff, 0xff]));
    assert.equal(ends[0]?.code, 'message_too_large');
  });

  it('that are too large or do not follow the schema are not sent', () => {
    const { pipe, bytes } = makePipe();
    assert.throws(() => pipe.send({ text: 'x'.repeat(200) }), { code: 'message_too_large' });
    assert.throws(() => pipe.send({ text: 3 } as unknown as Message), { code: 'bad_message' });
    assert.equal(bytes().length, 0);
  });

  it('leave others a turn, however many come at once', async () => {
    const { pipe, bytes } = makePipe();
    for (let sent = 0; sent < 3; sent++) pipe.send({ text: `${sent}` });
    const texts: string[] = [];
    const clock = new SteppedClock();
    const slow = makePipe(({ text }) => {
      texts.push(text);
      clock.step(5);
    }, clock);
    slow.give(bytes());
    for (const wanted of [['0'], ['0', '1'], ['0', '1', '2']]) {
      assert.deepEqual(texts, wanted);
      await new Promise((resolve) => setImmediate(resolve));
    }
  });

  it('are taken no faster than the answers to them are read, where that is wanted', async () => {
    const { pipe, bytes } = makePipe();
    for (let sent = 0; sent < 3; sent++) pipe.send({ text: `${sent}` });
    const unread: (() => void)[] = [];
    const stream = new Duplex({
      read: () => undefined,
      write: (_piece, _encoding, done) => void unread.push(done),
    });
    const texts: string[] = [];
    const answering = new MessagePipe<Message, Message>(stream, {
      clock: new SteppedClock(),
      incoming: schema,
      outgoing: schema,
      maxBytes: 4 * 1024 * 1024,
      onMessage: ({ text }) => {
        texts.push(text);
        answering.send({ text: 'x'.repeat(2 * 1024 * 1024) });
      },
      onEnd: () => assert.fail('ended'),
      waitsForReader: true,
    });
    stream.emit('data', bytes());
    for (const wanted of [['0'], ['0', '1'], ['0', '1', '2']]) {
      assert.deepEqual(texts, wanted);
      unread.shift()?.();
      await new Promise((resolve) => setImmediate(resolve));
    }
  });
});
