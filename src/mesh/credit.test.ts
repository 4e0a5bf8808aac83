import assert from 'node:assert/strict';
import { test } from 'node:test';
import { limits, ResetCode } from '@cocoon-mesh/protocol';
import { ReceiveCredit, SendCredit } from './credit.ts';
import { bareWire, readAll, sessionPair, turn, writeAll } from './session-pair.contract.ts';
import type { Stream } from './stream.ts';

const KiB = 1024;

test('an older announcement changes nothing', () => {
  const credit = new SendCredit(100);
  assert.equal(credit.raise(100), false);
  assert.equal(credit.raise(50), false);
  assert.equal(credit.room, 100);
  assert.equal(credit.raise(150), true);
  credit.spend(120);
  assert.equal(credit.room, 30);
});

test('the minimum moves with what the receiver said it has read', () => {
  const credit = new SendCredit(100);
  assert.equal(credit.minimumRoom(100, 16), 16);
  credit.spend(10);
  assert.equal(credit.minimumRoom(100, 16), 6);
  credit.spend(30);
  assert.equal(credit.minimumRoom(100, 16), 0, 'never below nothing');
  credit.raise(135);
  assert.equal(credit.minimumRoom(100, 16), 11, '35 read + 16 - 40 sent');
});

test('a receiver refuses what it gave no credit for', () => {
  const credit = new ReceiveCredit(100);
  assert.equal(credit.accept(100), true);
  assert.equal(credit.accept(1), false);
  credit.consume(60);
  assert.equal(credit.accept(1), false, 'read, and not announced yet');
  assert.equal(credit.announce(), 160);
  assert.equal(credit.accept(60), true);
  assert.equal(credit.accept(1), false);
});

test('announcements wait for half a window, in a tight session for a step', () => {
  const credit = new ReceiveCredit(100);
  credit.accept(60);
  credit.consume(8);
  assert.equal(credit.due(false, 8), false);
  assert.equal(credit.due(true, 8), true);
  credit.consume(42);
  assert.equal(credit.due(false, 8), true);
  credit.announce();
  assert.equal(credit.due(true, 8), false);
});

test('1,000 unread streams hold a bounded amount and do not block another', { timeout: 10_000 }, async () => {
  const accepted: Stream[] = [];
  const { left } = sessionPair({ acceptRight: (stream) => accepted.push(stream) });
  const unread = Array.from({ length: 1000 }, () => left.open('/unread'));
  // 100 MB of wishes: far above the credit of the session.
  for (const stream of unread) stream.write(new Uint8Array(100_000));
  await turn();
  const busy = left.open('/busy');
  const written = writeAll(busy, 5_000_000).then(() => busy.end());
  await turn();
  const theirs = accepted.at(-1) as Stream;
  assert.equal(theirs.protocol, '/busy');
  assert.equal((await readAll(theirs)).length, 5_000_000);
  await written;
  const { sessionWindowBytes, streamMinimumBytes } = limits;
  // Heads of frames, acknowledgements and OPENs come on top.
  const most = (sessionWindowBytes + 1000 * streamMinimumBytes + 5_000_000) * 1.02;
  // About 130 streams used the session's credit up; without that the test would prove nothing.
  const least = sessionWindowBytes + 800 * streamMinimumBytes + 5_000_000;
  const { bytesOut } = left.stats;
  assert.ok(bytesOut < most && bytesOut > least, `${bytesOut} bytes left, ${least} to ${most} expected`);
});

test('a stream that was read long ago goes on when others use up the session', async () => {
  const accepted: Stream[] = [];
  const { left } = sessionPair({ acceptRight: (stream) => accepted.push(stream) });
  const busy = left.open('/busy');
  await writeAll(busy, 1_000_000);
  await turn();
  const theirs = accepted[0] as Stream;
  // A megabyte is read, below half a window: no CREDIT was owed for it.
  for (let got = 0; got < 1_000_000;) got += (await theirs.read())?.length ?? 0;
  for (let i = 0; i < 3; i++) left.open('/unread').write(new Uint8Array(limits.streamWindowBytes));
  await turn();
  const written = writeAll(busy, 500_000).then(() => busy.end());
  assert.equal((await readAll(theirs)).length, 500_000);
  await written;
});

const tiny = { sessionWindowBytes: 64, streamWindowBytes: 128, streamMinimumBytes: 8 };
const open2 = '20 000003 00000002 02 2f70';
const open4 = '20 000003 00000004 02 2f70';

test('giving up an unread stream gives the session its credit back', async () => {
  const wire = bareWire(tiny);
  await wire.say(`${open2} 30 000028 00000002 ${'07'.repeat(40)}`);
  assert.deepEqual(wire.heard(), []);
  wire.accepted[0]?.reset(ResetCode.cancel);
  await turn();
  assert.deepEqual(wire.heard(), ['40 000008 00000000 0000000000000068', '50 000002 00000002 0001']);
});

test('bytes that broke the credit of a stream give the session its credit back', async () => {
  const wire = bareWire({ ...tiny, streamWindowBytes: 16 });
  await wire.say(`${open2} 30 000028 00000002 ${'07'.repeat(40)}`);
  assert.deepEqual(wire.heard(), ['40 000008 00000000 0000000000000068', '50 000002 00000002 0008']);
});

test('a session whose credit runs short announces what is read without waiting', async () => {
  const wire = bareWire(tiny);
  await wire.say(`${open2} 30 000028 00000002 ${'07'.repeat(40)}`);
  await wire.say(`${open4} 30 000010 00000004 ${'07'.repeat(16)}`);
  wire.heard();
  await wire.accepted[1]?.read();
  await turn();
  assert.deepEqual(wire.heard(), [
    '40 000008 00000000 0000000000000050',
    '40 000008 00000004 0000000000000090',
  ]);
});

test('a stream that ended unread keeps its place until it is read or given up', async () => {
  const wire = bareWire({ maxStreams: 1 });
  await wire.say('20 000003 00000002 02 2f70 31 000001 00000002 07');
  wire.accepted[0]?.end();
  await turn();
  assert.equal(wire.session.streams, 1, 'or a sender could fill memory with ended streams');
  await wire.accepted[0]?.read();
  assert.equal(wire.session.streams, 0);
});

test('the first bytes of a stream are charged to its minimum, the rest to the session', async () => {
  const wire = bareWire({
    streamWindowBytes: 64 * KiB,
    streamMinimumBytes: 4 * KiB,
    smallWriteBytes: 2 * KiB,
  });
  const stream = wire.session.open('/p');
  stream.write(new Uint8Array(2).fill(7));
  await turn();
  stream.write(new Uint8Array(8 * KiB));
  await turn();
  const frames = wire.heard().map((frame) => frame.slice(0, 18));
  assert.deepEqual(frames, ['20 000003 00000001', '32 000002 00000001', '30 002000 00000001']);
});
