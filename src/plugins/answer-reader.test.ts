import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { MeshError } from '@cocoon-mesh/protocol';
import { AnswerReader } from './answer-reader.ts';
import { SendCredit } from './send-credit.ts';

const content = (payload: number) => ({ payload, parts: [] });

function makeReader(windowBytes = 100) {
  const granted: number[] = [];
  let left = 0;
  const reader = new AnswerReader({ windowBytes, grant: (bytes) => granted.push(bytes), left: () => left++ });
  return { reader, granted, left: () => left };
}

describe('the reading end of an answer', () => {
  it('gives what came in order, and what follows it', async () => {
    const { reader } = makeReader();
    reader.push(content(1), 10);
    reader.push(content(2), 10);
    reader.finish(content(3));
    const chunks = reader.chunks();
    assert.deepEqual(await chunks.next(), { value: content(1), done: false });
    assert.deepEqual(await chunks.next(), { value: content(2), done: false });
    assert.deepEqual(await chunks.next(), { value: content(3), done: true });
    assert.deepEqual(await reader.end, content(3));
  });

  it('grants more when half of the window was read, and only then', async () => {
    const { reader, granted } = makeReader();
    for (let index = 0; index < 4; index++) reader.push(content(index), 25);
    const chunks = reader.chunks();
    await chunks.next();
    await chunks.next();
    assert.deepEqual(granted, []);
    await chunks.next();
    assert.deepEqual(granted, [50]);
  });

  it('takes no more than was granted', () => {
    const { reader } = makeReader();
    // The last message may go over.
    reader.push(content(1), 99);
    reader.push(content(2), 99);
    assert.throws(() => reader.push(content(3), 1), { code: 'protocol_violation' });
  });

  it('gives what came before the answer broke off, then the error', async () => {
    const { reader } = makeReader();
    reader.push(content(1), 10);
    reader.fail(new MeshError('plugin_failed'));
    const chunks = reader.chunks();
    assert.deepEqual(await chunks.next(), { value: content(1), done: false });
    await assert.rejects(chunks.next(), { code: 'plugin_failed' });
    await assert.rejects(reader.end, { code: 'plugin_failed' });
  });

  it('gives nothing more once it was cancelled', async () => {
    const { reader } = makeReader();
    reader.push(content(1), 10);
    reader.cancel(new MeshError('timeout'));
    await assert.rejects(reader.chunks().next(), { code: 'timeout' });
  });

  it('says once that its reader left, and not when the answer had ended', async () => {
    const early = makeReader();
    early.reader.push(content(1), 10);
    for await (const _ of early.reader.chunks()) break;
    assert.equal(early.left(), 1);
    const late = makeReader();
    late.reader.finish(content(1));
    for await (const _ of late.reader.chunks()) assert.fail('it had no chunks');
    assert.equal(late.left(), 0);
  });
});

describe('the sending end of an answer', () => {
  it('waits until there is room', async () => {
    const credit = new SendCredit(10);
    const { signal } = new AbortController();
    await credit.room(signal);
    credit.spend(25);
    const order: string[] = [];
    const room = credit.room(signal).then(() => order.push('room'));
    credit.grant(15);
    await Promise.resolve();
    order.push('not yet');
    credit.grant(1);
    await room;
    assert.deepEqual(order, ['not yet', 'room']);
  });

  it('waits no longer than its signal', async () => {
    const credit = new SendCredit(0);
    const controller = new AbortController();
    const room = credit.room(controller.signal);
    controller.abort(new MeshError('cancelled'));
    await assert.rejects(room, { code: 'cancelled' });
  });
});
