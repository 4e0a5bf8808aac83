import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { test } from 'node:test';
import { MeshError, ResetCode, utf8, fromUtf8 } from '@cocoon-mesh/protocol';
import { SteppedClock } from '@cocoon-mesh/protocol/stepped-clock.ts';
import { memoryCarrierPair } from './memory-carrier.ts';
import { bareWire, readAll, sessionPair, turn, writeAll } from './session-pair.contract.ts';
import { resetCodeOf } from './session-stream.ts';
import { Session } from './session.ts';
import type { Stream } from './stream.ts';

const never = new AbortController().signal;

function isCode(code: MeshError['code']) {
  return (error: unknown) => error instanceof MeshError && error.code === code;
}

async function echo(stream: Stream): Promise<void> {
  for (let chunk = await stream.read(); chunk; chunk = await stream.read()) {
    if (!stream.write(chunk)) await stream.drained();
  }
  stream.end();
}

function only(streams: readonly Stream[]): Stream {
  const [stream] = streams;
  assert.ok(stream, 'a stream was accepted');
  return stream;
}

test('a stream carries bytes both ways and ends half by half', async () => {
  const { left, acceptedByRight, right } = sessionPair();
  const ours = left.open('/cocoon/http/1', utf8('head'));
  ours.write(utf8('question'));
  ours.end();
  await turn();
  const theirs = only(acceptedByRight);
  assert.equal(theirs.protocol, '/cocoon/http/1');
  assert.equal(fromUtf8(theirs.header), 'head');
  assert.equal(fromUtf8(await readAll(theirs)), 'question');
  theirs.write(utf8('answer'));
  assert.equal(fromUtf8((await ours.read()) ?? new Uint8Array()), 'answer');
  theirs.end();
  assert.equal(await ours.read(), null);
  assert.equal(await ours.read(), null, 'the end stays');
  await Promise.all([ours.closed, theirs.closed]);
  assert.equal(ours.signal.aborted || theirs.signal.aborted, false);
  assert.deepEqual([left.streams, right.streams], [0, 0]);
});

test('the lower PeerId uses odd ids and the other even ones, whoever dialled', () => {
  const { left, right } = sessionPair();
  assert.deepEqual([left.open('/p').id, left.open('/p').id], [1, 3]);
  assert.deepEqual([right.open('/p').id, right.open('/p').id], [2, 4]);
});

test('a session with oneself is refused', () => {
  const [carrier] = memoryCarrierPair();
  const options = { carrier, localPeer: 'a', remotePeer: 'a', clock: new SteppedClock(), acceptStream() {} };
  assert.throws(() => new Session(options), isCode('self_connect'));
});

test('a reset reaches both sides with its code', async () => {
  const { left, right, acceptedByRight } = sessionPair();
  const ours = left.open('/p');
  await turn();
  const theirs = only(acceptedByRight);
  const waiting = theirs.read();
  ours.reset(ResetCode.denied);
  ours.reset(ResetCode.cancel);
  const denied = (error: unknown) => resetCodeOf(error) === ResetCode.denied;
  await assert.rejects(waiting, denied);
  await assert.rejects(theirs.read(), denied);
  await assert.rejects(ours.read(), denied);
  assert.throws(() => theirs.write(utf8('x')), isCode('stream_reset'));
  assert.throws(() => ours.write(utf8('x')), isCode('stream_reset'));
  await assert.rejects(ours.drained(), isCode('stream_reset'));
  assert.ok(ours.signal.aborted && theirs.signal.aborted);
  await Promise.all([ours.closed, theirs.closed]);
  assert.deepEqual([left.streams, right.streams], [0, 0]);
});

test('a reset after the end does not take back what was sent', async () => {
  const { left, right, acceptedByRight } = sessionPair();
  const ours = left.open('/p');
  await turn();
  const theirs = only(acceptedByRight);
  theirs.write(utf8('whole answer'));
  theirs.end();
  await turn();
  theirs.reset(ResetCode.cancel);
  await turn();
  assert.throws(() => ours.write(utf8('more')), isCode('stream_reset'));
  assert.equal(fromUtf8(await readAll(ours)), 'whole answer');
  await ours.closed;
  assert.deepEqual([left.streams, right.streams], [0, 0]);
});

test('writing after the end is a mistake of the caller and is told', () => {
  const stream = sessionPair().left.open('/p');
  stream.end();
  stream.end();
  assert.throws(() => stream.write(utf8('x')), isCode('internal'));
});

test('two reads at once are refused', async () => {
  const stream = sessionPair().left.open('/p');
  void stream.read();
  await assert.rejects(stream.read(), isCode('internal'));
});

test('a slow reader stops the writer', async () => {
  const { left, right, acceptedByRight } = sessionPair({
    limits: { streamWindowBytes: 64 * 1024, streamQueueBytes: 32 * 1024 },
  });
  const ours = left.open('/p');
  let written = 0;
  const writing = (async () => {
    for (; written < 1024 * 1024; written += 4096) {
      if (!ours.write(new Uint8Array(4096))) await ours.drained();
    }
    ours.end();
  })();
  await turn();
  assert.ok(written <= 96 * 1024, `${written} bytes were taken`);
  assert.equal((await readAll(only(acceptedByRight))).length, 1024 * 1024);
  await writing;
  only(acceptedByRight).end();
  await turn();
  assert.deepEqual([left.streams, right.streams], [0, 0]);
});

test('a header that does not fit is refused before anything is sent', () => {
  const { left } = sessionPair({ carrier: { maxMessageBytes: 1024 } });
  assert.throws(() => left.open('/p', new Uint8Array(4096)), isCode('header_too_large'));
  assert.throws(() => left.open('/p', new Uint8Array(1020)), isCode('header_too_large'));
  assert.throws(() => left.open(''), isCode('usage'));
  assert.throws(() => left.open('x'.repeat(256)), isCode('usage'));
  assert.equal(left.streams, 0);
  left.open('/p', new Uint8Array(1000));
});

test('our own streams above the limit are refused here', () => {
  const { left } = sessionPair({ limits: { maxStreams: 1 } });
  left.open('/p');
  assert.throws(() => left.open('/p'), isCode('too_many_streams'));
});

test('when the stream ids are used up the session drains', async () => {
  const { left } = sessionPair({ limits: { maxStreamId: 3 } });
  left.open('/p');
  left.open('/p').reset(ResetCode.cancel);
  assert.throws(() => left.open('/p'), isCode('session_closed'));
  assert.equal(left.state, 'draining');
});

test('a handler that throws resets its stream and nothing else', async () => {
  const { left, right } = sessionPair({
    acceptRight: () => {
      throw new Error('a bug');
    },
  });
  const stream = left.open('/p');
  await assert.rejects(stream.read(), (error) => resetCodeOf(error) === ResetCode.internal);
  assert.equal(right.state, 'open');
});

test('what a carrier delivers while the session is being made comes after', async () => {
  const clock = new SteppedClock();
  const [leftCarrier, rightCarrier] = memoryCarrierPair({ clock });
  const peers = { localPeer: 'a', remotePeer: 'b', clock };
  const left = new Session({ ...peers, carrier: leftCarrier, acceptStream() {} });
  left.open('/p');
  await turn();
  let made = false;
  const accepted = Promise.withResolvers<boolean>();
  const right = new Session({
    carrier: rightCarrier,
    clock,
    localPeer: 'b',
    remotePeer: 'a',
    acceptStream: () => accepted.resolve(made),
  });
  made = true;
  assert.equal(await accepted.promise, true);
  left.abort('done');
  await right.closed;
});

test('a ping measures the round trip', async () => {
  const { clock, left } = sessionPair({ carrier: { delayMs: () => 20 } });
  const answer = left.ping(never);
  await turn();
  clock.step(20);
  await turn();
  clock.step(20);
  assert.equal(await answer, 40);
  assert.equal(left.stats.rttMs, 40);
});

test('a ping ends with its signal and leaves no listener', async () => {
  const { left } = sessionPair({ carrier: { delayMs: () => 1e9 } });
  const controller = new AbortController();
  const answer = left.ping(controller.signal);
  assert.equal(getEventListeners(controller.signal, 'abort').length, 1);
  controller.abort(new Error('enough'));
  await assert.rejects(answer, /enough/);
  assert.equal(getEventListeners(controller.signal, 'abort').length, 0);
  await assert.rejects(left.ping(controller.signal), /enough/);
});

test('an ending session rejects its pings and leaves no listener', async () => {
  const { left } = sessionPair({ carrier: { delayMs: () => 1e9 } });
  const controller = new AbortController();
  const answer = left.ping(controller.signal);
  left.abort('done');
  await assert.rejects(answer, isCode('session_closed'));
  await assert.rejects(left.ping(controller.signal), isCode('session_closed'));
  assert.equal(getEventListeners(controller.signal, 'abort').length, 0);
});

test('a silent other side is pinged and lives when it answers', async () => {
  const { clock, left, right } = sessionPair();
  for (let second = 0; second < 20; second++) {
    clock.step(1000);
    await turn();
  }
  assert.deepEqual([left.state, right.state], ['open', 'open']);
  assert.ok(left.stats.framesOut > 5);
});

test('a carrier that has gone silent is dead after four seconds', async () => {
  // The wire hears and says nothing: kill -9 looks like this.
  const wire = bareWire();
  const { clock, session } = wire;
  const stream = session.open('/p');
  const read = stream.read();
  await turn();
  wire.heard();
  clock.step(3_999);
  await turn();
  assert.deepEqual(wire.heard(), [
    '60 000008 00000000 0000000000000001',
    '60 000008 00000000 0000000000000002',
    '60 000008 00000000 0000000000000003',
  ]);
  assert.equal(session.state, 'open');
  clock.step(1);
  const end = await session.closed;
  assert.deepEqual([end.by, end.code, end.error.code], ['carrier', ResetCode.timeout, 'carrier_lost']);
  await assert.rejects(read, isCode('carrier_lost'));
  assert.throws(() => session.open('/p'), isCode('carrier_lost'));
  assert.equal(clock.pendingTimers, 0);
});

test('GOAWAY lets open streams finish, refuses new ones and closes', async () => {
  const { clock, left, right, acceptedByRight } = sessionPair();
  const ours = left.open('/p');
  await turn();
  left.goaway(ResetCode.glare, 'glare');
  await turn();
  assert.deepEqual([left.state, right.state], ['draining', 'draining']);
  assert.throws(() => left.open('/p'), isCode('session_closed'));
  assert.throws(() => right.open('/p'), isCode('session_closed'));
  const theirs = only(acceptedByRight);
  ours.write(utf8('last words'));
  ours.end();
  assert.equal(fromUtf8(await readAll(theirs)), 'last words');
  theirs.end();
  const [leftEnd, rightEnd] = await Promise.all([left.closed, right.closed]);
  assert.deepEqual([leftEnd.by, leftEnd.code], ['local', ResetCode.glare]);
  assert.deepEqual([rightEnd.by, rightEnd.code], ['remote', ResetCode.glare]);
  assert.equal(clock.pendingTimers, 0);
});

test('a stream opened while the GOAWAY was on its way is refused with its code', async () => {
  const { left, right, acceptedByLeft } = sessionPair();
  const keep = right.open('/p');
  await turn();
  left.goaway(ResetCode.shuttingDown);
  const late = right.open('/p');
  await assert.rejects(late.read(), (error) => resetCodeOf(error) === ResetCode.shuttingDown);
  assert.equal(acceptedByLeft.length, 1);
  keep.reset(ResetCode.cancel);
  await left.closed;
});

test('close delivers what was written, however large, before the carrier ends', async () => {
  const { left, right, acceptedByRight } = sessionPair();
  const ours = left.open('/p');
  ours.write(new Uint8Array(3_000_000));
  ours.end();
  const closing = left.close(ResetCode.shuttingDown, 'done');
  await turn();
  const theirs = only(acceptedByRight);
  theirs.end();
  assert.equal((await readAll(theirs)).length, 3_000_000);
  await closing;
  assert.equal((await right.closed).by, 'remote');
});

test('close does not wait for ever: what is left is reset', async () => {
  const { clock, left, right, acceptedByRight } = sessionPair();
  const ours = left.open('/p');
  await turn();
  const theirs = only(acceptedByRight);
  const closing = left.close(ResetCode.shuttingDown);
  const again = left.close();
  await turn();
  clock.step(2_000);
  await Promise.all([closing, again]);
  for (const read of [ours.read(), theirs.read()]) {
    await assert.rejects(read, (error) => resetCodeOf(error) === ResetCode.shuttingDown);
  }
  await right.closed;
  assert.equal(clock.pendingTimers, 0);
});

test('both sides may close at once', async () => {
  const { clock, left, right } = sessionPair();
  left.open('/p').end();
  await Promise.all([closeAfter(left), closeAfter(right)]);
  assert.equal(clock.pendingTimers, 0);

  async function closeAfter(session: Session): Promise<void> {
    const closing = session.close();
    await turn();
    clock.step(2_000);
    await closing;
  }
});

test('what came whole stays readable after the session', async () => {
  const { left, right, acceptedByRight } = sessionPair();
  const whole = left.open('/p');
  const half = left.open('/p');
  await turn();
  const [theirWhole, theirHalf] = acceptedByRight;
  theirWhole?.write(utf8('all of it'));
  theirWhole?.end();
  theirHalf?.write(utf8('some'));
  await turn();
  right.abort('gone');
  await left.closed;
  assert.equal(fromUtf8(await readAll(whole)), 'all of it');
  await assert.rejects(half.read(), isCode('carrier_lost'));
  assert.throws(() => whole.write(utf8('x')), isCode('carrier_lost'));
  assert.ok(whole.signal.aborted, 'our half was cut');
  await Promise.all([whole.closed, half.closed]);
  assert.equal(left.streams, 0);
});

test('abort ends everything at once', async () => {
  const { clock, left, right } = sessionPair();
  const stream = left.open('/p');
  const read = stream.read();
  const { signal } = stream;
  left.abort('enough');
  const end = await left.closed;
  assert.deepEqual([end.by, end.reason, end.error.code], ['local', 'enough', 'session_closed']);
  await assert.rejects(read, isCode('session_closed'));
  assert.ok(signal.aborted);
  stream.reset(ResetCode.cancel);
  left.abort('again');
  left.goaway(ResetCode.cancel);
  await left.close();
  assert.equal((await right.closed).error.code, 'carrier_lost');
  assert.equal(clock.pendingTimers, 0);
});

test('a carrier that dies ends reads, writes, pings and new streams', async () => {
  const { clock, left, right, rightCarrier, acceptedByRight } = sessionPair();
  const ours = left.open('/p');
  await turn();
  const reads = [ours.read(), only(acceptedByRight).read()];
  rightCarrier.abort('cable cut');
  for (const read of reads) await assert.rejects(read, isCode('carrier_lost'));
  assert.throws(() => left.open('/p'), isCode('carrier_lost'));
  assert.throws(() => ours.write(utf8('x')), isCode('carrier_lost'));
  await assert.rejects(right.ping(never), isCode('carrier_lost'));
  assert.equal((await left.closed).reason, 'cable cut');
  assert.equal(clock.pendingTimers, 0);
});

test('without acknowledgements the sender stops at the replay buffer', async () => {
  const { left, rightCarrier } = sessionPair({
    limits: { replayBytes: 256 * 1024, streamWindowBytes: 16e6, sessionWindowBytes: 16e6 },
  });
  let received = 0;
  rightCarrier.start({ message: (bytes) => (received += bytes.length), writable() {}, closed() {} });
  const stream = left.open('/p');
  stream.write(new Uint8Array(4_000_000));
  await turn();
  assert.ok(received > 128 * 1024 && received <= 256 * 1024, `${received} bytes left`);
  assert.ok(left.stats.unacknowledgedBytes <= 256 * 1024);
});

test('small writes pass before bulk, and never within their own stream', async () => {
  const arrived: string[] = [];
  const { left } = sessionPair({
    carrier: { highWaterBytes: 64 * 1024 },
    acceptRight: (stream) =>
      void (async () => {
        for (let chunk = await stream.read(); chunk; chunk = await stream.read()) {
          arrived.push(`${stream.protocol} ${chunk.length > 2048 ? 'bulk' : fromUtf8(chunk)}`);
        }
        arrived.push(`${stream.protocol} end`);
      })(),
  });
  const bulk = left.open('/bulk');
  bulk.write(new Uint8Array(1_000_000));
  bulk.write(utf8('after bulk'));
  bulk.end();
  const small = left.open('/small');
  small.write(utf8('question'));
  small.end();
  await turn();
  const at = arrived.indexOf('/small question');
  assert.ok(at >= 0 && at <= 1, `the small write was number ${at}`);
  assert.equal(arrived.at(-1), '/bulk end');
  assert.ok(arrived.lastIndexOf('/bulk bulk') > at);
});

test('two bulk streams share the carrier evenly', async () => {
  const received = new Map<number, number>();
  const { left } = sessionPair({
    carrier: { highWaterBytes: 64 * 1024 },
    acceptRight: (stream) =>
      void (async () => {
        for (let chunk = await stream.read(); chunk; chunk = await stream.read()) {
          received.set(stream.id, (received.get(stream.id) ?? 0) + chunk.length);
          const [one = 0, other = 0] = [received.get(1), received.get(3)];
          if (one + other < 900_000) assert.ok(Math.abs(one - other) <= 130_000, `${one} against ${other}`);
        }
      })(),
  });
  for (const stream of [left.open('/p'), left.open('/p')]) {
    stream.write(new Uint8Array(1_000_000));
    stream.end();
  }
  await turn();
  assert.deepEqual([...received.values()], [1_000_000, 1_000_000]);
});

test('many frames travel in one message', async () => {
  const { left, right } = sessionPair({ acceptRight: (stream) => void echo(stream) });
  const answers = Array.from({ length: 32 }, async () => {
    const stream = left.open('/cocoon/echo/1');
    stream.write(new Uint8Array(64));
    stream.end();
    return (await readAll(stream)).length;
  });
  assert.deepEqual(
    await Promise.all(answers),
    Array.from({ length: 32 }, () => 64),
  );
  assert.ok(left.stats.messagesOut <= 2, `${left.stats.messagesOut} messages`);
  assert.ok(right.stats.messagesOut <= 4, `${right.stats.messagesOut} messages`);
});

test('frames fit carriers with small messages', async () => {
  const { left, acceptedByRight } = sessionPair({ carrier: { maxMessageBytes: 600 } });
  const stream = left.open('/p', new Uint8Array(500));
  const small = left.open('/p');
  void writeAll(stream, 100_000).then(() => stream.end());
  small.write(new Uint8Array(1500));
  small.end();
  await turn();
  assert.equal((await readAll(acceptedByRight[0] as Stream)).length, 100_000);
  assert.equal((await readAll(acceptedByRight[1] as Stream)).length, 1500);
});

test('200 concurrent and 2,000 sequential streams leave nothing behind', async () => {
  const { clock, left, right } = sessionPair({ acceptRight: (stream) => void echo(stream) });
  assert.equal(left.idleSince, 0);
  const request = async () => {
    const stream = left.open('/cocoon/echo/1', utf8('header'));
    stream.write(new Uint8Array(64));
    stream.end();
    assert.equal((await readAll(stream)).length, 64);
    await stream.closed;
    return stream;
  };
  await Promise.all(Array.from({ length: 200 }, request));
  for (let i = 0; i < 2000; i++) await request();
  clock.step(100);
  await turn();
  assert.deepEqual([left.streams, right.streams], [0, 0]);
  assert.deepEqual([left.stats.unacknowledgedBytes, right.stats.unacknowledgedBytes], [0, 0]);
  assert.equal(left.idleSince, 0, 'time stood still until the last stream was over');
  assert.equal(clock.pendingTimers, 2, 'the two heartbeats');
  await left.close();
  await right.closed;
  assert.equal(clock.pendingTimers, 0);
});
