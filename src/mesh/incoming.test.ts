import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ResetCode } from '@cocoon-mesh/protocol';
import { bareWire, turn } from './session-pair.contract.ts';
import { resetCodeOf } from './session-stream.ts';

/** OPEN of stream 2, protocol "/p", no header. */
const open2 = '20 000003 00000002 02 2f70';
const open4 = '20 000003 00000004 02 2f70';
const goawayViolation = '80 000002 00000000 000f';

/** Sends the message and expects the session to end because of it. */
async function endsSession(message: string, before: string[] = [], limits = {}): Promise<string> {
  const wire = bareWire(limits);
  for (const one of before) await wire.say(one);
  assert.equal(wire.session.state, 'open');
  wire.heard();
  await wire.say(message);
  const end = await wire.session.closed;
  assert.equal(end.by, 'local');
  assert.equal(end.code, ResetCode.protocolViolation);
  assert.equal(end.error.code, 'session_closed');
  assert.equal(await wire.closed, end.reason);
  assert.ok(wire.heard().includes(goawayViolation), 'the other side is told why');
  assert.equal(wire.clock.pendingTimers, 0);
  return end.reason;
}

const violations: [name: string, message: string, before?: string[]][] = [
  ['a HELLO', '10 000000 00000000'],
  ['frame type 0', '00 000000 00000000'],
  ['frame type 9', '90 000000 00000000'],
  ['frame type 15', 'f0 000000 00000000'],
  ['half a head', '20 0000'],
  ['a payload that is cut off', '30 000005 00000002 0102'],
  ['an OPEN that says more than it holds', '20 000003 00000002 03 2f70'],
  ['an OPEN without a name', '20 000001 00000002 00'],
  ['an OPEN of no bytes', '20 000000 00000002'],
  ['an OPEN whose name is not UTF-8', '20 000003 00000002 02 c328'],
  ['an OPEN with a flag', '21 000003 00000002 02 2f70'],
  ['an OPEN on stream 0', '20 000003 00000000 02 2f70'],
  ['an OPEN of our parity', '20 000003 00000003 02 2f70'],
  ['an OPEN of an id that is open', open2, [open2]],
  ['an OPEN of a lower id', open2, [open4]],
  ['an OPEN over 4 KiB', `20 001001 00000002 02 2f70 ${'00'.repeat(0x1001 - 3)}`],
  ['DATA on stream 0', '30 000001 00000000 07'],
  ['DATA before its OPEN', '30 000001 00000002 07'],
  ['DATA of a stream we did not open', '30 000001 00000001 07'],
  ['DATA with an unknown flag', '34 000001 00000002 07', [open2]],
  ['DATA after its FIN', '30 000001 00000002 07', [open2, '31 000001 00000002 07']],
  ['a second FIN', '31 000000 00000002', [open2, '31 000001 00000002 07']],
  ['a CREDIT of 7 bytes', '40 000007 00000000 00000000000000'],
  ['a CREDIT of 9 bytes', '40 000009 00000000 000000000000000000'],
  ['a CREDIT above 2^53', '40 000008 00000000 0020000000000000'],
  ['a CREDIT with a flag', '41 000008 00000000 0000000000000001'],
  ['a CREDIT before its OPEN', '40 000008 00000002 0000000000000001'],
  ['a RESET of 1 byte', '50 000001 00000002 01', [open2]],
  ['a RESET of 3 bytes', '50 000003 00000002 000100', [open2]],
  ['a RESET on stream 0', '50 000002 00000000 0001'],
  ['a RESET before its OPEN', '50 000002 00000002 0001'],
  ['a RESET of a stream we did not open', '50 000002 00000001 0001'],
  ['a PING of 7 bytes', '60 000007 00000000 00000000000000'],
  ['a PING of no bytes', '60 000000 00000000'],
  ['a PING on a stream', '60 000008 00000002 0000000000000001', [open2]],
  ['a PING with an unknown flag', '62 000008 00000000 0000000000000001'],
  ['an ACK of 4 bytes', '70 000004 00000000 00000000'],
  ['an ACK on a stream', '70 000008 00000002 0000000000000000', [open2]],
  ['an ACK beyond what was sent', '70 000008 00000000 0000000000000001'],
  ['a GOAWAY of no bytes', '80 000000 00000000'],
  ['a GOAWAY on a stream', '80 000002 00000002 0001', [open2]],
];

for (const [name, message, before] of violations) {
  test(`${name} ends the session`, async () => {
    await endsSession(message, before);
  });
}

test('nothing after a violation in the same message is read', async () => {
  const wire = bareWire();
  await wire.say(`00 000000 00000000 ${open2}`);
  assert.equal(wire.accepted.length, 0);
});

test('an OPEN gives its protocol and header', async () => {
  const wire = bareWire();
  await wire.say('20 000006 00000002 02 2f70 a1a2a3');
  const [stream] = wire.accepted;
  assert.equal(stream?.id, 2);
  assert.equal(stream.protocol, '/p');
  assert.deepEqual([...stream.header], [0xa1, 0xa2, 0xa3]);
});

test('frames that carry a wrong id of a closed stream are ignored', async () => {
  const wire = bareWire();
  await wire.say(`${open2} 31 000000 00000002`);
  wire.accepted[0]?.end();
  await turn();
  assert.equal(wire.session.streams, 0);
  wire.heard();
  await wire.say('30 000001 00000002 07');
  await wire.say('40 000008 00000002 0000000000ffffff');
  await wire.say('50 000002 00000002 0001');
  assert.equal(wire.session.state, 'open');
  assert.deepEqual(wire.heard(), []);
});

test('DATA of closed streams counts against the session and its credit comes back', async () => {
  const wire = bareWire({ sessionWindowBytes: 64, streamWindowBytes: 64, streamMinimumBytes: 16 });
  await wire.say(open2);
  wire.accepted[0]?.reset(ResetCode.cancel);
  await turn();
  assert.deepEqual(wire.heard(), ['50 000002 00000002 0001']);
  await wire.say(`30 000020 00000002 ${'07'.repeat(32)}`);
  assert.deepEqual(wire.heard(), ['40 000008 00000000 0000000000000060'], '32 dropped + a window of 64');
});

test('an OPEN above the limit of streams is refused and the session lives', async () => {
  const wire = bareWire({ maxStreams: 1 });
  await wire.say(open2);
  await wire.say(open4);
  assert.deepEqual(wire.heard(), ['50 000002 00000004 0007']);
  assert.equal(wire.accepted.length, 1);
  await wire.say('30 000001 00000004 07');
  assert.equal(wire.session.state, 'open', 'what was sent before the refusal arrived is ignored');
  await wire.say('50 000002 00000002 0001');
  await wire.say('20 000003 00000006 02 2f70');
  assert.equal(wire.accepted.length, 2, 'room again');
});

test('a stream that gets more than its credit is reset and the session lives', async () => {
  const wire = bareWire({ streamWindowBytes: 8, streamMinimumBytes: 4 });
  await wire.say(`${open2} 30 000008 00000002 0102030405060708`);
  assert.deepEqual(wire.heard(), []);
  await wire.say('30 000001 00000002 09');
  assert.deepEqual(wire.heard(), ['50 000002 00000002 0008']);
  const [stream] = wire.accepted;
  await assert.rejects(stream?.read() ?? Promise.resolve(), (error) => {
    return resetCodeOf(error) === ResetCode.creditOverflow;
  });
  assert.equal(wire.session.state, 'open');
});

test('bytes charged to the minimum beyond it reset the stream', async () => {
  const wire = bareWire({ streamWindowBytes: 64, streamMinimumBytes: 4 });
  await wire.say(`${open2} 32 000004 00000002 01020304`);
  assert.deepEqual(wire.heard(), []);
  await wire.say('32 000001 00000002 05');
  assert.deepEqual(wire.heard(), ['50 000002 00000002 0008']);
});

test('what was read makes room in the minimum again', async () => {
  const wire = bareWire({ streamWindowBytes: 64, streamMinimumBytes: 4 });
  await wire.say(`${open2} 32 000004 00000002 01020304`);
  const [stream] = wire.accepted;
  assert.deepEqual([...((await stream?.read()) ?? [])], [1, 2, 3, 4]);
  await wire.say('32 000004 00000002 05060708');
  assert.deepEqual([...((await stream?.read()) ?? [])], [5, 6, 7, 8]);
  assert.deepEqual(wire.heard(), []);
});

test('more than the credit of the session ends it', async () => {
  const wire = bareWire({ sessionWindowBytes: 8, streamWindowBytes: 64, streamMinimumBytes: 4 });
  await wire.say(`${open2} 30 000008 00000002 0102030405060708`);
  await wire.say(`${open4} 32 000004 00000004 01020304`);
  assert.equal(wire.session.state, 'open', 'the minimum of another stream is not charged');
  await wire.say('30 000001 00000004 05');
  assert.equal(wire.session.state, 'closed');
  const end = await wire.session.closed;
  assert.equal(end.code, ResetCode.creditOverflow);
});

test('a CREDIT that goes back is ignored', async () => {
  const wire = bareWire({ streamWindowBytes: 4, streamMinimumBytes: 2 });
  const stream = wire.session.open('/p');
  await wire.say('40 000008 00000001 0000000000000008');
  await wire.say('40 000008 00000001 0000000000000002');
  stream.write(new Uint8Array(9).fill(7));
  await turn();
  const sent = wire.heard().filter((frame) => frame.startsWith('3'));
  assert.equal(sent.map((frame) => frame.split(' ')[3]).join(''), '07'.repeat(8));
});

test('an ACK that goes back is ignored', async () => {
  const wire = bareWire();
  wire.session.open('/p');
  wire.session.open('/p');
  await turn();
  await wire.say('70 000008 00000000 0000000000000002');
  await wire.say('70 000008 00000000 0000000000000001');
  assert.equal(wire.session.state, 'open');
  assert.equal(wire.session.stats.unacknowledgedBytes, 0);
});

test('a PING is answered with its own bytes', async () => {
  const wire = bareWire();
  await wire.say('60 000008 00000000 ffffffffffffffff');
  assert.deepEqual(wire.heard(), ['61 000008 00000000 ffffffffffffffff']);
});

test('a pong nobody asked for is ignored', async () => {
  const wire = bareWire();
  await wire.say('61 000008 00000000 ffffffffffffffff');
  await wire.say('61 000008 00000000 0000000000000001');
  assert.equal(wire.session.state, 'open');
  assert.equal(wire.session.stats.rttMs, null);
});

test('an unknown reset code counts as internal', async () => {
  const wire = bareWire();
  await wire.say(open2);
  await wire.say('50 000002 00000002 7777');
  await assert.rejects(wire.accepted[0]?.read() ?? Promise.resolve(), (error) => {
    return resetCodeOf(error) === ResetCode.internal;
  });
});

test('frames are counted and acknowledged, PING and ACK are not', async () => {
  const wire = bareWire();
  await wire.say(`${open2} 30 000001 00000002 07 60 000008 00000000 0000000000000000`);
  await wire.say('70 000008 00000000 0000000000000000');
  wire.heard();
  wire.clock.step(25);
  await turn();
  assert.deepEqual(wire.heard(), ['70 000008 00000000 0000000000000002']);
  wire.clock.step(1000);
  await turn();
  assert.deepEqual(wire.heard(), [], 'once is enough');
});

test('many bytes are acknowledged at once', async () => {
  const wire = bareWire({ ackEveryBytes: 30 });
  await wire.say(`${open2} 30 00000a 00000002 ${'07'.repeat(10)}`);
  assert.deepEqual(wire.heard(), [], '11 + 18 bytes');
  await wire.say('30 000000 00000002');
  assert.deepEqual(wire.heard(), ['70 000008 00000000 0000000000000003']);
});

test('more opens in a second than allowed end the session', async () => {
  const limits = { maxOpensPerSecond: 2 };
  await endsSession('20 000003 00000006 02 2f70', [open2, open4], limits);
  const wire = bareWire(limits);
  await wire.say(`${open2} ${open4}`);
  wire.clock.step(1000);
  await wire.say('20 000003 00000006 02 2f70');
  assert.equal(wire.session.state, 'open', 'a second later there is room again');
});

test('more resets in a second than allowed end the session', async () => {
  await endsSession('50 000002 00000002 0001', [open2, '50 000002 00000002 0001'], { maxResetsPerSecond: 1 });
});

test('more control frames in a second than allowed end the session', async () => {
  const ping = '60 000008 00000000 0000000000000000';
  await endsSession(ping, [ping, ping], { maxControlFramesPerSecond: 2 });
  const empty = '30 000000 00000002';
  await endsSession(empty, [open2, empty], { maxControlFramesPerSecond: 2 });
});

test('uncharged frames of closed streams are bounded by the rate of control frames', async () => {
  const before = [open2, '50 000002 00000002 0001', '32 000001 00000002 07'];
  await endsSession('32 000001 00000002 07', before, { maxControlFramesPerSecond: 3 });
});

test('pings while nothing can be sent do not pile up answers', async () => {
  const wire = bareWire();
  const ping = '60 000008 00000000 0000000000000000';
  await wire.say(ping.repeat(1000));
  assert.ok(wire.heard().length <= 32);
});
