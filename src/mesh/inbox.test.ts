import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Inbox } from './inbox.ts';

const KiB = 1024;

test('a chunk that fills its message is not copied', () => {
  const inbox = new Inbox();
  const message = new Uint8Array(64 * KiB);
  inbox.push(message.subarray(8), message.length, 0);
  assert.equal(inbox.shift()?.bytes.buffer, message.buffer);
});

test('a small chunk does not hold its whole message', () => {
  const inbox = new Inbox();
  const message = new Uint8Array(64 * KiB).fill(7);
  inbox.push(message.subarray(100, 2000), message.length, 0);
  const bytes = inbox.shift()?.bytes;
  assert.deepEqual([bytes?.length, bytes?.[0], bytes?.buffer.byteLength], [1900, 7, 1900]);
});

test('ten thousand unread bytes that came one by one take about as much memory', () => {
  const inbox = new Inbox();
  for (let i = 0; i < 10_000; i++) inbox.push(Uint8Array.of(i), 9, i % 2);
  let chunks = 0;
  let held = 0;
  let charged = 0;
  const read: number[] = [];
  for (let chunk = inbox.shift(); chunk; chunk = inbox.shift()) {
    chunks++;
    held += chunk.bytes.buffer.byteLength;
    charged += chunk.charged;
    read.push(...chunk.bytes);
  }
  assert.ok(chunks <= 4 && held < 14_000, `${chunks} chunks, ${held} bytes`);
  assert.equal(charged, 5000, 'and what was charged is not forgotten');
  assert.deepEqual(
    read,
    Array.from({ length: 10_000 }, (_, i) => i & 255),
  );
});

test('clearing tells what was charged', () => {
  const inbox = new Inbox();
  inbox.push(new Uint8Array(2000), 2008, 2000);
  inbox.push(new Uint8Array(10), 2008, 0);
  inbox.push(new Uint8Array(5), 2008, 5);
  assert.equal(inbox.clear(), 2005);
  assert.ok(inbox.empty);
  assert.equal(inbox.clear(), 0);
});
